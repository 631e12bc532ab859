"""Runs of a connector: what is committed, with which state, and how each stream ends."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.registry import make_source

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
