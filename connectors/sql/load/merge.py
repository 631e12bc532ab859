"""MERGE: stage the records, update those whose key the target has, and insert the others."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from ...stream import ConflictMethod
from ..actions import Action
from ..identifiers import REMOVED, TableName
from ..tables import Column, StagingTable, Table
from .staging import create_staging, insert_staged, stage_beside
from .strategy import Strategy


class Merge(Strategy):
    """Merges the records of one load by their key."""

    def create_staging(self, planned: StagingTable, *, is_shared: bool) -> StagingTable:
        """Create it with numbers, so that the last record of a key counts, and with an index where that pays."""
        staged, dialect = create_staging(self.context, planned, is_shared=is_shared), self.context.dialect
        key = self.context.columns.key()
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
        key = context.columns.key()
        if staged is not None and session.query(dialect.writes.null_key(staged.name, key)):
            raise context.error(
                f"a record has NULL in its key ({', '.join(key)}): NULL equals nothing, so a merge would double it; "
                "choose other key_properties, or write_disposition append"
            )
        table, columns = self.table, self.target_columns()
        removed, before = context.load.removed if is_final else None, table
        if staged is not None or table is None or removed is not None or target.lacks(table, columns):
            table = target.lock(table)
            table = target.create(columns, key) if table is None else target.evolve(table, columns)
        if removed is not None:
            self._delete(removed, table, key)
        if staged is None:
            return
        into, method = staged.written_to(table), context.load.conflict_method
        target.lock_late()
        if carried := self._kept(before, into, method):
            target.run(dialect.writes.carry(table, staged.name, carried, staged.types, key))
        dialect.writes.refuse_equal_keys(session, table, staged.name, into, key)

        def statements(source: TableName) -> Sequence[Action]:
            return dialect.writes.merge(table, source, into, staged.types, key, method)

        self.records -= insert_staged(context, table, staged, statements, key=key)

    def _kept(self, before: Table | None, into: Sequence[Column], method: ConflictMethod) -> list[Column]:
        """Return the columns whose values stay as they are in records that the target had before."""
        if before is None or method is not ConflictMethod.UPDATE:
            return []
        names = self.context.columns.names
        kept = {names[name] for name in self.context.load.kept if name in names}
        return [column for column in into if column.name in kept]

    def _delete(self, removed: pa.Table, table: Table, key: Sequence[str]) -> None:
        """Delete the records of removed keys; a key that also arrives is updated instead."""
        context, staged = self.context, self.staged
        dialect, names = context.dialect, context.columns.names
        columns = [column for column in table.columns if column.name in key]
        fields = {names[field.name]: field for field in removed.schema}
        ordered = removed.select([fields[column.name].name for column in columns])
        name, types = stage_beside(context, REMOVED, columns, ordered)
        kept = None if staged is None else (staged.name, staged.types)
        delete = dialect.writes.delete_keys(table, columns, (name, types), key, kept=kept)
        context.target.run([delete, dialect.tables.drop(name)])


__all__ = ["Merge"]
