"""Privileges that a role lacks to write tables and ledgers, as GRANT statements."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct

from ..sql.identifiers import Naming, TableName, literal
from ..sql.session import Session
from ..write_spec import WriteDisposition

#: Privileges needed on an existing table, by write disposition.
_TABLE = {
    WriteDisposition.APPEND: ("select", "insert"),
    WriteDisposition.MERGE: ("select", "insert", "update", "delete"),
    WriteDisposition.HISTORY: ("select", "insert", "update"),
    WriteDisposition.REPLACE_RANGE: ("select", "insert", "delete"),
}
_LEDGER = ("select", "insert", "update")
_ASKED = ("select", "insert", "update", "delete")


class _Found(Struct, frozen=True, kw_only=True):
    """The role's privileges on an existing table."""

    is_owned: bool
    held: frozenset[str]


def missing_privileges(
    session: Session,
    naming: Naming,
    tables: Mapping[TableName, WriteDisposition],
    ledgers: Collection[TableName],
    *,
    creates_schemas: bool,
) -> list[str]:
    """Return the statements that grant the missing privileges."""
    ((role, database, may_stage, may_create, is_read_only),) = session.query(
        "select current_user::text, pg_catalog.current_database()::text, "
        "pg_catalog.has_database_privilege(pg_catalog.current_database(), 'temporary'), "
        "pg_catalog.has_database_privilege(pg_catalog.current_database(), 'create'), "
        "pg_catalog.current_setting('default_transaction_read_only')::boolean"
    )
    to = f"to {naming.quote(role)}"
    on_database = f"on database {naming.quote(database)} {to}"
    found, schemas = _tables(session, {*tables, *ledgers}), _schemas(session, {name.schema for name in ledgers})
    texts = []
    if is_read_only:
        texts.append(f"alter role {naming.quote(role)} set default_transaction_read_only = off")
    if not may_stage and any(kind is not WriteDisposition.REPLACE for kind in tables.values()):
        texts.append(f"grant temporary {on_database}")
    if creates_schemas and not may_create and any(name.schema not in schemas for name in ledgers):
        texts.append(f"grant create {on_database}")
    creating = {name.schema for name, kind in tables.items() if name not in found or kind is WriteDisposition.REPLACE}
    creating |= {name.schema for name in ledgers if name not in found}
    for schema, held in schemas.items():
        lacking = [word for word in ("usage", "create") if word not in held and (word == "usage" or schema in creating)]
        if lacking:
            texts.append(f"grant {', '.join(lacking)} on schema {naming.quote(schema)} {to}")
    for name, kind in tables.items():
        if name in found and kind is WriteDisposition.REPLACE and not found[name].is_owned:
            texts.append(f"alter table {naming.table(name)} owner {to}")
    needs = {name: _TABLE[kind] for name, kind in tables.items() if kind in _TABLE} | dict.fromkeys(ledgers, _LEDGER)
    for name, words in needs.items():
        lacking = [word for word in words if name in found and word not in found[name].held]
        if lacking:
            texts.append(f"grant {', '.join(lacking)} on {naming.table(name)} {to}")
    return texts


def _tables(session: Session, names: Collection[TableName]) -> dict[TableName, _Found]:
    listed = ", ".join(f"({literal(name.schema)}, {literal(name.name)})" for name in names)
    # A privilege on single columns is enough: the arriving columns are unknown at this point.
    held = ", ".join(
        f"pg_catalog.has_{'table' if word == 'delete' else 'any_column'}_privilege(c.oid, '{word}')" for word in _ASKED
    )
    rows = session.query(
        "select n.nspname::text, c.relname::text, "
        f"pg_catalog.pg_has_role(c.relowner, 'usage'), {held} from pg_catalog.pg_class c "
        "join pg_catalog.pg_namespace n on n.oid = c.relnamespace "
        f"where (n.nspname::text, c.relname::text) in ({listed}) and c.relkind in ('r', 'p', 'v', 'f')"
    )
    return {
        TableName(schema, name): _Found(
            is_owned=is_owned,
            held=frozenset(word for word, is_held in zip(_ASKED, flags, strict=True) if is_held),
        )
        for schema, name, is_owned, *flags in rows
    }


def _schemas(session: Session, names: Collection[str]) -> dict[str, set[str]]:
    """Return the existing schemas, with the role's privileges on each."""
    rows = session.query(
        "select nspname::text, pg_catalog.has_schema_privilege(oid, 'usage'), "
        "pg_catalog.has_schema_privilege(oid, 'create') from pg_catalog.pg_namespace "
        f"where nspname::text in ({', '.join(map(literal, sorted(names)))}) order by 1"
    )
    return {
        name: {word for word, is_held in (("usage", may_use), ("create", may_create)) if is_held}
        for name, may_use, may_create in rows
    }


__all__ = ["missing_privileges"]
