"""DuckDB beyond its contract: types, and names."""

from __future__ import annotations

from contextlib import closing
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from syncblocks.connectors.duckdb import DuckDBDestination, DuckDBSource
from syncblocks.connectors.errors import ConnectorError, FatalConnectorError
from syncblocks.connectors.stream import Rejected
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.duckdb.duckdb_files import (
    APPEND,
    FINAL,
    MERGE,
    PEOPLE,
    REPLACE,
    connect,
    load,
    people,
    query,
    quoted,
    read,
)
from tests.connectors.duckdb.duckdb_files import destination as destination
from tests.connectors.duckdb.duckdb_files import path as path
from tests.contracts.hostile import HOSTILE_NAMES, IMPOSSIBLE_NAMES

#: Declared type -> (literals, type in which it is read).
TYPES: dict[str, tuple[list[str], pa.DataType]] = {
    "TINYINT": (["-128", "127"], pa.int8()),
    "UBIGINT": (["0", "18446744073709551615"], pa.uint64()),
    "HUGEINT": (["-99999999999999999999999999999999999999", "1"], pa.decimal128(38, 0)),
    "FLOAT": (["1.5", "'nan'", "'-inf'"], pa.float32()),
    "DOUBLE": (["1e308", "0.1", "'nan'"], pa.float64()),
    "DECIMAL(38,10)": (["1234567890123456789012345678.0123456789", "-0.0000000001"], pa.decimal128(38, 10)),
    "DECIMAL(4,1)": (["999.9"], pa.decimal128(4, 1)),
    "VARCHAR": (["'é😀'", "''", "'a' || chr(0) || 'b'"], pa.string()),
    "BLOB": (["'\\x00\\xFF'", "''"], pa.binary()),
    "BOOLEAN": (["true", "false"], pa.bool_()),
    "DATE": (["'0001-01-01'", "'9999-12-31'", "'20000-01-01'", "'infinity'"], pa.date32()),
    "TIME": (["'23:59:59.999999'"], pa.time64("us")),
    "TIMESTAMP": (["'1582-10-10 01:02:03.000004'", "'infinity'"], pa.timestamp("us")),
    "TIMESTAMP_S": (["'2024-01-01 00:00:01'"], pa.timestamp("s")),
    "TIMESTAMP_NS": (["'2024-01-01 00:00:00.123456789'"], pa.timestamp("ns")),
    "TIMESTAMP WITH TIME ZONE": (["'2024-03-31 02:30:00+05:30'"], pa.timestamp("us", "UTC")),
    "INTERVAL": (["interval '14 months 3 days 4.5 seconds'"], pa.month_day_nano_interval()),
    "UUID": (["'00000000-0000-0000-0000-00000000000f'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"], pa.uuid()),
    "JSON": (['\'{"a": 1.0, "a": 10000000000000000000000}\''], pa.json_()),
    "ENUM('a', 'b,)')": (["'b,)'"], pa.string()),
    "BIT": (["'10101'::bit"], pa.string()),
    "TIME WITH TIME ZONE": (["'10:00:00+01'"], pa.string()),
    "INTEGER[]": (["[1, null, 3]", "[]"], pa.list_(pa.int32())),
    "INTEGER[2]": (["[1, 2]"], pa.list_(pa.int32())),
    "DECIMAL(10,2)[][]": (["[[1.25], null]"], pa.list_(pa.list_(pa.decimal128(10, 2)))),
    "UUID[]": (["['00000000-0000-0000-0000-00000000000f']"], pa.list_(pa.string())),
    'STRUCT("a ""b" INTEGER, c TIMESTAMP[])': (
        ["{'a \"b': 1, 'c': ['2024-01-01'::timestamp]}"],
        pa.struct([('a "b', pa.int32()), ("c", pa.list_(pa.timestamp("us")))]),
    ),
    "MAP(VARCHAR, INTEGER)": (["map {'x': 1, 'y': null}"], pa.map_(pa.string(), pa.int32())),
}


