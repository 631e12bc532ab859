"""A user's query: looked at before a server sees it, wrapped as a subquery, and read where nothing can be changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from ..errors import FatalConnectorError
from ..named_parameters import replaced, skeleton
from ..sql.identifiers import quote
from ..sql.read.sqlite import VIEW, as_written, lowest, sampled
from .catalog import field
from .described import types_told
from .spelling import Names

#: Dialect -> the statement after which its transaction, or of SQLite its connection, changes nothing.
READ_ONLY = {
    "cockroachdb": "set transaction read only",
    "mariadb": "start transaction read only",
    "mysql": "start transaction read only",
    "oracle": "set transaction read only",
    "postgresql": "set transaction read only",
    "sqlite": "pragma query_only = 1",
}

#: Dialects that read the zone of a moment that is written as text.
_ZONED = ("cockroachdb", "postgresql")

#: Words that a statement begins with which yields records.
_SELECTING = ("select", "table", "values", "with")

#: Dialects that take each SELECT as a subquery whose columns have names: what they refuse is a mistake.
_WRAPPING = ("firebird", "mariadb", "mysql", "oracle", "sqlite")

#: Words of statements, or of parts of them, that change something.
_CHANGING = {
    "alter", "call", "create", "delete", "drop", "exec", "execute", "grant", "insert", "into", "merge", "revoke",
    "truncate", "update", "upsert",
}  # fmt: skip

#: Types of SQLite's values, as its columns would be declared.
_STORED: dict[str, Any] = {
    "integer": sa.BigInteger,
    "real": sa.DOUBLE_PRECISION,
    "text": sa.Text,
    "blob": sa.LargeBinary,
}


def knows_backslashes(dialect: Dialect) -> bool:
    """Tell whether a backslash in a constant takes the next character for what it is."""
    return dialect.name in ("mysql", "mariadb")


def begin_reading(connection: Connection) -> None:
    """Let the transaction change nothing, where the system knows such a thing."""
    if statement := READ_ONLY.get(connection.dialect.name):
        connection.exec_driver_sql(statement)


def demand_select(query: str, dialect: Dialect) -> None:
    """Raise unless a query is one statement that stays one as a subquery: no driver can be asked to prepare it alone.

    Raises:
        FatalConnectorError: it is not.
    """
    is_mysql = knows_backslashes(dialect)
    left = skeleton(query, has_hashes=is_mysql, has_backslashes=is_mysql)
    word = re.search(r"[^\s(]+", left)
    if word is None or word[0].casefold() not in _SELECTING:
        raise FatalConnectorError("the query is not a SELECT", connector="sqlalchemy")
    if ";" in left:
        raise FatalConnectorError("the query is more than one statement: write one SELECT", connector="sqlalchemy")
    depth = 0
    for sign in re.findall(r"""[()'"`]|/\*""", left):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth < 0 or sign not in "()":
            raise FatalConnectorError(f"the query has an extra {sign}", connector="sqlalchemy")
    if depth:
        raise FatalConnectorError("the query has an extra (", connector="sqlalchemy")


def may_run(query: str, dialect: Dialect) -> bool:
    """Tell whether a query that is no subquery may be run to be described: no word of it changes anything."""
    if dialect.name.partition(".")[0] in _WRAPPING:
        return False
    is_mysql = knows_backslashes(dialect)
    left = skeleton(query, has_hashes=is_mysql, has_backslashes=is_mysql)
    return _CHANGING.isdisjoint(re.findall(r"\w+", left.casefold()))


def alone(query: str, columns: Sequence[Any], bounds: Sequence[Any], dialect: Dialect) -> Any:
    """Return a query as it stands; arguments as of `relation`, all columns in the query's order."""
    text = sa.text(_escaped(query, bounds, dialect)).bindparams(*bounds)
    return text.columns(*columns) if columns else text


def relation(query: str, columns: Sequence[Any], bounds: Sequence[Any], dialect: Dialect) -> Any:
    """Wrap a query on lines of its own, for its comments' sake.

    Args:
        query: the user's.
        columns: of SQLAlchemy's.
        bounds: values of its parameters, SQLAlchemy's; parameters without a value are text.
        dialect: of the system.
    """
    text = sa.text(f"\n{_escaped(query, bounds, dialect)}\n").bindparams(*bounds)
    return text.columns(*columns).subquery("t")


def _escaped(query: str, bounds: Sequence[Any], dialect: Dialect) -> str:
    """Return a query in which SQLAlchemy finds its parameters only, and none in constants and comments."""
    is_mysql = knows_backslashes(dialect)
    return replaced(
        query,
        {bound.key: f":{bound.key}" for bound in bounds},
        has_hashes=is_mysql,
        has_backslashes=is_mysql,
        other=lambda text: text.replace(":", r"\:"),
    )


def bound(name: str, value: Any, dialect: Dialect) -> Any:
    """Bind a value whose type the system finds out, as that of a constant."""
    if isinstance(value, datetime) and dialect.name not in _ZONED:
        plain = value.astimezone(UTC).replace(tzinfo=None)
        value = lowest(pa.scalar(plain)) if dialect.name == "sqlite" else plain
    elif isinstance(value, datetime):
        value = value.isoformat()
    return sa.bindparam(name, value, type_=sa.types.NullType())


def described(
    connection: Connection, spelling: Names, query: str, bounds: Sequence[Any], *, is_alone: bool = False
) -> list[pa.Field]:
    """Return the columns of a query; it is run only in SQLite, whose columns have no types, or alone.

    Args:
        connection: in a transaction.
        spelling: how the system spells names.
        query: what `demand_select` lets through.
        bounds: see `relation`.
        is_alone: it is no subquery.
    """
    begin_reading(connection)
    whole = None if is_alone else relation(query, (), bounds, connection.dialect)
    rows: Any = alone(query, (), bounds, connection.dialect)
    if whole is not None:
        rows = sa.select(sa.literal_column("*")).select_from(whole).where(sa.text("1 = 0"))
    result: Any = connection.execute(rows, execution_options={"stream_results": is_alone})
    told = [tuple(each) for each in result.cursor.description]
    result.close()
    names: list[Any] = [each[0] for each in told]
    if spelling.is_folding:
        names = [connection.dialect.normalize_name(name) for name in names]
    if connection.dialect.name == "sqlite":
        names, types = as_written(names), _sqlite_types(connection, query)
    else:
        types = types_told(connection, told, whole)
    columns = [{"name": name, "type": kind} for name, kind in zip(names, types, strict=True)]
    return [field(column, (), connection, spelling) for column in columns]


def _sqlite_types(connection: Connection, query: str) -> list[sa.types.TypeEngine[Any]]:
    """Look at a view of the query, which only this connection sees, and at the values of columns without a type."""
    view = f"temp.{quote(VIEW)}"
    connection.exec_driver_sql("pragma query_only = 0")
    connection.exec_driver_sql(f"create temp view {quote(VIEW)} as {query}")
    try:
        found = sa.inspect(connection).get_columns(VIEW, schema="temp")
        return [
            each["type"]
            if not isinstance(each["type"], sa.types.NullType)
            else _sampled(connection, view, each["name"])
            for each in found
        ]
    finally:
        connection.exec_driver_sql(f"drop view {view}")
        begin_reading(connection)


def _sampled(connection: Connection, view: str, name: str) -> sa.types.TypeEngine[Any]:
    def query(sql: str) -> list[Any]:
        return list(connection.exec_driver_sql(sql).fetchall())

    kind: sa.types.TypeEngine[Any] = _STORED[sampled(query, view, name)]()
    return kind


__all__ = [
    "READ_ONLY",
    "alone",
    "begin_reading",
    "bound",
    "demand_select",
    "described",
    "knows_backslashes",
    "may_run",
    "relation",
]
