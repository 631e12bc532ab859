"""Filters: every source lets in the same records, and what a changed filter would miss is refused."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from syncblocks import PipelineFailed, load_pipeline, run_pipeline
from syncblocks.connectors.filters import condition_of
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.config.filters import Where
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.run.results import RunResult
from syncblocks.sync.session.inspection import opened, selected_streams
from syncblocks.sync.session.session import PipelineSession, make_plan
from syncblocks.sync.store import Store
from syncblocks.sync.verify.verification import EQUAL, verify_streams
from tests.conftest import RunCLI
from tests.connectors.singer.singer_helpers import full_table, record, schema, small
from tests.golden.systems import mysql_connection

NAN = float("nan")

#: Values of each column, last NULL; record n has the n-th of each.
VALUES: dict[str, list[Any]] = {
    "n": [0, 1, -1, 10, 2**53 + 1, -(2**63), 2**63 - 1, 9, 100, None],
    "real": [0.0, 0.1, -0.5, 1e300, NAN, 5e-324, float(2**53), -1e-300, 0.30000000000000004, None],
    "price": [*map(Decimal, ("0", "0.100", "-0.001", "99999.999", "10", "9", "0.30", "1.000", "-7")), None],
    "word": ["a", "A", "ä", "a ", "", "it's", "z\\", "💥", "10", None],
    "flag": [True, False, True, False, True, False, True, False, True, None],
    "day": [date(2024, 1, day) if day else date(1969, 12, 31) for day in range(9)] + [None],
    "at": [
        *(
            datetime.fromisoformat(f"2024-01-01T00:00:00.{text}")
            for text in ("000000", "000001", "999999", "500000", "000010", "000100", "000002", "000003", "000004")
        ),
        None,
    ],
}

#: How each system declares them, and the marks of parameters.
DECLARED = {
    "duckdb": "id int primary key, n bigint, real double, price decimal(12,3), word varchar, flag boolean, day date, "
    '"at" timestamp',
    "postgres": "id int primary key, n bigint, real double precision, price decimal(12,3), word text, flag boolean, "
    "day date, at timestamp",
    "mysql": "id int primary key, n bigint, `real` double, price decimal(12,3), word varchar(20) collate "
    "utf8mb4_general_ci, flag boolean, day date, at datetime(6)",
    "sqlite": "id integer primary key, n bigint, real double, price decimal(12,3), word varchar collate nocase, "
    "flag boolean, day date, at timestamp",
}
NAMES = ("id", *VALUES)


def rows(*, has_nan: bool) -> list[tuple[Any, ...]]:
    found = [(place, *record) for place, record in enumerate(zip(*VALUES.values(), strict=True))]
    return found if has_nan else [tuple(None if value != value else value for value in row) for row in found]


def fill(system: str, url: str, folder: Path, *, has_nan: bool = True) -> None:
    create, marks = f"create table things ({DECLARED[system]})", ", ".join("?" * len(NAMES))
    insert = f"insert into things values ({marks})"
    if system == "postgres":
        with psycopg.connect(url) as postgres, postgres.cursor() as cursor:
            cursor.execute(create.encode())
            cursor.executemany(insert.replace("?", "%s").encode(), rows(has_nan=True))
    elif system == "mysql":
        with mysql_connection(url) as mysql, mysql.cursor() as cursor:
            cursor.execute(create)
            cursor.executemany(insert.replace("?", "%s"), rows(has_nan=False))
    elif system == "sqlite":
        with closing(sqlite3.connect(folder / "things.db")) as database:
            database.execute(create)
            shown = [[v.isoformat(" ") if isinstance(v, datetime) else v for v in row] for row in rows(has_nan=False)]
            shown = [[float(v) if isinstance(v, Decimal) else v for v in row] for row in shown]
            shown = [[v.isoformat() if isinstance(v, date) else v for v in row] for row in shown]
            database.executemany(insert, shown)
            database.commit()
    else:
        with closing(duckdb.connect(folder / "things.db")) as database:
            database.execute(create)
            database.executemany(insert, rows(has_nan=has_nan))


def source_of(system: str, folder: Path, url: str) -> dict[str, Any]:
    """Make the source with the records, and return it."""
    stored = "duckdb" if system in ("parquet", "jsonl") else system.removeprefix("sqlalchemy+")
    fill(stored, url, folder, has_nan=system != "jsonl")
    if system in ("parquet", "jsonl"):
        with closing(duckdb.connect(folder / "things.db")) as database:
            kind = "parquet" if system == "parquet" else "json"
            database.execute(f"copy things to '{folder}/things.{system}' (format {kind})")
        return {"connector": system, "config": {"path": f"things.{system}"}}
    if system.startswith("sqlalchemy"):
        urls = {
            "postgres": url.replace("postgresql://", "postgresql+psycopg://"),
            "sqlite": f"sqlite:///{folder}/things.db",
        }
        return {"connector": "sqlalchemy", "config": {"url": urls[stored]}}
    return {"connector": system, "config": {"url": url} if url else {"path": "things.db"}}


def document(source: dict[str, Any], **stream: Any) -> dict[str, Any]:
    return {
        "pipeline": "filtered",
        "source": source,
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "*things", **stream}],
    }


SYSTEMS = ("postgres", "mysql", "duckdb", "sqlite", "sqlalchemy+postgres", "sqlalchemy+sqlite", "parquet", "jsonl")


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    urls = {"postgres": "postgres_url", "mysql": "mariadb_url", "sqlalchemy+postgres": "postgres_url"}
    url = request.getfixturevalue(urls[request.param]) if request.param in urls else ""
    return source_of(request.param, tmp_path, url)


def in_file(value: Any) -> Any:
    """Write a value as the pipeline file does."""
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def cases(field: pa.Field) -> Iterator[tuple[Any, str, list[Any]]]:
    """Yield filters of one column, each with plain SQL and its parameters."""
    name, values = field.name, [value for value in VALUES[field.name][:-1] if value == value]
    for value in values if name == "word" else values[:5]:
        for operator in ("=", "!=", "<", "<=", ">", ">=") if name != "flag" else ("=", "!="):
            yield {operator: in_file(value)}, f'"{name}" {operator} ?', [value]
    yield [in_file(value) for value in values[1:4]], f'"{name}" in (?, ?, ?)', values[1:4]
    yield {"is_null": True}, f'"{name}" is null', []
    yield {"is_null": False}, f'"{name}" is not null', []


def filtered(stream: Stream, where: dict[str, Any]) -> Stream:
    given = TypeAdapter(Where).validate_python(where)
    return replace(
        stream,
        read=replace(
            stream.read, where=tuple(condition_of(stream.schema.field(each[0]), each[1], each[2]) for each in given)
        ),
    )


def read(session: PipelineSession, stream: Stream) -> list[int]:
    events = session.source.read([stream], {stream.name: None})
    return sorted(
        int(key) for _, event in events if isinstance(event, pa.RecordBatch) for key in event.column("id").to_pylist()
    )


@pytest.fixture(scope="module")
def expected() -> dict[tuple[bool, str, str], list[int]]:
    """Ask plain SQL once."""
    found = {}
    for has_nan in (True, False):
        with closing(duckdb.connect()) as database:
            database.execute(f"create table things ({DECLARED['duckdb']})")
            database.executemany(f"insert into things values ({', '.join('?' * len(NAMES))})", rows(has_nan=has_nan))
            for name in VALUES:
                for _, condition, parameters in cases(pa.field(name, pa.null())):
                    rest = database.execute(f"select id from things where {condition} order by id", parameters)
                    found[has_nan, condition, repr(parameters)] = [key for (key,) in rest.fetchall()]
    return found


@pytest.mark.full
@pytest.mark.one_of("source")
@pytest.mark.parametrize("source", SYSTEMS, indirect=True)
def test_every_source_lets_in_what_plain_sql_would(
    source: dict[str, Any], tmp_path: Path, expected: dict[tuple[bool, str, str], list[int]]
) -> None:
    pipeline = load_pipeline(document(source, where={"id": {"is_null": False}}), folder=tmp_path)
    system = source["connector"]
    has_nan = system not in ("mysql", "sqlite", "jsonl") and "sqlite" not in str(source)
    wrong = []
    with opened(pipeline) as session:
        (selected,) = selected_streams(session)
        only = replace(selected.stream, schema=pa.schema([selected.stream.schema.field("id")]))
        for name in VALUES:
            field = selected.stream.schema.field(name)
            for said, condition, parameters in cases(field):
                stream = replace(
                    only, read=replace(only.read, where=filtered(selected.stream, {name: said}).read.where)
                )
                found = read(session, stream)
                if found != expected[has_nan, condition, repr(parameters)]:
                    wrong.append((condition, parameters, found, expected[has_nan, condition, repr(parameters)]))
            assert session.source.count(stream) == len(found)
    assert not wrong


PEOPLE = (
    "create table people (id int primary key, name text, region text, seen timestamp)",
    "insert into people select i, 'p' || i, case when i % 2 = 0 then 'eu' else 'us' end, "
    "timestamp '2024-01-01' + i * interval '1 minute' from generate_series(1, 20) as g(i)",
)


class Bench:
    """People in PostgreSQL, copied to DuckDB."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.execute(*PEOPLE)

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.url) as postgres:
            for each in statements:
                postgres.execute(each.encode())

    def file(self, *, to: dict[str, Any] | None = None, **stream: Any) -> Path:
        path = self.folder / "people.yaml"
        path.write_text(
            json.dumps(
                {
                    "pipeline": "people",
                    "source": {"connector": "postgres", "config": {"url": self.url, "range_bytes": 8192}},
                    "destination": to or {"connector": "duckdb", "config": {"path": "out.db"}},
                    "streams": [{"stream": "public.people", **stream}],
                }
            )
        )
        return path

    def ids(self) -> list[int]:
        with closing(duckdb.connect(self.folder / "out.db")) as database:
            return [key for (key,) in database.execute("select id from people order by 1").fetchall()]


