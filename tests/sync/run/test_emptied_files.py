"""Files that lose all their records: a load of no records where the table was written before, else a clear error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.plan.run_options import RunOptions
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from tests.sync.run.test_columns_by_case import records

DUCKDB = {"connector": "duckdb", "config": {"path": "out.db"}}

#: Format -> a file of two records, and files of none.
FORMATS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "csv": ("id,v\n1,a\n2,\n", ("id,v\n",)),
    "jsonl": ('{"id": 1, "v": "a"}\n{"id": 2, "v": null}\n', ("", "\n")),
    "json": ('[{"id": 1, "v": "a"}, {"id": 2}]', ("[]", " [ ]\n")),
}
CASES = [(connector, text) for connector, (_, emptied) in FORMATS.items() for text in emptied]

#: Entry of a stream -> the records that are left.
ENTRIES: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "replace": ({"write_disposition": "replace"}, 0),
    "append": ({"write_disposition": "append"}, 2),
    "merge": ({"write_disposition": "merge", "key_properties": ["id"]}, 2),
    "replace_range": ({"write_disposition": "replace_range", "range_column": "id"}, 2),
    "history": ({"write_disposition": "history", "key_properties": ["id"]}, 2),
    "incremental": ({"replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "key_properties": ["id"]}, 2),
    "new files": (
        {"replication_method": "INCREMENTAL", "bookmark_properties": ["_file_modified"], "key_properties": ["id"]},
        2,
    ),
}


def document(connector: str, **entry: Any) -> Path:
    path = Path("p.yaml")
    source = {"connector": connector, "config": {"path": "data"}}
    path.write_text(
        json.dumps({"pipeline": "p", "source": source, "destination": DUCKDB, "streams": [{"stream": "t", **entry}]})
    )
    return path


def put(connector: str, text: str, name: str = "t") -> None:
    path = Path("data") / f"{name}.{connector}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def run(path: Path, **changes: Any) -> RunResult:
    with opened(load_pipeline(path)) as session:
        make_plan(session, None, options=RunOptions(**changes))
    return run_pipeline(path, **changes).raise_for_status()


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.one_of
@pytest.mark.parametrize("kind", ENTRIES)
@pytest.mark.thinned(1)
@pytest.mark.parametrize(("connector", "text"), CASES)
def test_a_stream_that_becomes_empty_is_a_load_of_no_records(connector: str, text: str, kind: str) -> None:
    entry, left = ENTRIES[kind]
    path = document(connector, **entry)
    put(connector, FORMATS[connector][0])
    run(path)
    put(connector, text)
    assert run(path).streams["t"].records == 0
    assert len(records(DUCKDB, Path())) == left
    put(connector, FORMATS[connector][0])
    assert run(path).status == "success"
    assert {(row["id"], row["v"]) for row in records(DUCKDB, Path())} == {(1, "a"), (2, None)}


@pytest.mark.one_of("connector")
@pytest.mark.parametrize(("connector", "text"), [("csv", ""), ("csv", "\ufeff"), *CASES[1:]])
def test_a_stream_that_never_had_a_column_says_so(connector: str, text: str) -> None:
    put(connector, text)
    with pytest.raises(ConfigError, match="no columns"):
        run(document(connector))
    put(connector, FORMATS[connector][0], "u")
    path = document(connector, stream="*")
    assert [stream.stream for stream in run(path).streams] == ["u"]


def test_a_parquet_file_without_records_keeps_its_columns() -> None:
    path = document("parquet", write_disposition="replace")
    table = pa.table({"id": [1, 2]})
    Path("data").mkdir()
    for part in (table, table.slice(0, 0)):
        pq.write_table(part, "data/t.parquet")
        run(path)
    assert records(DUCKDB, Path()) == []


def test_added_and_mage_columns_are_not_taken_for_the_files_own() -> None:
    path = document("jsonl", write_disposition="replace", add_columns={"loaded": "now"}, mage_columns=True)
    for text in (FORMATS["jsonl"][0], "", FORMATS["jsonl"][0]):
        put("jsonl", text)
        run(path)
    assert [row["loaded"] for row in records(DUCKDB, Path())] == ["now", "now"]


def test_a_range_of_files_that_are_all_empty_now_is_emptied() -> None:
    path = document("jsonl", write_disposition="replace_range", range_column="_file")
    text = json.loads(path.read_text())
    text["source"]["config"] = {"path": "data", "streams": {"t": "*.jsonl"}, "file_columns": True}
    path.write_text(json.dumps(text))
    for name in ("a", "b"):
        put("jsonl", FORMATS["jsonl"][0], name)
    run(path)
    assert len(records(DUCKDB, Path())) == 4
    for name in ("a", "b"):
        put("jsonl", "", name)
    run(path)
    assert records(DUCKDB, Path()) == []


def test_an_empty_file_among_others_is_no_error_of_an_incremental_read() -> None:
    path = document("csv", **ENTRIES["incremental"][0])
    put("csv", FORMATS["csv"][0], "t/a")
    put("csv", "", "t/b")
    run(path)
    assert len(records(DUCKDB, Path())) == 2


@pytest.mark.parametrize("text", ["", "\ufeff"])
def test_a_csv_file_without_its_header_is_no_load_of_no_records(text: str) -> None:
    path = document("csv")
    put("csv", FORMATS["csv"][0])
    run(path)
    put("csv", text)
    assert "no columns" in (run_pipeline(path).error or "")
    assert len(records(DUCKDB, Path())) == 2


def test_a_full_refresh_of_a_stream_that_is_empty_now_keeps_the_columns() -> None:
    path = document("jsonl")
    put("jsonl", FORMATS["jsonl"][0])
    run(path)
    put("jsonl", "")
    run(path, full_refresh=True)
    assert records(DUCKDB, Path()) == []
