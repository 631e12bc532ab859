"""Records into PostgreSQL and out of it, read back with psycopg."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.stream import Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.postgres.postgres_pair import PLAIN, batch_of, can, copy, find, read, rows, script, write
from tests.connectors.postgres.postgres_pair import destination as destination
from tests.connectors.postgres.postgres_pair import source as source


def test_discovery_knows_tables_views_partitions_and_keys(postgres_url: str, source: PostgresSource) -> None:
    script(
        postgres_url,
        """
        create schema crm;
        create table crm.users (id bigint, region text, score numeric(9,3), gone int, primary key (region, id));
        alter table crm.users drop column gone;
        insert into crm.users select g, 'eu', 1 from generate_series(1, 50) g;
        analyze crm.users;
        create view crm.active as select * from crm.users;
        create materialized view crm.stale as select 1 as one;
        create table events (day date not null, n int) partition by range (day);
        create table events_2024 partition of events for values from ('2024-01-01') to ('2025-01-01');
        create table _syncblocks_ledger (a int);
        create table _syncblocks_stg_abc (a int);
        create table nothing ();
        """,
    )
    streams = {stream.name: stream for stream in source.discover()}
    assert list(streams) == ["crm.users", "public.events", "public.nothing", "crm.active", "crm.stale"]
    users = streams["crm.users"]
    assert users.key_properties == ("region", "id")
    assert users.schema.names == ["id", "region", "score"]
    assert users.schema.field("score").type == pa.decimal128(9, 3)
    assert users.schema.field("score").metadata[b"native_type"] == b"numeric(9,3)"
    assert not users.schema.field("id").nullable
    assert users.estimated_records == 50
    assert streams["crm.active"].is_view
    assert streams["crm.stale"].is_view
    assert not streams["public.events"].is_view
    assert len(streams["public.nothing"].schema) == 0


def test_a_partitioned_table_is_read_whole_on_both_wires(postgres_url: str) -> None:
    script(
        postgres_url,
        """
        create table events (day date primary key, n int) partition by range (day);
        create table old partition of events default;
        create table events_2024 partition of events for values from ('2024-01-01') to ('2025-01-01');
        insert into events values ('2023-01-01', 1), ('2024-01-01', 2);
        """,
    )
    for wire in ("arrow", "pgcopy"):
        copy(postgres_url, "public.events", f"b_{wire}", WriteDisposition.MERGE, wire)
        assert rows(postgres_url, f"select n from b_{wire} order by n") == [(1,), (2,)]


def test_a_schema_setting_limits_the_source_and_places_the_destination(postgres_url: str) -> None:
    script(postgres_url, "create schema crm; create table crm.a (x int); create table b (x int)")
    source = PostgresSource({"url": postgres_url, "schema": "crm"}, Path())
    assert [stream.name for stream in source.discover()] == ["crm.a"]
    source.close()
    destination = PostgresDestination({"url": postgres_url, "schema": "dwh"}, Path())
    write(destination, [batch_of({"x": [1]})], "c")
    write(destination, [batch_of({"x": [1]})], "mart.d")
    destination.close()
    assert rows(postgres_url, "select x from dwh.c") == [(1,)]
    assert rows(postgres_url, "select x from mart.d") == [(1,)]
    assert rows(postgres_url, "select destination_table from dwh._syncblocks_ledger") == [("c",)]
    assert rows(postgres_url, "select destination_table from mart._syncblocks_ledger") == [("mart.d",)]


def test_incremental_reads_go_on_behind_the_bookmark(postgres_url: str, source: PostgresSource) -> None:
    script(
        postgres_url,
        "create table t (day date, n numeric(5,1), name text); "
        "insert into t values ('2024-01-01', 1.5, 'a'), ('2024-01-02', 1, 'b'), ('2024-01-02', 2, 'c'), (null, 1, 'n')",
    )
    changes = {
        "method": ReplicationMethod.INCREMENTAL,
        "bookmark_properties": ("day", "n"),
        "null_bookmarks": NullBookmarks.ONCE,
    }

    def names(events: list[Any]) -> list[str]:
        return [name for event in events if isinstance(event, pa.RecordBatch) for name in event["name"].to_pylist()]

    events = read(source, "public.t", **changes)
    assert names(events) == ["n", "a", "b", "c"]
    checkpoint = events[-1]
    assert isinstance(checkpoint, Checkpoint)
    bookmark = json.loads(json.dumps(checkpoint.bookmark))
    assert (bookmark["day"], bookmark["n"]) == ("2024-01-02", "2.0")
    script(
        postgres_url, "insert into t values ('2024-01-02', 1.9, 'late'), ('2024-01-02', 2, 'd'), ('2024-02-01', 0, 'e')"
    )
    assert names(read(source, "public.t", bookmark, **changes)) == ["d", "e"]


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("bigint", "1", "2"),
        ("text", "'a'''", "'b'"),
        ("uuid", "'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000002'"),
        ("timestamp with time zone", "'2024-01-01 00:00:00.000001'", "'2024-01-01 00:00:00.000002'"),
        ("timestamp without time zone", "'2024-01-01'", "'2024-01-02'"),
        ("time without time zone", "'10:00'", "'11:00'"),
        ("bytea", "'\\x01'", "'\\xff'"),
        ("double precision", "0.1", "0.30000000000000004"),
        ("numeric", "0.1", "123456789012345678901234567890.1"),
        ("inet", "'10.0.0.1'", "'10.0.0.2'"),
    ],
)
def test_bookmarks_of_many_types(postgres_url: str, source: PostgresSource, kind: str, low: str, high: str) -> None:
    script(postgres_url, f"create table t (n int, v {kind}); insert into t values (1, {low}), (2, {high})")
    changes = {"method": ReplicationMethod.INCREMENTAL, "bookmark_properties": ("v",)}
    *_, checkpoint = read(source, "public.t", **changes)
    assert isinstance(checkpoint, Checkpoint)
    script(postgres_url, f"insert into t values (3, {low}), (4, {high})")
    again = read(source, "public.t", json.loads(json.dumps(checkpoint.bookmark)), **changes)
    found = [n for event in again if isinstance(event, pa.RecordBatch) for n in event["n"].to_pylist()]
    assert found == [4]


@pytest.mark.parametrize("kind", ["numeric", "double precision"])
def test_not_a_number_is_no_bookmark(postgres_url: str, source: PostgresSource, kind: str) -> None:
    script(postgres_url, f"create table t (n int, v {kind} not null); insert into t values (1, 1), (2, 'NaN')")
    changes = {"method": ReplicationMethod.INCREMENTAL, "bookmark_properties": ("v",)}
    with pytest.raises(FatalConnectorError, match="1 in 'v'"):
        read(source, "public.t", **changes)
    bookmark = None
    for policy, first, then in ((NullBookmarks.ONCE, [2, 1], [3]), (NullBookmarks.NEVER, [1], [3])):
        script(postgres_url, "delete from t where n = 3")
        events = read(source, "public.t", **changes, null_bookmarks=policy)
        bookmark = json.loads(json.dumps(events[-1].bookmark))  # type: ignore[union-attr]
        script(postgres_url, "insert into t values (3, 5)")
        later = read(source, "public.t", bookmark, **changes, null_bookmarks=policy)
        for batches, expected in ((events, first), (later, then)):
            found = [n for event in batches if isinstance(event, pa.RecordBatch) for n in event["n"].to_pylist()]
            assert found == expected


def test_only_the_asked_columns_are_read_in_their_order(postgres_url: str, source: PostgresSource) -> None:
    script(postgres_url, "create table t (a int, b text, c numeric(4,1)); insert into t values (1, 'x', 2.5)")
    stream = find(source, "public.t")
    stream = replace(stream, schema=pa.schema([stream.schema.field("c"), stream.schema.field("a")]))
    ((_, batch),) = source.read([stream], {})
    assert isinstance(batch, pa.RecordBatch)
    assert batch.to_pylist() == [{"c": Decimal("2.5"), "a": 1}]
    assert source.count(stream) == 1


def test_a_stream_may_change_its_schema_between_batches(postgres_url: str, destination: PostgresDestination) -> None:
    for disposition in PLAIN:
        first = batch_of({"id": [1], "v": pa.array([1], pa.int16())})
        second = batch_of({"id": [2], "w": ["new"], "v": pa.array([2**40])})
        third = batch_of({"id": [3]})
        key = ("id",)
        events = [
            first,
            Stream(name="s", schema=second.schema, key_properties=key),
            second,
            Stream(name="s", schema=third.schema, key_properties=key),
            third,
        ]
        table = f"t_{disposition}"
        write(destination, events, table, disposition, key=key, schema=first.schema)
        found = rows(postgres_url, f"select id, v, w from {table} order by id")
        assert found == [(1, 1, None), (2, 2**40, "new"), (3, None, None)]
        write(destination, [batch_of({"id": [4], "x": [True]})], table, WriteDisposition.APPEND)
        assert rows(postgres_url, f"select v, w, x from {table} where id = 4") == [(None, None, True)]


def test_an_empty_stream_makes_its_table(postgres_url: str, destination: PostgresDestination) -> None:
    schema = pa.schema([("id", pa.int64()), ("v", pa.string())])
    for disposition in PLAIN:
        write(destination, [], f"t_{disposition}", disposition, key=["id"], schema=schema)
        assert rows(postgres_url, f"select id, v from t_{disposition}") == []
    assert rows(
        postgres_url, "select count(*) from pg_index where indisprimary and indrelid = 't_append'::regclass"
    ) == [(0,)]


def test_many_columns_and_none(postgres_url: str, destination: PostgresDestination) -> None:
    names = [f"column_{place}" for place in range(1600)]
    wide = pa.record_batch([pa.array([place], pa.int16()) for place in range(1600)], names=names)
    write(destination, [wide], "wide")
    assert rows(postgres_url, "select column_1599 from wide") == [(1599,)]
    with pytest.raises(FatalConnectorError):
        write(destination, [wide.append_column("more", pa.array([1]))], "wider")
    write(destination, [], "none", schema=pa.schema([]))
    assert rows(postgres_url, "select count(*) from none") == [(0,)]


def test_describe_creates_nothing(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, "create table t (id int primary key, v numeric(5,2)); create view look as select 1 as one")
    states = destination.describe(["t", "look", "missing", "nowhere.t", "public.t"])
    assert states["missing"].schema is None
    assert states["nowhere.t"].schema is None
    assert not states["look"].is_table
    assert states["t"].schema == states["public.t"].schema
    assert states["t"].schema is not None
    assert states["t"].schema.field("v").type == pa.decimal128(5, 2)
    assert rows(postgres_url, "select relname from pg_class where relname like '\\_syncblocks%'") == []
    write(destination, [batch_of({"id": [1]})], "public.t", bookmark={"id": 1})
    (row,) = destination.describe(["t"])["t"].ledger
    assert (row.bookmark, row.completed_by, row.rows, row.source) == ({"id": 1}, "run:1", 1, "test://")
    assert row.committed_at is not None
    assert abs(row.committed_at - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_view_is_no_destination(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, "create view look as select 1 as one")
    for disposition in PLAIN:
        with pytest.raises(FatalConnectorError, match="view"):
            write(destination, [batch_of({"one": [1]})], "look", disposition, key=["one"])


def test_a_constraint_that_refuses_leaves_the_former_state(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, "create table t (id int primary key check (id < 10)); insert into t values (1)")
    for bad in ([2, 1], [2, 11]):
        with pytest.raises(FatalConnectorError) as caught:
            write(destination, [batch_of({"id": bad})], "t")
        assert "violates" in str(caught.value)
        assert rows(postgres_url, "select id from t") == [(1,)]
    write(destination, [batch_of({"id": [2]})], "t")


@pytest.mark.full
def test_a_plain_run_imports_no_pandas(postgres_url: str) -> None:
    import subprocess
    import sys

    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
import pyarrow as pa
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.stream import Checkpoint, LedgerKey, Load
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
config = {{"url": {postgres_url!r}}}
source, destination = PostgresSource(config, None), PostgresDestination(config, None)
(stream,) = [stream for stream in source.discover() if stream.name == "public.a"]
key = LedgerKey(pipeline="p", stream=stream.name, destination_table="b")
for wire in ("arrow", "pgcopy"):
    destination.describe(["b"])
    destination.take_over(key, token=wire, owner="o", source="s")
    load = Load(key=key, stream=stream, write=WriteSpec(disposition=WriteDisposition.MERGE), token=wire, run="r")
    events = [event for _, event in source.read([stream], {{}}, wire)]
    list(destination.load(load, iter([*events, Checkpoint(is_final=True)]), wire))
source.close()
destination.close()
assert "pandas" not in sys.modules
assert "adbc_driver_manager.dbapi" not in sys.modules
"""
    script(postgres_url, "create table a (id int primary key, at timestamptz); insert into a values (1, now())")
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert rows(postgres_url, "select count(*) from b") == [(1,)]


