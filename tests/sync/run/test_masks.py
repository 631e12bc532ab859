"""Masked columns: every source masks where it reads, and no value of one stands anywhere else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sqlite3
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from syncblocks import PipelineFailed, load_pipeline, run_pipeline
from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError, FatalConnectorError, RetriableError
from syncblocks.connectors.files.split_files import SAMPLE_FILES, sampled
from syncblocks.connectors.incremental.hashes import record_hashes
from syncblocks.connectors.read_spec import MaskRule, Masks, ReadSpec
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.flow.masked import MaskedSource
from syncblocks.sync.flow.masked_errors import hidden_error
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.store import Store
from syncblocks.sync.verify.verification import EQUAL, verify_streams
from tests.conftest import RunCLI
from tests.connectors.singer.singer_helpers import entry, full_table, record, schema, small, state
from tests.golden.systems import mysql_connection
from tests.thinned import only_full

KEY = "correct horse battery staple, and more"
MASK = {"email": "hash", "ph*": {"keep_last": 2}, "name": None}
#: id, email, phone, name, level. Every masked value holds `canary`, or this number.
PHONE, PHONE_LIKE = 4915112345678, 491511000
ROWS = [
    (1, "canary1@x.org", PHONE, "Canary Ann", 10),
    (2, "canary2@x.org", PHONE + 1, "Canary Bob", 20),
    (3, "canary1@x.org", None, "Canary Cid", 30),
]
CANARIES = ("canary", "Canary", str(PHONE)[:9])
NAMES = ["id", "email", "phone", "name", "level"]
CREATE = "create table people (id int primary key, email varchar(40), phone bigint, name varchar(40), level int)"

SYSTEMS = ("postgres", "mysql", "duckdb", "sqlite", "parquet", "csv", "singer", *only_full("sqlalchemy", "jsonl"))


def hashed(text: str) -> str:
    return hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()


EXPECTED = [
    (1, hashed("canary1@x.org"), "***********78", None, 10),
    (2, hashed("canary2@x.org"), "***********79", None, 20),
    (3, hashed("canary1@x.org"), None, None, 30),
]


def people(system: str, folder: Path, url: str) -> dict[str, Any]:
    """Make a source with the people."""
    place = folder / "source"
    place.mkdir()
    table = pa.table({name: list(values) for name, values in zip(NAMES, zip(*ROWS, strict=True), strict=True)})
    if system == "postgres":
        with psycopg.connect(url) as postgres, postgres.cursor() as cursor:
            cursor.execute(CREATE.encode())
            cursor.executemany(b"insert into people values (%s, %s, %s, %s, %s)", ROWS)
        return {"connector": system, "config": {"url": url}}
    if system == "mysql":
        with mysql_connection(url) as mysql, mysql.cursor() as cursor:
            cursor.execute(CREATE)
            cursor.executemany("insert into people values (%s, %s, %s, %s, %s)", ROWS)
        return {"connector": system, "config": {"url": url}}
    if system in ("sqlite", "sqlalchemy"):
        with closing(sqlite3.connect(place / "people.db")) as database:
            database.execute(CREATE)
            database.executemany("insert into people values (?, ?, ?, ?, ?)", ROWS)
            database.commit()
        config = {"path": "source/people.db"} if system == "sqlite" else {"url": f"sqlite:///{place}/people.db"}
        return {"connector": system, "config": config}
    if system == "duckdb":
        with closing(duckdb.connect(place / "people.db")) as database:
            database.execute(CREATE)
            database.executemany("insert into people values (?, ?, ?, ?, ?)", ROWS)
        return {"connector": system, "config": {"path": "source/people.db"}}
    records = table.to_pylist()
    if system == "singer":
        numbers = {name: {"type": ["null", "integer"]} for name in ("id", "phone", "level")}
        of = {"type": "object", "properties": {**numbers, **{name: {"type": ["string"]} for name in ("email", "name")}}}
        said = [schema("people", of), *(record("people", **each) for each in records)]
        return {"connector": system, "config": small(place, *said, streams=[full_table("people", of)])}
    if system == "parquet":
        pq.write_table(table, place / "people.parquet", use_dictionary=True)
    elif system == "csv":
        texts = [",".join("" if value is None else str(value) for value in each.values()) for each in records]
        (place / "people.csv").write_text("\n".join([",".join(NAMES), *texts, ""]))
    else:
        (place / "people.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    return {"connector": system, "config": {"path": f"source/people.{system}"}}


def document(source: dict[str, Any], mask: dict[str, Any] = MASK, **stream: Any) -> dict[str, Any]:
    return {
        "pipeline": "people",
        "mask_key": KEY,
        "source": source,
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "*people", "columns": {"mask": mask}, **stream}],
    }


def everything(folder: Path) -> str:
    """Return all that stands in the folder beside the source: files as they are, and tables of databases."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file() or "source" in path.parts:
            continue
        found.append(path.read_bytes().decode("latin-1"))
        if path.name == "out.db":
            with closing(duckdb.connect(path, read_only=True)) as database:
                tables = [name for (name,) in database.execute("select table_name from duckdb_tables()").fetchall()]
                found += [repr(database.execute(f'select * from "{name}"').fetchall()) for name in tables]
    return "\n".join(found)


