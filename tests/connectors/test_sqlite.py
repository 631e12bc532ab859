"""SQLite beyond its contract: types that nobody enforces, names, locks, and two libraries in one process."""

from __future__ import annotations

import math
import secrets
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from connectors.errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    RetriableError,
    TakenOver,
)
from connectors.sqlite import SQLiteDestination, SQLiteSource
from connectors.sqlite.reader import SQLiteReader, open_reader
from connectors.sqlite.session import SQLiteSession
from connectors.stream import (
    Bookmark,
    Checkpoint,
    Event,
    LedgerKey,
    Load,
    NullBookmarks,
    ReplicationMethod,
    Stream,
    WriteDisposition,
)

from .hostile import HOSTILE_NAMES, IMPOSSIBLE_NAMES
from .sqlite_files import load, query, quoted, script

APPEND, REPLACE, MERGE = WriteDisposition.APPEND, WriteDisposition.REPLACE, WriteDisposition.MERGE
FINAL = Checkpoint(is_final=True)
PEOPLE = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop?%.db"


@pytest.fixture
def destination(path: Path) -> Iterator[SQLiteDestination]:
    made = SQLiteDestination({"path": str(path), "lock_timeout_s": 0.3}, path.parent)
    yield made
    made.close()


def people(*records: tuple[int, str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": number, "name": name} for number, name in records], schema=PEOPLE)


def source_of(path: Path, **settings: Any) -> SQLiteSource:
    return SQLiteSource({"path": str(path), **settings}, path.parent)


def read_all(path: Path, table: str = "t") -> pa.Table:
    source = source_of(path)
    (stream,) = [stream for stream in source.discover() if stream.name == table]
    batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    source.close()
    return pa.Table.from_batches(batches, stream.schema)


# Types

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
        ["P14M-3DT-1.500000000S"],
    ),
    "duration": (pa.array([timedelta(seconds=90)]), "INTERVAL", ["P0M0DT90.000000000S"]),
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


@pytest.mark.parametrize("year", [10000, -1])
def test_years_that_sqlite_does_not_know_are_refused(year: int, destination: SQLiteDestination) -> None:
    array = pa.array([int((year - 1970) * 365.2425 * 86400)], pa.timestamp("s"))
    batch = pa.RecordBatch.from_arrays([array], ["at"])
    with pytest.raises(FatalConnectorError, match=r"'at'.*9999"):
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


def test_wide_records_come_in_batches_of_bounded_size(path: Path) -> None:
    script(
        path,
        "create table t (v text); with recursive r(n) as (select 1 union all select n + 1 from r where n < 10000) "
        "insert into t select printf('%.2000c', 'x') from r",
    )
    source = source_of(path)
    sizes = [event.nbytes for _, event in source.read(source.discover(), {}) if isinstance(event, pa.RecordBatch)]
    source.close()
    assert len(sizes) > 1
    assert max(sizes) < 16 << 20


# Bookmarks


def ids_from(path: Path, bookmark: Bookmark | None, column: str = "at") -> tuple[list[int], Bookmark | None, int]:
    source = source_of(path, checkpoint_records=1)
    (found,) = source.discover()
    stream = replace(
        found,
        replication_method=ReplicationMethod.INCREMENTAL,
        bookmark_properties=(column,),
        null_bookmarks=NullBookmarks.ONCE,
    )
    events = [event for _, event in source.read([stream], {"t": bookmark})]
    source.close()
    ids = [i for event in events if isinstance(event, pa.RecordBatch) for i in event["id"].to_pylist()]
    last = events[-1]
    assert isinstance(last, Checkpoint)
    return ids, last.bookmark, sum(isinstance(event, Checkpoint) for event in events)


#: Declared type -> (moments of which the first is the highest, one that comes later).
MOMENTS: list[tuple[str, list[str], str]] = [
    (
        "DATETIME",
        ["2024-01-02", "2024-01-01 10:00", "2024-01-01T10:00:00.5", "2024-01-01 10:00:00.25"],
        "2024-01-02T00:00:01",
    ),
    (
        "TIMESTAMPTZ",
        ["2024-01-02T00:00:00Z", "2024-01-01 10:00:00+00:00", "2024-01-01 10:00:00.5Z", "2024-01-01T10:00:00.25Z"],
        "2024-01-02 00:00:00.000001+00:00",
    ),
    (
        "TIMESTAMPTZ",
        ["2024-01-02T02:00:00+01:00", "2024-01-02 00:59:59Z", "2024-01-02 10:30:00+10:00", "2024-01-01T23:00:00-01:00"],
        "2024-01-02 03:00:00+01:30",
    ),
]


@pytest.mark.parametrize(("declared", "moments", "more"), MOMENTS, ids=["naive", "UTC", "zones"])
def test_moments_compare_as_moments_and_not_as_texts(declared: str, moments: list[str], more: str, path: Path) -> None:
    script(path, f"create table t (id integer primary key, at {declared})")
    for number, moment in enumerate(moments):
        script(path, f"insert into t values ({number}, '{moment}')")
    ids, bookmark, _ = ids_from(path, None)
    assert sorted(ids) == [0, 1, 2, 3]
    assert ids_from(path, bookmark)[0] == []
    script(path, f"insert into t values (9, '{more}'), (10, '{moments[0]}')")
    assert sorted(ids_from(path, bookmark)[0]) == [9, 10]


def test_a_column_that_collates_without_case_still_reads_on_exactly(path: Path) -> None:
    script(path, "create table t (id integer primary key, at text collate nocase)")
    script(path, "insert into t values (1, 'b'), (2, 'B')")
    ids, bookmark, _ = ids_from(path, None)
    assert ids == [2, 1]
    assert bookmark is not None
    assert bookmark["at"] == "b"
    script(path, "insert into t values (3, 'C'), (4, 'c'), (5, 'b')")
    assert ids_from(path, bookmark)[0] == [5, 4], "C stands before b, as everywhere else"


def test_wide_decimals_are_compared_as_numbers(path: Path) -> None:
    script(path, "create table t (id integer primary key, at decimal_text(38,1))")
    script(path, "insert into t values (1, '9.0'), (2, '10.0')")
    ids, bookmark, _ = ids_from(path, None)
    assert sorted(ids) == [1, 2]
    script(path, "insert into t values (3, '9.5'), (4, '100.0'), (5, '-1.0')")
    assert ids_from(path, bookmark)[0] == [4]


def test_records_without_a_bookmark_come_first_nan_as_well(path: Path) -> None:
    script(path, "create table t (id integer primary key, at real)")
    script(path, "insert into t values (1, 1.5), (2, 'NaN'), (3, null), (4, 0.5), (5, 9e999)")
    ids, bookmark, checkpoints = ids_from(path, None)
    assert (sorted(ids[:2]), ids[2:]) == ([2, 3], [4, 1, 5])
    assert checkpoints >= 1
    assert ids_from(path, bookmark)[0] == []


# Names


@pytest.mark.parametrize("kind", HOSTILE_NAMES)
def test_hostile_names_of_tables_and_columns(kind: str, destination: SQLiteDestination, path: Path) -> None:
    name = HOSTILE_NAMES[kind]
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), (name, pa.string())])
    batch = pa.RecordBatch.from_pylist([{"id": 1, name: name}], schema=schema)
    for disposition in (APPEND, MERGE, REPLACE, MERGE):
        load(destination, quoted(name), disposition, [batch, FINAL], schema, ["id"])
    destination.close()
    sql = "select name from sqlite_master where type = 'table' and name <> '_syncblocks_ledger'"
    assert query(path, sql) == [(name,)]
    assert query(path, f"select {quoted(name)} from {quoted(name)}") == [(name,)]
    assert read_all(path, name).to_pylist() == [{"id": 1, name: name}]


