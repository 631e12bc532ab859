"""`on_schema_change: ignore` leaves out what is new at the source; what the pipeline file changes arrives."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks import RunResult, run_pipeline
from syncblocks.sync.store import Store
from tests.conftest import RunCLI
from tests.sync.run.test_columns_by_case import HOW, SYSTEMS, config, records

SAME = "@transformer\ndef names(df):\n    return df\n"

#: What the transformer looks at, and what callbacks are given.
WATCHED = """
from pathlib import Path

@transformer
def names(df):
    with open(Path(__file__).with_suffix(".log"), "a") as log:
        log.write(" ".join(sorted(df.columns)) + "\\n")
    return df
"""
TOLD = """
from pathlib import Path

@callback
def told(df, parent_block_uuid, **kwargs):
    with open(Path(__file__).with_suffix(".log"), "a") as log:
        log.write(parent_block_uuid + ": " + " ".join(sorted(df.columns)) + "\\n")
"""


class Bench:
    """A file of JSON lines that is synced under `ignore`."""

    def __init__(self, folder: Path, destination: Mapping[str, Any], how: str) -> None:
        self.folder, self.destination = folder, destination
        self.stream: dict[str, Any] = {"stream": "in", "destination_table": "t", **HOW[how]}
        self.stream["on_schema_change"] = "ignore"
        self.extra: dict[str, Any] = {}
        (folder / "names.py").write_text(SAME)

    def file(self) -> Path:
        document = {
            "pipeline": "days",
            "source": {"connector": "jsonl", "block": "load", "config": {"path": "in.jsonl"}},
            "destination": {**self.destination, "block": "export"},
            "streams": [self.stream],
            **self.extra,
        }
        path = self.folder / "days.yaml"
        path.write_text(json.dumps(document))
        return path

    def write(self, *records: Mapping[str, Any]) -> None:
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (self.folder / "in.jsonl").write_text(lines)

    def run(self, *records: Mapping[str, Any]) -> RunResult:
        self.write(*records)
        result = run_pipeline(self.file())
        assert result.status == "success", result.streams[0].error
        return result

    def renames(self, **names: str) -> None:
        self.extra["transformers"] = [{"file": "names.py", "rename": names}] if names else [{"file": "names.py"}]

    def found(self) -> list[dict[str, Any]]:
        """Return the records of the table, without what is NULL."""
        found = records(self.destination, self.folder)
        bare = [{name: value for name, value in record.items() if value is not None} for record in found]
        return sorted(bare, key=lambda record: (record["id"], repr(record)))


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", HOW)
def test_a_rename_that_is_added_between_two_runs_loses_nothing(
    tmp_path: Path, request: pytest.FixtureRequest, system: str, how: str
) -> None:
    bench = Bench(tmp_path, config(system, request, tmp_path), how)
    first, second = {"id": 1, "v": "a"}, {"id": 2, "v": "b"}
    bench.run(first)
    bench.renames(v="val")
    bench.run(first, second)
    there = {"id": 2, "val": "b"}
    if how == "replace":
        assert bench.found() == [{"id": 1, "val": "a"}, there]
    else:
        assert bench.found()[-1] == there
    third = {"id": 3, "v": "c", "new": "n"}
    bench.run(second, third)
    assert bench.found()[-1] == {"id": 3, "val": "c"}, "what is new at the source is left out all the same"


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", HOW)
def test_a_column_that_columns_lets_in_arrives(
    tmp_path: Path, request: pytest.FixtureRequest, system: str, how: str
) -> None:
    bench = Bench(tmp_path, config(system, request, tmp_path), how)
    bench.stream["columns"] = {"exclude": ["v"]}
    bench.run({"id": 1, "v": "a", "w": "x"})
    del bench.stream["columns"]
    bench.run({"id": 2, "v": "b", "w": "y", "new": "n"})
    assert bench.found()[-1] == {"id": 2, "v": "b", "w": "y"}
    bench.run({"id": 3, "v": "c", "w": "z", "new": "n"})
    assert bench.found()[-1] == {"id": 3, "v": "c", "w": "z"}
    bench.stream["on_schema_change"] = "evolve"
    bench.run({"id": 4, "v": "d", "w": "z", "new": "n"})
    assert bench.found()[-1] == {"id": 4, "v": "d", "w": "z", "new": "n"}


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", HOW)
def test_what_a_function_adds_arrives(tmp_path: Path, request: pytest.FixtureRequest, system: str, how: str) -> None:
    bench = Bench(tmp_path, config(system, request, tmp_path), how)
    bench.renames()
    bench.run({"id": 1, "v": "a"})
    (tmp_path / "names.py").write_text("@transformer\ndef names(df):\n    return df.assign(twice=df['v'] + df['v'])\n")
    bench.run({"id": 2, "v": "b", "new": "n"})
    assert bench.found()[-1] == {"id": 2, "v": "b", "twice": "bb"}


@pytest.mark.full
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", HOW)
def test_callbacks_and_functions_see_what_the_table_gets(
    tmp_path: Path, run_cli: RunCLI, request: pytest.FixtureRequest, how: str
) -> None:
    bench = Bench(tmp_path, config("sqlite", request, tmp_path), how)
    (tmp_path / "names.py").write_text(WATCHED)
    (tmp_path / "told.py").write_text(TOLD)
    bench.renames(v="val")
    bench.extra["callbacks"] = [{"file": "told.py", "on": ["load", "names", "export"]}]
    bench.run({"id": 1, "v": "a"})
    for log in ("names.log", "told.log"):
        (tmp_path / log).unlink()
    bench.write({"id": 2, "v": "b", "new": "n"})
    shown = run_cli(["preview", bench.file(), "--stream", "in", "--json"], tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["records"] == [{"id": 2, "val": "b"}]
    plan = run_cli(["plan", bench.file()], tmp_path)
    assert "leave out new column new" in plan.stdout
    done = run_cli(["run", bench.file()], tmp_path)
    assert done.returncode == 0
    assert "in: left out by on_schema_change: ignore: new" in done.stdout + done.stderr
    assert set((tmp_path / "names.log").read_text().splitlines()) == {"id val"}
    told = sorted((tmp_path / "told.log").read_text().splitlines())
    assert told == ["export: id val", "load: id v", "names: id val"]


@pytest.mark.full
@pytest.mark.parametrize("is_transformed", [False, True])
def test_a_column_that_turns_up_on_the_way_is_left_out(
    tmp_path: Path, request: pytest.FixtureRequest, is_transformed: bool
) -> None:
    bench = Bench(tmp_path, config("duckdb", request, tmp_path), "append")
    if is_transformed:
        (tmp_path / "names.py").write_text(WATCHED)
        bench.renames(text="words")
    name = "words" if is_transformed else "text"
    bench.run({"id": 1, "text": "a"})
    many = [{"id": number, "text": "x" * 900} for number in range(2, 20_000)]
    bench.run(*many, {"id": 20_001, "text": "y", "late": 5})
    assert bench.found()[-1] == {"id": 20_001, name: "y"}
    assert {column for record in records(bench.destination, tmp_path) for column in record} == {"id", name}
    if is_transformed:
        assert set((tmp_path / "names.log").read_text().splitlines()) == {"id words"}


@pytest.mark.thinned(1)
@pytest.mark.parametrize("is_transformed", [False, True])
@pytest.mark.parametrize("how", HOW)
def test_a_run_store_that_knows_nothing_leaves_out_what_the_table_lacks(
    tmp_path: Path, request: pytest.FixtureRequest, how: str, is_transformed: bool
) -> None:
    bench = Bench(tmp_path, config("sqlite", request, tmp_path), how)
    if is_transformed:
        bench.renames(w="x")
    bench.run({"id": 1, "v": "a", "w": "b"})
    forget(tmp_path)
    bench.run({"id": 2, "v": "b", "w": "c", "new": "n"})
    x = "x" if is_transformed else "w"
    assert bench.found()[-1] == {"id": 2, "v": "b", x: "c"}
    bench.renames(v="val", **({"w": "x"} if is_transformed else {}))
    forget(tmp_path)
    bench.run({"id": 3, "v": "c", "w": "d", "new": "n"})
    assert bench.found()[-1] == {"id": 3, "val": "c", x: "d"}


def forget(folder: Path) -> None:
    """Let the run store know no more than one of an earlier version that has lost its columns."""
    for file in (folder / ".syncblocks").glob("store.db*"):
        file.unlink()


@pytest.mark.parametrize("is_transformed", [False, True])
def test_a_shape_of_an_earlier_version_is_read_on(
    tmp_path: Path, request: pytest.FixtureRequest, is_transformed: bool
) -> None:
    bench = Bench(tmp_path, config("sqlite", request, tmp_path), "merge")
    if is_transformed:
        bench.renames()
    bench.run({"id": 1, "v": "a"})
    bench.run({"id": 2, "v": "b", "old": "o"})
    for number in (3, 4):
        with closing(sqlite3.connect(tmp_path / ".syncblocks" / "store.db")) as store:
            store.execute("update _syncblocks_state set shape = json_remove(shape, '$.ignored')")
            store.commit()
        bench.run({"id": number, "v": "c", "old": "o", "new": "n"})
        assert bench.found()[-1] == {"id": number, "v": "c"}, "left out before, and now"
    bench.renames(v="val")
    bench.run({"id": 5, "v": "d", "old": "o", "new": "n"})
    assert bench.found()[-1] == {"id": 5, "val": "d"}


def test_a_column_of_that_name_in_the_table_is_written(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bench = Bench(tmp_path, config("sqlite", request, tmp_path), "merge")
    bench.run({"id": 1, "v": "a"})
    bench.run({"id": 2, "v": "b", "new": "n"})
    with closing(sqlite3.connect(tmp_path / "out.db")) as connection:
        connection.execute("alter table t add column new text")
    bench.run({"id": 3, "v": "c", "new": "n"})
    assert bench.found()[-1] == {"id": 3, "v": "c", "new": "n"}
    with Store.open(f"sqlite:///{tmp_path}/.syncblocks/store.db") as store:
        (state,) = store.states("days")
    assert state.shape is not None
    assert state.shape["ignored"] == []
