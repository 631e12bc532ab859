"""A load by ranges: several connections fill one staging table; one commit replaces the target or merges into it.

First, the staging table and the ledger of ranges are created and committed, so that every connection sees them. Each
range is one transaction: its data and its row in the ledger of ranges. The row is locked before the data is written. If
the answer to a COMMIT is lost, the connection that repeats the range waits for that commit and finds the range loaded.
Only the last transaction writes the target, together with the stream's row of the main ledger, `where token = mine`,
like any other load.

An unfinished load leaves both tables. The next load renames them, so that no other process can write there any more. It
then asks its source whether the loaded ranges are still valid.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

from ...errors import ConnectorError, FatalConnectorError, Interrupted, RetriableError, TakenOver
from ...failpoints import failpoint
from ...ranges import Range, RangeReads, RangesRefused
from ...stream import Commit, Load
from ..dialect.dialect import Dialect
from ..identifiers import TableName, staging_name
from ..ledger import Ledger, commit
from ..session import SessionLease, Sessions
from ..tables import StagingTable
from .context import LoadContext
from .events import LoadEvents
from .load import TableLoad
from .publish import owner_error
from .range_ledger import RangeLedger
from .unfinished import UnfinishedLoad, drop, listed


class RangeLoad:
    """One load by ranges, over several connections."""

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
        #: Numbers of ranges that have arrived.
        self._loaded: set[int] = set()
        self._waiting: list[Range] = []
        self._leases: set[SessionLease] = set()
        self._error: BaseException | None = None

    def run(self, loaders: int) -> Iterator[Commit]:
        """Load everything; after an exception drop the tables, unless the load can be resumed."""
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
        # In a separate transaction: a process that lists unfinished loads would wait for the commit.
        self._clear_up()
        yield done

    # ------------------------------------------------------------ before, after
    def _table_load(self, lease: SessionLease) -> TableLoad:
        context = LoadContext.of(self._dialect, self._load, self._target, lease, self._wire, self._ledger)
        return TableLoad(context)

    def _prepare(self) -> StagingTable:
        """Resume an unfinished load, or begin."""
        reads = self._reads
        with self._sessions.lease(self._load.key.stream) as lease:
            lease.begin()
            staged = self._table_load(lease).planned()
            lease.session.rollback()
            shape = self._shape(staged)
            unfinished = self._take_unfinished(lease, shape)
        is_resumed = unfinished is not None and self._resume(unfinished)
        with self._sessions.lease(self._load.key.stream) as lease:
            lease.begin()
            if not is_resumed:
                if unfinished is not None:
                    self._own().drop(lease.session, self._dialect)
                staged = self._table_load(lease).stage()
                self._ranges.create(lease.session, reads.ranges, self._load.key)
            self._ranges.date(lease.session, shape, reads.moment)
            lease.check()
            commit(lease.session, self._dialect)
            return staged

    def _shape(self, staged: StagingTable) -> str:
        """Return what must be equal in two loads for one to resume the other."""
        columns = {name: [staged.types[name], column.type] for name, column in staged.columns.items()}
        load = self._load
        facts = json.dumps([self._reads.shape, load.write.disposition, columns, list(load.stream.key_properties)])
        return hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()

    def _own(self) -> UnfinishedLoad:
        return UnfinishedLoad(TableName(self._target.schema, staging_name(self._load.token)), "")

    def _take_unfinished(self, lease: SessionLease, shape: str) -> UnfinishedLoad | None:
        """Take over an unfinished load of this stream and table that can be resumed; drop the others."""
        taken = None
        for unfinished in listed(lease, self._dialect, lambda key: key == self._load.key):
            is_mine = unfinished.staging.schema == self._target.schema and unfinished.staging != self._own().staging
            if taken is None and is_mine and unfinished.moment is not None and unfinished.shape == shape:
                try:
                    lease.begin()
                    unfinished.rename(lease.session, self._dialect, self._load.token)
                    commit(lease.session, self._dialect)
                    taken = unfinished
                except FatalConnectorError:  # such as a table of another role
                    lease.session.rollback()
            elif unfinished.staging != self._own().staging:
                drop(lease, self._dialect, unfinished)
        return taken

    def _resume(self, unfinished: UnfinishedLoad) -> bool:
        """Keep the loaded ranges if the source would send the same records again."""
        with self._sessions.lease(self._load.key.stream) as lease:
            lease.begin()
            loaded = self._ranges.loaded(lease.session)
            lease.session.rollback()
        # Outside of any transaction: the source may need long.
        if not loaded or not self._reads.resume(json.loads(unfinished.moment or ""), loaded):
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
        """Drop the tables of this load. If that fails, the next load of this stream or the recovery drops them."""
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
        """Keep the first error, and interrupt the other connections."""
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
        """Load one range, and repeat it after a lost connection."""
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

    def _register(self, lease: SessionLease) -> None:
        with self._lock:
            if self._error is not None:
                raise Interrupted("another range failed", stream=self._load.key.stream)
            self._leases.add(lease)

    def _try_range(self, part: Range, staged: StagingTable, lease: SessionLease) -> None:
        lease.begin()
        session, loading = lease.session, self._table_load(lease)
        rows = self._ledger.read(session, self._ledger.table(self._target), self._load.key)
        if not rows or rows[0].token != self._load.token:
            raise owner_error(loading.context)
        loading.refuse_altered(staged)
        if not self._ranges.lock(session, part):
            return  # the commit of an earlier attempt succeeded; only its answer was lost
        # Close it now rather than by garbage collection: it holds a connection of the source.
        with closing(self._reads.read(part)) as events:
            arriving = LoadEvents(events)
            written = loading.fill(staged, arriving) if arriving.has_data() else 0
            if arriving.marker() is not None:
                raise RangesRefused("the stream's columns changed during the load", stream=self._load.key.stream)
        failpoint(f"{self._dialect.name}.range.before")
        self._ranges.record(session, part, rows=written, size_bytes=arriving.size_bytes)
        lease.check()
        commit(session, self._dialect)
        self._loaded.add(part.place)

    def _has_arrived(self, part: Range) -> bool:
        """Ask whether the commit took place whose answer was lost."""
        with suppress(ConnectorError), self._sessions.lease(self._load.key.stream) as lease:
            lease.begin()
            return not self._ranges.lock(lease.session, part)
        return False

    def _is_lost(self, error: ConnectorError) -> bool:
        return isinstance(error, RetriableError) and self._error is None

    def _named(self, error: ConnectorError, part: Range) -> ConnectorError:
        """Add the range to an error's message."""
        if not isinstance(error, Interrupted | TakenOver | RangesRefused):
            error.extended(before=f"range {part.place + 1} of {len(self._reads.ranges)} ({part.label}): ")
        return error


__all__ = ["RangeLoad"]
