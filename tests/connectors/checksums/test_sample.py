"""Keys drawn at random split a large table before it is hashed, in each dialect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from syncblocks.connectors.checksums import ComparedColumn, Digest, KeyRange, Side, TextForm
from syncblocks.connectors.checksums.sql import Canonical, SqlChecksums
from syncblocks.connectors.duckdb.checksums import DuckDBCanonical
from syncblocks.connectors.mysql.checksums import MySQLCanonical
from syncblocks.connectors.postgres.checksums import PostgresCanonical
from syncblocks.connectors.stream import Stream
from syncblocks.sync.verify.comparison import compare

RECORDS = 60_000
COLUMNS = tuple(
    ComparedColumn(name=name, field=pa.field(name, pa.int64()), form=TextForm.INTEGER) for name in ("id", "v")
)
STREAM = Stream(name="t", schema=pa.schema([column.field for column in COLUMNS]))

Run = Callable[[str], Sequence[tuple[Any, ...]]]


class Counted(SqlChecksums):
    """Counts the records that are hashed."""

    hashed = 0

    def digests(self, ranges: Sequence[KeyRange]) -> list[Digest]:
        found = super().digests(ranges)
        self.hashed += sum(digest.records for digest in found)
        return found


@pytest.fixture(params=["duckdb", "postgres", "mariadb"])
def database(request: pytest.FixtureRequest) -> Iterator[tuple[Run, Canonical, str]]:
    """Yield what runs a statement, the dialect, and a query of the records."""
    if request.param == "duckdb":
        import duckdb

        with duckdb.connect() as connection:
            yield lambda sql: connection.execute(sql).fetchall(), DuckDBCanonical(), f"range({RECORDS}) s (n)"
    elif request.param == "postgres":
        import psycopg

        with psycopg.connect(request.getfixturevalue("postgres_url"), autocommit=True) as server:

            def run(sql: str) -> Sequence[tuple[Any, ...]]:
                cursor = server.execute(sql)  # type: ignore[call-overload]
                return list(cursor.fetchall()) if cursor.description else []

            yield run, PostgresCanonical(), f"generate_series(0, {RECORDS - 1}) s (n)"
    else:
        import pymysql

        place = urlsplit(request.getfixturevalue("mariadb_url"))
        where = {"host": place.hostname, "port": place.port or 3306, "user": place.username, "database": place.path[1:]}
        with closing(pymysql.connect(**where)) as raw, raw.cursor() as cursor:

            def ask(sql: str) -> Sequence[tuple[Any, ...]]:
                cursor.execute(sql)
                return list(cursor.fetchall())

            yield ask, MySQLCanonical(), f"(select seq as n from seq_0_to_{RECORDS - 1}) s"


@pytest.mark.one_of("database")
def test_a_table_with_few_differences_is_hashed_little_more_than_once(
    database: tuple[Run, Canonical, str],
) -> None:
    run, canonical, numbers = database
    lock = threading.Lock()

    def query(sql: str) -> Sequence[tuple[Any, ...]]:
        with lock:  # both sides have one connection
            return run(sql)

    for table in ("one", "two"):
        run(f"create table {table} as select n as id, n * 3 as v from {numbers}")
    run("update two set v = 0 where mod(id, 6000) = 17")
    sides = [
        Counted(query, canonical, Side(stream=STREAM, key=COLUMNS[:1], columns=COLUMNS), table=f"{table} t", quote=str)
        for table in ("one", "two")
    ]
    left, right = sides
    keys = left.sample(600)
    numbers_drawn = [int(str(key)) for (key,) in keys]
    assert 300 < len(keys) < 900
    assert numbers_drawn == sorted(numbers_drawn)
    found = compare(left, right, COLUMNS[:1], COLUMNS, is_bounded=False, interrupt=lambda: None)
    assert [str(each.key[0]) for each in found.records] == [str(number) for number in range(17, RECORDS, 6000)]
    assert (found.source.records, found.destination.records) == (RECORDS, RECORDS)
    assert max(left.hashed, right.hashed) <= 1.5 * RECORDS


def test_a_small_table_is_not_split(database: tuple[Run, Canonical, str]) -> None:
    run, canonical, numbers = database
    run(f"create table one as select n as id, n as v from {numbers} where n < 1000")
    side = Side(stream=STREAM, key=COLUMNS[:1], columns=COLUMNS)
    assert SqlChecksums(run, canonical, side, table="one t", quote=str).sample(600) == []


def test_many_ranges_of_a_large_table_are_found_without_a_comparison_for_each(
    database: tuple[Run, Canonical, str],
) -> None:
    """A list of 500 ranges costs 500 comparisons a record where no index is used: minutes for ten million."""
    run, canonical, numbers = database
    run(f"create table one as select n as id, n as v from {numbers} where n < 6000")
    side = Side(stream=STREAM, key=COLUMNS[:1], columns=COLUMNS)
    checksums = SqlChecksums(run, canonical, side, table="one t", quote=str)

    def found(*ranges: KeyRange) -> list[int]:
        condition = checksums.within(ranges)
        assert condition.count("<") + condition.count(">") < 5 + 2 * len(ranges)
        return sorted(int(number) for (number,) in run(f"select t.id from one t where {condition}"))

    def each(first: int | None, last: int | None) -> KeyRange:
        start, end = (None if value is None else (str(value),) for value in (first, last))
        return KeyRange(start, end)

    for many in (3, 500):
        inner = [each(number, number + 2) for number in range(1000, 1000 + 5 * many, 5)]
        wanted = [number for each in range(1000, 1000 + 5 * many, 5) for number in (each, each + 1)]
        assert found(*inner) == wanted
        assert found(each(None, 3), *inner) == [0, 1, 2, *wanted]
        assert found(*inner, each(5998, None)) == [*wanted, 5998, 5999]
        assert found(each(None, 3), *inner, each(5998, None)) == [0, 1, 2, *wanted, 5998, 5999]
    depth = checksums.within([each(number, number + 2) for number in range(0, 5000, 10)]).count("case")
    assert depth < 1000
