"""Types of PostgreSQL and of Arrow, into it and out of it: what survives, what is widened and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.stream import Checkpoint, Stream
from syncblocks.connectors.write_spec import WriteDisposition
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.store import Store
from syncblocks.sync.verify.verification import EQUAL, verify_streams
from tests.connectors.postgres.postgres_pair import PLAIN, batch_of, can, copy, order, read, rows, script, write
from tests.connectors.postgres.postgres_pair import destination as destination
from tests.connectors.postgres.postgres_pair import source as source

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


@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
@pytest.mark.parametrize("disposition", PLAIN)
def test_every_built_in_type_survives(postgres_url: str, wire: str, disposition: WriteDisposition) -> None:
    types = TYPES if can(postgres_url, "select '<a/>'::xml") else {k: v for k, v in TYPES.items() if k != "xml"}
    columns = ", ".join(f"c{place} {kind}" for place, kind in enumerate(types))
    first = ", ".join(values[0] for values in types.values())
    second = ", ".join(values[1] for values in types.values())
    nulls = ", ".join("null" for _ in types)
    script(
        postgres_url,
        f"create table a (id int primary key, {columns}); "
        f"insert into a values (1, {first}), (2, {second}), (3, {nulls})",
    )
    for _ in range(2 if disposition is not WriteDisposition.APPEND else 1):
        commits = copy(postgres_url, "public.a", "b", disposition, wire)
        assert commits[-1].records == 3
    for place, kind in enumerate(types):
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


@pytest.mark.thinned(1)
@pytest.mark.parametrize(
    ("held", "value", "made", "expected"),
    [
        ("smallint", pa.array([2**40]), "bigint", 2**40),
        ("integer", pa.array([1], pa.int16()), "integer", 1),
        ("character varying(2)", pa.array(["long text"]), "text", "long text"),
        ("numeric(4,2)", pa.array([Decimal("12345.678")]), "numeric(8,3)", Decimal("12345.678")),
        ("numeric", pa.array([7]), "numeric", Decimal(7)),
        ("real", pa.array([0.1]), "double precision", 0.1),
        ("bigint", pa.array([1.5]), "double precision", 1.5),
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


def test_text_is_taken_word_for_word_by_columns_that_refuse_what_is_none(
    postgres_url: str, destination: PostgresDestination
) -> None:
    script(postgres_url, "create type mood as enum ('sad', 'ok'); create table t (c mood, d json)")
    good = {"c": ["ok"], "d": ['{"x": 1, "x": 1}']}
    write(destination, [batch_of(good)], "t")
    assert rows(postgres_url, "select c::text, d::text from t") == [("ok", '{"x": 1, "x": 1}')]
    with pytest.raises(FatalConnectorError, match="mood"):
        write(destination, [batch_of({**good, "c": ["angry"]})], "t")


@pytest.mark.thinned(1)
@pytest.mark.parametrize("disposition", ["append", "merge"])
@pytest.mark.parametrize(
    ("held", "now", "made"),
    [
        ("bit varying(3)", "bit varying(7)", "bit varying(7)"),
        ("bit varying(3)", "bit varying", "bit varying"),
        ("bit varying", "bit varying(7)", "bit varying"),
        ("bit varying(7)", "bit(3)", "bit varying(7)"),
        ("bit(3)", "bit(7)", "bit varying(7)"),
        ("bit(3)", "bit varying", "bit varying"),
    ],
)
def test_strings_of_bits_are_widened(postgres_url: str, disposition: str, held: str, now: str, made: str) -> None:
    script(
        postgres_url,
        f"create table t (id int primary key, v {held}); insert into t values (1, B'101');"
        f"create table s (id int primary key, v {now}); insert into s values (2, '0111111'::bit varying::{now})",
    )
    copy(postgres_url, "public.s", "t", WriteDisposition(disposition))
    kind = "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 't'::regclass and attname = 'v'"
    assert rows(postgres_url, kind) == [(made,)]
    sql = "select v::text from {} order by id"
    assert rows(postgres_url, sql.format("t")) == [("101",), *rows(postgres_url, sql.format("s"))]


@pytest.mark.parametrize("disposition", [WriteDisposition.APPEND, WriteDisposition.MERGE])
@pytest.mark.parametrize(
    ("kind", "held", "text"),
    [
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123E4567-E89B-12D3-A456-426614174000"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "none"),
        ("jsonb", '{"a": 1}', '{"b":1, "b":2}'),
        ("inet", "::1/128", "::0001"),
        ("macaddr", "08:00:2b:01:02:03", "08-00-2b-01-02-03"),
    ],
)
def test_a_column_that_would_write_a_text_anew_becomes_text(
    postgres_url: str,
    destination: PostgresDestination,
    disposition: WriteDisposition,
    kind: str,
    held: str,
    text: str,
) -> None:
    script(postgres_url, f"create table t (id bigint primary key, v {kind}); insert into t values (1, '{held}')")
    commits = write(destination, [batch_of({"id": [2], "v": [text]})], "t", disposition, key=["id"])
    assert commits[0].schema_changes == ({"column": "v", "change": "widened", "before": kind, "after": "text"},)
    assert rows(postgres_url, "select pg_typeof(v)::text, v from t order by id") == [("text", held), ("text", text)]


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


def test_a_character_of_no_length_keeps_its_blanks(postgres_url: str) -> None:
    script(
        postgres_url,
        "create table t (a char(3), b char(5)); insert into t values ('x', 'y'), (null, null); "
        "create view v as select a from t union all select b from t",
    )
    copy(postgres_url, "public.v", "public.copied", WriteDisposition.REPLACE, "arrow")
    lengths = "select octet_length(textin(bpcharout(a))) from v order by 1"
    assert rows(postgres_url, lengths) == [(3,), (5,), (None,), (None,)]
    assert rows(postgres_url, "select octet_length(a) from copied order by 1") == rows(postgres_url, lengths)


def test_nul_in_a_text_is_refused(postgres_url: str, destination: PostgresDestination) -> None:
    with pytest.raises(FatalConnectorError, match=r"0x00.*`on_rejected: keep`"):
        write(destination, [batch_of({"v": ["a\0b"]})], "t")


DOMAINS = """create domain positive as int check (value > 0);
create domain small as positive not null check (value < 100);
create domain price as numeric(8,2); create domain code as char(5); create domain codes as code[];
create domain moment as timestamptz(3); create domain bits as int[]; create domain word as text"""

#: Domain -> a value, and the type that it is read as.
OF_DOMAINS = {
    "small": ("7", "integer"),
    "price": ("1.50", "numeric(8,2)"),
    "code": ("'ab'", "character(5)"),
    "codes": ("array['q'::code]", "code[]"),
    "moment": ("'2024-01-01 00:00:00.1234Z'", "timestamp(3) with time zone"),
    "bits": ("'{1,null}'", "integer[]"),
}


@pytest.mark.parametrize("disposition", PLAIN)
def test_a_domain_is_read_as_the_type_that_it_is_of(postgres_url: str, disposition: WriteDisposition) -> None:
    declared = ", ".join(f"c{place} {name}" for place, name in enumerate(OF_DOMAINS))
    script(postgres_url, f"{DOMAINS}; create table a (id positive primary key, {declared})")
    script(postgres_url, f"insert into a values (1, {', '.join(value for value, _ in OF_DOMAINS.values())})")
    script(postgres_url, "insert into a (id, c0) values (2, 8)")
    copy(postgres_url, "public.a", "b", disposition)
    types = "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'b'::regclass and attnum > 1"
    assert rows(postgres_url, types + " order by attnum") == [
        (kind if kind != "code[]" else "text",) for _, kind in OF_DOMAINS.values()
    ]
    texts = "select concat(c0, '|', c1, '|', c2, '|', c3, '|', c4, '|', c5) from {} order by id"
    assert rows(postgres_url, texts.format("b")) == rows(postgres_url, texts.format("a"))


@pytest.mark.parametrize("disposition", [WriteDisposition.APPEND, WriteDisposition.MERGE])
def test_a_table_of_domains_keeps_them_and_what_they_refuse(
    postgres_url: str, destination: PostgresDestination, disposition: WriteDisposition
) -> None:
    script(postgres_url, f"{DOMAINS}; create table t (id bigint primary key, n positive, v word)")
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("n", pa.int32()), ("v", pa.string())])
    for number in (1, 2):
        write(destination, [batch_of({"id": [number], "n": [5], "v": ["ab"]}, schema)], "t", disposition, key=["id"])
    types = "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 't'::regclass and attnum > 1"
    assert rows(postgres_url, f"{types} order by attnum") == [("positive",), ("word",)]
    assert rows(postgres_url, "select n, v from t") == [(5, "ab"), (5, "ab")]
    with pytest.raises(FatalConnectorError, match="positive"):
        write(destination, [batch_of({"id": [3], "n": [-1], "v": [None]}, schema)], "t", disposition, key=["id"])
    # What it is of would have to be wider; a cast to it would cut the text off.
    script(postgres_url, "alter table t alter v type code")
    with pytest.raises(FatalConnectorError, match="'v'"):
        write(destination, [batch_of({"id": [3], "n": [1], "v": ["abcdef"]}, schema)], "t", disposition, key=["id"])
    wide = schema.set(1, pa.field("n", pa.int64()))
    with pytest.raises(FatalConnectorError, match="'n'"):
        write(destination, [batch_of({"id": [3], "n": [2**40], "v": [None]}, wide)], "t", disposition, key=["id"])


def test_arrays_are_json_where_told_also_of_domains_and_of_several_dimensions(
    postgres_url: str, tmp_path: Path
) -> None:
    script(
        postgres_url,
        "create domain tags as text[]; create table t (id int primary key, n int[], w text[] not null, d tags, "
        "f float8[]); "
        "insert into t values (1, '{1,null}', '{a,\"b c\"}', '{x}', '{1.5,NaN}'), "
        "(2, null, '{}', '{{a,b},{c,d}}', null)",
    )
    document = {
        "pipeline": "p",
        "source": {"connector": "postgres", "config": {"url": postgres_url, "arrays_as_json": True}},
        "destination": {"connector": "jsonl", "config": {"path": "out"}},
        "streams": [{"stream": "public.t"}, {"stream": "q", "query": "select n from t where id = 1"}],
    }
    pipeline = load_pipeline(document, folder=tmp_path)
    assert run_pipeline(pipeline).status == "success"
    assert [json.loads(line) for line in (tmp_path / "out/t.jsonl").read_text().splitlines()] == [
        {"id": 1, "n": [1, None], "w": ["a", "b c"], "d": ["x"], "f": [1.5, "NaN"]},
        {"id": 2, "n": None, "w": [], "d": [["a", "b"], ["c", "d"]], "f": None},
    ]
    assert (tmp_path / "out/q.jsonl").read_text() == '{"n":[1,null]}\n'
    with opened(pipeline) as session, Store.open(session.pipeline.store_url) as store:
        assert [each.verdict for each in verify_streams(session, make_plan(session, store))] == [EQUAL, EQUAL]


@pytest.mark.parametrize("is_incremental", [False, True])
@pytest.mark.parametrize("kind", ["date", "timestamp"])
def test_a_time_before_the_first_of_postgresql_names_its_column_and_a_way_out(
    tmp_path: Path, postgres_url: str, kind: str, is_incremental: bool
) -> None:
    """The error was the server's own, with the name of a table that nobody knows."""
    days = pa.array([-2_500_000, 0], pa.int32()).cast(pa.date32())
    at = days if kind == "date" else days.cast(pa.timestamp("us"))
    pq.write_table(pa.table({"id": [1, 2], "the day, or so": at}), tmp_path / "t.parquet")
    incremental = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "key_properties": ["id"]}
    stream = {"stream": "t", **(incremental if is_incremental else {})}
    document = {
        "pipeline": "p",
        "source": {"connector": "parquet", "config": {"path": "t.parquet"}},
        "destination": {"connector": "postgres", "config": {"url": postgres_url}},
        "streams": [stream],
    }
    (result,) = run_pipeline(load_pipeline(document, folder=tmp_path)).streams
    assert f"column 'the day, or so': a {kind} before 4713 BC" in str(result.error)
    assert "`on_rejected: keep`" in str(result.error)
    assert "_syncblocks" not in str(result.error)
    document["streams"] = [{**stream, "on_rejected": "keep"}]
    (result,) = run_pipeline(load_pipeline(document, folder=tmp_path)).streams
    assert (result.status, result.records, result.records_rejected) == ("success", 1, 1)
