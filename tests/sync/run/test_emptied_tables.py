"""A destination table without a record whose stream goes on at its bookmark: the plan says so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.cli import invoke
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from tests.sync.run.targets import DESTINATIONS, Target, open_target

MADE = "create table t (id bigint not null primary key, n bigint)"


class Bench:
    """A CSV file that is read by `n` into a table."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.stream: dict[str, Any] = {
            "stream": "t",
            "replication_method": "INCREMENTAL",
            "bookmark_properties": ["n"],
            "key_properties": ["id"],
        }
        self.write(1, 2)

    def write(self, *values: int) -> None:
        lines = "".join(f"{number},{value}\n" for number, value in enumerate(values, 1))
        (self.target.folder / "t.csv").write_text(f"id,n\n{lines}")

    @property
    def file(self) -> Path:
        document = {
            "pipeline": "p",
            "source": {"connector": "csv", "config": {"path": "t.csv"}},
            "destination": self.target.document,
            "streams": [self.stream],
        }
        path = self.target.folder / "p.yaml"
        path.write_text(json.dumps(document))
        return path

    def run(self) -> None:
        assert run_pipeline(self.file).exit_code == 0

    def warnings(self) -> Sequence[str]:
        with opened(load_pipeline(self.file)) as session:
            return [each for each in make_plan(session, None).warnings if "is empty" in each]

    def ids(self) -> list[int]:
        return [number for (number,) in self.target.query("select id from t order by id")]


@pytest.fixture(params=[*DESTINATIONS, "psycopg"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with open_target(request.param, tmp_path) as target:
        yield Bench(target)


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Bench]:
    with open_target("sqlite", tmp_path) as target:
        yield Bench(target)


@pytest.mark.one_of("bench")
def test_a_table_that_was_made_anew_is_warned_of_until_it_is_read_again(bench: Bench) -> None:
    assert bench.warnings() == []
    bench.run()
    assert bench.warnings() == []
    bench.target.query("drop table t")
    bench.target.query(MADE)
    (warning,) = bench.warnings()
    assert "table 't' is empty, and the stream goes on at its bookmark" in warning
    assert "`syncblocks state reset t`" in warning
    assert invoke(["state", "reset", str(bench.file), "t"]) == 0
    assert bench.warnings() == []
    bench.run()
    assert bench.ids() == [1, 2]


def test_a_bookmark_of_before_the_first_run_is_none_to_warn_of(lite: Bench) -> None:
    assert invoke(["state", "set", str(lite.file), "t", "n=2"]) == 0
    assert lite.warnings() == []
    lite.run()
    assert lite.ids() == [2]
    assert lite.warnings() == []


@pytest.mark.parametrize("setting", [{"deleted_when": {"n": 3}}, {"deletes": "hard"}])
def test_a_stream_that_may_empty_its_table_is_not_warned_of(lite: Bench, setting: dict[str, Any]) -> None:
    lite.stream |= setting
    lite.run()
    lite.target.query("delete from t")
    assert lite.warnings() == []