@pytest.fixture
def bench(postgres_url: str, tmp_path: Path) -> Bench:
    return Bench(postgres_url, tmp_path)


EVEN = list(range(2, 21, 2))
INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["seen"]}


@pytest.mark.full
def test_count_preview_and_verify_see_what_is_let_in(bench: Bench, run_cli: RunCLI) -> None:
    file = bench.file(where={"region": "eu", "id": {">": 4}}, columns={"exclude": ["region"]})
    assert run_pipeline(file).status == "success"
    assert bench.ids() == EVEN[2:]
    assert json.loads(run_cli(["count", file, "--json"], bench.folder).stdout)["streams"][0]["source"] == 8
    preview = run_cli(["preview", file, "--stream", "public.people"], bench.folder).stdout
    assert [word in preview for word in ("p6", "p4", "eu")] == [True, False, False]
    shown = run_cli(["plan", file], bench.folder).stdout
    assert "public.people: where region = 'eu' and id > 4" in shown
    with opened(load_pipeline(file)) as session, Store.open(session.pipeline.store_url) as store:
        (found,) = verify_streams(session, make_plan(session, store))
    assert (found.verdict, found.source_records) == (EQUAL, 8), found.notes


@pytest.mark.full
def test_a_changed_filter_is_refused_until_it_is_accepted(bench: Bench, run_cli: RunCLI) -> None:
    assert run_pipeline(bench.file(where={"region": "eu"}, **INCREMENTAL)).status == "success"
    changed = bench.file(where={"region": ["eu", "us"]}, **INCREMENTAL)
    with pytest.raises(PipelineFailed, match=r"the filter \(`where`\) of stream 'public.people' has changed") as caught:
        run_pipeline(changed).raise_for_status()
    assert "--full-refresh" in str(caught.value)
    assert "state set public.people seen=VALUE" in str(caught.value)
    moved = run_cli(["state", "rewind", changed, "public.people", "--to", "2024-01-01T00:15:00"], bench.folder)
    assert moved.returncode == 0, moved.stderr
    assert run_cli(["plan", changed], bench.folder).returncode == 2
    accepted = run_cli(["state", "set", changed, "public.people", "seen=2024-01-01T00:15:00"], bench.folder)
    assert accepted.returncode == 0, accepted.stderr
    assert run_pipeline(changed).status == "success"
    assert bench.ids() == [*EVEN[:7], *range(15, 21)]
    assert run_pipeline(bench.file(where={"region": "us"}, **INCREMENTAL), full_refresh=True).status == "success"
    assert run_pipeline(bench.file(where={"region": "us"}, **INCREMENTAL)).status == "success"
    assert bench.ids() == list(range(1, 21, 2))


