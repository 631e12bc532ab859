"""Runs of a connector: what is committed, with which state, and how each stream ends."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.registry import make_source
from tests.conftest import RunCLI

from .airbyte_helpers import SCHEMA, config, ends, offered, pipeline, run, table
from .airbyte_program import error, record, state, status


def rows(*numbers: int) -> list[tuple[Any, ...]]:
    return [(n, f"2026-01-{n:02}", None) for n in numbers]


def said(stream: str, *numbers: int) -> list[dict[str, Any]]:
    return [record(stream, id=n, stamp=f"2026-01-{n:02}") for n in numbers]


def shop(folder: Path, orders: range, users: range = range(0)) -> None:
    """Write two tables from which the connector reads."""
    with sqlite3.connect(folder / "shop.db") as connection:
        for name, numbers in (("orders", orders), ("users", users)):
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name} (id INTEGER, stamp TEXT, note TEXT)")
            values = [(n, f"{n // 3:05}") for n in numbers]
            connection.executemany(f"INSERT INTO {name} VALUES (?, ?, NULL)", values)
    connection.close()


def of_shop(folder: Path, *, streams: Any = None, **own: Any) -> dict[str, Any]:
    own = {"source": str(folder / "shop.db"), "every": 10, **own}
    return config(folder, streams=streams, own=own, checkpoint_records=10)


def numbers(folder: Path, name: str) -> list[int]:
    return [row[0] for row in table(folder, name)]


def test_interleaved_streams_are_committed_each_with_its_state(tmp_path: Path) -> None:
    lines = [
        status("orders", "STARTED"),
        *said("orders", 1, 2),
        status("users", "STARTED"),
        *said("users", 1),
        *said("orders", 3),
        status("orders", "COMPLETE"),
        *said("users", 2),
        state("orders", {"stamp": "2026-01-03"}, 3),
        status("users", "COMPLETE"),
        state("users", {"__ab_no_cursor_state_message": True}, 2),
    ]
    streams = [offered("orders"), offered("users", cursor=None)]
    result = run(pipeline(tmp_path, config(tmp_path, *lines, streams=streams)))
    assert ends(result) == {"orders": None, "users": None}
    assert table(tmp_path, "orders") == rows(1, 2, 3)
    assert table(tmp_path, "users") == rows(1, 2)
    kept = {each.stream: each.bookmark for each in result.streams}
    assert kept["orders"] is not None
    assert kept["orders"]["airbyte_state"] == {"stamp": "2026-01-03"}
    assert kept["users"] is None


@pytest.mark.parametrize("disposition", ["append", pytest.param("merge", marks=pytest.mark.full)])
def test_a_run_goes_on_from_the_state_and_doubles_nothing(tmp_path: Path, disposition: str) -> None:
    shop(tmp_path, range(25), range(5))
    path = pipeline(tmp_path, of_shop(tmp_path), {"stream": "*", "write_disposition": disposition})
    assert ends(run(path)) == {"orders": None, "users": None}
    shop(tmp_path, range(25, 40), range(5, 6))
    assert ends(run(path)) == {"orders": None, "users": None}
    assert numbers(tmp_path, "orders") == list(range(40))
    assert numbers(tmp_path, "users") == list(range(6))


@pytest.mark.full
def test_a_killed_connector_is_resumed_from_what_was_committed(tmp_path: Path) -> None:
    shop(tmp_path, range(100), range(30))
    streams = {"stream": "*", "write_disposition": "append"}
    path = pipeline(tmp_path, of_shop(tmp_path, die_at=75), streams)
    failed = ends(run(path))
    assert "killed by SIGKILL" in str(failed["orders"])
    assert numbers(tmp_path, "orders") == list(range(40)), "up to its last state of 10 records each"
    path = pipeline(tmp_path, of_shop(tmp_path), streams)
    assert ends(run(path)) == {"orders": None, "users": None}
    assert numbers(tmp_path, "orders") == list(range(100))
    assert numbers(tmp_path, "users") == list(range(30))


@pytest.mark.full
def test_a_full_table_read_starts_without_a_state(tmp_path: Path) -> None:
    shop(tmp_path, range(25))
    only = [offered("orders")]
    path = pipeline(tmp_path, of_shop(tmp_path, streams=only), {"stream": "orders", "write_disposition": "merge"})
    assert ends(run(path)) == {"orders": None}
    whole = {"stream": "orders", "replication_method": "FULL_TABLE", "write_disposition": "replace"}
    result = run(pipeline(tmp_path, of_shop(tmp_path, streams=only), whole))
    assert ends(result) == {"orders": None}
    assert result.streams["orders"].records == 25
    assert numbers(tmp_path, "orders") == list(range(25))


def test_an_error_of_one_stream_leaves_the_others_alone(tmp_path: Path) -> None:
    lines = [
        status("orders", "STARTED"),
        *said("orders", 1, 2),
        state("orders", {"stamp": "2026-01-02"}, 2),
        *said("orders", 3),
        error("the page is gone", "orders", failure_type="system_error"),
        status("orders", "INCOMPLETE"),
        state("orders", {"stamp": "2026-01-03"}, 1),
        *said("users", 1, 2),
        status("users", "COMPLETE"),
        state("users", {}, 2),
        error("During the sync, the following streams did not sync successfully: orders: gone"),
    ]
    made = config(tmp_path, *lines, own={"then": "fail"}, checkpoint_records=1)
    result = run(pipeline(tmp_path, made, {"stream": "*", "write_disposition": "append"}))
    assert ends(result) == {"orders": "airbyte source-small, stream 'orders': the page is gone", "users": None}
    assert table(tmp_path, "orders") == rows(1, 2, 3), "the state behind INCOMPLETE is committed"
    assert table(tmp_path, "users") == rows(1, 2)


def line_of_log(level: str, text: str) -> dict[str, Any]:
    return {"type": "LOG", "log": {"level": level, "message": text}}


@pytest.mark.full
def test_warnings_reach_the_summary_the_run_store_json_and_callbacks(tmp_path: Path, run_cli: RunCLI) -> None:
    lines = [
        status("orders", "STARTED"),
        *said("orders", 1),
        line_of_log("WARN", "odd answer"),
        line_of_log("ERROR", "odd answer"),
        line_of_log("WARN", "another odd answer"),
        status("orders", "COMPLETE"),
        state("orders", {"stamp": "2026-01-01"}, 1),
        status("users", "STARTED"),
        *said("users", 1),
        status("users", "COMPLETE"),
        state("users", {}, 1),
    ]
    (tmp_path / "noted.py").write_text(
        "import json, pathlib\n"
        "@callback\n"
        "def note(**kwargs):\n"
        "    with pathlib.Path('noted').open('a') as file:\n"
        "        file.write(json.dumps([kwargs['block_run'].uuid, kwargs['block_run'].warnings]) + '\\n')\n"
    )
    on = ["load_airbyte", "export_duckdb", "stream"]
    path = pipeline(tmp_path, config(tmp_path, *lines), callbacks=[{"file": "noted.py", "on": on}])
    done = run_cli(["run", path.name], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 WARN lines and 1 ERROR line of the connector" in done.stdout
    assert "orders: the connector logged 2 WARN lines and 1 ERROR line" in done.stdout + done.stderr
    shown = run_cli(["runs", "show", path.name], tmp_path)
    assert "orders: the connector logged 2 WARN lines and 1 ERROR line" in shown.stdout
    counted = {"warn": 2, "error": 1}
    document = json.loads(run_cli(["runs", "show", path.name, "--json"], tmp_path).stdout)
    found = {block["uuid"]: block["warnings"] for block in document["block_runs"]}
    expected = {"load_airbyte:orders": counted, "export_duckdb:orders": counted}
    assert found == expected | {"load_airbyte:users": None, "export_duckdb:users": None}
    noted = [json.loads(line) for line in (tmp_path / "noted").read_text().splitlines()]
    assert sorted(noted, key=str) == sorted(
        [*map(list, found.items()), *[[n, w] for n, w in found.items() if "export" in n]], key=str
    )
    again = [json.loads(line) for line in run_cli(["run", path.name, "--json"], tmp_path).stdout.splitlines()]
    assert {each["stream"]: each["warnings"] for each in again[-1]["streams"]} == {"orders": counted, "users": None}


@pytest.mark.parametrize(
    ("level", "is_new"), [("ERROR", True), pytest.param("ERROR", False, marks=pytest.mark.full), ("WARN", True)]
)
def test_a_stream_without_records_and_with_an_error_line_is_reported_with_its_table(
    tmp_path: Path, level: str, is_new: bool
) -> None:
    only = {"streams": [offered("orders")]}
    end = [status("orders", "COMPLETE"), state("orders", {"stamp": "2026-01-01"}, None)]
    if not is_new:
        assert ends(run(pipeline(tmp_path, config(tmp_path, *said("orders", 1), *end, **only)))) == {"orders": None}
    made = config(tmp_path, status("orders", "STARTED"), line_of_log(level, "the answer is strange"), *end, **only)
    result = run(pipeline(tmp_path, made))
    assert ends(result) == {"orders": None}
    assert result.streams["orders"].warnings == {"warn": int(level == "WARN"), "error": int(level == "ERROR")}
    with closing(sqlite3.connect(tmp_path / ".syncblocks/store.db")) as store:
        ((notices,),) = store.execute(
            "SELECT notices FROM _syncblocks_block_run ORDER BY run_id DESC, position LIMIT 1"
        )
    assert ("table 'orders' got no records, and the connector logged 1 ERROR line" in notices) == (level == "ERROR")
    assert f"the connector logged 1 {level} line" in notices


@pytest.mark.full
@pytest.mark.parametrize(("method", "expected"), [("INCREMENTAL", 2), ("FULL_TABLE", 1)])
def test_warnings_of_an_attempt_stay_if_it_has_committed_records(
    tmp_path: Path, run_cli: RunCLI, method: str, expected: int
) -> None:
    lines = [
        status("orders", "STARTED"),
        *said("orders", 1),
        line_of_log("WARN", "odd answer"),
        state("orders", {"stamp": "2026-01-01"}, 1),
        error("come again", "orders", failure_type="transient_error"),
    ]
    made = config(tmp_path, *lines, streams=[offered("orders")])
    stream = {"stream": "orders", "replication_method": method}
    path = pipeline(tmp_path, made, stream, retries=1, retry_delay_s=0)
    result = run(path)
    assert "come again" in str(ends(result)["orders"])
    assert result.streams["orders"].warnings == {"warn": expected, "error": 0}
    shown = run_cli(["runs", "show", path.name], tmp_path).stdout
    assert f"orders: the connector logged {expected} WARN line" in shown


@pytest.mark.full
def test_keys_that_may_be_missing_delete_nothing(tmp_path: Path) -> None:
    whole = {
        "stream": "orders",
        "replication_method": "FULL_TABLE",
        "write_disposition": "merge",
        "deletes": "hard",
    }
    end = [status("orders", "COMPLETE"), state("orders", {}, None)]
    only = {"streams": [offered("orders")]}
    assert ends(run(pipeline(tmp_path, config(tmp_path, *said("orders", 1, 2), *end, **only), whole))) == {
        "orders": None
    }
    shorter = [status("orders", "STARTED"), *said("orders", 1), line_of_log("WARN", "odd answer"), *end]
    failed = ends(run(pipeline(tmp_path, config(tmp_path, *shorter, **only), whole)))
    assert "keys may be missing, and nothing is deleted" in str(failed["orders"])
    assert table(tmp_path, "orders") == rows(1, 2)


@pytest.mark.full
def test_a_transient_error_is_tried_again_for_its_stream_alone(tmp_path: Path) -> None:
    lines = [
        *said("orders", 1),
        status("orders", "COMPLETE"),
        state("orders", {}, 1),
        error("come again", "users", failure_type="transient_error"),
        status("users", "INCOMPLETE"),
        state("users", {}, 0),
    ]
    made = config(tmp_path, *lines, own={"note": str(tmp_path / "note")})
    path = pipeline(tmp_path, made, {"stream": "*", "write_disposition": "merge"}, retries=1, retry_delay_s=0)
    found = ends(run(path))
    assert found["orders"] is None
    assert "come again" in str(found["users"])
    seen = [json.loads(line) for line in (tmp_path / "note").read_text().splitlines()]
    reads = [json.loads(each["files"]["catalog"])["streams"] for each in seen if each["verb"] == "read"]
    assert [[each["stream"]["name"] for each in streams] for streams in reads] == [["orders", "users"], ["users"]]


@pytest.mark.full
def test_keys_and_cursor_of_the_pipeline_file_count(tmp_path: Path) -> None:
    seen = tmp_path / "note"
    made = config(
        tmp_path,
        *said("orders", 1, 2, 1),
        status("orders", "COMPLETE"),
        streams=[offered("orders", key=None, default_cursor_field=["note"])],
        own={"note": str(seen)},
    )
    stream = {
        "stream": "orders",
        "key_properties": ["id"],
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["stamp"],
        "write_disposition": "merge",
    }
    assert ends(run(pipeline(tmp_path, made, stream))) == {"orders": None}
    assert table(tmp_path, "orders") == rows(1, 2)
    catalog = json.loads(json.loads(seen.read_text().splitlines()[-1])["files"]["catalog"])["streams"][0]
    assert (catalog["cursor_field"], catalog["primary_key"]) == (["stamp"], [["id"]])


@pytest.mark.full
def test_more_digits_than_declared_widen_the_column_and_stay(tmp_path: Path) -> None:
    number = {"type": "object", "properties": {**SCHEMA["properties"], "note": {"type": "number"}}}
    long = '{"type":"RECORD","record":{"stream":"orders","data":{"id":1,"note":12345678901234567.25}}}'
    made = config(tmp_path, long, status("orders", "COMPLETE"), streams=[offered("orders", json_schema=number)])
    path = pipeline(tmp_path, made, {"stream": "orders", "write_disposition": "merge"})
    assert ends(run(path)) == {"orders": None}
    assert str(table(tmp_path, "orders")[0][2]).rstrip("0") == "12345678901234567.25"
    assert ends(run(path)) == {"orders": None}
    source = make_source("airbyte", made, tmp_path)
    assert str(source.as_known(source.discover()[0], None).schema.field("note").type).startswith("decimal128")
