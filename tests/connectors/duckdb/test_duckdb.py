"""DuckDB beyond its contract: locks, several loads at once, bookmarks."""

from __future__ import annotations

import secrets
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from syncblocks.connectors.duckdb import DuckDBDestination, DuckDBSource
from syncblocks.connectors.errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    RetriableError,
    TakenOver,
)
from syncblocks.connectors.read_spec import NullBookmarks, ReadSpec, ReplicationMethod
from syncblocks.connectors.stream import Bookmark, Checkpoint, Event, LedgerKey, Load, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition, WriteSpec
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
    read,
)
from tests.connectors.duckdb.duckdb_files import destination as destination
from tests.connectors.duckdb.duckdb_files import path as path
from tests.file_limit import file_limit


def test_a_missing_file_is_an_empty_destination_and_no_source(path: Path, destination: DuckDBDestination) -> None:
    assert destination.describe(["people"])["people"].schema is None
    destination.check()
    destination.drop_staging(["0" * 32])
    source = DuckDBSource({"path": "house.duckdb"}, path.parent)
    with pytest.raises(ConnectorConfigError, match=r"house\.duckdb"):
        source.check()
    assert not path.exists()


def test_a_new_file_for_which_there_is_no_room_is_not_there(path: Path, destination: DuckDBDestination) -> None:
    """DuckDB leaves an empty one, and takes it for no database: every later run failed, too."""
    key = LedgerKey(pipeline="p", stream="people", destination_table="people")
    with file_limit(4096), pytest.raises(ConnectorError, match=r"/[\w-]+\.duckdb\": File too large"):
        destination.take_over(key, token="0" * 32, owner="me")
    assert list(path.parent.iterdir()) == []
    assert destination.take_over(key, token="0" * 32, owner="me").token == "0" * 32
    assert [file.name for file in path.parent.iterdir() if file.suffix != ".wal"] == [path.name]


OPEN = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('create or replace table mine (i int)')"


def opens_elsewhere(path: Path) -> bool:
    done = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, check=False, timeout=60)
    assert not done.returncode or b"lock" in done.stderr, done.stderr
    return not done.returncode


@pytest.mark.full
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


@pytest.mark.full
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


@pytest.mark.full
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
        key=key,
        stream=Stream(name="s", schema=PEOPLE),
        write=WriteSpec(disposition=APPEND),
        token=token,
        run=f"{token}:1",
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


@pytest.mark.parametrize("disposition", [MERGE, REPLACE], ids=str)
def test_a_record_that_others_refer_to_is_not_written_where_it_has_not_changed(
    path: Path, destination: DuckDBDestination, disposition: WriteDisposition
) -> None:
    """DuckDB deletes and inserts a record whose list is updated, which a foreign key refuses."""
    query(path, "create table people (id bigint primary key, tags varchar[])")
    query(path, "create table pets (owner bigint references people (id))")
    query(path, "insert into people values (1, ['a']), (2, ['b']); insert into pets values (1)")
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("tags", pa.list_(pa.string()))])
    batch = pa.RecordBatch.from_pylist([{"id": 1, "tags": ["a"]}, {"id": 2, "tags": ["c"]}], schema)
    load(destination, "people", disposition, [batch, FINAL], schema, ["id"])
    assert sorted(query(path, "select * from people")) == [(1, ["a"]), (2, ["c"])]


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


@pytest.mark.parametrize("is_allowed", [False, True])
def test_a_view_reads_no_files_of_this_machine_unless_it_may(path: Path, is_allowed: bool) -> None:
    secret = path.with_name("secret.csv")
    secret.write_text("word\nhidden\n")
    query(path, f"create table t as select 1 as id; create view v as select * from read_csv('{secret}')")
    source = DuckDBSource({"path": str(path), "external_access": is_allowed}, path.parent)
    with closing(source):
        streams = {stream.name: stream for stream in source.discover()}
        assert read(source, streams["t"]).to_pylist() == [{"id": 1}]
        if is_allowed:
            assert read(source, streams["v"]).to_pylist() == [{"word": "hidden"}]
        else:
            with pytest.raises(FatalConnectorError, match="disabled by configuration"):
                read(source, streams["v"])


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
        read=ReadSpec(method=ReplicationMethod.INCREMENTAL, bookmark_properties=("at",)),
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
        offered := source.discover()[0],
        read=replace(
            offered.read,
            method=ReplicationMethod.INCREMENTAL,
            bookmark_properties=("moment",),
            null_bookmarks=NullBookmarks.ONCE,
        ),
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


