"""Types that SQLite does not enforce: what is stored, what declared types are read as, and values that do not fit."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import (
    FatalConnectorError,
)
from syncblocks.connectors.sql.identifiers import TableName
from syncblocks.connectors.sqlite import SQLiteDestination
from syncblocks.connectors.sqlite.encode import stored
from syncblocks.connectors.sqlite.session import SQLiteSession
from syncblocks.connectors.stream import Rejected
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.sqlite.sqlite_files import APPEND, FINAL, MERGE, REPLACE, load, query, read_all, script, source_of
from tests.connectors.sqlite.sqlite_files import destination as destination
from tests.connectors.sqlite.sqlite_files import path as path

#: Arrow column -> (declared type, what stands in the file).
STORED: dict[str, tuple[pa.Array, str, list[Any]]] = {
    "int8": (pa.array([-128], pa.int8()), "INTEGER", [-128]),
    "uint64": (pa.array([2**64 - 1], pa.uint64()), "DECIMAL_TEXT(20,0)", ["18446744073709551615"]),
    "bool": (pa.array([True, False]), "BOOLEAN", [1, 0]),
    "float32": (pa.array([0.1], pa.float32()), "REAL", [0.10000000149011612]),
    "float64": (pa.array([1e308, math.nan, -math.inf, 5e-324]), "REAL", [1e308, "NaN", -math.inf, 5e-324]),
    "money": (pa.array([Decimal("10.50"), Decimal("-0.01")]), "DECIMAL(4,2)", [10.5, -0.01]),
    "wide": (pa.array([Decimal("1E-10")], pa.decimal128(38, 10)), "DECIMAL_TEXT(38,10)", ["0.0000000001"]),
    "wider": (pa.array([Decimal(10**50)], pa.decimal256(60, 1)), "DECIMAL_TEXT(60,1)", [f"1{'0' * 50}.0"]),
    "text": (pa.array(["é😀", "", "12", "a\0b"]), "TEXT", ["é😀", "", "12", "a\0b"]),
    "blob": (pa.array([b"\0\xff", b""]), "BLOB", [b"\0\xff", b""]),
    "date": (pa.array([date(1, 1, 1)]), "DATE", ["0001-01-01"]),
    "time": (pa.array([time(23, 59, 59, 1)]), "TIME", ["23:59:59.000001"]),
    "naive": (pa.array([1], pa.timestamp("us")), "TIMESTAMP", ["1970-01-01 00:00:00.000001"]),
    "seconds": (pa.array([1], pa.timestamp("s")), "TIMESTAMP", ["1970-01-01 00:00:01.000000"]),
    "zoned": (
        pa.array([datetime(2024, 1, 1, tzinfo=UTC)], pa.timestamp("us", "Asia/Kolkata")),
        "TIMESTAMPTZ",
        ["2024-01-01 00:00:00.000000+00:00"],
    ),
    "nanos": (pa.array([1], pa.timestamp("ns")), "TIMESTAMP(9)", ["1970-01-01 00:00:00.000000001"]),
    "uuid": (
        pa.array([bytes(range(16)), b"\xff" * 16], pa.uuid()),
        "UUID",
        ["00010203-0405-0607-0809-0a0b0c0d0e0f", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    ),
    "json": (pa.array(["1.0", '{"a": 1, "a": 2}'], pa.json_()), "JSON_TEXT", ["1.0", '{"a": 1, "a": 2}']),
    "list": (pa.array([[1, None], []]), "JSON_TEXT", ["[1,null]", "[]"]),
    "struct": (pa.array([{"d": date(2024, 1, 1), "b": b"\1"}]), "JSON_TEXT", ['{"d":"2024-01-01","b":"AQ=="}']),
    "interval": (
        pa.array([(14, -3, -1_500_000_000)], pa.month_day_nano_interval()),
        "INTERVAL",
        ["P14M-3DT-1.5S"],
    ),
    "duration": (pa.array([timedelta(seconds=90)]), "INTERVAL", ["PT90S"]),
    "dictionary": (pa.array(["a"]).dictionary_encode(), "TEXT", ["a"]),
    "nothing": (pa.nulls(1), "TEXT", [None]),
}
#: Read back as something else than it was: wider, or as JSON.
READ_AS = {
    "int8": pa.int64(),
    "uint64": pa.decimal128(20, 0),
    "float32": pa.float64(),
    "seconds": pa.timestamp("us"),
    "zoned": pa.timestamp("us", "UTC"),
    "list": pa.json_(),
    "struct": pa.json_(),
    "duration": pa.month_day_nano_interval(),
    "dictionary": pa.string(),
    "nothing": pa.string(),
}


@pytest.mark.parametrize("name", STORED)
def test_values_are_stored_in_their_documented_form_and_read_back_exactly(
    name: str, destination: SQLiteDestination, path: Path
) -> None:
    array, declared, expected = STORED[name]
    array = pa.concat_arrays([array, pa.nulls(1, array.type)])
    batch = pa.RecordBatch.from_arrays([pa.array(range(len(array))), array], ["n", "v"])
    for disposition in (REPLACE, MERGE):
        load(destination, "t", disposition, [batch, FINAL], batch.schema, ["n"])
    destination.close()
    assert [row[0] for row in query(path, "select v from t order by n")] == [*expected, None]
    assert query(path, "select type from pragma_table_info('t') where name = 'v'") == [(declared,)]
    back = read_all(path)
    assert back.schema.field("v").type == READ_AS.get(name, array.type)
    if back.schema.field("v").type == array.type:
        shown = [value if value == value else "NaN" for value in back["v"].to_pylist()]
        assert shown == [value if value == value else "NaN" for value in array.to_pylist()]
    # The same again, through our own source into another file: declared types and stored values stay.
    copy = SQLiteDestination({"path": "copy.db"}, path.parent)
    load(copy, "t", REPLACE, [*back.to_batches(), FINAL], back.schema, ["n"])
    copy.close()
    assert query(path.parent / "copy.db", "select * from t") == query(path, "select * from t")


def test_a_duration_of_more_than_an_interval_holds_names_its_column() -> None:
    with pytest.raises(FatalConnectorError, match="column 'd': a value of type duration"):
        stored(pa.array([1, -(2**63)], pa.duration("s")), "d")


@pytest.mark.parametrize("year", [10000, -1])
def test_years_that_sqlite_does_not_know_are_refused(year: int, destination: SQLiteDestination) -> None:
    array = pa.array([int((year - 1970) * 365.2425 * 86400)], pa.timestamp("s"))
    batch = pa.RecordBatch.from_arrays([array], ["at"])
    with pytest.raises(FatalConnectorError, match=r"'at'.*9999.*`on_rejected: keep` sets such records aside"):
        load(destination, "t", APPEND, [batch, FINAL], batch.schema)


#: Declared type, value (SQL), what is read.
READABLE: list[tuple[str, str, Any]] = [
    ("INT", "9223372036854775807", 2**63 - 1),
    ("UNSIGNED BIG INT", "1", 1),
    ("DOUBLE PRECISION", "3", 3.0),
    ("REAL", "'NaN'", "NaN"),
    ("NUMERIC", "2.5", 2.5),
    ("whatever", "7", 7.0),
    ("VARCHAR(2)", "'longer'", "longer"),
    ("NVARCHAR(100)", "12", "12"),
    ("STRING", "'007'", "7"),
    ("DECIMAL(10,2)", "'12345678.90'", Decimal("12345678.90")),
    ("DECIMAL(10,2)", "0.1 + 0.2", Decimal("0.30")),
    ("DECIMAL(20,2)", "12345678901234.56", Decimal("12345678901234.56")),
    ("DECIMAL(20,2)", "-123456789012345.67", Decimal("-123456789012345.67")),
    ("DECIMAL(20,2)", "100.1 + 200.2", Decimal("300.30")),
    ("DECIMAL(30,0)", "1e22", Decimal(10**22)),
    ("NUMERIC(5)", "12", Decimal("12")),
    ("numeric ( 10 , 5 )", "1e-5", Decimal("0.00001")),
    ("BOOL", "1", True),
    ("DATETIME", "'2024-02-29T12:00'", datetime(2024, 2, 29, 12)),  # noqa: DTZ001 -- naive
    ("DATETIME", "'2024-02-29'", datetime(2024, 2, 29)),  # noqa: DTZ001 -- naive
    ("TIMESTAMP", "'2024-02-29 12:00:00.5'", datetime(2024, 2, 29, 12, 0, 0, 500000)),  # noqa: DTZ001 -- naive
    ("TIMESTAMPTZ", "'2024-02-29 12:00:00+05:30'", datetime(2024, 2, 29, 6, 30, tzinfo=UTC)),
    ("TIMESTAMP WITH TIME ZONE", "'2024-02-29T12:00:00Z'", datetime(2024, 2, 29, 12, tzinfo=UTC)),
    ("TIME", "'12:30'", time(12, 30)),
    ("JSON", "'1.0'", "1"),
    ("JSON", "0.1", "0.1"),
    ("JSON", "'{}'", "{}"),
    ("UUID", "'0000000000000000000000000000000F'", UUID(int=15)),
    ("", "'untyped'", "untyped"),
    ("", "x'00ff'", b"\0\xff"),
    ("", "5", 5),
    ("", "2.5", 2.5),
    ("ANY", "'untyped'", "untyped"),
    ("ANY", "5", 5),
]


@pytest.mark.parametrize(("declared", "value", "expected"), READABLE)
def test_declared_types_decide(declared: str, value: str, expected: Any, path: Path) -> None:
    script(path, f"create table t (v {declared}); insert into t values ({value}), (null)")
    found = read_all(path)["v"].to_pylist()
    assert [value if value == value else "NaN" for value in found] == [expected, None]


#: Declared type, value (SQL) that SQLite stores there all the same.
MISFITS: list[tuple[str, str]] = [
    ("INTEGER", "1.5"),
    ("INTEGER", "'twelve'"),
    ("INTEGER", "x'00'"),
    ("REAL", "'1,5'"),
    ("NUMERIC", "9007199254740993"),
    ("NUMERIC", "'x'"),
    ("TEXT", "x'41'"),
    ("TEXT", "cast(x'ff' as text)"),
    ("STRING", "1.5"),
    ("BLOB", "'text'"),
    ("BLOB", "1"),
    ("DECIMAL(10,2)", "1.234"),
    ("DECIMAL(4,2)", "100"),
    ("DECIMAL(4,2)", "'a'"),
    ("BOOLEAN", "2"),
    ("BOOLEAN", "'true'"),
    ("DATE", "'2024-02-30'"),
    ("DATE", "20240229"),
    ("DATE", "'2024-02-29 12:00:00'"),
    ("TIME", "'25:00:00'"),
    ("TIME", "12"),  # no hour
    ("DATETIME", "1709208000"),
    ("DATETIME", "'yesterday'"),
    ("DATETIME", "'2024-02-29 12:00:00Z'"),
    ("TIMESTAMPTZ", "'2024-02-29 12:00:00'"),
    ("UUID", "'not a uuid'"),
    ("UUID", "'00000000000000000000000000000012'"),  # SQLite itself took it for the number 12
    ("JSON", "x'41'"),
    ("INTERVAL", "'3 days'"),
    ("", "'text after numbers'"),
]


@pytest.mark.parametrize("is_early", [True, False], ids=["in the first batch", "in a later batch"])
@pytest.mark.parametrize(("declared", "value"), MISFITS)
def test_a_value_that_does_not_fit_is_an_error_that_finds_it(
    declared: str, value: str, is_early: bool, path: Path
) -> None:
    fine = "1" if not declared else "null"
    if is_early and not declared:
        return  # then the column is taken for text, and the numbers do not fit
    many = "" if is_early else f"insert into t select n, {fine} from r;"
    script(
        path,
        f'create table t (n integer primary key, "v""" {declared}); '
        "create view r as with recursive r(n) as (select 1 union all select n + 1 from r where n < 9000) "
        "select n from r;"
        f"{many} insert into t values (9001, {fine}), (9002, {value}), (9003, {fine})",
    )
    with pytest.raises(FatalConnectorError) as caught:
        read_all(path)
    text = str(caught.value)
    assert "'t'" in text
    assert "'v\"'" in text
    assert "rowid 9002" in text
    assert caught.value.stream == "t"