def test_a_full_refresh_that_fails_does_not_accept_the_filter(bench: Bench) -> None:
    assert run_pipeline(bench.file(where={"region": "eu"}, **INCREMENTAL)).status == "success"
    bench.execute("insert into people values (22, null, 'us', 'infinity')")
    changed = bench.file(where={"region": "us"}, **INCREMENTAL)
    assert run_pipeline(changed, full_refresh=True).status == "failure"
    with pytest.raises(PipelineFailed, match="has changed"):
        run_pipeline(changed).raise_for_status()


def test_a_full_table_that_is_merged_or_replaced_may_change_it(bench: Bench) -> None:
    assert run_pipeline(bench.file(where={"region": "eu"})).status == "success"
    assert run_pipeline(bench.file(where={"region": "us"})).status == "success"
    assert bench.ids() == list(range(1, 21, 2))
    assert run_pipeline(bench.file(where={"id": {"<=": 2}}, write_disposition="merge")).status == "success"
    assert bench.ids() == [1, 2, *range(3, 21, 2)]


def test_raw_blocks_and_ranges_are_filtered(bench: Bench, postgres_url: str) -> None:
    bench.execute("insert into people select i, repeat('x', 400), 'us', now() from generate_series(21, 400) as g(i)")
    bench.execute("analyze people", "create schema copy")
    to = {"connector": "postgres", "config": {"url": postgres_url}}
    file = bench.file(to=to, where={"region": "eu"}, destination_table="copy.people", parallel_reads=2)
    with opened(load_pipeline(file)) as session:
        (planned,) = make_plan(session, None).streams
    assert (planned.wire, planned.reading.readers) == ("pgcopy", 2)
    assert run_pipeline(file).status == "success"
    with psycopg.connect(postgres_url) as postgres:
        found = postgres.execute("select array_agg(id order by id) from copy.people").fetchone()
    assert found == (EVEN,)