def read_new(path: Path, bookmark: Bookmark | None) -> tuple[list[int], Bookmark | None]:
    source = DuckDBSource({"path": str(path)}, path.parent)
    stream = replace(
        offered := source.discover()[0],
        read=replace(offered.read, method=ReplicationMethod.INCREMENTAL, bookmark_properties=("v",)),
    )
    with closing(source):
        events = [event for _, event in source.read([stream], {"t": bookmark})]
    ids = [i for event in events if isinstance(event, pa.RecordBatch) for i in event["id"].to_pylist()]
    last = events[-1]
    assert isinstance(last, Checkpoint)
    return ids, last.bookmark


def test_values_that_compare_as_equal_tie_by_their_bytes(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("create table t (id integer, v varchar collate nocase not null)")
        connection.execute("insert into t values (1, 'a'), (2, 'B'), (3, 'b'), (4, 'B')")
    ids, bookmark = read_new(path, None)
    assert sorted(ids) == [1, 2, 3, 4]
    with closing(connect(path)) as connection:
        connection.execute("insert into t values (5, 'b'), (6, 'c')")
    assert read_new(path, bookmark)[0] == [5, 6]


@pytest.mark.parametrize("made", ["id varchar collate nocase", "id varchar collate nocase primary key", "referenced"])
@pytest.mark.parametrize("conflict", [ConflictMethod.UPDATE, ConflictMethod.IGNORE], ids=str)
def test_keys_that_a_collation_takes_for_one_are_two_in_a_merge(
    path: Path, destination: DuckDBDestination, made: str, conflict: ConflictMethod
) -> None:
    """As for DuckDB's indexes: else one of them would overwrite the other, or `deletes` take what has changed."""
    column = "id varchar collate nocase primary key" if made == "referenced" else made
    query(path, f"create table t ({column}, v varchar collate nocase)")
    if made == "referenced":
        query(path, "create table children (parent varchar references t (id))")
    query(path, "insert into t values ('a', 'old'), ('b', 'old')")
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), ("v", pa.string())])
    for value, keys in (("new", ["A", "b"]), ("NEW", ["A"])):
        batch = pa.RecordBatch.from_pylist([{"id": key, "v": value} for key in keys], schema)
        load(destination, "t", MERGE, [batch, FINAL], schema, ["id"], conflict=conflict)
    is_ignored = conflict is ConflictMethod.IGNORE
    expected = [("A", "new"), ("a", "old"), ("b", "old")] if is_ignored else [("A", "NEW"), ("a", "old"), ("b", "new")]
    assert sorted(query(path, "select * from t")) == expected


def test_a_replace_in_place_writes_what_a_collation_takes_for_the_same(
    path: Path, destination: DuckDBDestination
) -> None:
    query(path, "create table t (id varchar collate nocase primary key, v varchar collate nocase)")
    query(path, "create table children (parent varchar references t (id))")
    query(path, "insert into t values ('a', 'old'), ('b', 'old')")
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), ("v", pa.string())])
    batch = pa.RecordBatch.from_pylist([{"id": key, "v": "OLD"} for key in ("a", "A", "b")], schema)
    load(destination, "t", REPLACE, [batch, FINAL], schema, ["id"])
    assert sorted(query(path, "select * from t")) == [("A", "OLD"), ("a", "OLD"), ("b", "OLD")]