@pytest.mark.parametrize("native", TYPES)
def test_a_type_goes_through_source_and_destination_unchanged(native: str, path: Path) -> None:
    literals, arrow = TYPES[native]
    with closing(connect(path)) as connection:
        connection.execute(f"create table t (n integer, v {native})")
        for number, literal in enumerate([*literals, "null"]):
            connection.execute(f"insert into t values ({number}, {literal})")
    source = DuckDBSource({"path": "house.duckdb"}, path.parent)
    (stream,) = source.discover()
    assert stream.schema.field("v").type == arrow
    table = read(source, stream)
    source.close()
    destination = DuckDBDestination({"url": f"duckdb:///{path.parent}/copy.duckdb"}, path.parent)
    load(destination, "t", REPLACE, [*table.to_batches(), FINAL], stream.schema)
    destination.close()
    sql = "select n, v::varchar from t order by n"
    assert query(path.parent / "copy.duckdb", sql) == query(path, sql)


def test_a_hugeint_past_38_digits_is_an_error_and_not_another_number(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("create table t as select 170141183460469231731687303715884105727::hugeint as v")
    source = DuckDBSource({"path": str(path)}, path.parent)
    with pytest.raises(FatalConnectorError, match="170141183460469231731687303715884105727"):
        read(source, source.discover()[0])
    source.close()


def test_an_interval_longer_than_nanoseconds_can_count_is_an_error_and_not_another_one(path: Path) -> None:
    with connect(path) as connection:
        connection.execute("create table t (v interval)")
        connection.execute("insert into t values (interval '-2562047:47:16.854775'), (interval '900 years 900 days')")
    with closing(DuckDBSource({"path": str(path)}, path.parent)) as source:
        (stream,) = source.discover()
        assert [tuple(value) for value in read(source, stream).column("v").to_pylist()] == [
            (0, 0, -9223372036854775000),
            (10800, 900, 0),
        ]
        source.close()
        with connect(path) as connection:
            connection.execute("insert into t values (interval '2562047:47:16.854776')")
        with pytest.raises(FatalConnectorError, match=r"2562047:47:16\.854776 is longer"):
            read(source, stream)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("INTERVAL[]", "[null, interval '2562047:47:16.854776']"),
        ("INTERVAL[][]", "[null, [interval '-2562047:47:16.854776']]"),
        (
            "STRUCT(\"a b\" MAP(VARCHAR, INTERVAL), c ENUM('x'))",
            "{'a b': map {'k': interval '3000000 hours'}, 'c': 'x'}",
        ),
    ],
)
def test_an_interval_inside_of_another_value_is_no_other_one_either(kind: str, value: str, path: Path) -> None:
    with connect(path) as connection:
        connection.execute(f"create table t (v {kind}); insert into t values (null)")
    with closing(DuckDBSource({"path": str(path)}, path.parent)) as source:
        (stream,) = source.discover()
        assert read(source, stream).column("v").to_pylist() == [None]
        source.close()
        with connect(path) as connection:
            connection.execute(f"insert into t values ({value})")
        with pytest.raises(FatalConnectorError, match="is longer than the 292 years"):
            read(source, stream)


@pytest.mark.parametrize(
    ("kind", "bad", "good"),
    [
        ("TIME", "'24:00:00'", "'23:59:59.999999'"),
        ("TIME[]", "['24:00:00']", "['23:59:59.999999', null]"),
        ("TIMESTAMP_NS", "'infinity'", "'2262-04-11 23:47:16.854775806'"),
        ("STRUCT(a MAP(INTEGER, TIMESTAMP_NS))", "{'a': map {1: '-infinity'}}", "{'a': map {1: null}}"),
    ],
)
def test_what_arrow_has_no_value_for_is_refused_or_set_aside(kind: str, bad: str, good: str, path: Path) -> None:
    with connect(path) as connection:
        connection.execute(f"create table t (n integer, v {kind}); insert into t values (1, {good}), (2, {bad})")
    with closing(DuckDBSource({"path": str(path)}, path.parent)) as source:
        (stream,) = source.discover()
        with pytest.raises(FatalConnectorError, match="'v' contains the time 24:00, or an infinite TIMESTAMP_NS"):
            read(source, stream)
        events = [event for _, event in source.read([replace(stream, read=replace(stream.read, max_rejected=1))], {})]
    assert [n for event in events if isinstance(event, pa.RecordBatch) for n in event["n"].to_pylist()] == [1]
    assert sum(len(event.records) for event in events if isinstance(event, Rejected)) == 1


