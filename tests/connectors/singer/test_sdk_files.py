"""The message files of singer-sdk's own target suite as what a tap says: read by us, written, read back, compared."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.connectors.singer.singer_helpers import pipeline, run, tap_program
from tests.connectors.singer.test_sdk_targets import expected_of, stream_files

#: What a tap must not say, and where that is seen.
REFUSED = {
    "record_before_schema": "line 1 is a RECORD before its stream's SCHEMA",
    "record_missing_key_property": "line 2 has no value for the key 'id'",
}


def catalog_of(file: Path) -> dict[str, Any]:
    """Return the catalog of a tap that says this file: the first SCHEMA of each stream."""
    entries: dict[str, dict[str, Any]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        message = json.loads(line)
        if "stream" in message and (message["type"] == "SCHEMA" or message["stream"] not in entries):
            known = entries.get(message["stream"], {}).get("schema")
            schema = known or message.get("schema") or {"properties": {"id": {"type": "integer"}}}
            keys = message.get("key_properties") or []
            entries[message["stream"]] = {
                "tap_stream_id": message["stream"],
                "stream": message["stream"],
                "schema": schema,
                "key_properties": [key for key in keys if key in schema.get("properties", {})],
            }
    return {"streams": list(entries.values())}


def sync(file: Path, folder: Path, destination: dict[str, Any], expected: dict[str, list[dict[str, Any]]]) -> Any:
    catalog = catalog_of(file)
    config = {"catalog": catalog, "lines": str(file)}
    streams = [
        {
            "stream": entry["stream"],
            "destination_table": f"t{number}",
            "write_disposition": "merge" if entry["key_properties"] else "append",
        }
        for number, entry in enumerate(catalog["streams"])
        if entry["stream"] in expected
    ]
    source = {"executable": str(tap_program(folder)), "config": config}
    tables = {stream["stream"]: stream["destination_table"] for stream in streams}
    return run(pipeline(folder, source, destination, streams=streams)), tables


def plain(value: Any) -> Any:
    """Return a value so that it compares whatever type the database gave it."""
    if isinstance(value, str) and value[:1] in "[{":
        return plain(json.loads(value))
    if isinstance(value, str):
        try:
            return f"{datetime.fromisoformat(value).replace(tzinfo=None):%Y-%m-%dT%H:%M:%S.%f}"
        except ValueError:
            return value
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    is_whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole else value


def in_order(records: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps({name: plain(value) for name, value in each.items()}, sort_keys=True) for each in records)


def check(file: Path, result: Any, found: dict[str, list[dict[str, Any]]]) -> None:
    assert result.status == "success", [stream.error for stream in result.streams]
    for stream, records in expected_of(file, keeps_versions=False).items():
        assert in_order(found[stream]) == in_order(records), stream


#: With a NUL in it, which PostgreSQL has not.
NUL = "encoded_string_data"


def file_named(name: str) -> Path:
    return next(file for file in stream_files() if file.stem == name)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_a_tap_must_not_say_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    destination = {"connector": "sqlite", "config": {"path": "out.db"}}
    result, _ = sync(file_named(name), tmp_path, destination, {f"test_{name}": []})
    assert result.status == "failure"
    assert REFUSED[name] in str(result.streams[0].error)


def test_texts_of_every_kind_arrive(tmp_path: Path) -> None:
    file = file_named(NUL)
    result, tables = sync(file, tmp_path, {"connector": "sqlite", "config": {"path": "out.db"}}, expected_of(file))
    with closing(sqlite3.connect(tmp_path / "out.db")) as database, database:
        database.row_factory = sqlite3.Row
        found = {name: [dict(row) for row in database.execute(f"select * from {t}")] for name, t in tables.items()}
    check(file, result, found)


@pytest.mark.parametrize(
    "file",
    [file for file in stream_files() if file.stem not in {*REFUSED, NUL} and expected_of(file)],
    ids=lambda file: file.stem,
)
def test_the_sdks_files_go_through_our_reader_into_postgres(file: Path, tmp_path: Path, postgres_url: str) -> None:
    import psycopg

    destination = {"connector": "postgres", "config": {"url": postgres_url}}
    result, tables = sync(file, tmp_path, destination, expected_of(file))
    with psycopg.connect(postgres_url) as connection:
        found = {
            name: [row for (row,) in connection.execute(f"select to_jsonb(t) from {table} t")]
            for name, table in tables.items()
        }
    check(file, result, found)