def test_a_misfit_in_a_table_without_row_ids_is_found_too(path: Path) -> None:
    script(path, "create table t (k text primary key, v integer) without rowid; insert into t values ('a', 'x')")
    with pytest.raises(FatalConnectorError, match="'v': 'x' is stored as text"):
        read_all(path)


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_what_does_not_fit_is_shown_as_it_is_in_a_file_of_another_encoding(encoding: str, path: Path) -> None:
    script(path, f"pragma encoding = '{encoding}'; create table t (n integer primary key, b blob, d date)")
    script(path, "insert into t values (1, 'é', null), (2, x'00', '2024-13-01'), (3, x'01', '2024-12-01')")
    with closing(source_of(path)) as source:
        (stream,) = source.discover()
        events = [event for _, event in source.read([replace(stream, read=replace(stream.read, max_rejected=2))], {})]
    records = [record for event in events if isinstance(event, Rejected) for record in event.records]
    assert [json.loads(record.record) for record in records] == [
        {"n": "1", "b": "'é'", "d": "NULL"},
        {"n": 2, "b": "00", "d": "2024-13-01"},
    ]
    assert "column 'b': 'é' does not fit" in records[0].reason
    script(path, "delete from t where n = 1")
    with pytest.raises(FatalConnectorError, match="column 'd', rowid 2: '2024-13-01' is stored as text"):
        read_all(path)


