"""SQLite beyond its contract: bookmarks, names, tables and what hangs on them, wide records."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
)
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.sqlite import SQLiteDestination
from syncblocks.connectors.stream import Bookmark, Checkpoint
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.sqlite.sqlite_files import (
    APPEND,
    FINAL,
    MERGE,
    PEOPLE,
    REPLACE,
    load,
    people,
    query,
    quoted,
    read_all,
    script,
    source_of,
)
from tests.connectors.sqlite.sqlite_files import destination as destination
from tests.connectors.sqlite.sqlite_files import path as path
from tests.contracts.hostile import HOSTILE_NAMES, IMPOSSIBLE_NAMES

# Bookmarks


def ids_from(
    path: Path, bookmark: Bookmark | None, column: str = "at", null_bookmarks: NullBookmarks = NullBookmarks.ONCE
) -> tuple[list[int], Bookmark | None, int]:
    source = source_of(path, checkpoint_records=1)
    (found,) = source.discover()
    stream = replace(
        found,
        read=replace(
            found.read,
            method=ReplicationMethod.INCREMENTAL,
            bookmark_properties=(column,),
            null_bookmarks=null_bookmarks,
        ),
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


@pytest.mark.parametrize(
    ("declared", "options", "is_nullable"),
    [
        ("text primary key", "", True),
        ("integer primary key desc", "", True),
        ("integer primary key", "", False),
        ("text not null primary key", "", False),
        ("text primary key", "without rowid", False),
        ("text primary key", "strict", False),
    ],
)
def test_a_primary_key_may_be_null_where_sqlite_lets_it(
    declared: str, options: str, is_nullable: bool, path: Path
) -> None:
    script(path, f"create table t (id {declared}) {options}; insert into t values (1)")
    source = source_of(path)
    (found,) = source.discover()
    source.close()
    assert found.schema.field("id").nullable == is_nullable
    if is_nullable:
        _, bookmark, _ = ids_from(path, None, "id")
        script(path, "insert into t values (null)")
        assert len(ids_from(path, None, "id")[0]) == 2
        with pytest.raises(ConnectorError, match="records without a bookmark"):
            ids_from(path, bookmark, "id", NullBookmarks.FAIL)


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
    with pytest.raises(ConnectorConfigError, match="does not exist"):
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


@pytest.mark.parametrize("trigger", ["", "create trigger tr after update on people begin select 1; end"])
def test_a_merge_into_a_key_that_knows_no_case_writes_it_as_it_arrives(
    trigger: str, path: Path, destination: SQLiteDestination
) -> None:
    """`deletes` would take the former key for one that the source no longer has, and delete the record."""
    script(path, f"create table people (id text collate nocase primary key, name text); {trigger}")
    script(path, "insert into people values ('a', 'old'), ('b', 'other')")
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), ("name", pa.string())])
    arriving = pa.RecordBatch.from_pylist([{"id": "A", "name": "new"}], schema)
    load(destination, "people", MERGE, [arriving, FINAL], schema, ["id"])
    assert sorted(query(path, "select * from people")) == [("A", "new"), ("b", "other")]


def test_a_key_that_knows_no_case_is_written_as_it_arrives_without_an_index_too(
    path: Path, destination: SQLiteDestination
) -> None:
    script(path, "create table people (id text collate nocase, name text); insert into people values ('a', 'old')")
    script(path, "create trigger tr after update on people begin select 1; end")
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), ("name", pa.string())])
    arriving = pa.RecordBatch.from_pylist([{"id": "A", "name": "new"}], schema)
    load(destination, "people", MERGE, [arriving, FINAL], schema, ["id"])
    assert query(path, "select * from people") == [("A", "new")]


#: Tables of which a key takes two texts for one, and what else is made.
FOLDING = {
    "index": ("id text collate nocase primary key", ""),
    "trigger": ("id text collate nocase primary key", "create trigger tr after update on people begin select 1; end"),
    "no index": ("id text collate nocase", ""),
    "blanks": ("id text collate rtrim primary key", "create index by_name on people (name)"),
}


@pytest.mark.parametrize("table", FOLDING)
@pytest.mark.parametrize("disposition", [MERGE, REPLACE])
def test_two_keys_that_are_one_to_the_table_are_refused(
    disposition: WriteDisposition, table: str, path: Path, destination: SQLiteDestination
) -> None:
    """Else the last of them would have overwritten the other without a word."""
    column, more = FOLDING[table]
    script(path, f"create table people ({column}, house integer, name text); {more}")
    script(path, "insert into people values ('a', 1, 'old')")
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), ("house", pa.int64()), ("name", pa.string())])
    twin = "a " if table == "blanks" else "A"

    def write(*keys: str) -> None:
        records = [{"id": key, "house": 1, "name": "new"} for key in keys]
        load(destination, "people", disposition, [pa.RecordBatch.from_pylist(records, schema), FINAL], schema, ["id"])

    if disposition is MERGE or table in ("trigger", "blanks"):
        with pytest.raises(
            FatalConnectorError, match=f"people treats the keys '{min('a', twin)}' and '{max('a', twin)}'"
        ):
            write("a", "z", twin)
        assert query(path, "select * from people") == [("a", 1, "old")]
    write("a", "z", "a") if disposition is MERGE else write("a", "z")
    assert sorted(query(path, "select * from people")) == [("a", 1, "new"), ("z", 1, "new")]


def test_keys_are_no_twins_where_another_column_of_the_key_differs(path: Path, destination: SQLiteDestination) -> None:
    script(path, "create table people (house integer, id text collate nocase, name text, primary key (house, id))")
    schema = pa.schema([("house", pa.int64()), ("id", pa.string()), ("name", pa.string())])
    apart = [{"house": 1, "id": "a", "name": "x"}, {"house": 2, "id": "A", "name": "y"}]
    key = ["house", "id"]
    load(destination, "people", MERGE, [pa.RecordBatch.from_pylist(apart, schema), FINAL], schema, key)
    assert sorted(query(path, "select * from people")) == [(1, "a", "x"), (2, "A", "y")]
    twins = [*apart, {"house": 2, "id": "a", "name": "z"}]
    with pytest.raises(FatalConnectorError, match=r"people treats the keys 'A' and 'a' .column 'id'. as equal"):
        load(destination, "people", MERGE, [pa.RecordBatch.from_pylist(twins, schema), FINAL], schema, key)


def test_a_collation_of_another_program_hides_no_table(path: Path, destination: SQLiteDestination) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.create_collation("theirs", lambda one, other: (one > other) - (one < other))
        connection.execute("create table people (id integer primary key, name text collate theirs)")
    load(destination, "people", MERGE, [people((1, "a")), FINAL], PEOPLE, ["id"])
    assert query(path, "select id, name from people") == [(1, "a")]


@pytest.mark.parametrize(
    ("disposition", "more"),
    [
        (MERGE, ""),
        (
            MERGE,
            "create unique index by_id on people (id); create trigger tr after update on people begin select 1; end",
        ),
        (REPLACE, "create index by_day on people (day)"),
    ],
)
def test_values_reach_a_table_that_spells_its_types_in_its_own_way(
    disposition: WriteDisposition, more: str, path: Path, destination: SQLiteDestination
) -> None:
    """A CAST to most of them makes a number of a text, as 2024 of a date."""
    script(path, f"create table people (id bigint, day date, at datetime, code uuid, hour time); {more}")
    at = datetime.fromisoformat("2024-02-03 04:00")
    record = {"id": 1, "day": at.date(), "at": at, "code": b"\xab" * 16, "hour": at.time()}
    kinds = [pa.int64(), pa.date32(), pa.timestamp("us"), pa.uuid(), pa.time64("us")]
    schema = pa.schema([pa.field(name, kind) for name, kind in zip(record, kinds, strict=True)])
    for _ in range(2):
        load(destination, "people", disposition, [pa.RecordBatch.from_pylist([record], schema), FINAL], schema, ["id"])
    code = "abababab-abab-abab-abab-abababababab"
    assert query(path, "select * from people") == [
        (1, "2024-02-03", "2024-02-03 04:00:00.000000", code, "04:00:00.000000")
    ]


def test_a_key_with_fewer_digits_than_its_column_finds_its_record(path: Path, destination: SQLiteDestination) -> None:
    """Decimals of more than 15 digits are texts: 1.1 and 1.1000 would be two keys."""
    for number, (digits, scale) in enumerate([(30, 4), (28, 2), (30, 4)]):
        schema = pa.schema([pa.field("id", pa.decimal128(digits, scale), nullable=False), ("n", pa.int64())])
        batch = pa.RecordBatch.from_pylist([{"id": Decimal("1.1"), "n": number}], schema)
        load(destination, "people", MERGE, [batch, FINAL], schema, ["id"])
        assert query(path, "select * from people") == [("1.1000", number)]


@pytest.mark.parametrize("disposition", [APPEND, MERGE])
def test_a_text_that_sqlite_makes_another_number_of_is_refused(
    disposition: WriteDisposition, path: Path, destination: SQLiteDestination
) -> None:
    """A column declared STRING has numbers for what looks like one: 007 would be 7."""
    script(path, "create table people (id integer, name string)")
    for name in ("007", "1.50", "1e5", " 5", "-0"):
        with pytest.raises(
            FatalConnectorError, match=f"would turn '{name}' into a number, since the column's declared type string"
        ):
            load(destination, "people", disposition, [people((1, "a"), (2, name)), FINAL], PEOPLE, ["id"])
    load(destination, "people", disposition, [people((1, "7"), (2, "-12"), (3, "x7")), FINAL], PEOPLE, ["id"])
    assert query(path, "select name from people order by id") == [(7,), (-12,), ("x7",)]


@pytest.mark.parametrize("trigger", ["", "create trigger tr after update on people begin select 1; end"])
@pytest.mark.parametrize("key", ["integer", "text"])
def test_merge_leaves_alone_what_never_arrives_and_cannot_be_null(
    key: str, trigger: str, path: Path, destination: SQLiteDestination
) -> None:
    columns = "id int unique, name text, kept text not null default 'x', noted text default 'y', emptied text"
    script(path, f"create table people (own {key} primary key, {columns}); {trigger}")
    script(path, "insert into people values (7, 1, 'a', 'kept', 'noted', 'gone')")
    load(destination, "people", MERGE, [people((1, "b"), (2, "c")), FINAL], PEOPLE, ["id"])
    own = {"integer": (7, 8), "text": ("7", None)}[key]
    assert query(path, "select * from people order by id") == [
        (own[0], 1, "b", "kept", "noted", None),
        (own[1], 2, "c", "x", "y", None),
    ]


@pytest.mark.parametrize("disposition", [APPEND, REPLACE])
def test_nothing_does_not_become_a_number_of_sqlites_own(
    path: Path, destination: SQLiteDestination, disposition: WriteDisposition
) -> None:
    script(path, "create table t (id integer primary key, name text); create index other on t (name)")
    schema = pa.schema([("id", pa.int64()), ("name", pa.string())])
    sent = pa.RecordBatch.from_pylist([{"id": 7, "name": "a"}, {"id": None, "name": "b"}], schema=schema)
    with pytest.raises(FatalConnectorError, match="NULL"):
        load(destination, "t", disposition, [sent, FINAL], schema, ())
    assert query(path, "select * from t") == []


def test_a_column_that_is_too_narrow_is_refused_with_the_way_out(path: Path, destination: SQLiteDestination) -> None:
    script(path, "create table people (id integer, name integer)")
    with pytest.raises(FatalConnectorError, match=r"name.*INTEGER.*full-refresh"):
        load(destination, "people", APPEND, [people((1, "b")), FINAL], PEOPLE)


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
    monkeypatch.setattr("syncblocks.connectors.sqlite.source._WIDE_BYTES", 10_000_000)
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


# Batches are stored piece by piece


def test_a_batch_of_several_pieces_arrives_whole_and_in_order(path: Path, destination: SQLiteDestination) -> None:
    weights = pa.array([None if number % 7 == 0 else number / 8 for number in range(2500)])
    weights = pa.concat_arrays([weights, pa.array([float("nan")])])  # SQLite would make it NULL
    batch = pa.record_batch({"id": pa.array(range(2501)), "weight": weights})
    load(destination, "t", APPEND, [batch.slice(1), FINAL], batch.schema)
    found = query(path, "select id, weight from t order by rowid")
    assert found == [*zip(range(1, 2500), weights.to_pylist()[1:2500], strict=True), (2500, "NaN")]


def test_a_text_that_is_no_utf_8_is_refused_with_all_that_came_before(
    path: Path, destination: SQLiteDestination
) -> None:
    names = pa.array([b"x"] * 2000 + [b"\xff"]).view(pa.string())
    batch = pa.record_batch([pa.array(range(2001)), names], schema=PEOPLE)
    with pytest.raises(FatalConnectorError, match="utf-8"):
        load(destination, "people", APPEND, [batch, FINAL], PEOPLE)
    assert query(path, "select * from sqlite_master where name = 'people'") == []