@pytest.mark.parametrize("kind", IMPOSSIBLE_NAMES)
def test_names_that_no_database_can_hold_are_refused(kind: str, destination: SQLiteDestination, path: Path) -> None:
    name = IMPOSSIBLE_NAMES[kind]
    if kind != "lone surrogate":  # Arrow itself has no column of that name
        schema = pa.schema([(name, pa.int64())])
        with pytest.raises(ConnectorError):
            load(destination, "t", APPEND, [pa.RecordBatch.from_pylist([{name: 1}], schema=schema), FINAL], schema)
    with pytest.raises(ConnectorError):
        load(destination, quoted(name), APPEND, [people((1, "a")), FINAL], PEOPLE)
    assert query(path, "select name from sqlite_master where type = 'table' and name <> '_syncblocks_ledger'") == []


def test_a_dot_belongs_to_the_name(destination: SQLiteDestination, path: Path) -> None:
    load(destination, "analytics.people", APPEND, [people((1, "a")), FINAL], PEOPLE)
    load(destination, "main.people", APPEND, [people((2, "b")), FINAL], PEOPLE)
    assert query(path, 'select * from "analytics.people" union all select * from people') == [(1, "a"), (2, "b")]


# The file


def test_a_missing_file_is_an_empty_destination_and_no_source(path: Path, destination: SQLiteDestination) -> None:
    assert destination.describe(["people"])["people"].schema is None
    destination.check()
    destination.drop_staging(["0" * 32])
    with pytest.raises(ConnectorConfigError, match="no database"):
        source_of(path).check()
    assert not path.exists()


