"""The least work that moves the records of one system or file into another one: the makers' own parsers and writers.

`python moves.py FROM PLACE TO PLACE`: each of csv, jsonl, parquet, duckdb, sqlite, postgres, and a path or a URL. Also
counts what arrived. In a process of its own: nothing of syncblocks is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import duckdb

#: The table in a database.
TABLE = "orders"

_BATCH_RECORDS = 100_000

#: What DuckDB itself reads: kind -> what stands behind `from`, with the place.
_FROM = {
    "csv": "read_csv('{}')",
    "jsonl": "(select * replace (to_json(extra)::varchar as extra) from read_json('{}', format = 'newline_delimited'))",
    "parquet": "read_parquet('{}')",
    "duckdb": f"source.{TABLE}",
}

#: What DuckDB itself writes: kind -> a statement, with the place and the query.
_INTO = {
    "csv": "copy ({1}) to '{0}' (format csv, header)",
    "jsonl": "copy ({1}) to '{0}' (format json)",
    "parquet": "copy ({1}) to '{0}' (format parquet, compression zstd)",
    "duckdb": f"create table destination.{TABLE} as {{1}}",
}


def move(kind: str, place: str, into: str, destination: str) -> None:
    """Move all records."""
    with duckdb.connect() as connection:
        if into == "duckdb":
            connection.execute(f"attach '{destination}' as destination")
        if kind == "duckdb":
            connection.execute(f"attach '{place}' as source (read_only)")
        if kind not in _FROM:
            with adbc(kind, place) as opened, opened.cursor() as cursor:
                cursor.execute(f"select * from {TABLE}")
                _write(connection, cursor.fetch_record_batch(), into, destination)
        elif into in _INTO:  # one statement, on all processors
            connection.execute(_INTO[into].format(destination, f"select * from {_FROM[kind].format(place)}"))
        else:
            found = connection.sql(f"select * from {_FROM[kind].format(place)}")
            _write(connection, found.to_arrow_reader(_BATCH_RECORDS), into, destination)


def _write(connection: Any, reader: Any, into: str, destination: str) -> None:
    if into in _INTO:
        connection.register("incoming", reader)
        connection.execute(_INTO[into].format(destination, "select * from incoming"))
    else:
        with adbc(into, destination) as opened, opened.cursor() as cursor:
            cursor.adbc_ingest(TABLE, reader, mode="create")
            opened.commit()


@contextmanager
def adbc(kind: str, place: str) -> Iterator[Any]:
    """Open a database by its ADBC driver."""
    import adbc_driver_manager.dbapi
    import adbc_driver_postgresql
    import adbc_driver_sqlite

    drivers: dict[str, Callable[[], str]] = {
        "postgres": adbc_driver_postgresql._driver_path,
        "sqlite": adbc_driver_sqlite._driver_path,
    }
    options = {"uri": place}
    with closing(adbc_driver_manager.dbapi.connect(driver=drivers[kind](), db_kwargs=options)) as connection:
        yield connection


def sums(kind: str, place: str) -> tuple[Any, ...]:
    """Return how many records there are, and sums of two columns."""
    of = "select count(*), sum(id), sum(amount_cents) from {}"
    with duckdb.connect() as connection:
        if kind == "duckdb":
            connection.execute(f"attach '{place}' as source (read_only)")
        if kind in _FROM:
            found = connection.execute(of.format(_FROM[kind].format(place))).fetchone()
        else:
            with adbc(kind, place) as opened, opened.cursor() as cursor:
                cursor.execute(of.format(TABLE))
                found = cursor.fetchone()
    assert found is not None
    return tuple(map(int, found))


if __name__ == "__main__":
    move(*sys.argv[1:])
