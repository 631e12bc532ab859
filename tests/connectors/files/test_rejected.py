"""Rejected records beside files: kept with the commit that they came with, and no part of the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.rejected.records import REJECTED_SCHEMA, REJECTED_TABLE
from syncblocks.connectors.stream import Load
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.files import files_readback
from tests.connectors.files.files_load import SCHEMA, batch_of, load_of, run
from tests.connectors.files.files_pair import FINAL, destination_of, every_format, looked_at, read
from tests.zygote import Zygote


def rejecting(load: Load, limit: int = 10) -> Load:
    return replace(load, write=replace(load.write, max_rejected=limit))


def set_aside(name: str, folder: Path) -> list[Any]:
    """Return the records, in the order in which they were set aside."""
    schema = pa.schema([(field, pa.string()) for field in REJECTED_SCHEMA.names])
    found = files_readback.read_table(folder / REJECTED_TABLE, "orders", f".{name}", schema) or []
    return [json.loads(each["record"]) for each in found]


@every_format
def test_a_value_that_the_tables_column_does_not_hold_is_set_aside(tmp_path: Path, name: str) -> None:
    destination = destination_of(name, tmp_path)

    def send(token: str, values: list[Any], kind: pa.DataType) -> Any:
        batch = pa.record_batch({"id": pa.array(range(len(values))), "v": pa.array(values, kind)})
        return run(destination, rejecting(load_of("append", token, batch.schema)), batch, FINAL)[0]

    send("a", [0.5], pa.float64())
    commit = send("b", [1, 2**53 + 1, 3], pa.int64())
    assert (commit.records, commit.rejected) == (2, 1)
    assert [record["v"] for record in read(name, tmp_path)] == [0.5, 1, 3]
    assert set_aside(name, tmp_path) == [{"id": 1, "v": 2**53 + 1}]


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_a_year_that_text_cannot_keep_is_set_aside(tmp_path: Path, name: str) -> None:
    days = pa.array([0, 10_000_000, 1], pa.int32()).cast(pa.date32())
    batch = pa.record_batch({"id": pa.array([1, 2, 3]), "day": days})
    (commit,) = run(destination_of(name, tmp_path), rejecting(load_of("merge", "a", batch.schema)), batch, FINAL)
    assert (commit.records, commit.rejected) == (2, 1)
    assert [record["id"] for record in set_aside(name, tmp_path)] == [2]


def test_what_is_no_json_is_set_aside(tmp_path: Path) -> None:
    texts = pa.array(['{"a": 1}', "{oops", None], pa.string())
    column = pa.ExtensionArray.from_storage(pa.json_(pa.string()), texts)
    batch = pa.record_batch({"id": pa.array([1, 2, 3]), "v": column})
    load = rejecting(load_of("replace", "a", batch.schema))
    (commit,) = run(destination_of("jsonl", tmp_path), load, batch, FINAL)
    assert (commit.records, commit.rejected) == (2, 1)
    assert set_aside("jsonl", tmp_path) == [{"id": 2, "v": "{oops"}]


@every_format
def test_they_stay_when_the_table_is_replaced_and_are_no_stream(tmp_path: Path, name: str) -> None:
    destination = destination_of(name, tmp_path)
    schema = pa.schema([("id", pa.int64()), ("name", pa.string())])
    bad = pa.RecordBatch.from_pylist([{"id": None, "name": "x"}], schema=schema)
    for token in ("a", "b"):
        run(destination, rejecting(load_of("replace", token)), batch_of((1, token)), bad, FINAL)
    assert looked_at(name, tmp_path) == [(1, "b")]
    assert set_aside(name, tmp_path) == [{"id": None, "name": "x"}] * 2
    assert [record["id"] for record in read(name, tmp_path)] == [1]


@pytest.mark.one_of("name")
@every_format
@pytest.mark.parametrize("move", [1, 2])
def test_a_kill_between_the_manifest_and_their_move_is_mended(
    zygote: Zygote, tmp_path: Path, name: str, move: int
) -> None:
    folder = tmp_path / "out"
    run(destination_of(name, folder), load_of("replace", "t0", SCHEMA), batch_of((9, "old")), FINAL)
    arguments = (name, str(folder), "replace", "1", "bad 1", "bad 2")
    killed = zygote.module("tests.connectors.files.files_load", *arguments, failpoint=f"files.move.before:{move}:kill")
    assert killed.returncode == -9, killed.stderr
    assert set_aside(name, folder) == [], "not moved yet"
    destination = destination_of(name, folder)
    destination.drop_staging(["token1"])
    assert set_aside(name, folder) == ["bad 1", "bad 2"]
    run(destination, load_of("append", "t2"), batch_of((5, "e")), FINAL)
    assert set_aside(name, folder) == ["bad 1", "bad 2"]
    assert [pair[0] for pair in looked_at(name, folder)] == [1, 5, 10, 11]
