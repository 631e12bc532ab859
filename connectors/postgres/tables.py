"""PostgreSQL's tables: temporary staging, transactional DDL."""

from __future__ import annotations

from collections.abc import Sequence

from ..sql.actions import Action
from ..sql.dialect.tables import Tables, freed
from ..sql.identifiers import SEQUENCE, TableName, literal
from ..sql.session import Session
from ..sql.tables import Column, Table

#: Schema of temporary tables.
_TEMPORARY = "pg_temp"


class PostgresTables(Tables):
    """Readers are locked out only while a replacement is renamed."""

    def lock_creation(self, session: Session, name: TableName) -> None:
        """Take an advisory lock: CREATE TABLE IF NOT EXISTS alone fails if two sessions run it at once."""
        number = f"pg_catalog.hashtextextended({literal(f'syncblocks {name}')}, 0)"
        session.execute(f"select pg_catalog.pg_advisory_xact_lock({number})")

    def has_schema(self, session: Session, schema: str) -> bool:
        """Look for the schema."""
        return bool(session.query("select 1 from pg_catalog.pg_namespace where nspname = $1", (schema,)))

    def staging(self, target: TableName, name: str) -> TableName:
        """Stage in a temporary table: it needs no WAL, and no privilege on the schema."""
        return TableName(_TEMPORARY, name)

    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Create a staging table: for this transaction, or in a real schema for all sessions of the load."""
        parts = [f"{self._quote(column.name)} {column.type}" for column in columns]
        if numbered:
            parts.append(f"{self._quote(SEQUENCE)} bigint generated always as identity (cache 1000)")
        if name.schema == _TEMPORARY:
            return f"create temporary table {self._quote(name.name)} ({', '.join(parts)}) on commit drop"
        return f"create table {self._table(name)} ({', '.join(parts)})"

    def free(self, session: Session, name: TableName) -> None:
        """End the sessions of a frozen process that would prevent the drop of its staging table."""
        session.query(
            "select pg_catalog.pg_terminate_backend(l.pid) from pg_catalog.pg_locks l "
            "join pg_catalog.pg_stat_activity a on a.pid = l.pid "
            f"where l.locktype = 'relation' and l.relation = pg_catalog.to_regclass({literal(self._table(name))})::oid "
            "and a.datname = pg_catalog.current_database() and a.usename = current_user "
            "and l.pid <> pg_catalog.pg_backend_pid()"
        )

    def lock(self, name: TableName) -> str:
        """Lock out other writers, but not readers."""
        return f"lock table {self._table(name)} in share row exclusive mode"

    def create_replacement(self, name: TableName, columns: Sequence[Column], key: Sequence[str]) -> str:
        """Write CREATE without the key: `swap` builds the index in one step, which is faster."""
        return self.create(name, columns)

    def swap(self, staging: TableName, target: Table | None, name: TableName, key: Sequence[str]) -> Sequence[Action]:
        """Build the key first, so that readers are locked out only during the renaming."""
        statements: list[Action] = (
            [f"alter table {self._table(staging)} add primary key ({self._names(key)})"] if key else []
        )
        statements += super().swap(staging, target, name, key)
        if key:
            index = TableName(staging.schema, f"{staging.name}_pkey")
            # Another table may have an index of that name: then this index keeps its own name.
            wanted = self._quote(f"{name.name.encode()[:58].decode('utf-8', 'ignore')}_pkey")
            body = (
                f"begin alter index {self._table(index)} rename to {wanted}; "
                "exception when duplicate_table or duplicate_object then null; end"
            )
            statements.append(f"do {literal(body)}")
        return statements

    def rekey(self, session: Session, table: Table, key: Sequence[str]) -> Sequence[str]:
        """Drop the primary key and add another one of the same name in one statement."""
        found = session.query(
            "select conname::text from pg_catalog.pg_constraint "
            "where conrelid = pg_catalog.to_regclass($1)::oid and contype = 'p'",
            (self._table(table.name),),
        )
        if not found:
            return []
        constraint = self._quote(str(found[0][0]))
        parts = [f"drop constraint {constraint}"]
        parts += [f"alter column {self._quote(name)} drop not null" for name in freed(table, key)]
        if key:
            parts.append(f"add constraint {constraint} primary key ({self._names(key)})")
        return [f"alter table {self._table(table.name)} {', '.join(parts)}"]


__all__ = ["PostgresTables"]