def test_views_and_computed_columns(path: Path) -> None:
    script(
        path,
        "create table t (a integer, b integer generated always as (a * 2), c text);"
        "insert into t (a, c) values (1, 'x');"
        "create view v as select a, c || '!' as d, a * 1.5 as e, count(*) over () as n, cast(a as text) as f from t;"
        "create view broken as select * from missing",
    )
    source = source_of(path)
    assert [(stream.name, stream.is_view) for stream in source.discover()] == [("t", False), ("v", True)]
    source.close()
    assert read_all(path).to_pylist() == [{"a": 1, "b": 2, "c": "x"}]
    assert read_all(path, "v").to_pylist() == [{"a": 1, "d": "x!", "e": 1.5, "n": 1, "f": "1"}]


def test_the_column_of_a_value_that_sqlite_has_no_room_for_is_named(tmp_path: Path) -> None:
    """Its limit is a thousand million bytes a record, which a test lowers: it said `string or blob too big`."""
    with closing(SQLiteSession(tmp_path / "d.db", is_writer=True)) as session:
        session._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
        session.begin()
        session.execute("create table t (id integer, note text, body text)")
        columns = {"id": [1, 2], "note": ["n" * 300, None], "body": ["b", "é" * 600]}
        batch = pa.RecordBatch.from_pydict(columns)
        with pytest.raises(FatalConnectorError) as caught:
            session.ingest(TableName("", "t"), batch.schema, iter([batch]), "arrow")
        assert "column 'body': a value of 1,200 bytes" in str(caught.value)
        assert "1,000 bytes" in str(caught.value)
        assert "`on_rejected: keep`" in str(caught.value)