def test_psycopg_reads_what_was_written(postgres_url: str, destination: PostgresDestination) -> None:
    batches = [batch_of({"id": list(range(start, start + 1000))}) for start in range(0, 5000, 1000)]
    (commit,) = write(destination, batches, "t")
    assert commit.records == 5000
    assert commit.size_bytes == 5000 * 8
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select sum(id) from t").fetchone() == (sum(range(5000)),)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("numeric", "(1, '1.5'), (2, '2'), (3, '2.0'), (4, '2.00')", "(5, '2.000'), (6, '3')"),
        ("text collate ci", "(1, 'a'), (2, 'B'), (3, 'b'), (4, 'B')", "(5, 'b'), (6, 'c')"),
        ("char(5)", "(1, 'a'), (2, 'b')", "(5, 'b'), (6, 'ba')"),
        ("double precision", "(1, '0'), (2, '-0.0')", "(5, '0'), (6, '1')"),
    ],
)
def test_values_that_compare_as_equal_tie_by_their_bytes(
    postgres_url: str, source: PostgresSource, kind: str, first: str, second: str
) -> None:
    collation = "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    if "collate" in kind and not can(postgres_url, collation):
        pytest.skip("the server was built without ICU")
    script(postgres_url, f"create table t (id int, v {kind}); insert into t values {first}")
    changes = {"method": ReplicationMethod.INCREMENTAL, "bookmark_properties": ("v",)}
    events = read(source, "public.t", **changes)
    script(postgres_url, f"insert into t values {second}")
    bookmark = json.loads(json.dumps(events[-1].bookmark))  # type: ignore[union-attr]
    later = read(source, "public.t", bookmark, **changes)
    assert [n for event in later if isinstance(event, pa.RecordBatch) for n in event["id"].to_pylist()] == [5, 6]