def test_files_in_ranges_are_filtered(tmp_path: Path) -> None:
    lines = [f"{i},{'eu' if i % 2 == 0 else 'us'},{'x' * 500}" for i in range(1, 21)]
    (tmp_path / "people.csv").write_text("\n".join(["id,region,name", *lines, ""]))
    streams = [{"stream": "people", "where": {"region": "eu"}, "columns": {"exclude": ["region"]}, "parallel_reads": 2}]
    document = {
        "pipeline": "people",
        "source": {"connector": "csv", "config": {"path": "people.csv", "range_bytes": 1000}},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": streams,
    }
    pipeline = load_pipeline(document, folder=tmp_path)
    assert run_pipeline(pipeline).status == "success"
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        assert database.execute("select id from people order by 1").fetchall() == [(i,) for i in EVEN]
        assert [c[0] for c in database.execute("describe people").fetchall()] == ["id", "name"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"regoin": "eu"}, "'regoin' is no column of the stream.*did you mean 'region'"),
        ({"id": "many"}, "column 'id' is int32, and 'many' does not fit: write a number"),
        ({"id": 1.5}, "which this number does not fit exactly"),
        ({"name": 7}, "write it in quotes"),
        ({"seen": "yesterday"}, "'seen' is timestamp(tz)?, and 'yesterday'.*write it like 2024-01-31T23:59:00"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(bench: Bench, where: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_pipeline(bench.file(where=where))


@pytest.mark.one_of
@pytest.mark.parametrize("system", ["postgres", "mysql"])
def test_a_uuid_is_one_in_whatever_letters(system: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue("postgres_url" if system == "postgres" else "mariadb_url")
    given = "ABCDEF00-0000-0000-0000-00000000000A"
    statements = ("create table things (id int, uid uuid)", f"insert into things values (1, '{given}'), (2, null)")
    if system == "postgres":
        with psycopg.connect(url) as postgres:
            for each in statements:
                postgres.execute(each.encode())
    else:
        with mysql_connection(url) as mysql, mysql.cursor() as cursor:
            for each in statements:
                cursor.execute(each)
    source = {"connector": system, "config": {"url": url}}
    for text in (given, given.lower()):
        done = run_pipeline(load_pipeline(document(source, where={"uid": text}), folder=tmp_path))
        assert (done.status, done.streams[0].records) == ("success", 1)
    with pytest.raises(PipelineFailed, match="column 'uid' is string, and 'nope' does not fit: write a UUID like"):
        run_pipeline(load_pipeline(document(source, where={"uid": "nope"}), folder=tmp_path)).raise_for_status()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({}, "is empty"),
        ("region = 'eu'", "must be a mapping"),
        ({"id": {"=>": 1}}, "no operator '=>'"),
        ({"id": None}, "is_null: true"),
        ({"id": []}, "`in` needs a list"),
        ({"id": {"<": [1]}}, "takes one value"),
        ({"id": {"is_null": "maybe"}}, "is_null must be true or false"),
    ],
)
def test_what_is_no_filter_is_refused(where: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Where).validate_python(where)


def test_a_taps_records_are_filtered_by_a_column_that_is_left_out(tmp_path: Path) -> None:
    said = [schema("orders"), *(record("orders", id=n, note="eu" if n % 2 == 0 else "us") for n in range(9))]
    document = {
        "pipeline": "tapped",
        "source": {"connector": "singer", "config": small(tmp_path, *said, streams=[full_table("orders")])},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "orders", "where": {"note": "eu"}, "columns": {"exclude": ["note"]}}],
    }
    result = run_pipeline(load_pipeline(document, folder=tmp_path))
    assert result.status == "success", result.streams[0].error
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        assert database.execute("select id from orders order by 1").fetchall() == [(n,) for n in range(0, 9, 2)]
        assert "note" not in [name for name, *_ in database.execute("describe orders").fetchall()]


