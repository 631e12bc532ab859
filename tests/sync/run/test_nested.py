"""`nested: {flatten: N}` in a pipeline: keys, bookmarks, filters, what is left out, and what may not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import RunCLI

EVENTS = [
    {"id": 1, "who": {"id": "a", "at": 10, "secret": {"x": 1}}, "tags": [1]},
    {"id": 2, "who": {"id": "b", "at": 20, "secret": {"x": 2}}, "tags": []},
]


def pipeline(folder: Path, source: dict[str, Any], stream: dict[str, Any]) -> None:
    document = {
        "source": source,
        "destination": {"connector": "duckdb", "config": {"path": "out.duckdb"}},
        "streams": [{"stream": "events", **stream}],
    }
    (folder / "p.yaml").write_text(yaml.safe_dump(document))


def put(folder: Path, end: str, records: list[Any]) -> dict[str, Any]:
    """Write the records as a source of some kind has them, and return that source."""
    if end == "duckdb":
        (folder / "in.json").write_text(json.dumps(records))
        with duckdb.connect(folder / "in.duckdb") as connection:
            connection.execute(
                "create or replace table events as select * from read_json('" + str(folder / "in.json") + "')"
            )
        return {"connector": "duckdb", "config": {"path": "in.duckdb"}}
    path = folder / f"events.{end}"
    if end == "parquet":
        with duckdb.connect() as connection:
            (folder / "in.json").write_text(json.dumps(records))
            connection.execute(f"copy (select * from read_json('{folder / 'in.json'}')) to '{path}' (format parquet)")
    elif end == "json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return {"connector": end, "config": {"path": path.name}}


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(folder / "out.duckdb", read_only=True) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.full
@pytest.mark.one_of("end")
@pytest.mark.parametrize("end", ["json", "jsonl", "parquet", "duckdb"])
def test_key_bookmark_and_filter_may_be_of_an_object(tmp_path: Path, run_cli: RunCLI, end: str) -> None:
    stream = {
        "nested": {"flatten": 2},
        "columns": {"exclude": ["who__secret", "tags"]},
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["who__at"],
        "key_properties": ["who__id"],
        "where": {"who__id": {"!=": "z"}},
        "write_disposition": "merge",
    }
    pipeline(tmp_path, put(tmp_path, end, EVENTS), stream)
    done = run_cli(["run", "p.yaml"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(tmp_path, "select * from events order by id") == [(1, "a", 10), (2, "b", 20)]
    later = [
        {"id": 7, "who": {"id": "a", "at": 5, "secret": {"x": 1, "new": 1}}},
        {"id": 3, "who": {"id": "b", "at": 30, "secret": {"x": 1, "new": 1}}},
        {"id": 4, "who": {"id": "z", "at": 30, "secret": None}},
    ]
    put(tmp_path, end, [*EVENTS, *later])
    done = run_cli(["run", "p.yaml"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(tmp_path, "select * from events order by who__id") == [(1, "a", 10), (3, "b", 30)]


@pytest.mark.full
@pytest.mark.parametrize("end", ["json", "parquet", "duckdb"])
def test_flat_columns_are_verified(tmp_path: Path, run_cli: RunCLI, end: str) -> None:
    stream = {"nested": {"flatten": 2}, "key_properties": ["id"], "columns": {"exclude": ["tags"]}}
    pipeline(tmp_path, put(tmp_path, end, EVENTS), stream)
    for command in ("run", "verify"):
        done = run_cli([command, "p.yaml"], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    with duckdb.connect(tmp_path / "out.duckdb") as connection:
        connection.execute("update events set who__secret__x = 7 where id = 2")
    assert run_cli(["verify", "p.yaml"], tmp_path).returncode == 1


@pytest.mark.full
def test_another_nested_on_a_table_that_is_there_is_refused(tmp_path: Path, run_cli: RunCLI) -> None:
    source = put(tmp_path, "jsonl", EVENTS)
    pipeline(tmp_path, source, {})
    assert run_cli(["run", "p.yaml"], tmp_path).returncode == 0
    pipeline(tmp_path, {**source, "nested": {"flatten": 1}}, {})
    done = run_cli(["run", "p.yaml"], tmp_path)
    assert done.returncode == 1
    assert "was written with `nested: text`, now it is `{flatten: 1}`" in " ".join((done.stdout + done.stderr).split())
    assert run_cli(["run", "p.yaml", "--full-refresh"], tmp_path).returncode == 0
    assert [name for name, *_ in rows(tmp_path, "describe events")] == [
        "id",
        "who__id",
        "who__at",
        "who__secret",
        "tags",
    ]
    pipeline(tmp_path, {**source, "nested": {"flatten": 1}}, {"nested": None})
    assert run_cli(["run", "p.yaml"], tmp_path).returncode == 0, "null is the source's"


def test_the_tables_column_decides_the_type_of_a_flat_column(tmp_path: Path, run_cli: RunCLI) -> None:
    pipeline(tmp_path, put(tmp_path, "jsonl", [{"a": {"b": "x"}}]), {"nested": {"flatten": 1}})
    assert run_cli(["run", "p.yaml"], tmp_path).returncode == 0
    put(tmp_path, "jsonl", [{"a": {"b": 1}}, {"a": {"b": 2.50}}, {"a": None}])
    done = run_cli(["run", "p.yaml"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(tmp_path, "from events") == [("1",), ("2.5",), (None,)]


@pytest.mark.full
def test_a_value_that_is_new_within_an_object_that_is_left_out_stays_out(tmp_path: Path, run_cli: RunCLI) -> None:
    lines = [json.dumps({"id": number, "who": {"a": 1}}) for number in range(300_000)]
    (tmp_path / "events.jsonl").write_text("\n".join([*lines, json.dumps({"id": -1, "who": {"new": 1}})]) + "\n")
    source = {"connector": "jsonl", "config": {"path": "events.jsonl"}}
    pipeline(tmp_path, source, {"nested": {"flatten": 1}, "columns": {"exclude": ["who"]}})
    done = run_cli(["run", "p.yaml"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(tmp_path, "from events where id < 0") == [(-1,)]


@pytest.mark.parametrize(
    ("source", "stream", "words"),
    [
        ({"connector": "csv", "config": {"path": "e.csv"}, "nested": {"flatten": 1}}, {}, "csv yields no objects"),
        ({"connector": "csv", "config": {"path": "e.csv"}}, {"nested": {"flatten": 1}}, "csv yields no objects"),
        ({"connector": "jsonl", "config": {"path": "x.jsonl"}, "nested": {"flatten": 0}}, {}, "N from 1 to 16"),
        ({"connector": "jsonl", "config": {"path": "x.jsonl"}}, {"nested": "flatten"}, "must be text, or {flatten: N}"),
        (
            {"connector": "jsonl", "config": {"path": "x.jsonl"}},
            {"nested": {"flatten": 1}},
            "two columns the name 'a__b'",
        ),
    ],
)
def test_what_cannot_be_flattened_is_refused_when_it_is_planned(
    tmp_path: Path, run_cli: RunCLI, source: dict[str, Any], stream: dict[str, Any], words: str
) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": {"b": 1}}\n{"a__b": 2}\n')
    (tmp_path / "e.csv").write_text("a\n1\n")
    pipeline(tmp_path, source, {**stream, "stream": "x" if source["connector"] == "jsonl" else "e"})
    done = run_cli(["plan", "p.yaml"], tmp_path)
    assert done.returncode == 2
    assert words in " ".join((done.stdout + done.stderr).split())


@pytest.mark.one_of
@pytest.mark.parametrize("is_in_list", [False, True])
def test_a_struct_with_two_fields_of_one_name_is_refused_at_plan(
    tmp_path: Path, run_cli: RunCLI, is_in_list: bool
) -> None:
    column: pa.Array = pa.StructArray.from_arrays([pa.array([1]), pa.array(["a"])], names=["y", "y"])
    column = pa.ListArray.from_arrays([0, 1], column) if is_in_list else column
    with pa.OSFile(str(tmp_path / "events.arrow"), "wb") as file:
        table = pa.table({"id": [7], "t": column})
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    source = {"connector": "arrow", "config": {"path": "events.arrow"}}
    pipeline(tmp_path, source, {})
    found = run_cli(["plan", "p.yaml"], tmp_path)
    assert found.returncode == 2
    assert "column 't' holds structs with two fields 'y'" in found.stderr
    pipeline(tmp_path, source, {"columns": {"exclude": ["t"]}})
    run_cli(["run", "p.yaml"], tmp_path)
    assert rows(tmp_path, "select * from events") == [(7,)]


def test_duckdb_keeps_a_struct_whose_names_differ_by_case_as_json(tmp_path: Path, run_cli: RunCLI) -> None:
    column = pa.StructArray.from_arrays([pa.array([1]), pa.array(["a"])], names=["y", "Y"])
    pq.write_table(pa.table({"id": [7], "t": column}), tmp_path / "events.parquet")
    pipeline(tmp_path, {"connector": "parquet", "config": {"path": "events.parquet"}}, {})
    run_cli(["run", "p.yaml"], tmp_path)
    assert rows(tmp_path, "select * from events") == [(7, '{"y":1,"Y":"a"}')]
