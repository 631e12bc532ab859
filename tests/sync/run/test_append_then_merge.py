"""Append and merge in one table, one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncblocks import RunResult, run_pipeline
from tests.sync.run.targets import Target, open_target


@pytest.fixture(params=["sqlite", "duckdb", "postgres", "mysql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with open_target(request.param, tmp_path) as target:
        yield target


def sync(target: Target, disposition: str, *lines: str, full_refresh: bool = False) -> RunResult:
    (target.folder / "t.csv").write_text("id,seen,note\n" + "".join(f"{line}\n" for line in lines))
    document = {
        "pipeline": "p",
        "source": {"connector": "csv", "config": {"path": "t.csv"}},
        "destination": target.document,
        "streams": [
            {
                "stream": "t",
                "replication_method": "INCREMENTAL",
                "bookmark_properties": ["seen"],
                "key_properties": ["id"],
                "write_disposition": disposition,
            }
        ],
    }
    path = target.folder / "p.yaml"
    path.write_text(json.dumps(document))
    return run_pipeline(path, full_refresh=full_refresh)


def run(target: Target, disposition: str, *lines: str, full_refresh: bool = False) -> list[tuple[Any, ...]]:
    result = sync(target, disposition, *lines, full_refresh=full_refresh)
    assert result.exit_code == 0, result.streams[0].error
    return sorted(target.query("select id, seen, note from t"))


@pytest.mark.full
@pytest.mark.one_of("target")
def test_versions_of_one_key_become_one_record(target: Target) -> None:
    run(target, "append", "1,1,a", "2,2,b", "3,2,c")
    versions = run(target, "append", "1,3,d", "2,2,b", "3,2,c")
    assert versions == [(1, 1, "a"), (1, 3, "d"), (2, 2, "b"), (3, 2, "c")]
    assert run(target, "merge", "1,4,e", "2,5,f", "4,5,g") == [(1, 4, "e"), (2, 5, "f"), (3, 2, "c"), (4, 5, "g")]
    assert run(target, "merge", "1,6,h", "5,6,i")[0] == (1, 6, "h")


@pytest.mark.one_of("target")
def test_an_append_to_a_table_that_was_merged_says_what_to_do(target: Target) -> None:
    run(target, "merge", "1,1,a", "2,2,b")
    changed = ("1,3,c", "2,2,b")
    if target.kind != "duckdb":  # where a merge makes no key
        refused = str(sync(target, "append", *changed).streams[0].error)
        assert "use `write_disposition: merge`, run once with --full-refresh" in refused
        run(target, "append", "1,1,a", "2,2,b", full_refresh=True)
    assert run(target, "append", *changed) == [(1, 1, "a"), (1, 3, "c"), (2, 2, "b")]