def test_describing_a_file_changes_nothing_in_it(path: Path, destination: SQLiteDestination) -> None:
    script(path, "create table people (id integer primary key)")
    before = path.read_bytes()
    assert destination.describe(["people", "x"])["people"].schema is not None
    destination.check()
    destination.close()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_views_indexes_and_triggers_survive_a_replace(path: Path, destination: SQLiteDestination) -> None:
    load(destination, "people", REPLACE, [people((1, "a")), FINAL], PEOPLE, ["id"])
    script(path, "create view names as select name from people")
    load(destination, "people", REPLACE, [people((2, "b")), FINAL], PEOPLE, ["id"])
    assert query(path, "select * from names") == [("b",)]
    script(path, "create index by_name on people (name); create table log (n)")
    script(path, "create trigger tr after insert on people begin insert into log values (new.id); end")
    load(destination, "people", REPLACE, [people((3, "c")), FINAL], PEOPLE, ["id"])
    assert query(path, "select * from names") == [("c",)]
    assert query(path, "select name from sqlite_master where name in ('by_name', 'tr')") == [("by_name",), ("tr",)]
    assert query(path, "select n from log") == [(3,)]


def test_merge_without_a_unique_index_updates_all_the_same(path: Path, destination: SQLiteDestination) -> None:
    script(path, "create table people (id integer, name text, extra text); insert into people values (1, 'a', 'x')")
    load(destination, "people", MERGE, [people((1, "b"), (2, "c"), (1, "d")), FINAL], PEOPLE, ["id"])
    assert sorted(query(path, "select * from people")) == [(1, "d", None), (2, "c", None)]


def test_a_column_that_is_too_narrow_is_refused_with_the_way_out(path: Path, destination: SQLiteDestination) -> None:
    script(path, "create table people (id integer, name integer)")
    with pytest.raises(FatalConnectorError, match=r"name.*INTEGER.*full-refresh"):
        load(destination, "people", APPEND, [people((1, "b")), FINAL], PEOPLE)


def test_another_process_that_writes_is_waited_for_and_then_worth_a_repetition(
    path: Path, destination: SQLiteDestination
) -> None:
    script(path, "create table t (i)")
    hold = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('begin immediate'); "
        "print('held', flush=True); sys.stdin.readline(); c.execute('commit')"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        assert destination.describe(["t"])["t"].schema is not None, "reading waits for nobody"
        with pytest.raises(RetriableError, match="locked"):
            load(destination, "people", APPEND, [people((1, "a")), FINAL], PEOPLE)
        holder.communicate("\n")
    load(destination, "people", APPEND, [people((1, "a")), FINAL], PEOPLE)
    assert query(path, "select * from people") == [(1, "a")]


def test_an_opening_waits_while_another_connection_has_the_whole_file(path: Path) -> None:
    """As for the moment in which the first writer turns the write-ahead log on, and waits for the disk."""
    script(path, "create table t (i)")
    opened: list[SQLiteSession | Exception] = []

    def open_it() -> None:
        try:
            opened.append(SQLiteSession(path, is_writer=True))
        except RetriableError as error:
            opened.append(error)

    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("begin exclusive")
        opening = threading.Thread(target=open_it)
        opening.start()
        opening.join(0.3)
        assert opened == []
        holder.execute("commit")
        opening.join()
    (session,) = opened
    assert isinstance(session, SQLiteSession)
    assert session.query("select count(*) from t") == [(0,)]
    session.close()


def test_a_takeover_by_another_process_waits_for_the_commit_and_then_wins(path: Path) -> None:
    first = SQLiteDestination({"path": str(path)}, path.parent)
    key = LedgerKey(pipeline="p", stream="s", destination_table="people")
    first.take_over(key, token="mine", owner="first", source="s")
    take = (
        "import sys; from pathlib import Path; from connectors.sqlite import SQLiteDestination; "
        "from connectors.stream import LedgerKey; d = SQLiteDestination({'path': sys.argv[1]}, Path('/')); "
        "key = LedgerKey(pipeline='p', stream='s', destination_table='people'); "
        "row = d.take_over(key, token='theirs', owner='x'); "
        "print(row.bookmark, flush=True)"
    )

    def events() -> Iterator[Event]:
        yield people((1, "a"))
        other.append(subprocess.Popen([sys.executable, "-c", take, str(path)], stdout=subprocess.PIPE, text=True))
        yield Checkpoint(bookmark={"n": 1})
        assert other[0].communicate(timeout=60)[0] == "{'n': 1}\n"
        yield people((2, "b"))
        yield FINAL

    other: list[subprocess.Popen[str]] = []
    order = Load(key=key, stream=Stream(name="s", schema=PEOPLE), write_disposition=APPEND, token="mine", run="mine:1")
    with pytest.raises(TakenOver, match="by x"):
        list(first.load(order, events()))
    first.close()
    assert query(path, "select * from people") == [(1, "a")]


