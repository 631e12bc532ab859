"""DuckDB beyond its contract: types, names, locks, several loads at once."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from connectors.duckdb import DuckDBDestination, DuckDBSource
from connectors.errors import ConnectorConfigError, ConnectorError, FatalConnectorError, RetriableError, TakenOver
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

from .duckdb_files import connect, load, query, quoted
from .hostile import HOSTILE_NAMES, IMPOSSIBLE_NAMES

APPEND, REPLACE, MERGE = WriteDisposition.APPEND, WriteDisposition.REPLACE, WriteDisposition.MERGE
FINAL = Checkpoint(is_final=True)
PEOPLE = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "house.duckdb"


@pytest.fixture
def destination(path: Path) -> Iterator[DuckDBDestination]:
    made = DuckDBDestination({"path": str(path)}, path.parent)
    yield made
    made.close()


def people(*records: tuple[int, str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": number, "name": name} for number, name in records], schema=PEOPLE)


def read(source: DuckDBSource, stream: Stream) -> pa.Table:
    batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    return pa.Table.from_batches(batches, stream.schema)


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


def test_a_missing_file_is_an_empty_destination_and_no_source(path: Path, destination: DuckDBDestination) -> None:
    assert destination.describe(["people"])["people"].schema is None
    destination.check()
    destination.drop_staging(["0" * 32])
    source = DuckDBSource({"path": "house.duckdb"}, path.parent)
    with pytest.raises(ConnectorConfigError, match=r"house\.duckdb"):
        source.check()
    assert not path.exists()


OPEN = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('create or replace table mine (i int)')"


def opens_elsewhere(path: Path) -> bool:
    done = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, check=False, timeout=60)
    assert not done.returncode or b"lock" in done.stderr, done.stderr
    return not done.returncode


def test_close_unlocks_the_file_for_other_processes(path: Path, destination: DuckDBDestination) -> None:
    load(destination, "people", APPEND, [people((1, "a")), FINAL], PEOPLE)
    source = DuckDBSource({"path": str(path)}, path.parent)
    events = source.read([source.discover()[0]], {})
    next(iter(events))
    assert not opens_elsewhere(path)
    destination.close()
    assert not opens_elsewhere(path), "the source is still reading"
    source.close()
    assert not opens_elsewhere(path), "a read under way keeps its connection"
    list(events)
    assert opens_elsewhere(path)
    load(destination, "people", APPEND, [people((2, "b")), FINAL], PEOPLE)
    destination.close()
    assert opens_elsewhere(path)
    assert query(path, "select count(*) from people") == [(2,)]


def test_a_file_that_another_process_holds_is_worth_a_repetition(path: Path, destination: DuckDBDestination) -> None:
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(RetriableError, match="another process"):
            destination.describe(["people"])
        holder.communicate()
    assert destination.describe(["people"])["people"].schema is None


def test_a_source_alone_reads_beside_other_readers(path: Path) -> None:
    query(path, "create table t as select 1 as i")
    source = DuckDBSource({"path": str(path)}, path.parent)
    assert read(source, source.discover()[0]).to_pylist() == [{"i": 1}]
    look = "import duckdb, sys; print(duckdb.connect(sys.argv[1], read_only=True).execute('from t').fetchall())"
    done = subprocess.run([sys.executable, "-c", look, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[(1,)]\n"
    source.close()


def test_source_and_destination_share_one_file(path: Path, destination: DuckDBDestination) -> None:
    query(path, "create table t as select i, i % 7 as v from range(200000) r(i)")
    source = DuckDBSource({"path": str(path)}, path.parent)
    (stream,) = source.discover()
    events: Iterator[Event] = (event for _, event in source.read([stream], {}))  # type: ignore[misc]

    def all_events() -> Iterator[Event]:
        yield from events
        yield FINAL

    load(destination, "copy", REPLACE, all_events(), stream.schema)
    source.close()
    assert query(path, "select count(*), sum(v) from copy") == query(path, "select count(*), sum(v) from t")


@pytest.mark.parametrize("disposition", [APPEND, REPLACE, MERGE])
def test_eight_streams_load_into_one_file_at_once(
    path: Path, destination: DuckDBDestination, disposition: WriteDisposition
) -> None:
    def one(number: int) -> None:
        events: list[Event] = []
        for part in range(4):
            events.append(people(*((part * 500 + place, f"stream {number}") for place in range(500))))
            if disposition is not REPLACE:
                events.append(Checkpoint(bookmark={"part": part}))
        load(destination, f"t{number}", disposition, [*events, FINAL], PEOPLE, ["id"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    for number in range(8):
        assert query(path, f"select count(*), min(name), max(name) from t{number}") == [
            (2000, f"stream {number}", f"stream {number}")
        ]
    assert query(path, "select count(*), count(completed_by) from _syncblocks_ledger") == [(8, 8)]
    destination.close()
    assert len(query(path, "select * from duckdb_tables()")) == 9


def test_eight_streams_make_and_fill_one_table_at_once(path: Path, destination: DuckDBDestination) -> None:
    def one(number: int) -> None:
        schema = PEOPLE.append(pa.field(f"extra{number % 3}", pa.int64()))
        batch = pa.RecordBatch.from_pylist([{"id": number, "name": "x", f"extra{number % 3}": number}], schema=schema)
        for _ in range(3):
            load(destination, "shared", MERGE, [batch, FINAL], schema, ["id"], stream=f"s{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    rows = query(path, "select id, coalesce(extra0, extra1, extra2) from shared order by id")
    assert rows == [(number, number) for number in range(8)]


def order(token: str, table: str = "people") -> Load:
    key = LedgerKey(pipeline="p", stream="s", destination_table=table)
    return Load(
        key=key, stream=Stream(name="s", schema=PEOPLE), write_disposition=APPEND, token=token, run=f"{token}:1"
    )


def test_a_takeover_in_the_midst_of_a_direct_append_wins(path: Path, destination: DuckDBDestination) -> None:
    load(destination, "people", APPEND, [people((0, "before")), FINAL], PEOPLE)
    mine, other = order(secrets.token_hex(8)), secrets.token_hex(8)
    destination.take_over(mine.key, token=mine.token, owner="first", source="s")

    def events() -> Iterator[Event]:
        yield people((1, "mine"))
        destination.take_over(mine.key, token=other, owner="run 12 on host-3")
        yield people((2, "mine"))
        yield FINAL

    with pytest.raises(TakenOver, match="run 12 on host-3"):
        list(destination.load(mine, events()))
    assert query(path, "select * from people") == [(0, "before")]
    assert query(path, "select token, completed_by from _syncblocks_ledger where pipeline = 'p'") == [(other, None)]


def test_views_and_indexes_survive_a_replace(path: Path, destination: DuckDBDestination) -> None:
    load(destination, "people", REPLACE, [people((1, "a")), FINAL], PEOPLE)
    query(path, "create view names as select name from people")
    load(destination, "people", REPLACE, [people((2, "b")), FINAL], PEOPLE)
    assert query(path, "select * from names") == [("b",)]
    query(path, "create index by_name on people (name)")
    load(destination, "people", REPLACE, [people((3, "c")), FINAL], PEOPLE)
    assert query(path, "select * from names") == [("c",)]
    assert query(path, "select index_name from duckdb_indexes() where table_name = 'people'") == [("by_name",)]


def test_a_view_is_no_destination(path: Path, destination: DuckDBDestination) -> None:
    query(path, "create view people as select 1 as id")
    assert not destination.describe(["people"])["people"].is_table
    with pytest.raises(FatalConnectorError, match="view"):
        load(destination, "people", REPLACE, [people((1, "a")), FINAL], PEOPLE)


def test_a_table_that_others_refer_to_is_updated_in_place(path: Path, destination: DuckDBDestination) -> None:
    query(path, "create table people (id bigint primary key, name varchar)")
    query(path, "create table pets (owner bigint references people (id))")
    load(destination, "people", MERGE, [people((1, "a")), FINAL], PEOPLE, ["id"])
    query(path, "insert into pets values (1)")
    load(destination, "people", MERGE, [people((1, "b"), (2, "c")), FINAL], PEOPLE, ["id"])
    load(destination, "people", REPLACE, [people((1, "d")), FINAL], PEOPLE, ["id"])
    assert query(path, "select * from people") == [(1, "d")]


def test_views_tables_and_own_tables_are_told_apart_in_discovery(path: Path, destination: DuckDBDestination) -> None:
    load(destination, "s.people", REPLACE, [people((1, "a")), FINAL], PEOPLE)
    query(path, "create table t (b integer, a integer, primary key (a, b)); create view v as select * from t")
    destination.close()
    source = DuckDBSource({"path": str(path)}, path.parent)
    found = {stream.name: (stream.is_view, stream.key_properties) for stream in source.discover()}
    assert found == {"s.people": (False, ()), "t": (False, ("a", "b")), "v": (True, ())}
    source.close()
    only = DuckDBSource({"path": str(path), "schema": "s"}, path.parent)
    assert [stream.name for stream in only.discover()] == ["s.people"]
    only.close()


def test_the_zone_of_the_machine_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute("create table t as select timestamptz '2024-01-01 00:00:00+00' as at")
    source = DuckDBSource({"path": str(path)}, path.parent)
    assert read(source, source.discover()[0])["at"].cast(pa.int64()).to_pylist() == [1704067200000000]
    source.close()


def test_an_interrupted_load_leaves_the_former_state(path: Path, destination: DuckDBDestination) -> None:
    load(destination, "people", APPEND, [people((0, "before")), FINAL], PEOPLE)
    mine = order(secrets.token_hex(8))
    destination.take_over(mine.key, token=mine.token, owner="me", source="s")

    def events() -> Iterator[Event]:
        yield people((1, "mine"))
        destination.interrupt("s")
        yield people((2, "mine"))
        yield FINAL

    with pytest.raises(ConnectorError, match="interrupted"):
        list(destination.load(mine, events()))
    assert query(path, "select * from people") == [(0, "before")]


def test_a_bookmark_of_timestamps_with_zone_reads_on(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute(
            "create table t as select i, timestamptz '2024-01-01' + interval (i) second as at from range(9) r(i)"
        )
    source = DuckDBSource({"path": str(path)}, path.parent)
    found = source.discover()[0]
    stream = Stream(
        name=found.name,
        schema=found.schema,
        replication_method=ReplicationMethod.INCREMENTAL,
        bookmark_properties=("at",),
        locator=found.locator,
    )
    bookmark: dict[str, Any] = {"at": "2024-01-01T00:00:05+00:00"}
    events = [event for _, event in source.read([stream], {"t": bookmark})]
    ids = [i for event in events if isinstance(event, pa.RecordBatch) for i in event["i"].to_pylist()]
    assert ids == [5, 6, 7, 8]
    assert isinstance(events[-1], Checkpoint)
    assert events[-1].bookmark is not None
    assert events[-1].bookmark["at"] == datetime(2024, 1, 1, 0, 0, 8).isoformat() + "+00:00"  # noqa: DTZ001 -- text
    source.close()


def test_records_without_a_bookmark_come_first_nan_as_well(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("create table t (i integer, moment double)")
        connection.execute("insert into t values (1, 1.5), (2, 'nan'), (3, null), (4, 0.5), (5, 'inf')")
    source = DuckDBSource({"path": str(path), "checkpoint_records": 1}, path.parent)
    stream = replace(
        source.discover()[0],
        replication_method=ReplicationMethod.INCREMENTAL,
        bookmark_properties=("moment",),
        null_bookmarks=NullBookmarks.ONCE,
    )
    events = [event for _, event in source.read([stream], {"t": None})]
    source.close()
    ids = [i for event in events if isinstance(event, pa.RecordBatch) for i in event["i"].to_pylist()]
    assert (sorted(ids[:2]), ids[2:]) == ([2, 3], [4, 1, 5])


def test_streams_and_destination_tables_go_by_one_name(path: Path, destination: DuckDBDestination) -> None:
    for table in ("people", '"a.b"', "s.people", '"s.t"."a.b"'):
        load(destination, table, REPLACE, [people((1, "a")), FINAL], PEOPLE)
    source = DuckDBSource({"path": str(path)}, path.parent)
    offered = {stream.name for stream in source.discover()}
    source.close()
    assert offered == {"people", '"a.b"', "s.people", '"s.t"."a.b"'}
    assert {destination.describe([name])[name].stream_name for name in offered} == offered
    assert source.identity() == destination.identity()


def test_values_that_compare_as_equal_tie_by_their_bytes(path: Path) -> None:
    def read(bookmark: Bookmark | None) -> tuple[list[int], Bookmark | None]:
        source = DuckDBSource({"path": str(path)}, path.parent)
        stream = replace(
            source.discover()[0], replication_method=ReplicationMethod.INCREMENTAL, bookmark_properties=("v",)
        )
        with closing(source):
            events = [event for _, event in source.read([stream], {"t": bookmark})]
        ids = [i for event in events if isinstance(event, pa.RecordBatch) for i in event["id"].to_pylist()]
        last = events[-1]
        assert isinstance(last, Checkpoint)
        return ids, last.bookmark

    with closing(connect(path)) as connection:
        connection.execute("create table t (id integer, v varchar collate nocase not null)")
        connection.execute("insert into t values (1, 'a'), (2, 'B'), (3, 'b'), (4, 'B')")
    ids, bookmark = read(None)
    assert sorted(ids) == [1, 2, 3, 4]
    with closing(connect(path)) as connection:
        connection.execute("insert into t values (5, 'b'), (6, 'c')")
    assert read(bookmark)[0] == [5, 6]
