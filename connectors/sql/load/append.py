"""APPEND: insert the records straight into the target if its types match, else through a staging table."""

from __future__ import annotations

from collections.abc import Sequence

from ...field_facts import facts_of
from ..tables import Column, StagingTable, Table
from .events import LoadEvents
from .ingest import ingest
from .staging import create_staging, insert_staged
from .strategy import Strategy


class Append(Strategy):
    """Appends the records of one load."""

    def write(self, events: LoadEvents) -> None:
        """Put the data up to the next marker into the target, or into the staging table."""
        if self.staged is not None or (table := self._direct_target()) is None:
            super().write(events)
            return
        types = {column.name: column.type for column in table.columns}
        self.records += ingest(self.context, events, table.name, types, not_null=self.not_null())

    def create_staging(self, planned: StagingTable, *, is_shared: bool) -> StagingTable:
        """Create the staging table in such a way that it can become the target if there is none."""
        if not self.context.dialect.facts.adopts_staging or self.table is not None:
            return create_staging(self.context, planned, is_shared=is_shared)
        self.context.session.execute(self.context.dialect.tables.create(planned.name, planned.target_columns()))
        return planned

    def finish(self, *, is_final: bool) -> None:
        """Create the target or fit it to the stream, then insert the staged records."""
        staged, target, dialect = self.staged, self.context.target, self.context.dialect
        if staged is None and not is_final:
            return
        table, columns = self.table, self.target_columns()
        if staged is not None or table is None or target.lacks(table, columns):
            table = target.lock(table)
            if table is None and staged is not None and self._can_become_target(staged, columns):
                target.run(dialect.tables.swap(staged.name, None, target.name, ()))
                return
            table = target.create(columns) if table is None else target.evolve(table, columns)
        if staged is None:
            return

        def statements(source: StagingTable) -> Sequence[str]:
            return [dialect.writes.insert_from(target.name, source, source.written_to(table))]

        self.records -= insert_staged(self.context, table, staged, statements)

    def _can_become_target(self, staged: StagingTable, columns: Sequence[Column]) -> bool:
        return self.context.dialect.facts.adopts_staging and all(
            staged.types[column.name] == column.type for column in columns
        )

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
