"""APPEND: insert the records straight into the target if its types match, else through a staging table."""

from __future__ import annotations

from collections.abc import Sequence

from ...field_facts import facts_of
from ..tables import StagingTable, Table
from .events import LoadEvents
from .ingest import ingest
from .staging import create_staging, insert_staged
from .strategy import Strategy


class Append(Strategy):
    """Appends the records of one load."""

    #: True if this transaction creates or changes the target, or inserts staged records into it.
    _is_locked = False

    def receive(self, events: LoadEvents) -> None:
        """Put the data up to the next marker into the target, or into the staging table."""
        if self.staged is not None or (table := self._direct_target()) is None:
            super().receive(events)
            return
        types = {column.name: column.type for column in table.columns}
        self.records += ingest(self.context, events, table.name, types, not_null=self.not_null())

    def create_staging(self, planned: StagingTable, *, is_shared: bool) -> StagingTable:
        """Create the staging table in such a way that it can become the target if there is none."""
        if not self.context.dialect.facts.adopts_staging or self.table is not None:
            return create_staging(self.context, planned, is_shared=is_shared)
        self.context.session.execute(self.context.dialect.tables.create(planned.name, planned.target_columns()))
        return planned

    def lock(self, *, is_final: bool) -> None:
        """See `Strategy`."""
        target, is_staged = self.context.target, self.staged is not None
        self._is_locked = is_staged or (
            is_final and (self.table is None or target.lacks(self.table, self.target_columns()))
        )
        if self._is_locked:
            self.table = target.lock(self.table)

    def write(self) -> None:
        """See `Strategy`."""
        staged, table, target, dialect = self.staged, self.table, self.context.target, self.context.dialect
        if not self._is_locked or self._becomes_target():
            return
        columns = self.target_columns()
        into = target.create(columns) if table is None else target.evolve(table, columns)
        if staged is None:
            return

        def statements(source: StagingTable) -> Sequence[str]:
            return [dialect.writes.insert_from(target.name, source, source.written_to(into))]

        inserted = insert_staged(self.context, into, staged, statements)
        target.execute(inserted.actions)
        self.records -= inserted.rejected

    def swap(self) -> None:
        """See `Strategy`."""
        staged, target = self.staged, self.context.target
        if staged is not None and self._becomes_target():
            target.execute(self.context.dialect.tables.swap(staged.name, None, target.name, ()))

    def _becomes_target(self) -> bool:
        """Return true if there is no target, and the staging table has its types."""
        staged = self.staged
        if self.table is not None or staged is None or not self.context.dialect.facts.adopts_staging:
            return False
        return all(staged.types[column.name] == column.type for column in self.target_columns())

    def _direct_target(self) -> Table | None:
        """Return the target if it takes the data without conversion, and lock its definition; else None."""
        context = self.context
        if not context.dialect.facts.appends_directly or not self._fits(self.table):
            return None
        if context.dialect.catalog.lock_shape(context.session, context.target.name):
            self.table = context.target.reflect()
        return self.table if self._fits(self.table) else None

    def _fits(self, table: Table | None) -> bool:
        dialect, columns = self.context.dialect, self.context.columns
        if table is None or any(column.name not in columns.names.values() for column in table.needed()):
            return False
        for field in columns.stream.schema:
            column, wanted = table.column(columns.names[field.name]), dialect.types.column_type(field)
            if column is None or column.is_generated or facts_of(field).relaxed:
                return False
            if self.context.wire != "arrow":
                if column.type != wanted:
                    return False
                continue
            # A type that is wide enough needs no change; the values then travel in the column's own type.
            if dialect.types.widen(column.type, wanted) != column.type:
                return False
            if dialect.types.wire(column.type, field.type).type != column.type:
                return False
        return True


__all__ = ["Append"]
