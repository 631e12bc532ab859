"""Tables and columns, read with SQLAlchemy's inspector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Inspector
from sqlalchemy.exc import NoSuchTableError, SQLAlchemyError, UnreflectableTableError

from ..field_facts import with_facts
from ..sql.identifiers import OWN_PREFIX, TableName
from ..sql.tables import Column, Table
from ..stream import Stream
from .spelling import Names
from .types import kind_of

#: Table -> the tables of its schema that its foreign keys point at.
References = Mapping[str, set[str]]


def reflect(
    connection: Connection, spelling: Names, names: Sequence[TableName], references: dict[str, References]
) -> Mapping[TableName, Table]:
    """Read the catalog for some tables and views; missing ones are left out.

    Args:
        connection: within the caller's transaction.
        spelling: how the system spells names.
        names: of the tables.
        references: schema -> its foreign keys; schemas that it lacks are read, and added.
    """
    inspector = sa.inspect(connection)
    found = {}
    views: dict[str, set[str]] = {}
    for name in names:
        table, schema = spelling.spell(name.name), _schema(spelling, name.schema)
        columns = _columns(inspector, table, schema)
        if not columns:
            continue
        if name.schema not in references:
            references[name.schema] = _references(inspector, spelling, schema)
        if name.schema not in views:
            views[name.schema] = {spelling.shown(each) for each in _views(inspector, schema)}
        found[name] = Table(
            name=name,
            columns=tuple(_column(each, connection, spelling) for each in columns),
            key=tuple(map(spelling.shown, _key(inspector, table, schema))),
            is_table=name.name not in views[name.schema],
            is_referenced=any(name.name in parents for parents in references[name.schema].values()),
            refers_to=frozenset(
                TableName(name.schema, parent)
                for parent in references[name.schema].get(name.name, ())
                if parent != name.name
            ),
        )
    return found


def streams(connection: Connection, spelling: Names, schema: str) -> list[Stream]:
    """Return the tables of a source, and its views, marked; without tables of the framework."""
    inspector, own_schema = sa.inspect(connection), _schema(spelling, schema)
    views = _views(inspector, own_schema)
    tables = [(name, False) for name in inspector.get_table_names(schema=own_schema) if name not in views]
    found = []
    for name, is_view in [*tables, *((name, True) for name in views)]:
        is_exact, shown = spelling.is_exact(name), spelling.shown(name)
        table = spelling.spell(shown, is_exact=is_exact)
        columns = _columns(inspector, table, own_schema)
        if shown.lower().startswith(OWN_PREFIX) or not columns:
            continue
        key = () if is_view else tuple(map(spelling.shown, _key(inspector, table, own_schema)))
        found.append(
            Stream(
                name=str(TableName(schema, shown)),
                schema=pa.schema([field(column, key, connection, spelling) for column in columns]),
                key_properties=key,
                is_view=is_view,
                locator={"schema": schema, "table": shown, "is_quoted": is_exact},
            )
        )
    return found


def columns_now(connection: Connection, spelling: Names, name: TableName, *, is_exact: bool) -> dict[str, str]:
    """Return the types of one table's columns; empty: there is no such table."""
    table = spelling.spell(name.name, is_exact=is_exact)
    columns = _columns(sa.inspect(connection), table, _schema(spelling, name.schema))
    return {spelling.shown(each["name"]): str(kind_of(each["type"], connection.dialect)) for each in columns}


def _schema(spelling: Names, schema: str) -> str | None:
    return spelling.spell(schema) if schema else None


def field(column: Mapping[str, Any], key: Sequence[str], connection: Connection, spelling: Names) -> pa.Field:
    """Return the field of a column that SQLAlchemy's inspector describes by `name`, `type` and perhaps `nullable`."""
    name = spelling.shown(column["name"])
    kind = kind_of(column["type"], connection.dialect)
    return with_facts(
        pa.field(name, kind.arrow, bool(column.get("nullable", True)) and name not in key),
        native_type=str(kind),
        native_system="sqlalchemy",
        quoted=spelling.is_exact(column["name"]),
        unknown_type=not kind.is_known,
    )


def _column(column: Mapping[str, Any], connection: Connection, spelling: Names) -> Column:
    is_numbered = bool(column.get("identity")) or column.get("autoincrement") is True
    return Column(
        name=spelling.shown(column["name"]),
        type=str(kind_of(column["type"], connection.dialect)),
        is_nullable=bool(column.get("nullable", True)),
        is_generated=bool(column.get("computed")) or bool((column.get("identity") or {}).get("always")),
        has_default=column.get("default") is not None or is_numbered,
    )


def _columns(inspector: Inspector, name: str, schema: str | None) -> Sequence[Mapping[str, Any]]:
    try:
        return inspector.get_columns(name, schema=schema)
    except (NoSuchTableError, UnreflectableTableError):  # the latter: a view of a table that is gone
        return ()


def _key(inspector: Inspector, name: str, schema: str | None) -> tuple[str, ...]:
    try:
        found = inspector.get_pk_constraint(name, schema=schema)
    except NoSuchTableError:  # dropped since its columns were read
        return ()
    return tuple(str(column) for column in found.get("constrained_columns", ()))


def unique_indexes(connection: Connection, spelling: Names, name: TableName) -> list[frozenset[str]]:
    """Return the column sets of a table's unique indexes and constraints, as far as the dialect knows them."""
    inspector, table, schema = sa.inspect(connection), spelling.spell(name.name), _schema(spelling, name.schema)
    found: list[Any] = []
    with suppress(NotImplementedError):
        found += [index for index in inspector.get_indexes(table, schema=schema) if index["unique"]]
    with suppress(NotImplementedError):
        found += inspector.get_unique_constraints(table, schema=schema)
    # An index over an expression has None in the place of a column.
    return [frozenset(map(spelling.shown, each["column_names"])) for each in found if all(each["column_names"])]


def _views(inspector: Inspector, schema: str | None) -> list[str]:
    try:
        return list(inspector.get_view_names(schema=schema))
    except (NotImplementedError, SQLAlchemyError):
        return []


def _references(inspector: Inspector, spelling: Names, schema: str | None) -> References:
    """Return the foreign keys within a schema."""
    try:
        found = inspector.get_multi_foreign_keys(schema=schema)
    except (NotImplementedError, SQLAlchemyError):
        return {}
    return {
        spelling.shown(str(table)): {spelling.shown(str(key["referred_table"])) for key in keys}
        for (_, table), keys in found.items()
        if keys
    }


def list_tables(connection: Connection, spelling: Names, schema: str) -> list[TableName]:
    """Return the names of all tables of a schema."""
    found = sa.inspect(connection).get_table_names(schema=_schema(spelling, schema))
    return [TableName(schema, spelling.shown(name)) for name in found]


__all__ = ["columns_now", "field", "list_tables", "reflect", "streams"]
