"""Lists as DuckDB and PostgreSQL write them for checksums: the very JSON that this package writes, item by item."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from syncblocks.connectors.arrow.text import to_json
from syncblocks.connectors.checksums import ComparedColumn, compared_columns, no_item
from syncblocks.connectors.checksums.sql import is_same
from syncblocks.connectors.duckdb.checksums import DuckDBCanonical
from syncblocks.connectors.postgres.checksums import PostgresCanonical
from syncblocks.connectors.postgres.types import array_item

RANDOM = random.Random(7)


def doubles() -> list[float]:
    edges = [0.0, -0.0, 0.1, 1e-4, 9.99e-5, 1e-5, 9.5e14, 1e15, 1234567890123456.8, 9.99e15, 1e16, 1e22, 5e-324]
    edges += [1.7976931348623157e308, 2.0**60, 123456789.0, math.nan, math.inf, -math.inf]
    drawn = [struct.unpack("<d", RANDOM.randbytes(8))[0] for _ in range(3000)]
    drawn += (RANDOM.random() * 10 ** RANDOM.randint(-8, 16) for _ in range(3000))
    # PostgreSQL writes some integers past 2**53 with a digit more than they need: these are looked at one by one.
    return [*edges, *(each for each in drawn if not 1e16 <= abs(each) < 1e19)]


MOMENT = datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)
NAIVE = MOMENT.replace(tzinfo=None)
FIRST, LAST = NAIVE.replace(year=1, day=1, microsecond=1), NAIVE.replace(year=9999, day=1, microsecond=999_999)

#: Arrow type of the items, type of PostgreSQL's array, items.
ITEMS: dict[str, tuple[pa.DataType, str, Sequence[Any]]] = {
    "integers": (pa.int64(), "bigint", [0, -1, 2**63 - 1, -(2**63)]),
    "unsigned": (pa.uint64(), "numeric(20,0)", [0, 2**64 - 1]),
    "booleans": (pa.bool_(), "boolean", [True, False]),
    "doubles": (pa.float64(), "double precision", doubles()),
    "reals": (pa.float32(), "real", [0.5, -0.0, 3.4028234663852886e38, math.nan, 0.10000000149011612]),
    "decimals": (pa.decimal128(38, 10), "numeric(38,10)", [Decimal("-0.5"), Decimal("9" * 28 + ".0000000001")]),
    "texts": (
        pa.string(),
        "text",
        ["", "null", 'a"b', "c\\d", "\\u000b", "/", "{a,b}", "é\U0001f600", "x" * 200, *map(chr, range(1, 0x80))],
    ),
    "dates": (pa.date32(), "date", [date(1, 1, 1), date(1582, 10, 10), date(9999, 12, 31)]),
    "times": (pa.time64("us"), "time", [time(0), time(1, 2, 3, 400), time(23, 59, 59, 999_999)]),
    "times in milliseconds": (pa.time32("ms"), "time", [time(0), time(1, 2, 3, 400_000), time(23, 59, 59, 999_000)]),
    "times in seconds": (pa.time32("s"), "time", [time(0), time(1, 2, 3)]),
    "timestamps": (pa.timestamp("us"), "timestamp", [NAIVE, FIRST, LAST]),
    "timestamps in milliseconds": (pa.timestamp("ms"), "timestamp", [NAIVE, NAIVE + timedelta(milliseconds=7)]),
    "timestamps in seconds": (pa.timestamp("s"), "timestamp", [NAIVE, NAIVE + timedelta(seconds=7)]),
    "moments": (pa.timestamp("us", "UTC"), "timestamptz", [MOMENT, MOMENT.replace(microsecond=120_000)]),
    "moments in seconds": (pa.timestamp("s", "Europe/Berlin"), "timestamptz", [MOMENT]),
    "bytes": (pa.binary(), "bytea", [b"", b"\0\xff", bytes(range(256))]),
}


def lists(items: Sequence[Any]) -> list[list[Any] | None]:
    return [[], None, [None], list(items), [*items[:1], None, *items[-1:]]]


def as_compared(kind: pa.DataType, array: str) -> tuple[ComparedColumn, ComparedColumn]:
    """Return how a list and an array of PostgreSQL are compared."""
    metadata = {b"native_type": array.encode() + b"[]", b"native_system": b"postgres"}
    columns = compared_columns(
        pa.field("v", kind),
        pa.field("v", pa.string(), metadata=metadata),
        systems=("duckdb", "postgres"),
        array_items=(no_item, array_item),
    )
    assert not isinstance(columns, str), columns
    return columns


FULL = {"time": "time without time zone", "timestamp": "timestamp without time zone"}
FULL["timestamptz"] = "timestamp with time zone"


@pytest.mark.parametrize("make", [pa.list_, pa.large_list])
@pytest.mark.parametrize("name", ITEMS)
def test_duckdb_writes_a_list_as_this_package_does(name: str, make: Any) -> None:
    item, array, items = ITEMS[name]
    values, kind = pa.array(lists(items), make(item)), make(item)
    column, _ = as_compared(kind, FULL.get(array, array))
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("t", pa.table({"v": values}))
        found = connection.execute(f"select {DuckDBCanonical().text('t.v', column)} from t").fetchall()
    expected = [None if value is None else to_json(value, kind) for value in values.to_pylist()]
    assert [text for (text,) in found] == expected


@pytest.mark.parametrize("name", ITEMS)
def test_postgres_writes_an_array_as_this_package_writes_a_list(name: str, postgres_url: str) -> None:
    import psycopg

    item, array, items = ITEMS[name]
    kind = pa.list_(item)
    values = pa.array(lists(items), kind).to_pylist()
    _, column = as_compared(kind, FULL.get(array, array))
    with psycopg.connect(postgres_url) as connection:
        connection.execute("set time zone 'America/New_York'")
        connection.execute(f"create table t (n int, v {array}[])")
        with connection.cursor() as cursor:
            cursor.executemany(
                f"insert into t values (%s, %s::text[]::{array}[])",
                [
                    (n, None if value is None else [each if each is None else as_text(each) for each in value])
                    for n, value in enumerate(values)
                ],
            )
        found = connection.execute(f"select {PostgresCanonical().text('t.v', column)} from t order by n").fetchall()
    assert [text for (text,) in found] == [None if value is None else to_json(value, kind) for value in values]


def as_text(value: Any) -> str:
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)


@pytest.mark.parametrize(
    ("statement", "differs"),
    [
        ("'{{1,2},{3,4}}'", True),
        ("'[0:1]={1,2}'", False),
        ("'{1,2}'", False),
        ("'{1,NULL}'", True),
    ],
)
def test_arrays_of_arrays_are_no_lists(statement: str, differs: bool, postgres_url: str) -> None:
    import psycopg

    for array, item in (("integer", pa.int32()), ("double precision", pa.float64())):
        _, column = as_compared(pa.list_(item), array)
        with psycopg.connect(postgres_url) as connection:
            sql = f"select {PostgresCanonical().text('t.v', column)} from (select {statement}::{array}[] as v) t"
            ((text,),) = connection.execute(sql).fetchall()
        assert is_same("[1,2]", text, column) is not differs


def test_lists_that_are_written_in_two_ways_are_the_same_if_their_items_are() -> None:
    column, _ = as_compared(pa.list_(pa.float64()), "double precision")
    assert is_same("[1.0,1e+23,null]", "[1, 9.999999999999999e22, null]", column)
    assert is_same("[3.406744447523117e+16]", "[3.4067444475231168e+16]", column)
    assert not is_same("[1.0,2.0]", "[2.0,1.0]", column)
    assert not is_same("[1.0]", "[1.0,null]", column)
    column, _ = as_compared(pa.list_(pa.decimal128(38, 10)), "numeric")
    assert is_same("[12345678901234567890.10]", "[12345678901234567890.1]", column)
    assert not is_same("[12345678901234567890.1]", "[12345678901234567890.2]", column)
    assert not is_same("[1]", "{1}", column)
    assert not is_same("[1]", None, column)


def test_what_has_no_one_text_is_left_out() -> None:
    def compared(item: pa.DataType, native: str, system: str = "postgres") -> Any:
        metadata = {b"native_type": native.encode(), b"native_system": system.encode()}
        copy = pa.field("v", pa.json_() if native == "json" else pa.string(), metadata=metadata)
        return compared_columns(
            pa.field("v", pa.list_(item)), copy, systems=("duckdb", system), array_items=(no_item, array_item)
        )

    assert "have no common form" in compared(pa.string(), "inet[]")
    assert "have no common form" in compared(pa.int64(), "text[]")
    assert "have no common form" in compared(pa.timestamp("ns"), "timestamp without time zone[]")
    assert "have no common form" in compared(pa.timestamp("us"), "timestamp with time zone[]")