def leaks(*texts: str) -> list[str]:
    return [canary for canary in CANARIES if any(canary in text for text in texts)]


def stored(folder: Path) -> str:
    """Return all that a run has stored beside the pipeline file."""
    return "".join(file.read_bytes().decode("latin-1") for file in folder.rglob("*store*db*"))


def rows(folder: Path) -> list[tuple[Any, ...]]:
    with closing(duckdb.connect(folder / "out.db")) as database:
        return database.execute("select id, email, phone, name, level from people order by all").fetchall()


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    urls = {"postgres": "postgres_url", "mysql": "mariadb_url"}
    return people(
        request.param, tmp_path, request.getfixturevalue(urls[request.param]) if request.param in urls else ""
    )


@pytest.mark.one_of("source")
@pytest.mark.parametrize("source", SYSTEMS, indirect=True)
def test_every_source_masks(source: dict[str, Any], tmp_path: Path) -> None:
    pipeline = load_pipeline(document(source), folder=tmp_path)
    result = run_pipeline(pipeline)
    assert result.status == "success", result.streams[0].error
    assert rows(tmp_path) == EXPECTED
    with opened(pipeline) as session, Store.open(session.pipeline.store_url) as store:
        plan = make_plan(session, store)
        assert plan.streams[0].wire == "arrow"
        (found,) = verify_streams(session, plan)
    assert (found.verdict, found.source_records) == (EQUAL, 3), found.notes
    assert not leaks(everything(tmp_path))


@pytest.mark.parametrize(
    ("later", "email", "phone"),
    [
        ({"include": ["id", "email", "phone"]}, hashed("canary1@x.org"), "***********78"),
        ({"exclude": ["name"]}, hashed("canary1@x.org"), "***********78"),
        ({"mask": {"email": None}}, None, "***********78"),
        ({"mask": None, "include": ["id", "email", "phone"]}, "canary1@x.org", PHONE),
        (None, "canary1@x.org", PHONE),
    ],
)
def test_a_later_entry_ends_a_mask_only_by_saying_so(
    later: dict[str, Any] | None, email: str | None, phone: object, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "source.db")) as database, database:
        database.execute(CREATE)
        database.execute("insert into people values (?, ?, ?, ?, ?)", ROWS[0])
    given = document({"connector": "sqlite", "config": {"path": "source.db"}})
    given["streams"] = [{"stream": "*", "columns": {"mask": MASK}}, {"stream": "people", "columns": later}]
    run_pipeline(load_pipeline(given, folder=tmp_path)).raise_for_status()
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        assert database.execute("select email, phone from people").fetchall() == [(email, phone)]


@pytest.mark.one_of
@pytest.mark.parametrize("source", ["postgres", "sqlite", "jsonl"], indirect=True)
def test_records_at_the_bookmark_are_recognised_by_hashes_of_masked_records(
    source: dict[str, Any], tmp_path: Path
) -> None:
    said = {"replication_method": "INCREMENTAL", "bookmark_properties": ["level"], "write_disposition": "append"}
    for _ in range(2):
        result = run_pipeline(load_pipeline(document(source, **said), folder=tmp_path))
        assert result.status == "success", result.streams[0].error
    assert rows(tmp_path) == EXPECTED
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        (held,) = database.execute("select bookmark from _syncblocks_ledger").fetchall()
    boundary = json.loads(held[0])["_boundary"]
    clear = pa.RecordBatch.from_pylist([dict(zip(NAMES, ROWS[2], strict=True))])
    shown = pa.RecordBatch.from_pylist([dict(zip(NAMES, EXPECTED[2], strict=True))])
    hashes = [b64(record_hashes(each, boundary["columns"], by_value=True)[0]) for each in (clear, shown)]
    assert [each in boundary["hashes"] for each in hashes] == [False, True]


