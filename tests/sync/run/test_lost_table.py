"""A destination table that is dropped between plan and last commit: it gets all records again, or the run says no."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from syncblocks import PipelineFailed, Progress
from syncblocks.connectors.duckdb.database import configuration
from syncblocks.connectors.duckdb.settings import DuckDBSettings
from syncblocks.connectors.sql.load import merge
from tests.sync.pipelines import Bench, statuses
from tests.sync.pipelines import bench as bench
from tests.sync.run.targets import DESTINATIONS, Target, open_target

MADE = "create table t (id bigint not null primary key, t bigint, v varchar(20))"


class At(Progress):
    """Does something the first time that a method is called."""

    def __init__(self, moment: str, action: Callable[[], object]) -> None:
        self._moment, self._action, self.is_done = moment, action, False

    def _tell(self, moment: str) -> None:
        if moment == self._moment and not self.is_done:
            self.is_done = True
            self._action()

    def stream_started(self, *_: Any) -> None:
        self._tell("stream_started")

    def advanced(self, *_: Any, **__: Any) -> None:
        self._tell("advanced")

    def committed(self, *_: Any, **__: Any) -> None:
        self._tell("committed")


class Shared(Target):
    """A target that is changed while a run of this process has it open."""

    def _connect(self) -> Any:
        if self.kind != "duckdb":
            return super()._connect()
        settings = DuckDBSettings(path=str(self.folder / "target.duckdb"))
        return duckdb.connect(settings.path, config=configuration(settings))


@pytest.fixture(params=DESTINATIONS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with open_target(request.param, tmp_path) as opened:
        yield Shared(opened.kind, opened.folder, opened.url)


def prepare(bench: Bench, disposition: str, first: int = 40) -> None:
    """Sync the first records; then come more, a few each checkpoint."""
    bench.document["source"]["config"] |= {"batch_size": 10, "checkpoint_records": 10}
    bench.document["streams"] = [
        {
            "stream": "t",
            "replication_method": "INCREMENTAL",
            "bookmark_properties": ["t"],
            "write_disposition": disposition,
        }
    ]
    seed(bench, first)
    assert statuses(bench.run()) == {"t": "success"}
    seed(bench, 100)


def seed(bench: Bench, count: int) -> None:
    bench.seed("t", [{"id": number, "t": number, "v": f"v{number}"} for number in range(count)])


def ids(target: Target) -> list[int]:
    return [number for (number,) in target.query("select id from t order by id")]


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize(
    ("moment", "disposition"),
    [("stream_started", "merge"), ("advanced", "append"), ("committed", "merge"), ("committed", "append")],
)
def test_a_table_that_is_dropped_on_the_way_gets_all_records_again(
    bench: Bench, target: Target, moment: str, disposition: str
) -> None:
    bench.document["destination"] = target.document
    prepare(bench, disposition)
    drop = At(moment, lambda: target.query("drop table t"))
    result = bench.run(progress=drop)
    assert drop.is_done
    assert statuses(result) == {"t": "success"}, result.streams[0].error
    assert ids(target) == list(range(100))


@pytest.mark.parametrize("target", ["mysql"], indirect=True)  # the others lock the table when they look
def test_a_table_that_is_dropped_between_a_look_and_the_merge_gets_all_records_again(
    bench: Bench, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MySQL keeps nobody from it before the transaction's first statement over the table."""
    genuine, waiting = merge.insert_staged, [True]

    def insert_staged(*arguments: Any, **named: Any) -> Any:
        if waiting and waiting.pop():
            target.query("drop table t")
        return genuine(*arguments, **named)

    bench.document["destination"] = target.document
    prepare(bench, "merge")
    monkeypatch.setattr(merge, "insert_staged", insert_staged)
    result = bench.run()
    assert (waiting, statuses(result)) == ([], {"t": "success"}), result.streams[0].error
    assert ids(target) == list(range(100))


@pytest.mark.one_of("target")
def test_a_table_that_another_has_made_anew_is_not_taken_for_the_one_that_was_written(
    bench: Bench, target: Target
) -> None:
    """An append cannot tell what the new table holds; it is refused until somebody says where it starts."""
    disposition = "append" if target.kind in ("postgres", "sqlite") else "merge"
    before = {
        "sqlite": "create table first (a int)",  # or the new table would stand in the former one's place
        "mysql": "select sleep(1)",  # its catalog tells by the second
    }.get(target.kind, "select 1")
    bench.document["destination"] = target.document
    prepare(bench, disposition)
    statements = (before, "drop table t", MADE)
    result = bench.run(progress=At("committed", lambda: [target.query(sql) for sql in statements]))
    if disposition == "merge":
        assert statuses(result) == {"t": "success"}, result.streams[0].error
        assert ids(target) == list(range(100))
        return
    assert statuses(result) == {"t": "failure"}
    assert "--full-refresh" in str(result.streams[0].error)
    with pytest.raises(PipelineFailed, match="--full-refresh"):
        bench.run().raise_for_status()


def test_a_first_run_that_loses_its_table_begins_anew(bench: Bench) -> None:
    bench.document["source"]["config"] |= {"batch_size": 10, "checkpoint_records": 10}
    bench.document["streams"] = [{"stream": "t", "replication_method": "INCREMENTAL", "bookmark_properties": ["t"]}]
    seed(bench, 50)
    result = bench.run(progress=At("committed", lambda: bench.destination.tables.pop("t")))
    assert statuses(result) == {"t": "success"}
    assert len(bench.rows("t")) == 50


def test_a_crash_leaves_no_old_bookmark_beside_a_new_table(bench: Bench) -> None:
    """Where CREATE TABLE commits by itself, a crash leaves the empty table."""
    prepare(bench, "merge")
    made = bench.destination.tables.pop("t").slice(0, 0)
    bench.document["destination"]["config"]["fail_on"] = {"t": 1}
    assert statuses(bench.run()) == {"t": "failure"}
    bench.destination.tables["t"] = made
    bench.document["destination"]["config"]["fail_on"] = {}
    assert statuses(bench.run()) == {"t": "success"}
    assert len(bench.rows("t")) == 100


@pytest.mark.parametrize("moment", ["stream_started", "committed"])
def test_files_that_are_deleted_on_the_way_are_written_again(bench: Bench, moment: str) -> None:
    bench.document["destination"] = {"connector": "jsonl", "config": {"path": "out"}}
    prepare(bench, "merge")
    result = bench.run(progress=At(moment, (bench.folder / "out" / "t.jsonl").unlink))
    assert statuses(result) == {"t": "success"}, result.streams[0].error
    assert len((bench.folder / "out" / "t.jsonl").read_text().splitlines()) == 100
