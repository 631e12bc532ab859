"""A load by ranges: several connections fill one staging table, and one commit replaces the target by it, or merges it.

The staging table and the ledger of ranges are made and committed first, so that every connection sees them. Each range
is one transaction: its data and its row in that ledger. The row is locked before the data: whoever repeats a range
whose COMMIT was never answered waits for that commit, and finds the range done. Nothing of this touches the target:
only the last transaction does, with the stream's row of the real ledger, `where token = mine`, like any other load.

A load that was cut short leaves both tables. The next one takes them over by giving them its own names, so that nobody
else can write there any more, and then asks its source whether the ranges in there are still what it would read.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

from ...errors import ConnectorError, FatalConnectorError, Interrupted, RetriableError, TakenOver
from ...failpoints import failpoint
from ...ranges import Range, RangeReads, RangesRefused
from ...stream import Commit, LedgerKey, Load
from ..dialect.dialect import Dialect
from ..identifiers import TableName, staging_name
from ..ledger import Ledger, commit
from ..session import Lease, Sessions
from ..tables import StagingTable
from .events import LoadEvents
from .load import TableLoad
from .range_ledger import Left, RangeLedger, key_of, left_behind


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
        #: Places of ranges that have arrived.
        self._loaded: set[int] = set()
        self._waiting: list[Range] = []
        self._leases: set[Lease] = set()
        self._error: BaseException | None = None

    def run(self, loaders: int) -> Iterator[Commit]:
        """Load everything; an exception leaves nothing of it behind, but for what is kept to be resumed."""
        try:
            staged = self._prepare()
            self._waiting = [part for part in reversed(self._reads.ranges) if part.place not in self._loaded]
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
        except BaseException as error:
            if not (self._loaded and self._reads.moment is not None and self._reads.is_kept(error)):
                self._clear_up()
            raise
        # Not in the commit itself: whoever lists what is left would wait for it.
        self._clear_up()
        yield done

    # ------------------------------------------------------------ before, after
    def _table_load(self, lease: Lease) -> TableLoad:
        return TableLoad(self._dialect, self._load, self._target, lease, self._wire, self._ledger)

    def _prepare(self) -> StagingTable:
        """Take over what a load that was cut short has left, or begin."""
        reads = self._reads
        with self._sessions.lease(self._load.key.stream) as lease:
            lease.begin()
            staged = self._table_load(lease).planned()
            lease.session.rollback()
            shape = self._shape(staged)
            left = self._take_left(lease, shape)
        is_resumed = left is not None and self._resume(left)
        with self._sessions.lease(self._load.key.stream) as lease:
            lease.begin()
            if not is_resumed:
                if left is not None:
                    self._own().drop(lease.session, self._dialect)
                staged = self._table_load(lease).stage()
                self._ranges.create(lease.session, reads.ranges, self._load.key)
            if reads.moment is not None:
                self._ranges.date(lease.session, shape, reads.moment)
            lease.check()
            commit(lease.session, self._dialect)
            return staged

    def _shape(self, staged: StagingTable) -> str:
        """Return what must be the same for a load to go on with another one's staging table."""
        columns = {name: [staged.types[name], column.type] for name, column in staged.columns.items()}
        load = self._load
        facts = json.dumps([self._reads.shape, load.write_disposition, columns, list(load.stream.key_properties)])
        return hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()

    def _own(self) -> Left:
        return Left(TableName(self._target.schema, staging_name(self._load.token)), "")

    def _take_left(self, lease: Lease, shape: str) -> Left | None:
        """Take over what earlier loads of this stream and table have left, if it can be resumed; drop the rest."""
        taken = None
        for left in _listed(lease, self._dialect, lambda key: key == self._load.key):
            is_mine = left.staging.schema == self._target.schema and left.staging != self._own().staging
            if taken is None and is_mine and left.moment is not None and left.shape == shape:
                try:
                    lease.begin()
                    left.hand_over(lease.session, self._dialect, self._load.token)
                    commit(lease.session, self._dialect)
                    taken = left
                except FatalConnectorError:  # such as a table of another role
                    lease.session.rollback()
            elif left.staging != self._own().staging:
                _drop(lease, self._dialect, left)
        return taken

    def _resume(self, left: Left) -> bool:
        """Go on with what was taken over, if it still is what the source would send."""
        with self._sessions.lease(self._load.key.stream) as lease:
            lease.begin()
            loaded = self._ranges.loaded(lease.session)
            lease.session.rollback()
        # Outside of any transaction: the source may have much to look at.
        if not loaded or not self._reads.resume(json.loads(left.moment or ""), loaded):
            return False
        self._loaded = set(loaded)
        return True

    def _finish(self, staged: StagingTable) -> Commit:
        with self._sessions.lease(self._load.key.stream) as lease:
            lease.begin()
            loaded, count = self._ranges.loaded(lease.session), len(self._reads.ranges)
            if len(loaded) != count:
                raise FatalConnectorError(f"{len(loaded)} of {count} ranges arrived", stream=self._load.key.stream)
            rows, size_bytes = map(sum, zip(*loaded.values(), strict=True))
            checkpoint = self._reads.final()
            return self._table_load(lease).finish(staged, checkpoint, records=rows, size_bytes=size_bytes)

    def _clear_up(self) -> None:
        """Drop what was staged. Where that fails, the next load of this stream does it, or the recovery."""
        with suppress(ConnectorError), self._sessions.lease() as lease:
            lease.begin()
            self._own().drop(lease.session, self._dialect)
            commit(lease.session, self._dialect)

    # ------------------------------------------------------------------ loaders
    def _work(self, staged: StagingTable) -> None:
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

    def _load_range(self, part: Range, staged: StagingTable) -> None:
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

    def _try_range(self, part: Range, staged: StagingTable, lease: Lease) -> None:
        lease.begin()
        session, loading = lease.session, self._table_load(lease)
        rows = self._ledger.read(session, self._ledger.table(self._target), self._load.key)
        if not rows or rows[0].token != self._load.token:
            raise loading.taken_over()
        loading.refuse_altered(staged)
        if not self._ranges.lock(session, part):
            return  # an earlier try's commit was kept; only its answer was lost
        # Closed here and not some day by the collector: it holds a connection of the source.
        with closing(self._reads.read(part)) as events:
            arriving = LoadEvents(events)
            written = loading.fill(staged, arriving) if arriving.has_data() else 0
            if arriving.marker() is not None:
                raise RangesRefused("the stream's columns changed on the way", stream=self._load.key.stream)
        failpoint(f"{self._dialect.name}.range.before")
        self._ranges.record(session, part, rows=written, size_bytes=arriving.size_bytes)
        lease.check()
        commit(session, self._dialect)
        self._loaded.add(part.place)

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


def drop_left(lease: Lease, dialect: Dialect, is_left: Callable[[LedgerKey], bool]) -> None:
    """Drop what loads of some streams have left."""
    for left in _listed(lease, dialect, is_left):
        _drop(lease, dialect, left)


def _listed(lease: Lease, dialect: Dialect, is_left: Callable[[LedgerKey], bool]) -> list[Left]:
    found: list[Left] = []
    with suppress(ConnectorError):  # such as a deadlock with whoever drops it just now
        lease.begin()
        found = [left for left in left_behind(lease.session, dialect) if is_left(key_of(left.whose))]
    with suppress(ConnectorError):
        lease.session.rollback()
    return found


def _drop(lease: Lease, dialect: Dialect, left: Left) -> None:
    try:
        lease.begin()
        left.drop(lease.session, dialect)
        commit(lease.session, dialect)
    except ConnectorError:  # such as a table of another role
        with suppress(ConnectorError):
            lease.session.rollback()


__all__ = ["RangeLoad", "drop_left"]