@pytest.mark.full
def test_what_a_tap_sends_again_is_recognised_by_hashes_of_masked_records(tmp_path: Path) -> None:
    said = [schema("people"), *(record("people", id=n, stamp="2024-01-01", note=f"canary{n}") for n in range(3))]
    said.append(state(people={"replication_key": "stamp", "replication_key_value": "2024-01-01"}))
    (tmp_path / "source").mkdir()
    source = {"connector": "singer", "config": small(tmp_path / "source", *said, streams=[entry("people")])}
    file = document(source, {"note": "hash"}, write_disposition="append")
    for _ in range(2):
        result = run_pipeline(load_pipeline(file, folder=tmp_path))
        assert result.status == "success", result.streams[0].error
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        assert database.execute("select count(*), count(distinct note) from people").fetchall() == [(3, 3)]
    to = {"destination_table": "others"}
    other = document(source, {"note": "hash"}, write_disposition="append", **to) | {"mask_key": KEY[::-1]}
    assert run_pipeline(load_pipeline(other, folder=tmp_path)).status == "success"
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        held = database.execute("select bookmark from _syncblocks_ledger").fetchall()
    one, two = (json.loads(bookmark)["_boundary"]["hashes"] for (bookmark,) in held)
    assert len(one) == len(two) == 3
    assert not {text[-32:] for text in one}.intersection(text[-32:] for text in two)
    masked = document(source, {"stamp": "hash"}, write_disposition="append") | {"pipeline": "other"}
    with pytest.raises(ConfigError, match="'stamp' is masked, and `bookmark_properties` names it"):
        run_pipeline(load_pipeline(masked, folder=tmp_path))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


@pytest.mark.full
def test_a_masked_key_merges_and_is_verified_and_repaired(tmp_path: Path, postgres_url: str) -> None:
    source = people("postgres", tmp_path, postgres_url)
    file = document(source, {"id": "hash", **MASK}, key_properties=["id"], write_disposition="merge")
    pipeline = load_pipeline(file, folder=tmp_path)
    for _ in range(2):
        assert run_pipeline(pipeline).status == "success"
    keys = sorted(hashed(str(n)) for n in (1, 2, 3))
    assert [row[0] for row in rows(tmp_path)] == keys
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        database.execute("update people set level = 11 where level = 10")
    with opened(pipeline) as session, Store.open(session.pipeline.store_url) as store:
        (found,) = verify_streams(session, make_plan(session, store))
    assert found.comparison is not None
    assert [each.key for each in found.comparison.records] == [(hashed("1"),)]


@pytest.mark.full
def test_records_that_are_gone_are_found_by_masked_keys(tmp_path: Path, run_cli: RunCLI) -> None:
    source = people("duckdb", tmp_path, "")
    merged = {"key_properties": ["email"], "write_disposition": "merge", "deletes": "hard"}
    file = written(tmp_path, source, columns={"mask": {"email": "hash"}}, where={"id": {"<": 3}}, **merged)
    assert run_pipeline(file).status == "success"
    assert (
        "every key is read once on both sides, since the source's keys must be masked"
        in run_cli(["plan", file], tmp_path).stdout
    )
    with closing(duckdb.connect(tmp_path / "source" / "people.db")) as database:
        database.execute("delete from people where id = 1")
    assert run_pipeline(file).status == "success"
    assert [(key, email) for key, email, *_ in rows(tmp_path)] == [(2, hashed("canary2@x.org"))]


def test_ranges_are_masked_and_their_labels_show_no_key(tmp_path: Path, mariadb_url: str) -> None:
    with mysql_connection(mariadb_url) as mysql, mysql.cursor() as cursor:
        cursor.execute("create table people (id int primary key, name varchar(600))")
        cursor.executemany("insert into people values (%s, %s)", [(PHONE_LIKE + n, "x" * 500) for n in range(200)])
        cursor.execute("analyze table people")
        cursor.fetchall()
    source = {"connector": "mysql", "config": {"url": mariadb_url, "range_bytes": 16384}}
    pipeline = load_pipeline(document(source, {"id": "hash"}, parallel_reads=2), folder=tmp_path)
    with opened(pipeline) as session:
        (planned,) = make_plan(session, None).streams
        reads = session.source_can.reads_ranges
        assert reads is not None
        with reads.open_ranges(planned.stream, 2, "arrow") as ranges:
            assert not [part.label for part in ranges.ranges if str(PHONE_LIKE)[:5] in part.label]
    assert planned.reading.readers == 2
    assert run_pipeline(pipeline).status == "success"
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        found = {key for (key,) in database.execute("select id from people").fetchall()}
    assert found == {hashed(str(PHONE_LIKE + n)) for n in range(200)}


def written(folder: Path, source: dict[str, Any], *more: dict[str, Any], **stream: Any) -> Path:
    whole = document(source, **stream)
    for each in more:
        whole |= each
    (folder / "people.yaml").write_text(json.dumps(whole))
    return folder / "people.yaml"