def test_python_values_arrive_in_their_own_types(destination: DuckDBDestination, path: Path) -> None:
    columns = {
        "dec256": pa.array([Decimal("1.5")], pa.decimal256(50, 2)),
        "halves": pa.array([0.5], pa.float32()).cast(pa.float16()),
        "duration": pa.array([timedelta(seconds=90)]),
        "dictionary": pa.array(["a"]).dictionary_encode(),
        "large": pa.array(["a"], pa.large_string()),
        "fixed": pa.array([b"abc"], pa.binary(3)),
        "day": pa.array([date(2024, 2, 29)], pa.date64()),
        "hour": pa.array([time(1, 2)], pa.time32("s")),
        "nothing": pa.nulls(1),
    }
    batch = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    load(destination, "t", APPEND, [batch, FINAL], batch.schema)
    load(destination, "t", APPEND, [batch, FINAL], batch.schema)
    expected = ("1.50", 0.5, timedelta(seconds=90), "a", "a", b"abc", date(2024, 2, 29), time(1, 2), None)
    assert query(path, "select * from t") == [expected, expected]


@pytest.mark.one_of
@pytest.mark.parametrize("kind", HOSTILE_NAMES)
def test_hostile_names_of_tables_columns_and_schemas(kind: str, destination: DuckDBDestination, path: Path) -> None:
    name = HOSTILE_NAMES[kind]
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), (name, pa.string())])
    batch = pa.RecordBatch.from_pylist([{"id": 1, name: name}], schema=schema)
    for table in (quoted(name), f"{quoted(name)}.{quoted(name)}"):
        for disposition in (APPEND, MERGE, REPLACE, MERGE):
            load(destination, table, disposition, [batch, FINAL], schema, ["id"])
    destination.close()
    sql = "select schema_name, table_name from duckdb_tables() where table_name <> '_syncblocks_ledger'"
    assert sorted(query(path, sql)) == sorted([("main", name), (name, name)])
    assert query(path, f"select {quoted(name)} from {quoted(name)}.{quoted(name)}") == [(name,)]
    source = DuckDBSource({"path": str(path)}, path.parent)
    for stream in source.discover():
        assert read(source, stream).to_pylist() == [{"id": 1, name: name}]
    source.close()


@pytest.mark.parametrize("kind", IMPOSSIBLE_NAMES)
def test_names_that_no_database_can_hold_are_refused(kind: str, destination: DuckDBDestination, path: Path) -> None:
    name = IMPOSSIBLE_NAMES[kind]
    if kind != "lone surrogate":  # Arrow itself has no column of that name
        schema = pa.schema([(name, pa.int64())])
        with pytest.raises(ConnectorError):
            load(destination, "t", APPEND, [pa.RecordBatch.from_pylist([{name: 1}], schema=schema), FINAL], schema)
    with pytest.raises(ConnectorError):
        load(destination, quoted(name), APPEND, [people((1, "a")), FINAL], PEOPLE)
    destination.close()
    assert query(path, "select table_name from duckdb_tables() where table_name <> '_syncblocks_ledger'") == []


def test_a_schema_named_like_the_file_is_not_taken_for_the_file(destination: DuckDBDestination, path: Path) -> None:
    load(destination, "house.people", REPLACE, [people((1, "a")), FINAL], PEOPLE)
    load(destination, "people", REPLACE, [people((2, "b")), FINAL], PEOPLE)
    assert query(path, "select * from house.house.people") == [(1, "a")]
    assert query(path, "select * from house.main.people") == [(2, "b")]


def test_columns_are_found_without_regard_to_case(destination: DuckDBDestination, path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute('create table People ("ID" bigint, "NAME" varchar)')
    for disposition in (APPEND, MERGE):
        load(destination, "people", disposition, [people((1, "a")), FINAL], PEOPLE, ["id"])
    assert query(path, "select * from people") == [(1, "a")]
