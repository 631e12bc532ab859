"""The wire `singer`: what a tap says reaches a target as it was said, block runs and state as on any other wire."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.singer.raw_lines import RawLines, addressed, first_version
from tests.conftest import RunCLI
from tests.connectors.singer.singer_helpers import (
    entry,
    full_table,
    lines,
    pipeline,
    record,
    run,
    schema,
    state,
    tap_program,
)
from tests.connectors.singer.singer_targets import make_target
from tests.sync.pipelines import RECORDER

#: `mark` is no part of a RECORD: it arrives only if the line itself does.
MARKED = b'{"type": "RECORD", "stream": "orders", "record": {"id":%d,  "note": "t\\u00e4glich"}, "mark": 1}'
ORDERS = [MARKED % number for number in range(1, 4)]


def target(folder: Path, manner: str = "", **settings: Any) -> dict[str, Any]:
    config = {"manner": manner, "out": "out.jsonl", "after": 2, "password": "correct horse"}
    return {"connector": "singer", "config": {"executable": str(make_target(folder)), "config": config, **settings}}


def tap(folder: Path, *messages: Any, streams: list[dict[str, Any]] | None = None, **config: Any) -> dict[str, Any]:
    (folder / "lines").write_bytes(lines(*messages))
    own = {"catalog": {"streams": streams or [full_table("orders")]}, "lines": str(folder / "lines")}
    return {"executable": str(tap_program(folder)), "config": own, **config}


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text("utf-8").splitlines()]


def of_type(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [message for message in written(folder) if message["type"] == kind]


KEEPING = {"activate_version": False}


def test_a_taps_lines_reach_the_target_as_they_are(tmp_path: Path) -> None:
    path = pipeline(tmp_path, tap(tmp_path, schema("orders"), *ORDERS, state(orders={})), target(tmp_path, **KEEPING))
    assert run(path).status == "success"
    found = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert found[1:4] == ORDERS
    assert json.loads(found[0]) == schema("orders")
    assert [message["type"] for message in written(tmp_path)] == ["SCHEMA", "RECORD", "RECORD", "RECORD", "STATE"]


def test_each_stream_of_a_tap_has_its_own_block_runs_and_target(tmp_path: Path) -> None:
    users = [line.replace(b'"orders"', b'"users"') for line in ORDERS]
    mixed = [line for pair in zip(ORDERS, users, strict=True) for line in pair]
    config = tap(
        tmp_path, schema("orders"), schema("users"), *mixed, streams=[full_table("orders"), full_table("users")]
    )
    (tmp_path / "recorder.py").write_text(RECORDER)
    callbacks = [{"block": "seen", "file": "recorder.py"}]
    streams = [{"stream": "orders"}, {"stream": "users", "destination_table": "crm.people"}]
    run(pipeline(tmp_path, config, target(tmp_path, **KEEPING), streams=streams, callbacks=callbacks))
    found = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert [line for line in found if b'"orders"' in line and b"RECORD" in line] == ORDERS
    people = [message for message in of_type(tmp_path, "RECORD") if message["stream"] == "crm-people"]
    assert [(message["record"]["id"], message["mark"]) for message in people] == [(1, 1), (2, 1), (3, 1)]
    seen = [json.loads(line) for line in (tmp_path / "recorder.log").read_text().splitlines()]
    assert sorted((each["index"], each["is_last_block_run"]) for each in seen) == [(0, False), (1, True)]
    assert {each["rows"] for each in seen} == {3}


TRANSFORMER = "@transformer\ndef same(data):\n    return data\n"
DATA = "@callback\ndef look(data, **kwargs):\n    assert len(data) == 3\n"
NO_DATA = "@callback('success', fetch_inputs=False)\ndef look(data, **kwargs):\n    assert data is None\n"


@pytest.mark.one_of
@pytest.mark.parametrize(
    ("more", "is_raw"),
    [
        ({}, True),
        ({"callbacks": [{"file": "no_data.py", "on": ["source", "destination"]}]}, True),
        ({"callbacks": [{"file": "data.py", "on": ["source"], "streams": ["orders"]}]}, False),
        ({"transformers": [{"file": "same.py"}]}, False),
        ({"transformers": [{"file": "same.py", "streams": ["users"]}]}, False),
        ({"transformers": [{"block": "named", "file": "same.py", "rename": {"note": "remark"}}]}, False),
        ({"streams": [{"stream": "*", "columns": {"exclude": ["stamp"]}}]}, False),
    ],
    ids=["plain", "callback", "data callback", "transformer", "other's transformer", "rename", "columns"],
)
def test_whoever_wants_rows_takes_the_shortcut_away(tmp_path: Path, more: dict[str, Any], is_raw: bool) -> None:
    for name, text in (("same", TRANSFORMER), ("data", DATA), ("no_data", NO_DATA)):
        (tmp_path / f"{name}.py").write_text(text)
    both = [full_table("orders"), full_table("users")]
    config = tap(tmp_path, schema("orders"), schema("users"), *ORDERS, streams=both)
    assert run(pipeline(tmp_path, config, target(tmp_path), **more)).exit_code == 0
    records = of_type(tmp_path, "RECORD")
    assert [message["record"]["id"] for message in records] == [1, 2, 3]
    assert ["mark" in message for message in records] == [is_raw] * 3
    assert {message["stream"] for message in of_type(tmp_path, "SCHEMA")} == {"orders", "users"}


def test_a_schema_that_the_pipeline_declares_takes_it_away_too(tmp_path: Path) -> None:
    config = tap(tmp_path, schema("orders"), *ORDERS, schema={"orders": {"id": {"type": "number"}}})
    run(pipeline(tmp_path, config, target(tmp_path)))
    assert not any("mark" in message for message in of_type(tmp_path, "RECORD"))


def test_plan_names_the_wire(tmp_path: Path, run_cli: RunCLI) -> None:
    pipeline(tmp_path, tap(tmp_path, schema("orders"), *ORDERS), target(tmp_path))
    shown = json.loads(run_cli(["plan", "small.yaml", "--json"], tmp_path).stdout)
    assert [stream["wire"] for stream in shown["streams"]] == ["singer"]


def table(folder: Path, *stamps: str) -> Path:
    path = folder / "source.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table if not exists orders (id integer primary key, stamp text, note text)")
        connection.executemany("insert into orders (stamp) values (?)", [(stamp,) for stamp in stamps])
    return path


@pytest.mark.full
def test_the_state_is_exact_and_what_stands_at_it_is_not_sent_twice(tmp_path: Path, run_cli: RunCLI) -> None:
    source = table(tmp_path, "2024-01-01", "2024-01-02", "2024-01-02")
    own = {"catalog": {"streams": [entry("orders")]}, "source": str(source), "every": 2}
    config = {"executable": str(tap_program(tmp_path)), "config": own, "checkpoint_records": 1}
    path = pipeline(tmp_path, config, target(tmp_path), streams=[{"stream": "*", "write_disposition": "append"}])
    run(path)
    table(tmp_path, "2024-01-02", "2024-01-03")
    result = run(path)
    assert [message["record"]["id"] for message in of_type(tmp_path, "RECORD")] == [1, 2, 3, 4, 5]
    assert [stream.records for stream in result.streams] == [2]
    shown = json.loads(run_cli(["state", "show", "small.yaml", "--json"], tmp_path).stdout)
    assert shown["streams"][0]["bookmark"] == {"singer_state": {"bookmarks": {"orders": {"stamp": "2024-01-03"}}}}
    run(path)
    assert len(of_type(tmp_path, "RECORD")) == 5


@pytest.mark.one_of
@pytest.mark.parametrize("then", ["fail", "die"])
def test_a_tap_that_fails_leaves_the_state_where_the_target_was(tmp_path: Path, then: str, run_cli: RunCLI) -> None:
    config = tap(tmp_path, schema("orders"), *ORDERS, state(orders={"stamp": "2024"}), streams=[entry("orders")])
    config["config"]["then"] = then
    result = run(pipeline(tmp_path, config, target(tmp_path)))
    assert result.status == "failure"
    assert "tap tap-small" in str(result.streams[0].error)
    shown = json.loads(run_cli(["state", "show", "small.yaml", "--json"], tmp_path).stdout)
    assert shown["streams"] == []


@pytest.mark.one_of
@pytest.mark.parametrize("manner", ["dies", "fails", "stops"])
def test_a_target_that_fails_is_the_block_that_failed(tmp_path: Path, manner: str) -> None:
    config = tap(tmp_path, schema("orders"), *(MARKED % number for number in range(100_000)))
    result = run(pipeline(tmp_path, config, target(tmp_path, manner)))
    (stream,) = result.streams
    assert stream.status == "failure"
    assert "target-of-tests" in str(stream.error)
    assert "correct horse" not in str(stream.error)


# -- versions: by them a target drops what former runs wrote ----------------------------------------------------------


def test_a_replace_gives_the_records_a_version(tmp_path: Path) -> None:
    run(pipeline(tmp_path, tap(tmp_path, schema("orders"), *ORDERS), target(tmp_path)))
    versions = {message["version"] for message in of_type(tmp_path, "RECORD")}
    assert [message["version"] for message in of_type(tmp_path, "ACTIVATE_VERSION")] == [*versions]
    assert [message["type"] for message in written(tmp_path)][-2:] == ["ACTIVATE_VERSION", "STATE"]


def test_a_tap_that_numbers_its_versions_keeps_them(tmp_path: Path) -> None:
    numbered = [{**record("orders", id=number), "version": 7} for number in (1, 2)]
    activate = {"type": "ACTIVATE_VERSION", "stream": "orders", "version": 7}
    streams = [{"stream": "orders", "destination_table": "shop.orders"}]
    config = tap(tmp_path, schema("orders"), *numbered, activate)
    run(pipeline(tmp_path, config, target(tmp_path), streams=streams))
    assert [message["version"] for message in of_type(tmp_path, "RECORD")] == [7, 7]
    assert {message["version"] for message in of_type(tmp_path, "ACTIVATE_VERSION")} == {7}
    assert {message["stream"] for message in written(tmp_path) if "stream" in message} == {"shop-orders"}


def test_a_version_is_activated_only_where_the_pipeline_says_replace(tmp_path: Path) -> None:
    activate = {"type": "ACTIVATE_VERSION", "stream": "orders", "version": 7}
    config = tap(tmp_path, schema("orders"), *ORDERS, activate)
    run(pipeline(tmp_path, config, target(tmp_path), streams=[{"stream": "*", "write_disposition": "append"}]))
    assert not of_type(tmp_path, "ACTIVATE_VERSION")


# -- odd but legal -----------------------------------------------------------------------------------------------------


def test_a_stream_without_a_word_is_declared_all_the_same(tmp_path: Path) -> None:
    run(pipeline(tmp_path, tap(tmp_path, state(orders={})), target(tmp_path, **KEEPING)))
    assert [message["type"] for message in written(tmp_path)] == ["SCHEMA", "STATE"]


def test_keys_of_the_pipeline_are_those_of_the_schema(tmp_path: Path) -> None:
    streams = [{"stream": "orders", "key_properties": ["note"]}]
    run(pipeline(tmp_path, tap(tmp_path, schema("orders"), *ORDERS), target(tmp_path), streams=streams))
    assert of_type(tmp_path, "SCHEMA")[0]["key_properties"] == ["note"]


def test_a_schema_that_changes_is_passed_on_before_its_records(tmp_path: Path) -> None:
    more = {"properties": {"id": {"type": "integer"}, "more": {"type": ["string", "null"], "title": "kept"}}}
    messages = [schema("orders"), *ORDERS, schema("orders", more), record("orders", id=9, more="m")]
    run(pipeline(tmp_path, tap(tmp_path, *messages), target(tmp_path, **KEEPING)))
    assert [message["type"][:1] for message in written(tmp_path)] == ["S", "R", "R", "R", "S", "R", "S"]
    assert of_type(tmp_path, "SCHEMA")[1]["schema"] == more


def test_batches_of_files_become_records(tmp_path: Path) -> None:
    (tmp_path / "part.jsonl").write_text('{"id": 4, "note": "a"}\n{"id": 5, "note": "b"}\n')
    batch = {
        "type": "BATCH",
        "stream": "orders",
        "encoding": {"format": "jsonl"},
        "manifest": [(tmp_path / "part.jsonl").as_uri()],
    }
    source = {**tap(tmp_path, schema("orders"), *ORDERS, batch), "batch_roots": ["."]}
    run(pipeline(tmp_path, source, target(tmp_path)))
    assert [message["record"]["id"] for message in of_type(tmp_path, "RECORD")] == [1, 2, 3, 4, 5]
    assert not of_type(tmp_path, "BATCH")


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "RECORD", "stream": "orders", "record": {"id": 1}}',
        b'{"record": {"id": 1}, "stream": "orders", "type": "RECORD"}',
        b' { "stream" : "orders" , "type":"RECORD" , "time_extracted":"2024" , "record" : {"id":1} } \r',
        b'{"type": "RECORD", "stream": "ord\\u0065rs", "record": {"id": 1}}',
        b'{"type": "RECORD", "stream": "orders", "record": {"id": 1, "x": NaN}}',
    ],
)
def test_any_record_can_be_sent_under_another_name(line: bytes) -> None:
    other = b'{"type": "RECORD", "stream": "orders", "record": {"id": 2, "note": "\\"record\\" \\n"}, "version": 3}'
    for text in (line, line + b"\n" + line, line + b"\n" + other):
        count = text.count(b"\n") + 1
        place = text.find(b'"record"')
        heads = [text[:place]] if text == line else [b""]
        for head in heads:
            made = addressed(
                RawLines.of(text, "RECORD", head=head if b"stream" in head else b"", records=count), "new", 5
            )
            for before, after in zip(text.splitlines(), made.splitlines(), strict=True):
                expected = {**json.loads(before), "stream": "new", "version": 5}
                found = json.loads(after)
                assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)


def test_a_version_is_looked_for_beside_the_record_only() -> None:
    inside = b'{"type":"RECORD","stream":"s","record":{"version":3}}'
    assert first_version(RawLines.of(inside, "RECORD")) is None
    assert first_version(RawLines.of(inside[:-1] + b',"version":4}\n' + inside, "RECORD")) == 4


@pytest.mark.parametrize("method", ["FULL_TABLE", "INCREMENTAL"])
def test_classes_in_this_process_are_a_pipe_as_well(tmp_path: Path, method: str) -> None:
    source = {"class": "tests.connectors.singer.sdk_plugins:TapShop", "config": {"rows": 50}}
    config = {
        "class": "tests.connectors.singer.sdk_plugins:TargetLines",
        "config": {"path": str(tmp_path / "out.jsonl")},
    }
    streams = [{"stream": "orders", "destination_table": "shop.sales", "replication_method": method}]
    path = pipeline(tmp_path, source, {"connector": "singer", "config": config}, streams=streams)
    assert run(path).status == "success"
    assert [(each["stream"], each["id"]) for each in written(tmp_path)] == [("shop-sales", n) for n in range(1, 51)]
    assert run(path).status == "success"
    assert len(written(tmp_path)) == (100 if method == "FULL_TABLE" else 50)


def test_a_line_that_is_no_message_is_named(tmp_path: Path) -> None:
    result = run(pipeline(tmp_path, tap(tmp_path, schema("orders"), *ORDERS, b"Traceback:"), target(tmp_path)))
    assert result.status == "failure"
    assert "line 5 is not JSON" in str(result.streams[0].error)
