"""Values of another kind than the column of the table, in each record of a file."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from syncblocks import RunResult, run_pipeline

VALUES = {"integer": "5", "boolean": "true", "date": "2024-01-02", "fraction": "1.5"}
PAIRS = [
    ("integer", "boolean"),
    ("boolean", "integer"),
    ("fraction", "boolean"),
    ("integer", "date"),
    ("date", "integer"),
]


def synced(folder: Path, source: str, destination: str, key: int, value: str, **entry: str) -> RunResult:
    """Sync a file that now has this one record."""
    quoted = f'"{value}"' if "-" in value else value
    text = f"id,v\n{key},{value}\n" if source == "csv" else f'{{"id": {key}, "v": {quoted}}}\n'
    (folder / f"t.{source}").write_text(text, encoding="utf-8")
    document = {
        "pipeline": "unlike",
        "source": {"connector": source, "config": {"path": f"t.{source}"}},
        "destination": {"connector": destination, "config": {"path": f"out.{destination}"}},
        "streams": [{"stream": "t", "key_properties": ["id"], "write_disposition": "merge", **entry}],
    }
    (folder / "unlike.yaml").write_text(json.dumps(document), encoding="utf-8")
    return run_pipeline(folder / "unlike.yaml")


def keys(folder: Path, destination: str, table: str) -> list[int]:
    """Return the keys of a table, or of the rejected records."""
    column = "id" if table == "t" else "cast(json_extract(record, '$.id') as integer)"
    sql = f"select {column} from {table}"
    path = str(folder / f"out.{destination}")
    if destination == "duckdb":
        with duckdb.connect(path) as connection:
            return [row[0] for row in connection.execute(sql).fetchall()]
    with closing(sqlite3.connect(path)) as sqlite:
        return [row[0] for row in sqlite.execute(sql)]


@pytest.mark.full
@pytest.mark.one_of("destination", "source")
@pytest.mark.parametrize("destination", ["duckdb", "sqlite"])
@pytest.mark.parametrize("source", ["csv", "jsonl"])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_record_with_a_value_of_another_kind_is_rejected(
    tmp_path: Path, source: str, destination: str, first: str, second: str
) -> None:
    assert synced(tmp_path, source, destination, 1, VALUES[first]).status == "success"
    failed = synced(tmp_path, source, destination, 2, VALUES[second])
    line = 2 if source == "csv" else 1
    assert failed.status == "failure"
    for part in (f"t.{source}:{line}", "types: {v: string}"):
        assert part in str(failed.streams[0].error)
    kept = synced(tmp_path, source, destination, 2, VALUES[second], on_rejected="keep")
    assert kept.status == "success"
    assert keys(tmp_path, destination, "t") == [1]
    assert keys(tmp_path, destination, "_syncblocks_rejected") == [2]
