"""Streams whose method or `bookmark_properties` change: no record is appended twice, none is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from syncblocks import PipelineFailed, run_pipeline
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI
from tests.sync.run.targets import Target, open_target

HEADER = "id,at,seq\n"
#: The highest `at` is not at the highest `seq`, and two records have it.
DAY = ["1,3,9", "2,7,1", "3,7,3"]
APPEND = {"write_disposition": "append"}
INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["at"], **APPEND}


class Bench:
    """A CSV file in a pipeline whose stream is another one in each run."""

    def __init__(self, target: Target) -> None:
        self.target, self.folder = target, target.folder
        self.write(*DAY)

    def write(self, *lines: str) -> None:
        (self.folder / "t.csv").write_text(HEADER + "".join(f"{line}\n" for line in lines))

    def file(self, **stream: Any) -> Path:
        path = self.folder / "p.yaml"
        document = {
            "pipeline": "p",
            "source": {"connector": "csv", "config": {"path": "t.csv"}},
            "destination": self.target.document,
            "streams": [{"stream": "t", **stream}],
        }
        path.write_text(json.dumps(document))
        return path

    def run(self, **stream: Any) -> list[str]:
        result = run_pipeline(self.file(**stream))
        assert result.exit_code == 0, result.streams[0].error
        return self.records()

    def refusal(self, **stream: Any) -> str:
        before = self.records()
        with pytest.raises(PipelineFailed) as refused:
            run_pipeline(self.file(**stream)).raise_for_status()
        assert self.records() == before
        return str(refused.value)

    def records(self) -> list[str]:
        return sorted(
            ",".join(str(int(value)) for value in row) for row in self.target.query("select t.id, t.at, t.seq from t")
        )


@pytest.fixture(params=["sqlite", "duckdb", "postgres", "mysql"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with open_target(request.param, tmp_path) as target:
        yield Bench(target)


@pytest.fixture
def simple(tmp_path: Path) -> Any:
    with open_target("sqlite", tmp_path) as target:
        yield Bench(target)


@pytest.mark.full
@pytest.mark.one_of("bench")
@pytest.mark.parametrize("before", ["replace", "append"])
def test_an_append_does_not_begin_from_scratch_after_full_table(bench: Bench, run_cli: RunCLI, before: str) -> None:
    bench.run(write_disposition=before)
    told = bench.refusal(**INCREMENTAL)
    assert "would double them" in told
    assert "state set t at=VALUE" in told
    assert "--full-refresh" in told
    assert run_cli(["state", "set", "p.yaml", "t", "at=8"], bench.folder).returncode == 0
    bench.write(*DAY, "4,8,1")
    assert bench.run(**INCREMENTAL) == [*DAY, "4,8,1"]


@pytest.mark.one_of("bench")
def test_what_was_reset_is_appended_once_more(bench: Bench, run_cli: RunCLI) -> None:
    bench.run(write_disposition="replace")
    assert run_cli(["state", "reset", "p.yaml", "t"], bench.folder).returncode == 0
    assert bench.run(**INCREMENTAL) == sorted(DAY * 2)
    bench.write(*DAY, "4,8,1")
    assert bench.run(**INCREMENTAL) == sorted([*DAY * 2, "4,8,1"])


def test_a_table_without_records_is_appended_to(simple: Bench) -> None:
    simple.write()
    simple.run(columns={"include": ["id", "at", "seq"]}, types={"*": "int64"})
    simple.write(*DAY)
    assert simple.run(**INCREMENTAL, types={"*": "int64"}) == DAY


@pytest.mark.parametrize("method", [APPEND, {**INCREMENTAL}], ids=["full", "incremental"])
def test_new_files_are_not_appended_to_what_was_read_otherwise(simple: Bench, method: dict[str, Any]) -> None:
    simple.run(**method)
    told = simple.refusal(**{**INCREMENTAL, "bookmark_properties": ["_file_modified"]})
    assert "--full-refresh" in told
    assert "state set" not in told


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (["at", "seq"], ["at"]),
        (["at", "seq"], ["seq", "at"]),
        (["at"], ["at", "seq"]),
        (["at"], ["seq"]),
        (["_file_modified"], ["at"]),
    ],
)
@pytest.mark.parametrize("disposition", ["append", "merge"])
def test_a_bookmark_of_other_properties_is_refused(
    simple: Bench, run_cli: RunCLI, before: list[str], now: list[str], disposition: str
) -> None:
    stream = {"replication_method": "INCREMENTAL", "key_properties": ["id"], "write_disposition": disposition}
    simple.run(**stream, bookmark_properties=before)
    told = simple.refusal(**stream, bookmark_properties=now)
    assert f"[{', '.join(before)}]" in told
    assert f"[{', '.join(now)}]" in told
    assert ("which it appends once more" in told) == (disposition == "append")
    assert simple.run(**stream, bookmark_properties=before) == DAY
    simple.file(**stream, bookmark_properties=now)
    ways = ["set", "p.yaml", "t", *(f"{name}=100" for name in now)]
    assert run_cli(["state", *ways], simple.folder).returncode == 0
    simple.write(*DAY, "4,100,100")
    assert simple.run(**stream, bookmark_properties=now) == [*DAY, "4,100,100"]


def test_a_bookmark_that_was_set_before_the_first_run_is_of_the_same_properties(simple: Bench, run_cli: RunCLI) -> None:
    simple.file(**INCREMENTAL)
    assert run_cli(["state", "set", "p.yaml", "t", "at=5"], simple.folder).returncode == 0
    with pytest.raises(ConfigError, match="now they are \\[seq\\]"):
        run_pipeline(simple.file(**{**INCREMENTAL, "bookmark_properties": ["seq"]}))
    assert simple.run(**INCREMENTAL) == DAY[1:]