def test_a_union_is_compared_as_the_text_that_it_arrives_as(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute("create table t (id integer, v union(n integer, s varchar) not null)")
        connection.execute("insert into t values (1, 5), (2, 'it''s'), (3, 17)")
    ids, bookmark = read_new(path, None)
    assert ids == [3, 1, 2]
    with closing(connect(path)) as connection:
        connection.execute("update t set v = 'past' where id = 1")
        connection.execute("insert into t values (4, 'it''s'), (5, 'j'), (6, 9)")
    assert read_new(path, bookmark)[0] == [4, 5, 1]


@pytest.mark.parametrize(
    ("place", "damage", "said"),
    [
        (0, b"\0", r"is damaged or incomplete, .*use an earlier copy"),
        (1000, None, r"is damaged or incomplete, .*use an earlier copy"),
        (12, b"\xe8", r"a newer DuckDB has written it: .*pip install -U"),
    ],
)
def test_a_file_that_duckdb_cannot_read_is_named_with_a_way_out(
    tmp_path: Path, place: int, damage: bytes | None, said: str
) -> None:
    path = tmp_path / "d.duckdb"
    duckdb.connect(str(path)).close()
    content = bytearray(path.read_bytes())
    if damage is None:
        del content[place:]
    else:
        # The first byte is one of a checksum over random numbers: one file in 256 has it already.
        content[place : place + 1] = b"\1" if content[place : place + 1] == damage else damage
    if damage == b"\xe8":  # a version, under DuckDB's own checksum
        words = struct.unpack("<511Q", content[8:4096])
        total = reduce(xor, (word * 0xBF58476D1CE4E5B9 % 2**64 for word in words), 5381)
        content[:8] = struct.pack("<Q", total)
    path.write_bytes(content)
    with pytest.raises(ConnectorConfigError, match=said) as refused:
        DuckDBSource({"path": str(path)}, tmp_path).discover()
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["lake.csv", "lake.json", "lake.parquet"])
def test_a_file_of_records_is_refused_before_the_first_write(tmp_path: Path, name: str) -> None:
    """DuckDB opens it as views in memory: all was written there, each run was a success, and nothing was kept."""
    path = tmp_path / name
    with closing(duckdb.connect()) as connection:
        connection.execute(f"copy (select 1 as x) to '{path}'")
    before = path.read_bytes()
    said = rf"{name} is a data file, not a DuckDB database: .* connector of its format \(csv, json, jsonl or parq"
    source, destination = (made({"path": name}, tmp_path) for made in (DuckDBSource, DuckDBDestination))
    key = LedgerKey(pipeline="p", stream="people", destination_table="people")
    for attempt in (source.discover, destination.check, lambda: destination.take_over(key, token="0" * 32, owner="me")):
        with pytest.raises(ConnectorConfigError, match=said):
            attempt()
    destination.close()
    with pytest.raises(ConnectorConfigError, match=said):
        DuckDBSource({"path": name}, tmp_path).discover()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_may_be_called_like_a_file_of_records(tmp_path: Path) -> None:
    key = LedgerKey(pipeline="p", stream="people", destination_table="people")
    for _ in range(2):
        destination = DuckDBDestination({"path": "lake.csv"}, tmp_path)
        assert destination.take_over(key, token="0" * 32, owner="me").token == "0" * 32
        destination.close()
    assert DuckDBSource({"path": "lake.csv"}, tmp_path).discover() == []


def test_a_sqlite_file_names_the_connector_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where DuckDB looks for extensions
    path = tmp_path / "lake.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table t (i integer)")
    with pytest.raises(
        ConnectorConfigError, match=r"lake\.db cannot be read: .*it is a SQLite database: use `connector: "
    ):
        DuckDBDestination({"path": "lake.db"}, tmp_path).check()


def test_an_encrypted_file_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "d.duckdb"
    with closing(duckdb.connect()) as connection:
        connection.execute("set force_mbedtls_unsafe = 'true'")
        connection.execute(f"attach '{path}' as secret (encryption_key 'abc')")
        connection.execute("create table secret.t as select 1 as i")
    with pytest.raises(ConnectorConfigError, match="encrypted files are not supported: copy the tables"):
        DuckDBSource({"path": str(path)}, tmp_path).discover()


def test_a_constraint_that_a_statement_of_the_user_makes_is_seen(path: Path, destination: DuckDBDestination) -> None:
    """A replacement by another table would lose it."""
    for _ in range(2):
        load(destination, "t", REPLACE, [people((1, "a")), FINAL], PEOPLE, ["id"])
    for statement in ("drop table t", "create table t (id bigint not null, name varchar check (length(name) < 9))"):
        destination.execute(statement, {})
    load(destination, "t", REPLACE, [people((1, "b"), (2, "c")), FINAL], PEOPLE, ["id"])
    assert query(path, "select table_name from duckdb_constraints() where constraint_type = 'CHECK'") == [("t",)]
    assert query(path, "select id, name from t order by id") == [(1, "b"), (2, "c")]