TELL = """
@transformer
def tell(df):
    print(df.to_string())
    raise ValueError(df.to_string())
"""
KEPT = """
@callback("failure", "success")
def tell(data, **kwargs):
    print(data, kwargs)
"""


@pytest.mark.one_of("case")
@pytest.mark.parametrize("case", ["destination", "transformer", "source", "tap", "csv", "jsonl", "unreadable"])
def test_no_error_and_no_log_shows_a_masked_value(
    case: str, tmp_path: Path, postgres_url: str, run_cli: RunCLI
) -> None:
    source, more, stream = people("postgres", tmp_path, postgres_url), {}, dict[str, Any]()
    if case == "destination":
        with closing(duckdb.connect(tmp_path / "out.db")) as database:
            columns = "id int primary key, email varchar check (email like '%@%'), phone varchar, name varchar"
            database.execute(f"create table people ({columns}, level int)")
        stream = {"write_disposition": "merge"}
    elif case == "transformer":
        (tmp_path / "tell.py").write_text(TELL)
        (tmp_path / "kept.py").write_text(KEPT)
        more = {"transformers": [{"file": "tell.py"}], "callbacks": [{"file": "kept.py", "on": ["source", "tell"]}]}
    elif case == "source":
        query = "select id, email, phone, name, case when id = 3 then email::int else 1 end as level from people"
        stream = {"stream": "people", "query": query}
    elif case == "tap":
        said = [schema("people"), record("people", id=1, email="x", note="y"), b"canary {"]
        source = {"connector": "singer", "config": small(tmp_path / "source", *said, streams=[full_table("people")])}
        stream = {"columns": {"mask": {"note": "hash"}}}
    else:
        suffix = "csv" if case == "unreadable" else case
        lines = {"csv": "id,email\n1,a\n2,canary,3\n", "jsonl": '{"id": 1, "email": "a"}\n{"id": 2, "email": "canary\n'}
        text = "id,email\n1,canary,3\n2,canary,4\n" if case == "unreadable" else lines[case]
        (tmp_path / "source" / f"people.{suffix}").write_text(text)
        source = {"connector": suffix, "config": {"path": f"source/people.{suffix}"}}
        stream = {"columns": {"mask": {"email": "hash"}}}
    file = written(tmp_path, source, more, **stream)
    done = run_cli(["run", file, "--debug"], tmp_path)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert not leaks(done.stdout, done.stderr, everything(tmp_path)), done.stdout + done.stderr


def test_what_a_tap_says_is_not_shown(tmp_path: Path, run_cli: RunCLI) -> None:
    program = tmp_path / "tap-loud"
    program.write_text("#!/bin/sh\necho 'INFO canary' >&2\necho 'ValueError: canary' >&2\nexit 3\n")
    program.chmod(0o755)
    catalog = tmp_path / "catalog.json"
    catalog.write_text(json.dumps({"streams": [full_table("people")]}))
    source = {"connector": "singer", "config": {"executable": str(program), "catalog": str(catalog), "flags": []}}
    file = written(tmp_path, source, **{"columns": {"mask": {"note": "hash"}}})
    done = run_cli(["run", file, "--debug"], tmp_path)
    assert "ended with status 3" in done.stdout
    assert not leaks(done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("suffix", "text", "record_kept", "reason"),
    [
        ("csv", "id,email\n1,a\n2,canary,3\n", None, "3 fields for 2 columns"),
        ("jsonl", '{"id": 1, "email": "a"}\n{"id": 2, "email": "canary\n', None, "not a JSON object in UTF-8"),
        (
            "jsonl",
            '{"id": 1, "email": "a"}\n{"id": "x", "email": "canary"}\n',
            {"id": "x", "email": hashed("canary")},
            """column 'id': '"x"' is no int64; `types: {id: string}` in this stream reads it as text""",
        ),
    ],
)
def test_a_rejected_record_has_masked_values_or_none(
    suffix: str, text: str, record_kept: Any, reason: str, tmp_path: Path
) -> None:
    (tmp_path / f"people.{suffix}").write_text(text)
    source = {"connector": suffix, "config": {"path": f"people.{suffix}", "types": {"id": "bigint"}}}
    file = document(source, {"email": "hash"}, on_rejected="keep")
    result = run_pipeline(load_pipeline(file, folder=tmp_path))
    assert result.status == "success", result.streams[0].error
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        ((kept, why, place),) = database.execute("select record, reason, place from _syncblocks_rejected").fetchall()
    assert (json.loads(kept), why) == (record_kept, reason)
    assert place.endswith(f"people.{suffix}:{text.count(chr(10))}")
    (tmp_path / f"people.{suffix}").unlink()
    assert not leaks(everything(tmp_path))


