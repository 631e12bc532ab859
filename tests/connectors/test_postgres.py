"""Records into PostgreSQL and out of it, read back with psycopg."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from connectors.errors import ConnectorConfigError, FatalConnectorError
from connectors.postgres.destination import PostgresDestination
from connectors.postgres.source import PostgresSource
from connectors.stream import Checkpoint, ConflictMethod, NullBookmarks, ReplicationMethod, Stream, WriteDisposition

from .postgres_pair import batch_of, copy, find, order, read, rows, script, write

#: Type and a value or two of it, as SQL; every one must survive PostgreSQL -> PostgreSQL on both wires.
TYPES = {
    "smallint": ("-32768", "32767"),
    "integer": ("-2147483648", "2147483647"),
    "bigint": ("-9223372036854775808", "9223372036854775807"),
    "real": ("1.5", "'NaN'"),
    "double precision": ("0.1", "'-Infinity'"),
    "numeric(12,2)": ("-1234567890.12", "0.01"),
    "numeric(38,10)": ("9999999999999999999999999999.9999999999", "0"),
    "numeric(60,5)": ("1e50", "-0.00001"),
    "numeric(5,-2)": ("12300", "100"),
    "numeric": ("123456789012345678901234567890.123456789", "'NaN'"),
    "money": ("12.34", "-1"),
    "boolean": ("true", "false"),
    "text": ("'Grüße \U0001f600'", "''"),
    "character varying(5)": ("'abc'", "'abcde'"),
    "character(4)": ("'ab'", "'abcd'"),
    "name": ("'pg'", "'x'"),
    '"char"': ("'a'", "'z'"),
    "bytea": ("'\\x00ff'", "''"),
    "date": ("'0001-01-01'", "'2024-02-29'"),
    "time without time zone": ("'23:59:59.999999'", "'00:00'"),
    "time(0) without time zone": ("'23:59:59'", "'00:00'"),
    "time with time zone": ("'12:00+03'", "'00:00:00.5-11'"),
    "timestamp without time zone": ("'2024-02-29 12:00:00.000001'", "'1969-12-31'"),
    "timestamp(3) with time zone": ("'2024-02-29 12:00:00.001+02'", "'0001-01-02 BC'"),
    "timestamp with time zone": ("'2024-02-29 12:00:00.000001+02'", "'9999-12-31'"),
    "interval": ("'1 mon 2 days -00:00:03.5'", "'-100 years'"),
    "uuid": ("'123e4567-e89b-12d3-a456-426614174000'", "gen_random_uuid()"),
    "json": ('\'{"b":  1, "a": null, "a": 2}\'', "'[]'"),
    "jsonb": ("'{\"b\": 1e400}'", "'\"x\"'"),
    "inet": ("'192.168.0.1/24'", "'::1'"),
    "cidr": ("'10.0.0.0/8'", "'::/0'"),
    "macaddr": ("'08:00:2b:01:02:03'", "null"),
    "bit(3)": ("b'101'", "b'000'"),
    "bit varying(9)": ("b'1'", "b''"),
    "int4range": ("'[1,5)'", "'empty'"),
    "tstzrange": ("'[2024-01-01,)'", "'empty'"),
    "point": ("'(1.5,-2)'", "'(0,0)'"),
    "polygon": ("'((0,0),(1,1),(1,0))'", "null"),
    "tsvector": ("'a:1 b:2'", "''"),
    "xml": ("'<a>1</a>'", "null"),
    "oid": ("4294967295", "0"),
    "pg_lsn": ("'16/B374D848'", "null"),
    "integer[]": ("'{1,NULL,3}'", "'{}'"),
    "bigint[]": ("'{{1,2},{3,4}}'", "'[2:3]={7,8}'"),
    "text[]": ("array['a,b', '\"', null, '']", "null"),
    "numeric(6,2)[]": ("'{1.50,NULL}'", "null"),
    "timestamp with time zone[]": ("'{2024-01-01 00:00+00}'", "null"),
    "jsonb[]": ("array['{}'::jsonb]", "null"),
    "uuid[]": ("array[gen_random_uuid()]", "null"),
}


@pytest.fixture
def source(postgres_url: str) -> Iterator[PostgresSource]:
    made = PostgresSource({"url": postgres_url}, Path())
    yield made
    made.close()


@pytest.fixture
def destination(postgres_url: str) -> Iterator[PostgresDestination]:
    made = PostgresDestination({"url": postgres_url}, Path())
    yield made
    made.close()


@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
@pytest.mark.parametrize("disposition", list(WriteDisposition))
def test_every_built_in_type_survives(postgres_url: str, wire: str, disposition: WriteDisposition) -> None:
    columns = ", ".join(f"c{place} {kind}" for place, kind in enumerate(TYPES))
    first = ", ".join(values[0] for values in TYPES.values())
    second = ", ".join(values[1] for values in TYPES.values())
    nulls = ", ".join("null" for _ in TYPES)
    script(
        postgres_url,
        f"create table a (id int primary key, {columns}); "
        f"insert into a values (1, {first}), (2, {second}), (3, {nulls})",
    )
    for _ in range(2 if disposition is not WriteDisposition.APPEND else 1):
        commits = copy(postgres_url, "public.a", "b", disposition, wire)
        assert commits[-1].records == 3
    for place, kind in enumerate(TYPES):
        made = rows(
            postgres_url,
            "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'b'::regclass and attname = %s",
            f"c{place}",
        )
        assert made == [(kind,)]
        values = [rows(postgres_url, f"select c{place}::text from {table} order by id") for table in ("a", "b")]
        assert values[0] == values[1], kind


def test_arrow_types_are_made_into_the_fitting_ones(postgres_url: str, destination: PostgresDestination) -> None:
    noon = datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC)
    arrays: dict[str, tuple[pa.Array, str, Any]] = {
        "i8": (pa.array([-128], pa.int8()), "smallint", -128),
        "u8": (pa.array([255], pa.uint8()), "smallint", 255),
        "u16": (pa.array([65535], pa.uint16()), "integer", 65535),
        "u32": (pa.array([2**32 - 1], pa.uint32()), "bigint", 2**32 - 1),
        "u64": (pa.array([2**64 - 1], pa.uint64()), "numeric(20,0)", Decimal(2**64 - 1)),
        "f16": (pa.array([1.5], pa.float32()).cast(pa.float16()), "real", 1.5),
        "f64": (pa.array([0.1]), "double precision", 0.1),
        "dec": (pa.array([Decimal("1.25")]), "numeric(3,2)", Decimal("1.25")),
        "dec256": (pa.array([Decimal("1" * 50)], pa.decimal256(60, 2)), "numeric(60,2)", Decimal("1" * 50 + ".00")),
        "text": (pa.array(["x"], pa.large_string()), "text", "x"),
        "view": (pa.array(["x"], pa.string_view()), "text", "x"),
        "dict": (pa.array(["x"]).dictionary_encode(), "text", "x"),
        "null": (pa.nulls(1), "text", None),
        "bin": (pa.array([b"\0x"]), "bytea", b"\0x"),
        "fixed": (pa.array([b"ab"], pa.binary(2)), "bytea", b"ab"),
        "day": (pa.array([date(2024, 2, 29)]), "date", date(2024, 2, 29)),
        "s": (pa.array([noon.replace(microsecond=0)], pa.timestamp("s", "UTC")), "timestamp with time zone", None),
        "naive": (pa.array([noon.replace(tzinfo=None)], pa.timestamp("us")), "timestamp without time zone", None),
        "zoned": (pa.array([noon], pa.timestamp("us", "Europe/Berlin")), "timestamp with time zone", noon),
        "ns": (pa.array([10**18 + 1000], pa.timestamp("ns")), "timestamp without time zone", None),
        "clock": (pa.array([time(23, 59)], pa.time32("s")), "time without time zone", time(23, 59)),
        "span": (pa.array([timedelta(hours=25)], pa.duration("ms")), "interval", timedelta(hours=25)),
        "list": (pa.array([[1, None]], pa.list_(pa.int32())), "integer[]", [1, None]),
        "nested": (pa.array([[[1], [2, 3]]]), "jsonb", [[1], [2, 3]]),
        "struct": (pa.array([{"a": 1, "b": [True, None]}]), "jsonb", {"a": 1, "b": [True, None]}),
        "json": (pa.json_().wrap_array(pa.array(['{"k": 1}'])), "jsonb", {"k": 1}),
        "uuid": (pa.uuid().wrap_array(pa.array([bytes(range(16))], pa.binary(16))), "uuid", None),
    }
    batch = pa.RecordBatch.from_arrays([made[0] for made in arrays.values()], names=list(arrays))
    for disposition in (WriteDisposition.APPEND, WriteDisposition.REPLACE):
        table = f"t_{disposition}"
        write(destination, [batch], table, disposition)
        for name, (_, kind, value) in arrays.items():
            (found,) = rows(postgres_url, f'select "{name}", pg_typeof("{name}")::text from {table}')
            assert found[1] == kind.partition("(")[0]
            if value is not None:
                assert found[0] == value, name


@pytest.mark.parametrize(
    ("held", "value", "problem"),
    [
        ("bigint", pa.array([1.5]), "bigint"),
        ("double precision", pa.array([1]), "double precision"),
        ("bigint", pa.array([datetime(2024, 1, 1, tzinfo=UTC)]), "bigint"),
        ("timestamp without time zone", pa.array([1]), "timestamp"),
        ("date", pa.array(["x"]), "date"),
        ("numeric(5,2)", pa.array([1.5]), "numeric"),
    ],
)
def test_values_of_another_type_are_refused_not_reinterpreted(
    postgres_url: str, destination: PostgresDestination, held: str, value: pa.Array, problem: str
) -> None:
    script(postgres_url, f"create table t (v {held})")
    with pytest.raises(FatalConnectorError, match="'v'") as caught:
        write(destination, [pa.record_batch([value], names=["v"])], "t")
    assert problem in str(caught.value)
    assert rows(postgres_url, "select * from t") == []


@pytest.mark.parametrize(
    ("held", "value", "made", "expected"),
    [
        ("smallint", pa.array([2**40]), "bigint", 2**40),
        ("integer", pa.array([1], pa.int16()), "integer", 1),
        ("character varying(2)", pa.array(["long text"]), "text", "long text"),
        ("numeric(4,2)", pa.array([Decimal("12345.678")]), "numeric(8,3)", Decimal("12345.678")),
        ("numeric", pa.array([7]), "numeric", Decimal(7)),
        ("real", pa.array([0.1]), "double precision", 0.1),
    ],
)
@pytest.mark.parametrize("disposition", [WriteDisposition.APPEND, WriteDisposition.MERGE])
def test_columns_are_widened_where_the_wider_type_holds_both(
    postgres_url: str,
    destination: PostgresDestination,
    held: str,
    value: pa.Array,
    made: str,
    expected: Any,
    disposition: WriteDisposition,
) -> None:
    script(postgres_url, f"create table t (id bigint, v {held})")
    batch = pa.record_batch([pa.array([1]), value], names=["id", "v"])
    commits = write(destination, [batch], "t", disposition, key=["id"])
    kind = rows(
        postgres_url,
        "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 't'::regclass and attname = 'v'",
    )
    assert kind == [(made,)]
    assert rows(postgres_url, "select v from t") == [(expected,)]
    changes = [change["column"] for change in commits[0].schema_changes]
    assert changes == ([] if held == made else ["v"])


def test_text_is_parsed_by_columns_that_refuse_what_does_not_fit(
    postgres_url: str, destination: PostgresDestination
) -> None:
    script(postgres_url, "create type mood as enum ('sad', 'ok'); create table t (a inet, b uuid, c mood, d jsonb)")
    good = {"a": ["::1"], "b": ["123e4567-e89b-12d3-a456-426614174000"], "c": ["ok"], "d": ['{"x": 1}']}
    write(destination, [batch_of(good)], "t")
    assert rows(postgres_url, "select a::text, c::text, d from t") == [("::1/128", "ok", {"x": 1})]
    with pytest.raises(FatalConnectorError, match="mood"):
        write(destination, [batch_of({**good, "c": ["angry"]})], "t")


def test_too_many_digits_are_refused_not_rounded(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, "create table t (v numeric(6,2))")
    stream_schema = pa.schema([("v", pa.decimal128(6, 2))])
    write(destination, [batch_of({"v": [Decimal("1.25")]}, stream_schema)], "t")
    batch = batch_of({"v": [Decimal("1.255")]}, pa.schema([("v", pa.decimal128(6, 3))]))
    load = order(destination, Stream(name="s", schema=stream_schema), "t")
    with pytest.raises(FatalConnectorError):
        list(destination.load(load, iter([batch, Checkpoint(is_final=True)])))
    assert rows(postgres_url, "select v from t") == [(Decimal("1.25"),)]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("'infinity'::timestamptz", "infinite time"),
        ("'-infinity'::timestamp", "infinite time"),
        ("'294276-12-31'::timestamp", "294,000"),
        ("'infinity'::date", "infinite date"),
        ("'-infinity'::date", "infinite date"),
        ("'24:00:00'::time", "24:00"),
        ("'NaN'::numeric(10,2)", "NaN"),
    ],
)
def test_values_that_arrow_lacks_are_refused_or_read_as_text(
    postgres_url: str, source: PostgresSource, value: str, problem: str
) -> None:
    script(postgres_url, f"create table t as select {value} as v")
    with pytest.raises(FatalConnectorError, match=problem) as caught:
        read(source, "public.t")
    assert "'v'" in str(caught.value)
    assert "text_columns" in str(caught.value)
    as_text = PostgresSource({"url": postgres_url, "text_columns": ["public.t.v"]}, Path())
    (batch,) = read(as_text, "public.t")
    as_text.close()
    assert isinstance(batch, pa.RecordBatch)
    assert batch.column("v").to_pylist() == [rows(postgres_url, "select v::text from t")[0][0]]


def test_text_columns_that_do_not_exist_are_a_mistake(postgres_url: str) -> None:
    source = PostgresSource({"url": postgres_url, "text_columns": ["public.t.v"]}, Path())
    with pytest.raises(ConnectorConfigError, match=r"public\.t\.v"):
        source.discover()
    source.close()


def test_arrays_that_arrow_would_flatten_stay_as_they_are(postgres_url: str, source: PostgresSource) -> None:
    script(postgres_url, "create table t as select '{{1,2},{3,4}}'::int[] as v")
    (batch,) = read(source, "public.t")
    assert isinstance(batch, pa.RecordBatch)
    assert batch.column("v").to_pylist() == ["{{1,2},{3,4}}"]


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
        "replication_method": ReplicationMethod.INCREMENTAL,
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
    changes = {"replication_method": ReplicationMethod.INCREMENTAL, "bookmark_properties": ("v",)}
    *_, checkpoint = read(source, "public.t", **changes)
    assert isinstance(checkpoint, Checkpoint)
    script(postgres_url, f"insert into t values (3, {low}), (4, {high})")
    again = read(source, "public.t", json.loads(json.dumps(checkpoint.bookmark)), **changes)
    found = [n for event in again if isinstance(event, pa.RecordBatch) for n in event["n"].to_pylist()]
    assert found == [4]


def test_only_the_asked_columns_are_read_in_their_order(postgres_url: str, source: PostgresSource) -> None:
    script(postgres_url, "create table t (a int, b text, c numeric(4,1)); insert into t values (1, 'x', 2.5)")
    stream = find(source, "public.t")
    stream = replace(stream, schema=pa.schema([stream.schema.field("c"), stream.schema.field("a")]))
    ((_, batch),) = source.read([stream], {})
    assert isinstance(batch, pa.RecordBatch)
    assert batch.to_pylist() == [{"c": Decimal("2.5"), "a": 1}]
    assert source.count(stream) == 1


def test_merge_keeps_the_last_record_of_a_key(postgres_url: str, destination: PostgresDestination) -> None:
    first = batch_of({"id": [1, 2, 1], "v": ["a", "b", "c"]})
    second = batch_of({"id": [2, 3], "v": ["d", "e"]})
    write(destination, [first, second], "t", WriteDisposition.MERGE, key=["id"])
    assert rows(postgres_url, "select id, v from t order by id") == [(1, "c"), (2, "d"), (3, "e")]
    assert rows(postgres_url, "select conname, contype::text from pg_constraint where conrelid = 't'::regclass") == [
        ("t_pkey", "p")
    ]
    write(
        destination,
        [batch_of({"id": [3, 4], "v": ["x", "f"]})],
        "t",
        WriteDisposition.MERGE,
        key=["id"],
        method=ConflictMethod.IGNORE,
    )
    assert rows(postgres_url, "select id, v from t where id > 2 order by id") == [(3, "e"), (4, "f")]


SITUATIONS = {
    "ours": "create table t (id bigint primary key, v text, extra text)",
    "no key": "create table t (id bigint, v text, extra text)",
    "trigger": "create table t (id bigint primary key, v text, extra text); create table log (what text); "
    "create function note() returns trigger language plpgsql as "
    "'begin insert into log values (tg_op); return null; end'; "
    "create trigger noting after insert or update or delete on t for each row execute function note()",
    "referenced": "create table t (id bigint primary key, v text, extra text); "
    "create table child (t bigint references t)",
    "default": "create table t (id bigint primary key, v text, extra text default 'made', "
    "n int generated always as identity)",
    "partitioned": "create table t (id bigint primary key, v text, extra text) partition by hash (id); "
    "create table t0 partition of t for values with (modulus 1, remainder 0)",
    "generated": "create table t (id bigint generated always as identity primary key, v text, extra text, "
    "loud text generated always as (upper(v)) stored)",
}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("method", list(ConflictMethod))
def test_merge_picks_a_way_that_every_table_allows(
    postgres_url: str, destination: PostgresDestination, situation: str, method: ConflictMethod
) -> None:
    script(postgres_url, SITUATIONS[situation])
    script(
        postgres_url, "insert into t (id, v, extra) overriding system value values (1, 'old', 'kept'), (9, 'x', 'y')"
    )
    if situation == "referenced":
        script(postgres_url, "insert into child values (1)")
    batch = batch_of({"id": [1, 2, 2], "v": ["new", "no", "two"]})
    write(destination, [batch], "t", WriteDisposition.MERGE, key=["id"], method=method)
    expected_v = "new" if method is ConflictMethod.UPDATE else "old"
    assert rows(postgres_url, "select id, v from t order by id") == [(1, expected_v), (2, "two"), (9, "x")]
    extra = rows(postgres_url, "select extra from t where id = 1")
    keeps = method is ConflictMethod.IGNORE or situation == "default"
    assert extra == [("kept",) if keeps else (None,)]
    if situation == "trigger":
        operations = {"UPDATE", "INSERT"} if method is ConflictMethod.UPDATE else {"INSERT"}
        assert {what for (what,) in rows(postgres_url, "select what from log")} - {"INSERT"} == operations - {"INSERT"}


def test_a_merge_of_new_records_only_inserts_however_large_the_table(postgres_url: str) -> None:
    role = f"inserter_{uuid.uuid4().hex[:8]}"
    script(postgres_url, f"create role {role} login; create schema mine authorization {role}")
    destination = PostgresDestination({"url": postgres_url, "user": role, "schema": "mine"}, Path())

    def merge(ids: list[int], values: list[str]) -> None:
        write(destination, [batch_of({"id": ids, "v": values})], "t", WriteDisposition.MERGE, key=["id"])

    try:
        merge([1, 2], ["a", "b"])
        script(postgres_url, f"revoke delete on mine.t from {role}")
        merge([3, 4], ["c", "d"])
        with pytest.raises(FatalConnectorError, match="permission denied") as caught:
            merge([5, 4], ["e", "f"])
        assert "delete from" not in str(caught.value), "an error says no SQL"
        script(postgres_url, f"grant delete on mine.t to {role}")
        merge([5, 4], ["e", "f"])
        held = rows(postgres_url, "select id, v from mine.t order by id")
        assert held == [(1, "a"), (2, "b"), (3, "c"), (4, "f"), (5, "e")]
    finally:
        destination.close()
        script(postgres_url, f"drop schema mine cascade; drop owned by {role}; drop role {role}")


def test_a_merge_that_breaks_another_constraint_says_which(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, "create table t (id bigint primary key, v text constraint short check (length(v) < 3))")
    write(destination, [batch_of({"id": [1], "v": ["a"]})], "t", WriteDisposition.MERGE, key=["id"])
    for number in (1, 2):
        with pytest.raises(FatalConnectorError, match='"short"') as caught:
            write(destination, [batch_of({"id": [number], "v": ["long"]})], "t", WriteDisposition.MERGE, key=["id"])
        assert "insert into" not in str(caught.value)
    assert rows(postgres_url, "select id, v from t") == [(1, "a")]


def test_a_null_in_a_merges_key_is_refused(postgres_url: str, destination: PostgresDestination) -> None:
    write(destination, [batch_of({"id": [1], "v": ["a"]})], "t", WriteDisposition.MERGE, key=["id"])
    with pytest.raises(FatalConnectorError, match="NULL"):
        write(destination, [batch_of({"id": [1, None], "v": ["b", "c"]})], "t", WriteDisposition.MERGE, key=["id"])
    assert rows(postgres_url, "select id, v from t") == [(1, "a")]


@pytest.mark.parametrize("key", [[], ["nope"]])
def test_a_merge_without_its_key_is_refused(
    postgres_url: str, destination: PostgresDestination, key: list[str]
) -> None:
    with pytest.raises(FatalConnectorError, match="key_properties"):
        write(destination, [batch_of({"id": [1]})], "t", WriteDisposition.MERGE, key=key)
    assert rows(postgres_url, "select to_regclass('t')") == [(None,)]


def test_keys_are_compared_as_what_they_become(postgres_url: str, destination: PostgresDestination) -> None:
    upper = "123E4567-E89B-12D3-A456-426614174000"
    field = pa.field("id", pa.string(), False, {b"native_type": b"uuid", b"native_system": b"postgres"})
    schema = pa.schema([field, ("v", pa.int64())])
    batch = batch_of({"id": [upper, upper.lower()], "v": [1, 2]}, schema)
    write(destination, [batch], "t", WriteDisposition.MERGE, key=["id"])
    assert rows(postgres_url, "select id::text, v from t") == [(upper.lower(), 2)]


def test_a_stream_may_change_its_schema_between_batches(postgres_url: str, destination: PostgresDestination) -> None:
    for disposition in WriteDisposition:
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
    for disposition in WriteDisposition:
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
    for disposition in WriteDisposition:
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


def test_nul_in_a_text_is_refused(postgres_url: str, destination: PostgresDestination) -> None:
    with pytest.raises(FatalConnectorError, match="0x00"):
        write(destination, [batch_of({"v": ["a\0b"]})], "t")


def test_a_plain_run_imports_no_pandas(postgres_url: str) -> None:
    import subprocess
    import sys

    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import pyarrow as pa
from connectors.postgres.destination import PostgresDestination
from connectors.postgres.source import PostgresSource
from connectors.stream import Checkpoint, LedgerKey, Load, WriteDisposition
config = {{"url": {postgres_url!r}}}
source, destination = PostgresSource(config, None), PostgresDestination(config, None)
(stream,) = [stream for stream in source.discover() if stream.name == "public.a"]
key = LedgerKey(pipeline="p", stream=stream.name, destination_table="b")
for wire in ("arrow", "pgcopy"):
    destination.describe(["b"])
    destination.take_over(key, token=wire, owner="o", source="s")
    load = Load(key=key, stream=stream, write_disposition=WriteDisposition.MERGE, token=wire, run="r")
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
        ("double precision", "(1, '0'), (2, '-0.0')", "(5, '0'), (6, '1')"),
    ],
)
def test_values_that_compare_as_equal_tie_by_their_bytes(
    postgres_url: str, source: PostgresSource, kind: str, first: str, second: str
) -> None:
    script(postgres_url, "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    script(postgres_url, f"create table t (id int, v {kind}); insert into t values {first}")
    changes = {"replication_method": ReplicationMethod.INCREMENTAL, "bookmark_properties": ("v",)}
    events = read(source, "public.t", **changes)
    script(postgres_url, f"insert into t values {second}")
    bookmark = json.loads(json.dumps(events[-1].bookmark))  # type: ignore[union-attr]
    later = read(source, "public.t", bookmark, **changes)
    assert [n for event in later if isinstance(event, pa.RecordBatch) for n in event["id"].to_pylist()] == [5, 6]
