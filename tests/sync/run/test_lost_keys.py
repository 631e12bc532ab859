"""A merge whose key the table lacks, since a transformer or a hand has renamed it: no record gets a second one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncblocks import RunResult, run_pipeline
from tests.sync.run.targets import Target, open_target

RENAMED = {"block": "names", "rename": {"id": "user_id"}}


class Bench:
    """A CSV file that is merged into a database by `id`."""

    def __init__(self, target: Target) -> None:
        self.target, self.folder = target, target.folder
        self.write(1, 2)

    def write(self, *values: int) -> None:
        (self.folder / "t.csv").write_text("id,n\n" + "".join(f"{n},{value}\n" for n, value in enumerate(values, 1)))

    def run(self, *transformers: Any, full_refresh: bool = False, **stream: Any) -> RunResult:
        document = {
            "pipeline": "p",
            "source": {"connector": "csv", "config": {"path": "t.csv"}},
            "transformers": list(transformers),
            "destination": self.target.document,
            "streams": [{"stream": "t", "write_disposition": "merge", "key_properties": ["id"], **stream}],
        }
        path = self.folder / "p.yaml"
        path.write_text(json.dumps(document))
        return run_pipeline(path, full_refresh=full_refresh)

    def records(self, *columns: str) -> list[tuple[Any, ...]]:
        return sorted(self.target.query(f"select {', '.join(columns) or '*'} from t"))


@pytest.fixture(params=["sqlite", "duckdb", "postgres", "mysql"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with open_target(request.param, tmp_path) as target:
        yield Bench(target)


@pytest.mark.one_of("bench")
def test_a_key_that_a_transformer_renames_later_is_refused(bench: Bench) -> None:
    assert bench.run().exit_code == 0
    bench.write(1, 3)
    refused = bench.run(RENAMED)
    assert refused.exit_code == 1
    assert "has no column 'user_id', by which its records are merged" in str(refused.streams[0].error)
    assert bench.records() == [(1, 1), (2, 2)]
    assert bench.run(RENAMED, full_refresh=True).exit_code == 0
    bench.write(1, 4)
    assert bench.run(RENAMED).exit_code == 0
    assert bench.records("user_id", "n") == [(1, 1), (2, 4)]


@pytest.mark.one_of("bench")
def test_a_key_that_somebody_has_renamed_in_the_table_is_refused(bench: Bench) -> None:
    assert bench.run().exit_code == 0
    quote = "`" if bench.target.kind == "mysql" else '"'
    bench.target.query(f"alter table {quote}t{quote} rename column id to former")
    assert bench.run().exit_code == 1
    assert bench.records() == [(1, 1), (2, 2)]


@pytest.mark.one_of("bench")
def test_columns_beside_the_key_may_be_renamed(bench: Bench) -> None:
    assert bench.run().exit_code == 0
    assert bench.run({"block": "names", "rename": {"n": "number"}}).exit_code == 0
    assert bench.records("id", "number") == [(1, 1), (2, 2)]
