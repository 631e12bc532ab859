"""PostgreSQL's dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from ..sql.actions import Action
from ..sql.dialect.dialect import Dialect
from ..sql.identifiers import SEQUENCE, TableName, literal
from ..sql.session import Session
from ..sql.tables import Column, Table, Wire
from ..stream import ConflictMethod
from . import catalog, types

#: Merges join and group whole staging tables; the default of 4 MB would spill to disk. And a few staged records find
#: theirs by the key, instead of by reading the whole table as the default costs of a disk with a head have it. Until
#: the commit only.
_FOR_MERGES = (
    "select pg_catalog.set_config('work_mem', '64MB', true) "
    "where pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem')) < 64 * 1024 * 1024; "
    "select pg_catalog.set_config('random_page_cost', '1.1', true) "
    "where pg_catalog.current_setting('random_page_cost')::float8 > '1.1'"
)


#: Schema of temporary tables.
_TEMPORARY = "pg_temp"


class PostgresDialect(Dialect):
    """Identifiers of 63 bytes (longer column names are cut off silently), transactional DDL, temporary staging."""

    name = "postgres"
    has_savepoints = True
    check_now = "set constraints all immediate"
    arrival = "ctid"
    default_schema = "public"
    max_identifier_bytes = 63
    keeps_spelling = False
    refill_bytes = 1 << 20
    joins_statements = True
    commits_alone = True
    compares = True
    reserved_columns = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})

    def __init__(self) -> None:
        #: Domain -> the type that it is of, at last; of those in tables that were looked at.
        self._domains: dict[str, str] = {}

    def column_type(self, column: pa.Field) -> str:
        """Return the native type, or the one for the Arrow type."""
        return types.column_type(column, self.name.encode())

    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Return how COPY carries it."""
        return types.wire(self._base(column_type), arrow)

    def arrow_type(self, column: Column) -> pa.DataType:
        """Return the type it is read in."""
        return types.arrow_of(self._base(column.type))[0]

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Return what it is, where that is read as text: arrays, long and bare numerics."""
        return types.kept_as(self._base(column_type), arriving), False

    def widen(self, before: str, after: str) -> str | None:
        """Return the wider type; a domain stays what it is, or does not hold what comes."""
        base = self._base(before)
        wider = types.widen(base, after)
        return wider if base == before else before if wider == base else None

    def cast(self, expression: str, column_type: str, staged_type: str) -> str:
        """Keep the blanks that fill a `character` up, as its source has them: a cast to another text drops them."""
        if types.is_filled(staged_type) and not types.is_filled(column_type):
            return f"cast(pg_catalog.textin(pg_catalog.bpcharout({expression})) as {column_type})"
        return super().cast(expression, column_type, staged_type)

    # ---------------------------------------------------------------- catalog
    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog in one query."""
        found = catalog.reflect(session, tables)
        self._domains.update((each.type, each.base) for table in found.values() for each in table.columns if each.base)
        return found

    def _base(self, column_type: str) -> str:
        return self._domains.get(column_type, column_type)

    def exists(self, session: Session, name: TableName) -> bool:
        """Look the name up."""
        return bool(session.query("select 1 where pg_catalog.to_regclass($1) is not null", (self.table(name),)))

    def lock_shape(self, session: Session, name: TableName) -> bool:
        """Take the lock that a writer has anyway, before the types are read that COPY relies on."""
        session.execute(f"lock table {self.table(name)} in row exclusive mode")
        return True

    def keeps_types(self, session: Session, name: TableName, types: Mapping[str, str]) -> bool:
        """Ask the catalog: COPY takes what arrives for whatever type is there."""
        now, _ = catalog.columns_now(session, name)
        return all(now.get(column) == self._base(kind) for column, kind in types.items())

    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return leftovers of every schema."""
        return catalog.list_staging(session)

    def rekey(self, session: Session, table: Table, key: Sequence[str]) -> Sequence[str]:
        """Drop the primary key and add another one in one statement."""
        return catalog.rekey(session, table, key)

    def dependents(self, session: Session, table: Table) -> Sequence[str]:
        """Return views, indexes, triggers, foreign keys and constraints."""
        return catalog.dependents(session, table)

    def free(self, session: Session, name: TableName) -> None:
        """End the sessions of a frozen process that would keep its staging table from being dropped."""
        session.query(
            "select pg_catalog.pg_terminate_backend(l.pid) from pg_catalog.pg_locks l "
            "join pg_catalog.pg_stat_activity a on a.pid = l.pid "
            f"where l.locktype = 'relation' and l.relation = pg_catalog.to_regclass({literal(self.table(name))})::oid "
            "and a.datname = pg_catalog.current_database() and a.usename = current_user "
            "and l.pid <> pg_catalog.pg_backend_pid()"
        )

    # -------------------------------------------------------------------- DDL
    def lock_creation(self, session: Session, name: TableName) -> None:
        """Take an advisory lock: CREATE TABLE IF NOT EXISTS alone fails when two do it at once."""
        number = f"pg_catalog.hashtextextended({literal(f'syncblocks {name}')}, 0)"
        session.execute(f"select pg_catalog.pg_advisory_xact_lock({number})")

    def create_schema(self, session: Session, schema: str) -> None:
        """Create it only if it is missing: IF NOT EXISTS still demands the privilege to create."""
        if not session.query("select 1 from pg_catalog.pg_namespace where nspname = $1", (schema,)):
            session.execute(f"create schema if not exists {self.quote(schema)}")

    def staging(self, target: TableName, name: str) -> TableName:
        """Stage in a temporary table: no WAL, and no privilege on the schema needed."""
        return TableName(_TEMPORARY, name)

    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Create it for this transaction; in a schema that others see, for all that load into it."""
        parts = [f"{self.quote(column.name)} {column.type}" for column in columns]
        if numbered:
            parts.append(f"{self.quote(SEQUENCE)} bigint generated always as identity (cache 1000)")
        if name.schema == _TEMPORARY:
            return f"create temporary table {self.quote(name.name)} ({', '.join(parts)}) on commit drop"
        return f"create table {self.table(name)} ({', '.join(parts)})"

    def lock_table(self, name: TableName) -> str:
        """Shut out other writers, not readers."""
        return f"lock table {self.table(name)} in share row exclusive mode"

    def empty(self, target: Table) -> str:
        """Truncate where nothing would notice the difference."""
        if target.is_referenced or target.has_triggers:
            return super().empty(target)
        return f"truncate table {self.table(target.name)}"

    def swap(self, staging: TableName, target: Table | None, name: TableName, key: Sequence[str]) -> Sequence[Action]:
        """Build the key first, so that readers are shut out only for the renaming."""
        statements = list(super().swap(staging, target, name, key))
        if key:
            index = TableName(staging.schema, f"{staging.name}_pkey")
            # Another table may have an index of that name; then it keeps the odd one.
            wanted = self.quote(f"{name.name.encode()[:58].decode('utf-8', 'ignore')}_pkey")
            body = (
                f"begin alter index {self.table(index)} rename to {wanted}; "
                "exception when duplicate_table or duplicate_object then null; end"
            )
            statements.append(f"do {literal(body)}")
        return statements

    # ------------------------------------------------------------------- data
    def shown(self, name: str, column_type: str) -> str:
        """Let the server write what the drivers' own values lack."""
        return types.shown(column_type).format(self.quote(name))

    def merge(
        self,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
        method: ConflictMethod,
    ) -> Sequence[str]:
        """Merge by the fastest way that this table allows.

        DELETE and INSERT takes half the time of ON CONFLICT, but fires triggers and breaks foreign keys, and renews
        columns that do not arrive; without a unique index only UPDATE and INSERT remain.
        """
        # Of a key the blanks say nothing: with them, a record would no longer find itself.
        staged = {name: "bpchar" if name in key and types.is_filled(kind) else kind for name, kind in staged.items()}
        compared = [*columns, *(c for c in target.columns if c.is_generated and c.name in key)]
        values = ", ".join(f"{self._value(column, staged)} as {self.quote(column.name)}" for column in compared)
        source = f"(select {values} from {self.table(staging)} s)"
        insert = f"{self._into(target.name, columns)} select {self.names(_names(columns), 's.')} from {source} as s"
        first = [_FOR_MERGES, self._drop_repeated(staging, compared, staged, key)]
        is_unique = frozenset(key) in target.unique_keys
        if method is ConflictMethod.UPDATE and self._is_ours(target, columns):
            same = self._same_key(compared, staged, key)
            delete = f"delete from {self.table(target.name)} as t using {self.table(staging)} as s where {same}"
            return [_unless_new(insert, [*first, delete, insert])] if is_unique else [*first, delete, insert]
        if is_unique:
            changes = self._changes(target, columns, key) if method is ConflictMethod.UPDATE else ""
            action = f"update set {changes}" if changes else "nothing"
            return [*first, f"{insert} on conflict ({self.names(key)}) do {action}"]
        types_of = {column.name: column.type for column in compared}
        new = self._insert_new(target, source, columns, types_of, key)
        if method is ConflictMethod.IGNORE:
            return [*first, new]
        return [*first, *filter(None, [self._update(target, source, columns, types_of, key)]), new]

    def equals(self, left: str, right: str, column: Column) -> str:
        """Name the operator's schema: one that somebody made for these very types would be taken before ours."""
        return f"{left} operator({self.quote(column.equality or 'pg_catalog')}.=) {right}"

    def _drop_repeated(
        self, staging: TableName, columns: Sequence[Column], staged: Mapping[str, str], key: Sequence[str]
    ) -> str:
        """Delete staged records whose key comes again; mostly there are none, and a sort of all would be wasted.

        Keys are compared as what they become: '1.0' and '1' are one numeric.
        """
        keys = {column.name: self._value(column, staged) for column in columns if column.name in key}
        sequence, table = self.quote(SEQUENCE), self.table(staging)
        listed = ", ".join(f"{value} as {self.quote(name)}" for name, value in keys.items())
        of = {column.name: column for column in columns}
        same = " and ".join(self.equals(value, f"r.{self.quote(name)}", of[name]) for name, value in keys.items())
        repeated = (
            f"select {listed}, pg_catalog.max(s.{sequence}) as {sequence} from {table} s "
            f"group by {', '.join(keys.values())} having count(*) > 1"
        )
        return f"delete from {table} as s using ({repeated}) as r where {same} and s.{sequence} < r.{sequence}"

    def differs(self, columns: Sequence[Column], staged: Mapping[str, str]) -> str:
        """Compare the images of the records: there are types that have no equality, and equal values that differ."""
        held = ", ".join(f"t.{self.quote(column.name)}" for column in columns)
        arriving = ", ".join(self._value(column, staged) for column in columns)
        return f"row({held})::record operator(pg_catalog.*<>) row({arriving})::record"

    def _into(self, target: TableName, columns: Sequence[Column]) -> str:
        return f"{super()._into(target, columns)} overriding system value"

    def _is_ours(self, target: Table, columns: Sequence[Column]) -> bool:
        arriving = set(_names(columns))
        return not (target.has_triggers or target.is_referenced) and all(
            column.name in arriving or column.is_generated or (column.is_nullable and not column.has_default)
            for column in target.columns
        )

    def _changes(self, target: Table, columns: Sequence[Column], key: Sequence[str]) -> str:
        arriving = set(_names(columns))
        changes = [
            f"{self.quote(column.name)} = excluded.{self.quote(column.name)}"
            for column in columns
            if column.name not in key
        ]
        changes += [
            f"{self.quote(column.name)} = null" for column in target.columns if self._is_emptied(column, arriving)
        ]
        return ", ".join(changes)


def _unless_new(insert: str, merge: Sequence[str]) -> str:
    """Write one statement that inserts, and merges only if a record is there already, or comes twice.

    The index finds that out by the way, and at the first such record. A first load has none: a join of each part of it
    with the growing table would take time by the square of its records.
    """
    body = (
        f"begin execute {literal(insert)}; exception when integrity_constraint_violation then "
        f"{' '.join(f'execute {literal(sql)};' for sql in merge)} end"
    )
    return f"do {literal(body)}"


def _names(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]


__all__ = ["PostgresDialect"]
