"""Columns of a query, described by libpq: asyncpg and ADBC do not report how many digits a number has."""

from __future__ import annotations

from typing import NamedTuple

from .failures import connect_failure, failure
from .settings import PostgresAddress


class ResultColumn(NamedTuple):
    """One column of a query's result."""

    name: str
    #: Number of the column's type.
    oid: int
    #: Type modifier (length, digits); -1: none.
    modifier: int


def describe(address: PostgresAddress, query: str) -> list[ResultColumn]:
    """Prepare a query as one statement, alone and then as a subquery, and return its columns; does not run it.

    Raises:
        ConnectorError: the server cannot be reached, or refuses the query alone or as a subquery.
    """
    import psycopg

    try:
        connection = psycopg.connect(address.uri())
    except psycopg.Error as error:
        raise connect_failure(error, address) from None
    with connection:
        connection.execute("begin read only")
        pgconn = connection.pgconn
        # Alone first: a text that closes the subquery's parenthesis and opens another one is not a statement.
        for sql in (query, f"select * from (\n{query}\n) as t"):
            prepared = pgconn.prepare(b"", sql.encode())
            if prepared.status != psycopg.pq.ExecStatus.COMMAND_OK:
                raise failure(psycopg.errors.error_from_result(prepared), address) from None
        found = pgconn.describe_prepared(b"")
        if found.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise failure(psycopg.errors.error_from_result(found), address) from None
        return [
            ResultColumn((found.fname(place) or b"").decode(), found.ftype(place), found.fmod(place))
            for place in range(found.nfields)
        ]


__all__ = ["ResultColumn", "describe"]
