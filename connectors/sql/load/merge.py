"""MERGE: stage the records, update existing keys in the target, and insert the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...errors import UniqueViolated
from ...write_spec import ConflictMethod
from ..actions import Action
from ..dialect.write_statements import CountsReplaced
from ..tables import Column, StagingTable, Table
from .deleted_when import deleting
from .events import LoadEvents
from .ingest import ingest
from .key_order import KeyOrder
from .latest_by import keep_latest
from .staging import create_staging, insert_staged
from .strategy import Strategy


class Merge(Strategy):
    """Merges the records of one load by their key, or by the columns that the stream names instead."""

    #: Watches the arriving keys. `None` in a load by ranges, which has each key once.
    _order: KeyOrder | None = None
    #: True if this transaction writes the target.
    _is_locked = False
    #: True until the load's removed keys and marks are applied.
    _removes = False
    #: The target before this transaction, or `None` if there was none.
    _before: Table | None = None

    def begin(self) -> None:
        """Begin a transaction. Blocks of other transfer formats than Arrow hide their keys."""
        super().begin()
        stream = self.context.load.stream
        names = stream.unique_properties or stream.key_properties
        self._order = KeyOrder(names if self.context.wire == "arrow" else ())

    def receive(self, events: LoadEvents) -> None:
        """Put the data up to the next marker into the staging table."""
        staged, check = self.stage(), None if self._order is None else self._order.note
        self.records += ingest(self.context, events, staged.name, staged.types, not_null=self.not_null(), check=check)

    def create_staging(self, planned: StagingTable, *, is_shared: bool) -> StagingTable:
        """Create it with numbers, so that the last record of a key counts, and with an index where that is faster."""
        staged, dialect = create_staging(self.context, planned, is_shared=is_shared), self.context.dialect
        key = self.context.columns.merge_key()
        index = dialect.tables.index_staging(
            staged.name, [column for column in staged.own_columns() if column.name in key]
        )
        if index:
            self.context.session.execute(index)
        return staged

    def lock(self, *, is_final: bool) -> None:
        """See `Strategy`."""
        context, staged = self.context, self.staged
        self._is_locked, self._before = False, self.table
        self._removes = is_final and not (context.load.removed is None and context.load.marked is None)
        if staged is None and not is_final:
            return
        primary, key = context.columns.key(), context.columns.merge_key()
        if staged is not None:
            context.refuse_null_keys(staged.name, key, "key_properties" if key == primary else "unique_constraints")
        is_written = staged is not None or self._removes
        if is_written or self.table is None or context.target.lacks(self.table, self.target_columns()):
            self.table, self._is_locked = context.target.lock(self.table), True

    def write(self) -> None:
        """Create the target or add what it lacks, then merge the staged records."""
        if not self._is_locked:
            return
        context, staged, target = self.context, self.staged, self.context.target
        primary, key, columns = context.columns.key(), context.columns.merge_key(), self.target_columns()
        if self.table is None:
            self.table = target.create(columns, primary, key)
        else:
            self.table = target.evolve(self.table, columns)
        if staged is not None:
            # First the removed keys: a value of another unique column may move from them to a record that arrives.
            self.remove()
            self._merge(self.table, staged, primary, key)

    def remove(self) -> None:
        """Delete removed keys and mark missing records, if `write` has not done so."""
        removed, marked, table = self.context.load.removed, self.context.load.marked, self.table
        if not self._removes or table is None:
            return
        self._removes = False
        from .deletes import delete_missing, mark_missing  # only a stream with `deletes` needs them

        primary = self.context.columns.key()
        if removed is not None:
            self.removed += delete_missing(self.context, self.staged, removed, table, primary)
        if marked is not None:
            self.removed += mark_missing(self.context, marked, table, primary)

    def _merge(self, table: Table, staged: StagingTable, primary: Sequence[str], key: Sequence[str]) -> None:
        """Merge the staged records into the target by a key."""
        context, before = self.context, self._before
        dialect, session, target = context.dialect, context.session, context.target
        method = context.load.write.conflict_method
        target.lock_late()
        dialect.writes.refuse_equal_keys(session, table, staged, key)
        outrun = keep_latest(context, table, staged, key, is_new=before is None)
        if method is ConflictMethod.UPDATE_ONLY:
            target.execute([dialect.writes.drop_new(table, staged, key)])
            method = ConflictMethod.UPDATE
        if carried := self._kept(before, staged.written_to(table), method):
            target.execute(dialect.writes.carry(table, staged, carried, key))

        with deleting(context, table, key) as deletes, self._explained(primary, key):

            def statements(source: StagingTable) -> Sequence[Action]:
                return [*dialect.writes.merge(table, source, key, method), *deletes(source)]

            def note(rejected: int) -> None:
                self.replaced = outrun if context.load.write.latest_by else self._replaced(staged, key, rejected)

            inserted = insert_staged(context, table, staged, statements, key=key, note=note)
            target.execute(inserted.actions)
            self.records -= inserted.rejected
        if self.replaced is None and isinstance(dialect.writes, CountsReplaced) and not context.load.write.changes:
            self.replaced = dialect.writes.counted_by_merge(session)

    def _replaced(self, staged: StagingTable, key: Sequence[str], rejected: int) -> int | None:
        """Count the staged records that another one of the same key replaces; `None` if the merge counts them."""
        context = self.context
        write, writes = context.load.write, context.dialect.writes
        if write.changes:
            return None
        if write.conflict_method is ConflictMethod.IGNORE or self._order is None or self._order.is_ascending:
            return 0
        if isinstance(writes, CountsReplaced) and not rejected:
            return None
        ((number,),) = context.session.query(writes.count_replaced(staged.name, key))
        return int(number or 0)

    @contextmanager
    def _explained(self, primary: Sequence[str], key: Sequence[str]) -> Iterator[None]:
        """Explain the error if records are merged by other columns than the key, and the key exists already."""
        try:
            yield
        except UniqueViolated as error:
            if key == primary or error.is_of_trigger:
                raise
            raise self.context.error(
                f"{str(error).rstrip('.')}: records are merged by unique_constraints ({', '.join(key)}), but the "
                f"table already has another record with the same primary key ({', '.join(primary)}); delete that "
                "record, remove unique_constraints, or set such records aside with on_rejected: keep"
            ) from error

    def _kept(self, before: Table | None, into: Sequence[Column], method: ConflictMethod) -> list[Column]:
        """Return the columns that existing records keep."""
        if before is None or method is not ConflictMethod.UPDATE:
            return []
        names = self.context.columns.names
        kept = {names[name] for name in self.context.load.write.kept if name in names}
        return [column for column in into if column.name in kept]


__all__ = ["Merge"]
