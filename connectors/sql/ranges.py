"""A load by ranges: several connections fill one staging table, and one commit puts it in the target's place.

The staging table and the ledger of ranges are made and committed first, so that every connection sees them. Each range
is one transaction: its data and its row in that ledger. The row is locked before the data: whoever repeats a range
whose COMMIT was never answered waits for that commit, and finds the range done. Nothing of this touches the target:
only the last transaction does, with the stream's row of the real ledger, `where token = mine`, like any other load.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

from ..errors import ConnectorError, FatalConnectorError, Interrupted, RetriableError, TakenOver
from ..failpoints import failpoint
from ..ranges import Range, RangeReads, RangesRefused
from ..stream import Commit, LedgerKey, Load
from .dialect import Dialect
from .identifiers import TableName, literal, staging_name
from .ledger import Ledger, commit
from .segments import Segments
from .session import Lease, Session, Sessions
from .staging import Staged
from .tables import Column
from .writer import Writer

#: Ends the name of a ledger of ranges; what is before it is the staging table's.
LEDGER_SUFFIX = "_r"

#: Ends the name of a staging table that replaces another one of other types.
CONVERTED_SUFFIX = "_c"


class RangeLedger:
    """Statements on the ledger of one load's ranges; each runs in the session's transaction."""

    def __init__(self, dialect: Dialect, target: TableName, token: str) -> None:
        self._dialect = dialect
        self.name = TableName(target.schema, staging_name(token) + LEDGER_SUFFIX)
        self._table = dialect.table(self.name)

    def create(self, session: Session, ranges: Sequence[Range], load: Load) -> None:
        """Make it, with a row a range."""
        dialect = self._dialect
        columns = [
            Column(name="place", type=dialect.bigint_type, is_nullable=False),
            Column(name="label", type=dialect.text_type, is_nullable=False),
            Column(name="stream", type=dialect.text_type, is_nullable=False),
            Column(name="token", type=dialect.text_type, is_nullable=False),
            Column(name="rows", type=dialect.bigint_type),
            Column(name="size_bytes", type=dialect.bigint_type),
            Column(name="committed_at", type=dialect.timestamp_type),
        ]
        session.execute(dialect.create_table(self.name, columns, ["place"]))
        whose = f"{literal(key_text(load.key))}, {literal(load.token)}"
        listed = ", ".join(f"({part.place}, {literal(part.label)}, {whose})" for part in ranges)
        into = dialect.names(["place", "label", "stream", "token"])
        session.execute(f"insert into {self._table} ({into}) values {listed}")

    def lock(self, session: Session, part: Range) -> bool:
        """Wait for whoever loads this range, then keep others away until the commit; False: it is done."""
        quote = self._dialect.quote
        sql = f"update {self._table} set {quote('rows')} = null where {quote('place')} = {part.place}"
        return session.execute(f"{sql} and {quote('committed_at')} is null") == 1

    def record(self, session: Session, part: Range, *, rows: int, size_bytes: int) -> None:
        """Write that a range has arrived."""
        quote = self._dialect.quote
        values = {"rows": rows, "size_bytes": size_bytes, "committed_at": self._dialect.now}
        assigned = ", ".join(f"{quote(name)} = {value}" for name, value in values.items())
        session.execute(f"update {self._table} set {assigned} where {quote('place')} = {part.place}")

    def totals(self, session: Session) -> tuple[int, int, int]:
        """Return ranges that have arrived, their records and their bytes."""
        quote = self._dialect.quote
        sums = ", ".join(f"cast(coalesce(sum({quote(name)}), 0) as bigint)" for name in ("rows", "size_bytes"))
        where = f"where {quote('committed_at')} is not null"
        done, rows, size_bytes = session.query(f"select count(*), {sums} from {self._table} {where}")[0]
        return int(done), int(rows), int(size_bytes)


class RangeLoad:
    """One load by ranges, over connections of its own."""

    def __init__(
        self, dialect: Dialect, load: Load, target: TableName, sessions: Sessions, reads: RangeReads, wire: str
    ) -> None:
        self._dialect = dialect
        self._load = load
        self._target = target
        self._sessions = sessions
        self._reads = reads
        self._wire = wire
        self._ledger = Ledger(dialect)
        self._ranges = RangeLedger(dialect, target, load.token)
        self._lock = threading.Lock()
        self._waiting = list(reversed(reads.ranges))
        self._leases: set[Lease] = set()
        self._error: BaseException | None = None

    def run(self, loaders: int) -> Iterator[Commit]:
        """Load everything; nothing of it is left behind by an exception."""
        try:
            staged = self._prepare()
            threads = [
                threading.Thread(target=self._work, args=(staged,), name=f"load-{self._load.key.stream}", daemon=True)
                for _ in range(min(loaders, len(self._waiting)))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if self._error is not None:
                raise self._error
            done = self._finish(staged)
        except BaseException:
            self._clear_up()
            raise
        yield done

    # ------------------------------------------------------------ before, after
    def _writer(self, lease: Lease) -> Writer:
        return Writer(self._dialect, self._load, self._target, lease, self._wire, Ledger(self._dialect))

    def _prepare(self) -> Staged:
        with suppress(ConnectorError), self._sessions.lease(self._load.key.stream) as lease:
            drop_left(self._dialect, lease, self._target, self._load)
        with self._sessions.lease(self._load.key.stream) as lease:
            staged = self._writer(lease).stage()
            self._ranges.create(lease.session, self._reads.ranges, self._load)
            lease.check()
            commit(lease.session, self._dialect)
            return staged

    def _finish(self, staged: Staged) -> Commit:
        with self._sessions.lease(self._load.key.stream) as lease:
            lease.begin()
            done, rows, size_bytes = self._ranges.totals(lease.session)
            if done != len(self._reads.ranges):
                raise FatalConnectorError(
                    f"{done} of {len(self._reads.ranges)} ranges arrived", stream=self._load.key.stream
                )
            lease.session.execute(self._dialect.drop_table(self._ranges.name))
            checkpoint = self._reads.final()
            return self._writer(lease).finish(staged, checkpoint, records=rows, size_bytes=size_bytes)

    def _clear_up(self) -> None:
        """Drop what was staged. Where that fails, the next load of this stream does it, or the recovery."""
        stem = staging_name(self._load.token)
        with suppress(ConnectorError), self._sessions.lease() as lease:
            lease.begin()
            for suffix in (LEDGER_SUFFIX, CONVERTED_SUFFIX, ""):
                lease.session.execute(self._dialect.drop_table(TableName(self._target.schema, stem + suffix)))
            commit(lease.session, self._dialect)

    # ------------------------------------------------------------------ loaders
    def _work(self, staged: Staged) -> None:
        try:
            while (part := self._take()) is not None:
                self._load_range(part, staged)
        except BaseException as error:
            self._fail(error)

    def _take(self) -> Range | None:
        with self._lock:
            return self._waiting.pop() if self._waiting and self._error is None else None

    def _fail(self, error: BaseException) -> None:
        """Keep the first error, and end what the others do."""
        with self._lock:
            is_first = self._error is None
            if is_first:
                self._error = error
            leases = list(self._leases)
        if is_first:
            self._reads.give_up()
            for lease in leases:
                lease.interrupt()

    def _load_range(self, part: Range, staged: Staged) -> None:
        """Load one range, again if need be: until it is there, or nothing helps."""
        while True:
            try:
                with self._sessions.lease(self._load.key.stream) as lease:
                    self._register(lease)
                    try:
                        self._try_range(part, staged, lease)
                    finally:
                        self._leases.discard(lease)
                    return
            except ConnectorError as error:
                if self._is_lost(error) and (self._has_arrived(part) or self._reads.may_repeat(part, error)):
                    continue
                raise self._named(error, part) from error.__cause__

    def _register(self, lease: Lease) -> None:
        with self._lock:
            if self._error is not None:
                raise Interrupted("another range failed", stream=self._load.key.stream)
            self._leases.add(lease)

    def _try_range(self, part: Range, staged: Staged, lease: Lease) -> None:
        lease.begin()
        session, writer = lease.session, self._writer(lease)
        rows = self._ledger.read(session, self._ledger.table(self._target), self._load.key)
        if not rows or rows[0].token != self._load.token:
            raise writer.taken_over()
        if not self._ranges.lock(session, part):
            return  # an earlier try's commit was kept; only its answer was lost
        # Closed here and not some day by the collector: it holds a connection of the source.
        with closing(self._reads.read(part)) as events:
            segments = Segments(events)
            written = writer.fill(staged, segments) if segments.has_data() else 0
            if segments.marker() is not None:
                raise RangesRefused("the stream's columns changed on the way", stream=self._load.key.stream)
        failpoint(f"{self._dialect.name}.range.before")
        self._ranges.record(session, part, rows=written, size_bytes=segments.size_bytes)
        lease.check()
        commit(session, self._dialect)

    def _has_arrived(self, part: Range) -> bool:
        """Ask whether the commit whose answer was lost has been kept."""
        with suppress(ConnectorError), self._sessions.lease(self._load.key.stream) as lease:
            lease.begin()
            return not self._ranges.lock(lease.session, part)
        return False

    def _is_lost(self, error: ConnectorError) -> bool:
        return isinstance(error, RetriableError) and self._error is None

    def _named(self, error: ConnectorError, part: Range) -> ConnectorError:
        """Say in an error's message which range it was."""
        if not isinstance(error, Interrupted | TakenOver | RangesRefused):
            error.args = (f"range {part.place + 1} of {len(self._reads.ranges)} ({part.label}): {error}",)
        return error


def key_text(key: LedgerKey) -> str:
    """Return whose ranges they are, as their ledger keeps it."""
    return json.dumps([key.pipeline, key.stream, key.destination_table], ensure_ascii=True)


def drop_left(dialect: Dialect, lease: Lease, target: TableName, load: Load) -> None:
    """Drop what earlier loads of the same stream and table could not: their token is no longer in the ledger."""
    quote = dialect.quote
    lease.begin()
    session = lease.session
    for name in dialect.list_staging(session):
        if name.schema != target.schema or not name.name.endswith(LEDGER_SUFFIX):
            continue
        whose = f"{quote('stream')} = {literal(key_text(load.key))} and {quote('token')} <> {literal(load.token)}"
        if session.query(f"select 1 from {dialect.table(name)} where {whose} limit 1"):
            stem = name.name.removesuffix(LEDGER_SUFFIX)
            for left in (stem, stem + CONVERTED_SUFFIX, name.name):
                dialect.free(session, TableName(name.schema, left))
                session.execute(dialect.drop_table(TableName(name.schema, left)))
    commit(session, dialect)


__all__ = ["CONVERTED_SUFFIX", "LEDGER_SUFFIX", "RangeLedger", "RangeLoad", "drop_left"]
