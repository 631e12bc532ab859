"""How a load's staged records become its target, by write disposition: append and merge, or replace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from ...arrow.casts import cast_batch
from ...errors import FatalConnectorError
from ...stream import Load, WriteDisposition
from ..dialect.dialect import Dialect
from ..identifiers import REMOVED, TableName, staging_name
from ..session import Lease, Session
from ..tables import Column, Table
from .admission import Admission
from .layout import Layout
from .refused import Statements
from .rekeying import KeyChange
from .staging import Staged, Staging
from .target import Target


class Disposition:
    """Writes one load's target out of its staging table; both methods return how many records were set aside."""

    def __init__(
        self,
        dialect: Dialect,
        load: Load,
        target: Target,
        lease: Lease,
        layout: Layout,
        staging: Staging,
        admission: Admission,
    ) -> None:
        self._dialect = dialect
        self._load = load
        self._target = target
        self._lease = lease
        self._layout = layout
        self._staging = staging
        self._admission = admission
        self._key_change = KeyChange(dialect, load, target, lease)
        self._is_merge = load.write_disposition is WriteDisposition.MERGE
        #: The target, alone in a list, as it is while nobody else can make or drop it; None: not looked at.
        self._seen: list[Table | None] | None = None

    @property
    def _session(self) -> Session:
        return self._lease.session

    def apply(self, table: Table | None, *, is_final: bool) -> int:
        """APPEND and MERGE: bring the target in shape, then the staged records into it.

        Args:
            table: the target as it was before; None: missing.
            is_final: the load ends with this commit.
        """
        staged = self._staging.staged
        if staged is not None and self._is_merge:
            self._refuse_null_keys(staged)
        columns = self._target_columns()
        removed = self._load.removed if is_final and self._is_merge else None
        needs_lock = staged is not None or table is None or removed is not None or self._target.lacks(table, columns)
        if needs_lock:
            table = self._target.lock(table)
            if table is None and staged is not None and self._may_become_target(staged, columns):
                self._target.run(self._dialect.tables.swap(staged.name, None, self._target.name, ()))
                return 0
            if table is None:
                self._session.execute(self._dialect.tables.create(self._target.name, columns, self._layout.key()))
                table = self._target.reflect()
            else:
                table = self._target.evolve(table, columns)
        if removed is not None and table is not None:
            self._remove(removed, table, staged)
        if staged is None or table is None:
            return 0
        into, key = self._into(table, staged), self._layout.key()

        def statements(source: TableName) -> Sequence[str]:
            if self._is_merge:
                return self._dialect.writes.merge(table, source, into, staged.types, key, self._load.conflict_method)
            return [self._dialect.writes.insert_from(self._target.name, source, into, staged.types)]

        return self._bring_in(table, staged, into, statements, key=key)

    def check_key(self, table: Table | None) -> None:
        """REPLACE: refuse a key that will not change, before a record is read."""
        if table is not None and table.has_dependents and self._dialect.facts.renames:
            self._key_change.refuse(table, self._layout.key())

    def replace(self) -> int:
        """REPLACE: put the staged records in the place of the target's."""
        dialect, layout = self._dialect, self._layout
        staged = self._staging.staged or self._staging.stage(None)
        columns = self._target_columns()
        staged = self._staging.converted(staged, columns)
        table = self._look()
        if table is not None and not dialect.facts.renames and self._is_misshapen(table, columns):
            # It cannot be brought into shape, and nothing can take its place.
            self._target.note_replaced(table, columns)
            self._session.execute(dialect.tables.drop(table.name))
            table = None
        if table is None and not dialect.facts.renames:
            self._session.execute(dialect.tables.create(self._target.name, columns, layout.key()))
            table = self._target.reflect()
        if table is not None and (table.has_dependents or not dialect.facts.renames):
            return self._refill(table, staged, columns)
        if table is not None:
            self._target.note_replaced(table, columns)
        statements = dialect.tables.swap(staged.name, table, self._target.name, layout.key())
        return self._admission.swap(statements, staged.name, staged.types, layout.names, layout.key())

    def refillable(self) -> Table | None:
        """REPLACE: return the table that is there if it is small, and the very one that would take its place."""
        planned = self._layout.planned().values()
        if any(wire.type != column.type for column, wire in planned):
            return None
        table, key = self._look(), self._layout.key()
        if table is None or table.has_dependents or list(table.key) != key:
            return None
        if table.records is None or table.records > self._dialect.facts.refill_records:
            return None
        is_unique = not key or frozenset(key) in table.unique_keys
        wanted = self._layout.required([column for column, _ in planned])
        return table if is_unique and list(table.columns) == wanted else None

    def forget(self) -> None:
        """Begin anew: a transaction has ended, and its locks are gone."""
        self._seen = None

    def _look(self) -> Table | None:
        """Read the catalog once nobody else makes or drops the table until the commit."""
        if self._seen is None:
            self._dialect.tables.lock_creation(self._session, self._target.name)
            self._seen = [self._target.reflect()]
        return self._seen[0]

    def _is_misshapen(self, table: Table, columns: Sequence[Column]) -> bool:
        key = self._layout.key()
        return self._target.conflicts(table, columns, key) or self._key_change.is_due(table, key)

    def _target_columns(self) -> list[Column]:
        staged = self._staging.staged
        if staged is not None:
            return self._layout.required(list(staged.columns.values()))
        return self._layout.required([column for column, _ in self._layout.planned().values()])

    def _into(self, table: Table, staged: Staged) -> list[Column]:
        return [column for column in table.columns if column.name in staged.types and not column.is_generated]

    def _bring_in(
        self,
        table: Table,
        staged: Staged,
        into: Sequence[Column],
        statements: Statements,
        *,
        key: Sequence[str],
        before: Sequence[str] = (),
    ) -> int:
        return self._admission.bring_in(
            table,
            staged.name,
            staged.types,
            self._layout.names,
            into,
            statements,
            key=key,
            is_numbered=self._staging.is_numbered,
            before=before,
        )

    def _remove(self, removed: pa.Table, table: Table, staged: Staged | None) -> None:
        """Delete the records of some keys, but for those that arrive: these are updated."""
        dialect, keys, names = self._dialect, self._layout.key(), self._layout.names
        columns = [column for column in table.columns if column.name in keys]
        fields = {names[field.name]: field for field in removed.schema}
        wires = [dialect.types.wire(column.type, fields[column.name].type) for column in columns]
        types = {column.name: wire.type for column, wire in zip(columns, wires, strict=True)}
        name = TableName(self._target.name.schema, staging_name(self._load.token) + REMOVED)
        name = dialect.tables.staging(self._target.name, name.name)
        as_staged = [Column(name=column.name, type=types[column.name]) for column in columns]
        self._session.execute(dialect.tables.create_staging(name, as_staged, numbered=False))
        schema = pa.schema([pa.field(c.name, wire.arrow) for c, wire in zip(columns, wires, strict=True)])
        ordered = removed.select([fields[column.name].name for column in columns])
        batches = (cast_batch(batch, schema, self._layout.stream.name) for batch in ordered.to_batches())
        self._session.ingest(name, schema, batches, "arrow")
        kept = None if staged is None else (staged.name, staged.types)
        self._target.run(
            [dialect.writes.delete_keys(table, columns, (name, types), keys, kept=kept), dialect.tables.drop(name)]
        )

    def _may_become_target(self, staged: Staged, columns: Sequence[Column]) -> bool:
        """Tell whether an append's staging table has all that a new target needs."""
        is_possible = self._dialect.facts.adopts_staging and not self._is_merge
        return is_possible and all(staged.types[column.name] == column.type for column in columns)

    def _refuse_null_keys(self, staged: Staged) -> None:
        key = self._layout.key()
        if self._session.query(self._dialect.writes.null_key(staged.name, key)):
            raise FatalConnectorError(
                f"a record has NULL in its key ({', '.join(key)}): NULL equals nothing, so a merge would double it; "
                "choose other key_properties, or write_disposition append",
                stream=self._layout.stream.name,
            )

    def _refill(self, table: Table, staged: Staged, columns: Sequence[Column]) -> int:
        """Empty and refill a table that others depend on; where foreign keys point at it, update in place."""
        dialect, refused, key = self._dialect, 0, self._layout.key()
        table = self._target.lock(table) or table
        self._key_change.refuse(table, key)
        table = self._target.evolve(table, columns)
        self._key_change.refuse_nulls(table, staged.name, columns, key)
        if self._key_change.is_due(table, key):
            table = self._key_change.change(table, key)
        into = self._into(table, staged)
        is_unique = frozenset(key) in {frozenset(table.key), *table.unique_keys}
        way = self._way(table, key)
        if (
            not is_unique
            or way == dialect.writes.replace_changed
            or (self._load.stream.max_rejected is not None and not dialect.facts.has_savepoints)
        ):
            refused = self._admission.refuse_repeated(staged.name, staged.types, self._layout.names, key)
        before = [dialect.writes.empty(table)] if way is None else [way(table, staged.name, into, staged.types, key)[0]]

        def statements(source: TableName) -> Sequence[str]:
            if way is not None:
                return way(table, source, into, staged.types, key)[1:]
            return [dialect.writes.insert_from(self._target.name, source, into, staged.types)]

        try:
            by = () if way is None else key
            return refused + self._bring_in(table, staged, into, statements, key=by, before=before)
        except FatalConnectorError as error:
            self._key_change.explain(error, table, key)
            raise

    def _way(self, table: Table, key: Sequence[str]) -> Callable[..., Sequence[str]] | None:
        """Choose how a table that stays is refilled by its key; None: it is emptied, and gets every record anew.

        Where foreign keys point at it, records are updated. Where it has triggers, these shall fire for what has
        changed, and for nothing else.
        """
        if key and table.is_referenced:
            return self._dialect.writes.replace_in_place
        # Records are set aside by what the table's index refuses, which would not see those that are skipped.
        is_sifted = self._load.stream.max_rejected is not None and not self._dialect.facts.arrival
        if key and table.triggers and self._dialect.facts.compares and not is_sifted:
            return self._dialect.writes.replace_changed
        return None


__all__ = ["Disposition"]
