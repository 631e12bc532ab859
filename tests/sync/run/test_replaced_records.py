"""Records of one commit with the same key under merge: the run counts those that another one replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.errors import RetriableError
from syncblocks.connectors.memory import MemoryDestination
from tests.conftest import RunCLI
from tests.sync.pipelines import Bench, statuses
from tests.sync.run.targets import ALCHEMY, DESTINATIONS, Target, open_target

# Firebird's own cursors complain about the order in which they are freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MERGE = {"stream": "a", "write_disposition": "merge", "key_properties": ["id"]}
#: Three records are replaced: two by record 1 that comes last, and one by the last record 3.
RECORDS = [(3, "x", 9), (1, "a", 3), (1, "b", 2), (2, "y", 1), (1, "c", 1), (3, "z", 1)]


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with open_target(request.param, tmp_path) as opened:
        yield opened


def bench_of(folder: Path, document: dict[str, Any], **settings: Any) -> Bench:
    bench = Bench(folder)
    bench.document |= {"destination": document, "streams": [{**MERGE, **settings}]}
    return bench


def seed(bench: Bench, *records: tuple[Any, ...]) -> None:
    bench.seed("a", [dict(zip(("id", "v", "n"), each, strict=True)) for each in records], key=())


def replaced(bench: Bench) -> int | None:
    result = bench.run()
    assert statuses(result) == {"a": "success"}, result.streams[0].error
    return result.streams[0].records_replaced


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("target", [*DESTINATIONS, *ALCHEMY], indirect=True)
@pytest.mark.parametrize("on_rejected", ["fail", "keep"])
def test_each_run_counts_its_own_records(tmp_path: Path, target: Target, on_rejected: str) -> None:
    bench = bench_of(tmp_path, target.document, on_rejected=on_rejected)
    for _ in range(2):
        seed(bench, *RECORDS)
        assert replaced(bench) == 3
        assert target.query("select id, v from a order by id") == [(1, "c"), (2, "y"), (3, "z")]
    seed(bench, (1, "d", 1), (4, "w", 1))
    assert replaced(bench) == 0


@pytest.mark.one_of
@pytest.mark.parametrize("target", [*DESTINATIONS, *ALCHEMY], indirect=True)
def test_the_record_with_the_highest_value_replaces_the_others(tmp_path: Path, target: Target) -> None:
    bench = bench_of(tmp_path, target.document, latest_by="n")
    seed(bench, *RECORDS)
    assert replaced(bench) == 3
    assert target.query("select id, v from a order by id") == [(1, "a"), (2, "y"), (3, "x")]
    seed(bench, (1, "old", 1), (2, "new", 5))
    assert replaced(bench) == 0, "the table has a newer record 1"


@pytest.mark.one_of
@pytest.mark.parametrize("target", ["sqlite", "duckdb", "postgres", "mysql"], indirect=True)
def test_a_rejected_record_replaces_none(tmp_path: Path, target: Target) -> None:
    text = {"mysql": "longtext"}.get(target.kind, "text")
    bench = bench_of(tmp_path, target.document, on_rejected="keep")
    seed(bench, (9, "first", 1))
    assert replaced(bench) == 0
    target.query("drop table a")
    target.query(f"create table a (id bigint primary key, v {text} not null, n bigint check (n > 0))")
    seed(bench, (1, "a", 1), (2, "b", 1), (1, "bad", -1), (3, "c", 1), (2, "d", 1))
    result = bench.run()
    (stream,) = result.streams
    assert (stream.records, stream.records_rejected, stream.records_replaced) == (4, 1, 1), stream.error
    assert target.query("select id, v from a order by id") == [(1, "a"), (2, "d"), (3, "c")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"write_disposition": "append"}, None),
        ({"unique_conflict_method": "IGNORE"}, 0),
        ({"deleted_when": {"v": {"in": ["c", "y"]}}}, 3),
    ],
    ids=["append", "ignore", "deleted"],
)
def test_only_a_merge_that_updates_replaces_records(tmp_path: Path, settings: Any, expected: int | None) -> None:
    bench = bench_of(tmp_path, {"connector": "duckdb", "config": {"path": "out.duckdb"}}, **settings)
    seed(bench, *RECORDS)
    assert replaced(bench) == expected


def test_a_history_replaces_none(tmp_path: Path) -> None:
    versions = {"write_disposition": "history"}
    bench = bench_of(tmp_path, {"connector": "duckdb", "config": {"path": "out.duckdb"}}, **versions)
    seed(bench, (1, "a", 1), (2, "b", 1))
    assert replaced(bench) is None


def test_an_attempt_that_failed_counts_none(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    failing = {**bench.document["destination"]["config"], "fail_on": {"a": 1}}
    bench.document |= {"retries": 1, "retry_delay_s": 0.01, "streams": [MERGE]}
    bench.document["destination"]["config"] = failing
    seed(bench, *RECORDS)
    assert replaced(bench) == 3
    assert bench.destination.failures["destination:a"] == 1


def test_a_commit_whose_answer_was_lost_leaves_the_number_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = MemoryDestination.load

    def load_without_answer(self: Any, *arguments: Any) -> Any:
        yield from (commit for commit in load(self, *arguments) if not commit.checkpoint.is_final)
        raise RetriableError("the answer is lost", connector="memory")

    monkeypatch.setattr(MemoryDestination, "load", load_without_answer)
    bench = Bench(tmp_path)
    bench.document |= {"retries": 1, "retry_delay_s": 0.01, "streams": [MERGE]}
    seed(bench, *RECORDS)
    assert replaced(bench) is None


@pytest.mark.full
def test_the_commands_show_how_many(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,v\n2,x\n1,a\n1,b\n1,c\n")
    (tmp_path / "b.csv").write_text("id,v\n2,x\n1,a\n")
    (tmp_path / "tell.py").write_text(
        "@callback\ndef tell(block_run, **kwargs):\n"
        "    open(__file__ + '.log', 'a').write(f'{block_run.uuid} {block_run.rows_replaced}\\n')\n"
    )
    document = {
        "pipeline": "shop",
        "source": {"block": "load", "connector": "csv", "config": {"path": "."}},
        "destination": {"block": "export", "connector": "duckdb", "config": {"path": "out.duckdb"}},
        "streams": [{**MERGE, "stream": name} for name in "ab"],
        "callbacks": [{"file": "tell.py", "on": ["destination"]}],
    }
    (tmp_path / "shop.yaml").write_text(json.dumps(document))
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 records, 2 replaced within the load" in done.stdout
    assert sorted((tmp_path / "tell.py.log").read_text().splitlines()) == ["export:a 2", "export:b 0"]
    shown = json.loads(run_cli(["runs", "show", "--json"], tmp_path).stdout)
    assert {each["uuid"]: each["rows_replaced"] for each in shown["block_runs"]} == {
        "load:a": None,
        "export:a": 2,
        "load:b": None,
        "export:b": 0,
    }
    assert "replaced" in run_cli(["runs", "show"], tmp_path).stdout
    result = json.loads(run_cli(["run", "--json", "--stream", "a"], tmp_path).stdout.splitlines()[-1])
    assert [each["records_replaced"] for each in result["streams"]] == [2]
    none = run_cli(["run", "--stream", "b"], tmp_path)
    assert (none.returncode, "replaced" in none.stdout) == (0, False)