class Growing:
    """A source whose stream gets a column while it is read."""

    def read(self, group: Sequence[Stream], *_: Any) -> Iterator[tuple[str, Any]]:
        (stream,) = group
        assert stream.schema.types == [pa.int64()]
        wider = pa.schema([*stream.schema, pa.field("email_2", pa.string(), metadata={b"notice": b"canary"})])
        yield stream.name, pa.RecordBatch.from_pylist([{"id": 1}])
        yield stream.name, replace(stream, schema=wider)
        yield stream.name, pa.RecordBatch.from_pylist([{"id": 2, "email_2": "canary"}], schema=wider)
        raise ValueError("canary") from KeyError("canary")


def test_a_column_that_appears_during_the_read_is_left_out_if_it_is_not_included(tmp_path: Path) -> None:
    of = {"type": "object", "properties": {"id": {"type": "integer"}, "note": {"type": ["null", "string"]}}}
    wider = {**of, "properties": {**of["properties"], "phone": {"type": "string"}}}
    taps = small(tmp_path, schema("a", wider), record("a", id=1, phone="5"), streams=[full_table("a", of)])
    document = {
        "pipeline": "p",
        "source": {"connector": "singer", "config": taps},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "*", "columns": {"include": ["id", "note"]}}],
    }
    assert run_pipeline(load_pipeline(document, folder=tmp_path)).status == "success"
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        assert [name for name, *_ in database.execute("select * from a").description] == ["id", "note"]


@pytest.mark.parametrize("columns", [{"mask": {"email": None}}, {"exclude": ["email"]}])
def test_the_second_column_of_a_name_is_not_read_as_it_is_where_the_first_is_hidden(
    columns: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "m.csv").write_text("id,email,email\n1,a@x.org,canary@x.org\n")
    document = {
        "pipeline": "p",
        "source": {"connector": "csv", "config": {"path": "."}},
        "destination": {"connector": "jsonl", "config": {"path": "out"}},
        "streams": [{"stream": "m", "columns": columns}],
    }
    with pytest.raises(ConfigError, match="'email_1' is another 'email' in the header"):
        run_pipeline(load_pipeline(document, folder=tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.full  # it needs over a hundred files
def test_globs_hold_for_columns_of_files_that_the_plan_did_not_open(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    files = range(SAMPLE_FILES + 5)
    other = next(number for number in files if number not in sampled(files))  # type: ignore[arg-type]
    for number in files:
        text = "id,email,phone\n0,canary@x.org,4915112345678\n" if number == other else f"id\n{number + 1}\n"
        (tmp_path / "m" / f"{number:03}.csv").write_text(text)
    document = {
        "pipeline": "p",
        "source": {"connector": "csv", "config": {"path": "."}},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "m", "columns": {"exclude": ["ph*"], "mask": {"em*": None}}}],
    }
    assert run_pipeline(load_pipeline(document, folder=tmp_path)).status == "success"
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        found = database.execute("select * from m where id = 0")
        assert ([name for name, *_ in found.description], found.fetchall()) == (["id", "email"], [(0, None)])


def test_a_column_that_appears_during_the_read_is_masked_by_its_glob() -> None:
    masks = Masks(rules=(MaskRule(column="email*", how="hash"),), key=KEY.encode())
    stream = Stream(name="people", schema=pa.schema([("id", pa.int64())]), read=ReadSpec(masks=masks))
    source: Any = Growing()
    found: list[Any] = []
    with pytest.raises(FatalConnectorError, match="ValueError from KeyError") as caught:
        found += (event for _, event in MaskedSource(source, Capabilities()).read([stream], {}))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert [type(event) for event in found] == [pa.RecordBatch, Stream, pa.RecordBatch]
    assert found[1].schema == found[2].schema == pa.schema([("id", pa.int64()), ("email_2", pa.string())])
    assert found[2].to_pylist() == [{"id": 2, "email_2": hashed("canary")}]
    assert not leaks(repr(found), str(caught.value))


INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["level"], "key_properties": ["id"]}


