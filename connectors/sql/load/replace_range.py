"""REPLACE_RANGE: replace the target's records of a range by the staged ones, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa

from ...failpoints import failpoint
from ...replace_range import RangeWatch, bound, has_times
from ...struct_helpers import replace
from ..actions import Action
from ..dialect.write_statements import BOUNDS
from ..identifiers import REMOVED
from ..tables import Column, StagingTable, Table
from .context import LoadContext
from .events import LoadEvents
from .ingest import ingest
from .latest_by import keep_latest
from .staging import create_staging, insert_staged, repeated_keys, stage_beside
from .strategy import Strategy


class ReplaceRange(Strategy):
    """Replaces the records of a range by the records of one load."""

    def __init__(self, context: LoadContext) -> None:
        super().__init__(context)
        self._watch = RangeWatch(context.load)
        #: Files whose records this transaction replaces.
        self._paths: Sequence[str] = ()
        #: True if this transaction writes the target.
        self._is_locked = False

    def begin(self) -> None:
        """Begin a transaction: no staged records, no files."""
        super().begin()
        self._watch.begin()

    def receive(self, events: LoadEvents) -> None:
        """Stage the data up to the next marker; each record must be within the range."""
        staged = self.stage()
        self.records += ingest(
            self.context, events, staged.name, staged.types, not_null=self.not_null(), check=self._watch.check
        )

    def create_staging(self, planned: StagingTable, *, is_shared: bool) -> StagingTable:
        """Create it to insert from."""
        return create_staging(self.context, planned, is_shared=is_shared)

    def lock(self, *, is_final: bool) -> None:
        """See `Strategy`."""
        context, staged = self.context, self.staged
        self._paths = self._watch.demand_files(self.files) if self._watch.range.is_by_files else []
        self._is_locked = staged is not None or is_final or bool(self._paths)
        if not self._is_locked:
            return
        key = context.columns.key()
        if staged is not None and key:
            context.refuse_null_keys(staged.name, key)
        self.table = context.target.lock(self.table)

    def write(self) -> None:
        """Create the target or add what it lacks, delete the range and the keys that arrive, insert the records."""
        if not self._is_locked:
            return
        context, staged, target = self.context, self.staged, self.context.target
        dialect, table, columns, key = context.dialect, self.table, self.target_columns(), context.columns.key()
        table = target.create(columns, key) if table is None else target.evolve(table, columns)
        target.lock_late()
        target.execute(self._deletes(table, self._paths))
        failpoint(f"{dialect.name}.delete.after")
        if staged is None:
            return
        if key:
            dialect.writes.refuse_equal_keys(context.session, table, staged, key)
            keep_latest(
                context, table, staged, key, is_new=True
            )  # the target's records of these keys are deleted anyway
            target.execute([dialect.writes.delete_arriving(table, staged, key)])
            is_found_late = frozenset(key) in table.unique_keys and dialect.facts.has_savepoints
            if context.rejected is None or dialect.facts.arrival or not is_found_late:
                self.records -= repeated_keys(context, staged, key)

        def statements(source: StagingTable) -> Sequence[Action]:
            return [dialect.writes.insert_from(target.name, source, source.written_to(table))]

        inserted = insert_staged(context, table, staged, statements)
        target.execute(inserted.actions)
        self.records -= inserted.rejected

    def _deletes(self, table: Table, paths: Sequence[str]) -> list[Action]:
        """Return the statements that delete the range; some systems cannot create a table after the first of them."""
        context, watched, staged = self.context, self._watch.range, self.staged
        writes, drop, session = context.dialect.writes, context.dialect.tables.drop, context.session
        field = self._watch.field(context.columns.stream.schema)
        column = table.column(context.columns.names[watched.column])
        assert column is not None, "the target was fitted to the stream"
        if watched.interval is not None:
            writes.refuse_unordered(session, table, column)
            bounds = stage_beside(context, REMOVED, *self._bounds(column, field.type, watched.interval))
            return [writes.delete_between(table, bounds, column), drop(bounds.name)]
        aside, actions = pa.array(paths, pa.string()), list[Action]()
        if not watched.is_by_files:
            aside = self._watch.of_rejected([] if context.rejected is None else context.rejected.found, field.type)
            if staged is not None:
                actions.append(self._delete_values(table, staged, column))
        if len(aside):
            values = stage_beside(context, REMOVED, [column], pa.table([aside], names=[column.name]))
            actions += [self._delete_values(table, values, column), drop(values.name)]
        return actions

    def _delete_values(self, table: Table, values: StagingTable, column: Column) -> Action:
        writes = self.context.dialect.writes
        writes.refuse_equal_values(self.context.session, table, values, column)
        return writes.delete_values(table, values, column)

    def _bounds(
        self, column: Column, arriving: pa.DataType, interval: tuple[datetime, datetime]
    ) -> tuple[list[Column], pa.Table]:
        """Return both ends of the interval as values of the target's column."""
        kind = self.context.dialect.types.wire(column.type, arriving).arrow
        if not has_times(kind):
            raise self.context.error(
                f"range_column {column.name!r} is {column.type} in {self.context.target.name}, which an interval "
                "cannot limit"
            )
        ends = [replace(column, name=name) for name in BOUNDS]
        try:
            values = [pa.repeat(bound(moment, kind), 1) for moment in interval]
        except ValueError as error:
            raise self.context.error(f"range_column {column.name!r}: {error}") from error
        return ends, pa.table(values, names=[*BOUNDS])


__all__ = ["ReplaceRange"]
