"""The staging table of one load: made, and fitted to a schema that changes on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...stream import Load, WriteDisposition
from ..dialect.dialect import Dialect
from ..identifiers import CONVERTED_SUFFIX, TableName, staging_name
from ..session import Lease, Session
from ..tables import Column, Table
from .layout import Layout
from .target import Target


@dataclass(frozen=True, slots=True)
class Staged:
    """A staging table and what it holds."""

    name: TableName
    #: Column -> type in staging; every column that arrived so far.
    types: Mapping[str, str]
    #: Column -> as the target should have it.
    columns: Mapping[str, Column]


class Staging:
    """Makes the staging tables of one load, one for each segment that needs it."""

    def __init__(self, dialect: Dialect, load: Load, target: Target, lease: Lease, layout: Layout) -> None:
        self._dialect = dialect
        self._load = load
        self._target = target
        self._lease = lease
        self._layout = layout
        self._is_merge = load.write_disposition is WriteDisposition.MERGE
        self._is_replace = load.write_disposition is WriteDisposition.REPLACE
        #: Whether staged records are numbered: which one counts, or which are bad, is told by that.
        self.is_numbered = self._is_merge or (load.stream.max_rejected is not None and dialect.facts.slices)
        #: What is there; None: nothing was staged since the last commit.
        self.staged: Staged | None = None

    @property
    def _session(self) -> Session:
        return self._lease.session

    def planned(self) -> Staged:
        """Return the staging table of the stream as it is now, beside the target."""
        planned = self._layout.planned()
        types = {name: wire.type for name, (_, wire) in planned.items()}
        columns = {name: column for name, (column, _) in planned.items()}
        return Staged(TableName(self._target.name.schema, staging_name(self._load.token)), types, columns)

    def stage(self, target: Table | None, *, is_shared: bool = False) -> Staged:
        """Create the staging table (shared: one that other connections see), or fit it to a schema that changed."""
        dialect, planned = self._dialect, self.planned()
        types, columns = planned.types, planned.columns
        if self.staged is None:
            as_staged = [Column(name=name, type=types[name]) for name in columns]
            table, sql = self._new(planned.name, as_staged, target, is_shared=is_shared)
            self._session.execute(sql)
            key = [column for column in as_staged if column.name in self._layout.key()]
            index = dialect.tables.index_staging(table, key) if self._is_merge and key else ""
            if index:
                self._session.execute(index)
            self.staged = Staged(table, types, columns)
            return self.staged
        held_types, held = dict(self.staged.types), dict(self.staged.columns)
        for name, column in columns.items():
            if name not in held:
                self._session.execute(dialect.tables.add_column(self.staged.name, replace(column, type=types[name])))
                held_types[name], held[name] = types[name], column
            elif column.type != held[name].type:
                wider = self._target.widened(held[name].type, column)
                wire = self._layout.wire_of(wider, self._layout.stream.schema.field(list(columns).index(name)))
                if wire.type != held_types[name]:
                    altered = Column(name=name, type=wire.type)
                    self._session.execute(dialect.tables.alter_type(self.staged.name, altered))
                held_types[name], held[name] = wire.type, replace(column, type=wider)
        self.staged = Staged(self.staged.name, held_types, held)
        return self.staged

    def _new(
        self, beside: TableName, columns: Sequence[Column], target: Table | None, *, is_shared: bool
    ) -> tuple[TableName, str]:
        dialect = self._dialect
        if self._is_replace:
            return beside, dialect.tables.create_replacement(beside, self._layout.required(columns), self._layout.key())
        if dialect.facts.adopts_staging and not self._is_merge and target is None:
            # It may become the target itself.
            return beside, dialect.tables.create(beside, columns)
        table = beside if is_shared else dialect.tables.staging(self._target.name, beside.name)
        return table, dialect.tables.create_staging(table, columns, numbered=self.is_numbered)

    def converted(self, staged: Staged, columns: Sequence[Column]) -> Staged:
        """Return a staging table with the target's own types: another one if some had to travel as text."""
        if all(staged.types[column.name] == column.type for column in columns):
            return staged
        name = TableName(staged.name.schema, staged.name.name + CONVERTED_SUFFIX)
        self._session.execute(self._dialect.tables.create_replacement(name, columns, self._layout.key()))
        self._session.execute(self._dialect.writes.insert_from(name, staged.name, columns, staged.types))
        self._session.execute(self._dialect.tables.drop(staged.name))
        return Staged(name, {column.name: column.type for column in columns}, staged.columns)


__all__ = ["Staged", "Staging"]