@pytest.mark.parametrize(
    ("mask", "stream", "message"),
    [
        ({"emial": "hash"}, {}, r"'emial' .*email"),
        ({"x*": "hash"}, {}, r"'x\*' matches no column"),
        ({"level": "hash"}, INCREMENTAL, "'level' is masked, and `bookmark_properties` names it"),
        ({"phone": "hash"}, {"types": {"phone": "string"}}, "'phone' is masked, and `types` names it"),
        ({"id": None}, {"key_properties": ["id"]}, "'id' is of the key, and `null` would make one of several"),
        ({"id": {"keep_last": 1}}, {"key_properties": ["id"]}, "mask it by `hash`"),
        ({"email": "hsah"}, {}, "no such mask, did you mean hash"),
        ({"email": {"keep_first": 1}}, {}, r"a mask is hash, \{keep_last: n\} or null"),
        ({"email": {"keep_last": 0}}, {}, "a whole number from 1"),
        ({}, {}, "is empty"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused(
    mask: dict[str, Any], stream: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = people("csv", tmp_path, "")
    with pytest.raises(ConfigError, match=message):
        run_pipeline(load_pipeline(document(source, mask, **stream), folder=tmp_path))


@pytest.mark.parametrize(
    ("key", "message"), [(None, "`hash` needs `mask_key`"), ("short", "has 5 bytes, and needs 32")]
)
def test_a_hash_needs_a_key_that_cannot_be_guessed(key: str | None, message: str, tmp_path: Path) -> None:
    mask = dict(MASK)
    whole = document(people("csv", tmp_path, ""), mask) | {"mask_key": key}
    with pytest.raises(ConfigError, match=message):
        load_pipeline(whole, folder=tmp_path)
    del mask["email"]
    assert load_pipeline(whole | {"mask_key": None}, folder=tmp_path).mask_key is None


@pytest.mark.full
def test_other_masks_and_another_key_are_refused_until_they_are_accepted(tmp_path: Path, run_cli: RunCLI) -> None:
    source = people("duckdb", tmp_path, "")
    merged = {"write_disposition": "merge", "key_properties": ["id"]}
    assert run_pipeline(written(tmp_path, source, **INCREMENTAL)).status == "success"
    for changed in (
        written(tmp_path, source, {"mask_key": KEY[::-1]}, **INCREMENTAL),
        written(tmp_path, source, columns={"mask": {**MASK, "email": None}}, **INCREMENTAL),
        written(tmp_path, source, columns={"mask": MASK}, **merged),
        written(tmp_path, source, columns=None, **INCREMENTAL),
        written(tmp_path, source, columns={"mask": {**MASK, "email": {"keep_last": 2}}}, **INCREMENTAL),
    ):
        if "bookmark_properties" not in changed.read_text():  # the same masks
            assert run_pipeline(changed).status == "success"
            continue
        with pytest.raises(PipelineFailed, match=r"the masks .* have changed") as caught:
            run_pipeline(changed).raise_for_status()
        assert "--full-refresh" in str(caught.value)
    accepted = run_cli(["state", "set", changed, "people", "level=30"], tmp_path)
    assert accepted.returncode == 0, accepted.stderr
    assert run_pipeline(changed).status == "success"
    replaced = written(tmp_path, source, {"mask_key": KEY[::-1]})
    assert run_pipeline(replaced, full_refresh=True).status == "success"
    assert run_pipeline(written(tmp_path, source, {"mask_key": KEY * 2})).status == "success"  # FULL_TABLE, replaced


def test_a_column_of_folders_names_cannot_be_masked(tmp_path: Path) -> None:
    folder = tmp_path / "people" / "email=canary"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("id\n1\n")
    source = {"connector": "csv", "config": {"path": "people"}}
    with pytest.raises(ConfigError, match="'email' is made of names of folders"):
        run_pipeline(load_pipeline(document(source, {"email": "hash"}), folder=tmp_path))


def test_no_folder_of_the_destination_is_named_by_a_masked_column(tmp_path: Path) -> None:
    config = {"path": "out", "partition_by": ["name_of"]}
    whole = document(people("csv", tmp_path, ""), {"name": "hash"}) | {
        "transformers": [{"rename": {"name": "name_of"}}],
        "destination": {"connector": "jsonl", "config": config},
    }
    with pytest.raises(ConfigError, match="'name' is masked, and `partition_by` of the destination"):
        run_pipeline(load_pipeline(whole, folder=tmp_path))


def test_a_filter_that_cannot_be_read_shows_no_masked_value(tmp_path: Path) -> None:
    where = {"where": {"phone": "canary"}}
    with pytest.raises(ConfigError, match=r"column 'phone' is .*, and \*\*\* does not fit") as caught:
        run_pipeline(load_pipeline(document(people("sqlite", tmp_path, ""), **where), folder=tmp_path))
    assert not leaks(str(caught.value))


class ServerError(Exception):
    """An error as drivers raise it."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("permission denied for function forbidden")
        self.sqlstate = sqlstate


@pytest.mark.parametrize("sqlstate", ["42501", "42P01", "08006", "28000", "53100", "57014", "22P02", "P0001"])
@pytest.mark.parametrize("kind", [FatalConnectorError, RetriableError, ConnectorConfigError])
def test_an_error_of_the_server_shows_its_code_and_known_names_only(kind: type[ConnectorError], sqlstate: str) -> None:
    error = kind(
        "relation \"canary\" is not \"people\", `level`, 'public.people' or 'public.canary'", connector="postgres"
    )
    error.__cause__ = ServerError(sqlstate)
    found = hidden_error(error, ["level"], ["public", "people"])
    assert (type(found), getattr(found, "connector", "")) == (kind, "postgres")
    for shown in (sqlstate, "ServerError", "'people', 'level', 'public.people'"):
        assert shown in str(found)
    assert not leaks(str(found))


@pytest.mark.parametrize(
    "expression",
    [
        "email::regclass",
        "email::regtype",
        "currval(email)",
        "has_table_privilege(email, 'select')",
        "current_setting(email)",
    ],
)
def test_a_function_of_postgres_that_takes_a_value_for_a_name_shows_no_masked_value(
    expression: str, tmp_path: Path, postgres_url: str
) -> None:
    source = people("postgres", tmp_path, postgres_url)
    name = expression.replace("email", "split_part(email, '@', 1)")
    query = f"select id, email, ({name})::text as other from people"
    file = written(tmp_path, source, stream="people", query=query, columns={"mask": {"email": "hash"}})
    (found,) = run_pipeline(file).streams
    assert found.error is not None
    assert "SQLSTATE" in found.error
    assert not leaks(found.error, stored(tmp_path))


@pytest.mark.parametrize("signal", ["'42000'", "'45000'", "'08S01'", "'42000' set mysql_errno = 2013,"])
def test_an_error_that_a_function_of_mariadb_signals_shows_no_masked_value(
    signal: str, tmp_path: Path, mariadb_url: str
) -> None:
    source = people("mysql", tmp_path, mariadb_url)
    separator = "" if signal.endswith(",") else "set"
    with mysql_connection(mariadb_url) as mysql, mysql.cursor() as cursor:
        cursor.execute(
            "create function boom(v text) returns int no sql begin "
            f"signal sqlstate {signal} {separator} message_text = v; return 1; end"
        )
    query = "select id, email, boom(email) as other from people"
    file = written(tmp_path, source, stream="people", query=query, columns={"mask": {"email": "hash"}})
    (found,) = run_pipeline(file).streams
    assert found.error is not None
    assert not leaks(found.error, stored(tmp_path))


def test_a_wrong_where_on_a_masked_column_shows_its_value_in_no_traceback(tmp_path: Path) -> None:
    with closing(duckdb.connect(tmp_path / "people.db")) as database:
        database.execute("create table people (id int primary key, name date)")
    source = {"connector": "duckdb", "config": {"path": "people.db"}}
    with pytest.raises(ConfigError, match=r"\*\*\* does not fit: write it like") as caught:
        run_pipeline(written(tmp_path, source, where={"name": CANARIES[0]}, columns={"mask": {"name": None}}))
    assert not leaks("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("source", ["duckdb", "parquet", "csv"], indirect=True)
def test_a_filter_sees_values_as_they_are(source: dict[str, Any], tmp_path: Path) -> None:
    if source["connector"] == "csv":
        source["config"]["types"] = {"phone": "bigint"}
    file = document(source, where={"phone": {">": PHONE}})
    result = run_pipeline(load_pipeline(file, folder=tmp_path))
    assert result.status == "success", result.streams[0].error
    assert rows(tmp_path) == EXPECTED[1:2]


@pytest.mark.parametrize("above", [PHONE, str(PHONE)])
def test_a_filter_by_a_masked_number_whose_type_is_guessed_says_where_to_say_it(
    tmp_path: Path, above: int | str
) -> None:
    source = people("csv", tmp_path, "")
    with pytest.raises(ConfigError, match=r"'phone' is masked.*say its type in `config.types`") as caught:
        run_pipeline(load_pipeline(document(source, where={"phone": {">": above}}), folder=tmp_path))
    assert not leaks(str(caught.value))
    source["config"]["types"] = {"phone": "bigint"}
    assert (
        run_pipeline(load_pipeline(document(source, where={"phone": {">": PHONE}}), folder=tmp_path)).status
        == "success"
    )
    assert rows(tmp_path) == EXPECTED[1:2]


@pytest.mark.full
def test_plan_and_preview_show_masks_and_no_values(tmp_path: Path, run_cli: RunCLI) -> None:
    where = {"email": "canary1@x.org", "level": {">": 1}}
    file = written(tmp_path, people("duckdb", tmp_path, ""), where=where)
    plan, preview = (run_cli([name, file], tmp_path).stdout for name in ("plan", "preview"))
    for line in ("masks email (hash)", "masks phone (keep_last 2)", "masks name (null)", "where email = *** and level"):
        assert line in plan
    assert "`verify` reads the source's records, to mask them" in plan
    shown = json.loads(run_cli(["preview", file, "--stream", "people", "--json"], tmp_path).stdout)
    assert [each["email"] for each in shown["records"]] == [hashed("canary1@x.org")] * 2
    assert not leaks(plan, preview, json.dumps(shown), run_cli(["plan", file, "--json"], tmp_path).stdout)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ({"user": "hash"}, (hashed("canary"), hashed("7"), 3)),
        ({"user": "hash", "user__level": None}, (hashed("canary"), None, 3)),
        ({"us*": {"keep_last": 1}}, ("*****y", "*", 3)),
    ],
)
def test_a_mask_of_an_object_masks_every_value_in_it(tmp_path: Path, mask: dict[str, Any], expected: Any) -> None:
    """Flattened columns are covered by their object's name, which is no column then."""
    (tmp_path / "events.jsonl").write_text('{"id": 1, "user": {"name": "canary", "level": 7}, "n": 3}\n')
    pipeline = {
        "pipeline": "nested",
        "mask_key": KEY,
        "source": {"connector": "jsonl", "config": {"path": str(tmp_path)}, "nested": {"flatten": 2}},
        "destination": {"connector": "duckdb", "config": {"path": str(tmp_path / "out.duckdb")}},
        "store": f"sqlite:///{tmp_path / 'store.db'}",
        "streams": [{"stream": "events", "columns": {"mask": mask}}],
    }
    run_pipeline(pipeline).raise_for_status()
    with duckdb.connect(str(tmp_path / "out.duckdb")) as database:
        assert database.execute("select user__name, user__level, n from events").fetchall() == [expected]


@pytest.mark.parametrize("connector", ["jsonl", "json"])
def test_numbers_of_json_have_the_hashes_of_equal_numbers_elsewhere(tmp_path: Path, connector: str) -> None:
    written = ["1.0", "100.50", "1e20", "-0.0", "12E-1", '"1.0"', "null", "true", "7"]
    lines = [f'{{"id": {n}, "v": {value}, "o": {{"a": 1}}}}' for n, value in enumerate(written)]
    text = "\n".join(lines) if connector == "jsonl" else f"[{','.join(lines)}]"
    (tmp_path / f"events.{connector}").write_text(text)
    pipeline = {
        "pipeline": "numbers",
        "mask_key": KEY,
        "source": {"connector": connector, "config": {"path": str(tmp_path)}},
        "destination": {"connector": "duckdb", "config": {"path": str(tmp_path / "out.duckdb")}},
        "store": f"sqlite:///{tmp_path / 'store.db'}",
        "streams": [{"stream": "events", "columns": {"mask": {"v": "hash"}}}],
    }
    run_pipeline(pipeline).raise_for_status()
    with duckdb.connect(str(tmp_path / "out.duckdb")) as database:
        found = [value for (value,) in database.execute("select v from events order by id").fetchall()]
    texts = ["1", "100.5", "1" + "0" * 20, "0", "1.2", "1.0", None, "true", "7"]
    assert found == [None if text is None else hashed(text) for text in texts]


def test_a_read_error_of_a_masked_stream_keeps_its_sqlstate(tmp_path: Path, postgres_url: str) -> None:
    query = "select id, email, 1 / (id - 2) as level from people"
    source = people("postgres", tmp_path, postgres_url)
    file = written(tmp_path, source, stream="people", query=query, columns={"mask": {"email": "hash"}})
    (found,) = run_pipeline(file).streams
    assert found.error is not None
    assert "SQLSTATE 22012" in found.error
    assert "canary" not in found.error


def test_infinite_and_far_dates_in_lists_and_structs_are_masked(tmp_path: Path) -> None:
    with closing(duckdb.connect(tmp_path / "s.db")) as database:
        database.execute("create table people (id int primary key, days date[], s struct(t timestamp))")
        database.execute("insert into people values (1, ['infinity', '20000-01-01'], {t: '-infinity'})")
        database.execute("insert into people values (2, ['0044-03-15 (BC)'], null)")
    said = document({"connector": "duckdb", "config": {"path": "s.db"}}, {"days": "hash", "s": "hash"})
    (tmp_path / "p.yaml").write_text(json.dumps(said))
    assert run_pipeline(tmp_path / "p.yaml").status == "success"
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        found = database.execute("select days, s from people order by id").fetchall()
    assert found == [
        (hashed('["infinity","20000-01-01"]'), hashed('{"t":"-infinity"}')),
        (hashed('["-0043-03-15"]'), None),
    ]