def test_a_long_statement_is_interrupted(path: Path, destination: SQLiteDestination) -> None:
    session = SQLiteSession(path, is_writer=True)
    session.begin()
    threading.Timer(0.2, session.cancel).start()
    with pytest.raises(Interrupted):
        session.query("with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r")
    session.close()


def test_a_wait_for_the_lock_is_interrupted(path: Path, destination: SQLiteDestination) -> None:
    writer, waiting = SQLiteSession(path, is_writer=True), SQLiteSession(path, is_writer=True)
    writer.begin()
    writer.write()
    waiting.begin()
    threading.Timer(0.2, waiting.cancel).start()
    with pytest.raises(Interrupted):
        waiting.write()
    waiting.close()
    writer.rollback()
    writer.close()


def test_an_interrupted_load_leaves_the_former_state(path: Path, destination: SQLiteDestination) -> None:
    load(destination, "people", APPEND, [people((0, "before")), FINAL], PEOPLE)
    key = LedgerKey(pipeline="p", stream="s", destination_table="people")
    token = secrets.token_hex(8)
    destination.take_over(key, token=token, owner="me", source="s")

    def events() -> Iterator[Event]:
        yield people((1, "mine"))
        destination.interrupt("s")
        yield people((2, "mine"))
        yield FINAL

    order = Load(key=key, stream=Stream(name="s", schema=PEOPLE), write_disposition=APPEND, token=token, run="r:1")
    with pytest.raises(ConnectorError, match="interrupted"):
        list(destination.load(order, events()))
    assert query(path, "select * from people") == [(0, "before")]


def test_the_fast_reader_keeps_off_files_that_another_library_has_open(path: Path) -> None:
    script(path, "create table t (v integer); insert into t values (1)")
    with closing(sqlite3.connect(path)) as other:
        other.execute("begin immediate")
        reader = open_reader(path)
        assert isinstance(reader, SQLiteSession)
        assert reader.query("select v from t") == [(1,)]
        reader.close()
        # Had the other library's lock been dropped, a second writer could get in.
        take = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('begin immediate')"
        done = subprocess.run([sys.executable, "-c", take, str(path)], capture_output=True, check=False, timeout=60)
        assert b"locked" in done.stderr
    reader = open_reader(path)
    second = open_reader(path)
    assert isinstance(reader, SQLiteReader)
    assert isinstance(second, SQLiteReader), "two of the same library know of each other"
    reader.close()
    second.close()
    destination = SQLiteDestination({"path": str(path)}, path.parent)
    reader = open_reader(path)
    assert isinstance(reader, SQLiteSession), "a destination may open it at any moment"
    reader.close()
    del destination


def test_source_and_destination_share_one_file(path: Path, destination: SQLiteDestination) -> None:
    script(
        path,
        "create table t (i integer, v text); with recursive r(n) as (select 1 union all select n + 1 from r "
        "where n < 100000) insert into t select n, 'v' || n from r",
    )
    source = source_of(path)
    (stream,) = source.discover()

    def events() -> Iterator[Any]:
        for _, event in source.read([stream], {}):
            yield event
        yield FINAL

    load(destination, "copy", REPLACE, events(), stream.schema)
    source.close()
    assert query(path, "select count(*), sum(i), max(v) from copy") == query(
        path, "select count(*), sum(i), max(v) from t"
    )


def test_the_slow_reader_finds_the_same_as_the_fast_one(path: Path) -> None:
    script(
        path,
        "create table t (a integer, b real, c text, d blob, e decimal(10,2), f date, g uuid, h boolean, i, j json);"
        "insert into t values "
        "(1, 'NaN', 'x', x'00', 1.5, '2024-02-29', '00010203-0405-0607-0809-0a0b0c0d0e0f', 1, 5, '{}'),"
        "(null, null, null, null, null, null, null, null, null, null),"
        "(2, 3, '', x'', 0.1, '0001-01-01', null, 0, 6, 1)",
    )
    fast = read_all(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("select 1 from t").fetchall()
        slow = read_all(path)
    assert repr(fast.to_pylist()) == repr(slow.to_pylist())


@pytest.mark.parametrize("is_written", [False, True])  # by ADBC's driver, by Python's
def test_records_so_wide_that_few_fill_a_batch_come_in_batches_of_few(
    path: Path, is_written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.sqlite.source._WIDE_BYTES", 10_000_000)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table t (id integer primary key, name text)")
        rows = [(number, str(number) * 5_000_000) for number in range(6)]
        connection.executemany("insert into t values (?, ?)", rows)
        connection.commit()
    destination = SQLiteDestination({"path": str(path)}, path.parent) if is_written else None
    source = source_of(path)
    (stream,) = source.discover()
    batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    source.close()
    if destination is not None:
        destination.close()
    assert max(batch.num_rows for batch in batches) == 2
    assert [row for batch in batches for row in zip(*batch.to_pydict().values(), strict=True)] == rows