def test_a_query_is_filtered_around(bench: Bench) -> None:
    file = bench.file()
    document = json.loads(file.read_text())
    query = "select id, region || '!' as place, seen from people where id < 11 -- a comment"
    where = {"place": ["eu!"], "id": {"!=": 4}}
    document["streams"] = [
        {"stream": "people", "query": query, "key_properties": ["id"], "where": where, **INCREMENTAL}
    ]
    file.write_text(json.dumps(document))
    assert run_pipeline(file).status == "success"
    assert bench.ids() == [2, 6, 8, 10]
    assert run_pipeline(file).status == "success"


def test_ranges_by_a_key_are_filtered(mariadb_url: str, tmp_path: Path) -> None:
    with mysql_connection(mariadb_url) as mysql, mysql.cursor() as cursor:
        cursor.execute("create table people (id int primary key, region varchar(9), name varchar(600))")
        rows = [(n, "eu" if n % 2 == 0 else "us", "x" * 500) for n in range(1, 201)]
        cursor.executemany("insert into people values (%s, %s, %s)", rows)
        cursor.execute("analyze table people")
        cursor.fetchall()
    source = {"connector": "mysql", "config": {"url": mariadb_url, "range_bytes": 16384}}
    file = document(source, where={"region": "eu"}, columns={"exclude": ["region"]}, parallel_reads=2)
    file["streams"][0]["stream"] = "*people"
    pipeline = load_pipeline(file, folder=tmp_path)
    with opened(pipeline) as session:
        (planned,) = make_plan(session, None).streams
    assert planned.reading.readers == 2
    assert run_pipeline(pipeline).status == "success"
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        assert database.execute("select id from people order by 1").fetchall() == [(n,) for n in range(2, 201, 2)]


def test_a_guessed_type_yields_to_the_table(tmp_path: Path) -> None:
    def day(lines: str, **where: Any) -> str:
        (tmp_path / "places.csv").write_text(f"id,zip\n{lines}")
        stream = {"stream": "places", "key_properties": ["id"], "write_disposition": "merge", "where": where}
        document = {
            "pipeline": "places",
            "source": {"connector": "csv", "config": {"path": "places.csv"}},
            "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
            "streams": [stream],
        }
        result = run_pipeline(load_pipeline(document, folder=tmp_path))
        assert result.status == "success", result.streams[0].error
        with closing(duckdb.connect(tmp_path / "out.db")) as database:
            return str(database.execute("select id, zip from places order by id").fetchall())

    with pytest.raises(ConfigError, match="where: column 'zip' is int64: write a number"):
        day("1,12\n", zip="many")
    assert day("1,A1\n2,007\n", zip=["A1", "007"]) == "[(1, 'A1'), (2, '007')]"
    assert day("3,12\n4,7\n5,A1\n"[:9], zip=["A1", "007", "7"]) == "[(1, 'A1'), (2, '007'), (4, '7')]"


@pytest.mark.one_of
@pytest.mark.parametrize("kind", ["timestamptz", "timestamp"])
def test_another_interval_is_the_same_filter(bench: Bench, kind: str) -> None:
    def run(start: int, end: int, **where: Any) -> RunResult:
        whole = {"seen": {">=": "{{ interval_start_datetime }}", "<": "{{ interval_end_datetime }}"}, **where}
        moments = (datetime(2024, 1, 1, 0, start, tzinfo=UTC), datetime(2024, 1, 1, 0, end, tzinfo=UTC))
        file = bench.file(where=whole, write_disposition="append", **INCREMENTAL)
        return run_pipeline(load_pipeline(file, interval=moments))

    if kind == "timestamptz":
        bench.execute("alter table people alter column seen type timestamptz using seen at time zone 'UTC'")
    assert run(1, 4).status == "success"
    assert run(4, 6).status == "success"
    assert bench.ids() == [1, 2, 3, 4, 5]
    with pytest.raises(PipelineFailed, match="has changed"):
        run(6, 9, region="eu").raise_for_status()
