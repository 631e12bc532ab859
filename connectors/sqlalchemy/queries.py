"""A user's query: looked at before a server sees it, wrapped as a subquery, and read where nothing can be changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from ..errors import FatalConnectorError
from ..named import skeleton
from ..sql.identifiers import quote
from ..sql.read.queries import BOOKMARK
from ..sql.read.sqlite import VIEW, as_written, sampled
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

#: Words that a statement begins with which yields records.
_SELECTING = ("select", "table", "values", "with")

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
        raise FatalConnectorError("the query is no SELECT", connector="sqlalchemy")
    if ";" in left:
        raise FatalConnectorError("the query is more than one statement: write one SELECT", connector="sqlalchemy")
    depth = 0
    for sign in re.findall(r"""[()'"`]|/\*""", left):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth < 0 or sign not in "()":
            raise FatalConnectorError(f"in the query there is a {sign} too many", connector="sqlalchemy")
    if depth:
        raise FatalConnectorError("in the query there is a ( too many", connector="sqlalchemy")


def relation(texts: Sequence[str], columns: Sequence[Any], bound: Any = None) -> Any:
    """Wrap a query on lines of its own, for its comments' sake.

    Args:
        texts: around each `:bookmark` of it.
        columns: of SQLAlchemy's.
        bound: what takes the place of `:bookmark`.
    """
    # SQLAlchemy would find parameters in constants and comments.
    text = sa.text("\n" + f":{BOOKMARK}".join(each.replace(":", r"\:") for each in texts) + "\n")
    return (text if bound is None else text.bindparams(bound)).columns(*columns).subquery("t")


def described(connection: Connection, spelling: Names, query: str) -> list[pa.Field]:
    """Return the columns of a query without `:bookmark`; only in SQLite, whose columns have no types, it is run."""
    demand_select(query, connection.dialect)
    begin_reading(connection)
    rows: Any = sa.select(sa.literal_column("*")).select_from(relation([query], ())).where(sa.text("1 = 0"))
    result: Any = connection.execute(rows)
    told = [tuple(each) for each in result.cursor.description]
    result.close()
    names: list[Any] = [each[0] for each in told]
    if spelling.is_folding:
        names = [connection.dialect.normalize_name(name) for name in names]
    if connection.dialect.name == "sqlite":
        names, types = as_written(names), _sqlite_types(connection, query)
    else:
        types = types_told(connection, told, relation([query], ()))
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


__all__ = ["READ_ONLY", "begin_reading", "demand_select", "described", "knows_backslashes", "relation"]
