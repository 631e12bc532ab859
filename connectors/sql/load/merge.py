"""MERGE: stage the records, update existing keys in the target, and insert the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from ...errors import UniqueViolated
from ...stream import DELETED_AT
from ...write_spec import ConflictMethod
from ..actions import Action
from ..tables import Column, StagingTable, Table
from .deleted import deleting
from .latest import keep_latest
from .staging import create_staging, insert_staged, stage_keys
from .strategy import Strategy


class Merge(Strategy):
    """Merges the records of one load by their key, or by the columns that the stream names instead."""

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

    def finish(self, *, is_final: bool) -> None:
        """Create the target or fit it to the stream, delete removed keys, then merge the staged records."""
        context, staged = self.context, self.staged
        dialect, session, target = context.dialect, context.session, context.target
        if staged is None and not is_final:
            return
        primary, key = context.columns.key(), context.columns.merge_key()
        if staged is not None:
            context.refuse_null_keys(staged.name, key, "key_properties" if key == primary else "unique_constraints")
        table, columns = self.table, self.target_columns()
        removed, marked = (context.load.removed, context.load.marked) if is_final else (None, None)
        before, is_written = table, not (staged is None and removed is None and marked is None)
        if is_written or table is None or target.lacks(table, columns):
            table = target.lock(table)
            table = target.create(columns, primary, key) if table is None else target.evolve(table, columns)
        if removed is not None:
            self._delete(removed, table, primary)
        if marked is not None:
            self._mark(marked, table, primary)
        if staged is None:
            return
        method = context.load.write.conflict_method
        target.lock_late()
        dialect.writes.refuse_equal_keys(session, table, staged, key)
        keep_latest(context, table, staged, key, is_new=before is None)
        if method is ConflictMethod.UPDATE_ONLY:
            target.run([dialect.writes.drop_new(table, staged, key)])
            method = ConflictMethod.UPDATE
        if carried := self._kept(before, staged.written_to(table), method):
            target.run(dialect.writes.carry(table, staged, carried, key))

        with deleting(context, table, key) as deletes, self._explained(primary, key):

            def statements(source: StagingTable) -> Sequence[Action]:
                return [*dialect.writes.merge(table, source, key, method), *deletes(source)]

            self.records -= insert_staged(context, table, staged, statements, key=key)

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

    def _delete(self, removed: pa.Table, table: Table, key: Sequence[str]) -> None:
        """Delete the records of removed keys; a key that also arrives is updated instead."""
        context, staged = self.context, self.staged
        columns = [column for column in table.columns if column.name in key]
        keys = stage_keys(context, removed, columns)
        writes, before = context.dialect.writes, self.removed
        # Records without references first: each pass frees the records that they refer to. The last statement shows the
        # records that stay refused.
        if leaves := writes.delete_unreferenced(table, keys, key, kept=staged):
            while (count := context.target.change(leaves)) > 0:
                self.removed += count
        count = context.target.change(writes.delete_keys(table, keys, key, kept=staged))
        self.removed = before + removed.num_rows if count < 0 else self.removed + count
        context.target.run([context.dialect.tables.drop(keys.name)])

    def _mark(self, marked: pa.Table, table: Table, key: Sequence[str]) -> None:
        """Write the time when records were found missing at the source, or that they are back."""
        context, mark = self.context, self.context.columns.names[DELETED_AT]
        columns = [column for column in table.columns if column.name in (*key, mark)]
        keys = stage_keys(context, marked, columns)
        context.target.change(context.dialect.writes.set_columns(table, keys, key, [mark]))
        self.removed += marked.num_rows - marked.column(DELETED_AT).null_count
        context.target.run([context.dialect.tables.drop(keys.name)])


__all__ = ["Merge"]
