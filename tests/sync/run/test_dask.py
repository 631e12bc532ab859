"""What only a run with workers has: other code, other connections, and no secret on the way there."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import distributed
import psycopg
import pytest

from syncblocks import Progress, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.run.executors.worker.children import CHILDREN
from tests.cluster import Cluster
from tests.sync.pipelines import statuses
from tests.sync.run.conftest import CANARIES
from tests.sync.run.spread import SpreadBench
from tests.sync.store.round_trips import counted


@pytest.fixture
def bench(tmp_path: Path, postgres_url: str, cluster: Cluster) -> SpreadBench:
    return SpreadBench(tmp_path, postgres_url, {"dask": cluster.address})


def everything(dask_scheduler: Any) -> str:
    """Return all that a scheduler knows, as text."""
    tasks = [repr(vars_of(task)) for task in dask_scheduler.tasks.values()]
    plugins = [repr(plugin) for plugin in dask_scheduler.worker_plugins.values()]
    events = repr({topic: list(found.events) for topic, found in dask_scheduler._broker._topics.items()})
    return "\n".join([*tasks, *plugins, events, repr(dask_scheduler.transition_log), repr(dask_scheduler.identity())])


def vars_of(task: Any) -> dict[str, Any]:
    return {name: repr(getattr(task, name, None)) for name in task.__slots__}


def test_secrets_are_looked_up_on_the_worker_and_pass_through_no_scheduler(
    bench: SpreadBench, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    bench.seed("a", 3)
    bench.document["variables"] = {name.lower(): f"{{{{ env_var('{name}') }}}}" for name in CANARIES}
    bench.document["source"]["config"]["fail_at"] = {"b": 1}
    bench.seed("b", 3)
    bench.document["allow_blocks_to_fail"] = True
    (bench.folder / "clean.py").write_text(
        "@transformer\ndef clean(df, canary_7, **kwargs):\n    print(canary_7)\n    df['v'] = canary_7\n    return df\n"
    )
    bench.document["transformers"] = [{"file": "clean.py"}]
    seen: list[str] = []

    class Look(Progress):
        def stream_ended(self, stream: str, status: str, *, records: int | None, error: str | None) -> None:
            seen.append(cluster.scheduler(everything))

    assert statuses(bench.run(Look())) == {"a": "success", "b": "failure"}
    assert {row["v"] for row in bench.rows("a")} == {CANARIES["CANARY_7"]}
    seen.append(cluster.scheduler(everything))
    seen += [repr(found) for found in cluster.logs()]
    assert any("syncblocks-" in text for text in seen), "the look sees what there is"
    assert [text for text in seen if "canary-" in text and "hush" in text] == []


def test_a_source_that_changes_between_plan_and_run_fails_its_stream(bench: SpreadBench) -> None:
    with psycopg.connect(bench.url) as connection:
        connection.execute("create schema crm")
        for name in ("a", "b"):
            connection.execute(f"create table crm.{name} as select 1 as id, 'x' as v")
    bench.document["source"] = {"block": "load", "connector": "postgres", "config": {"url": bench.url, "schema": "crm"}}
    bench.document |= {
        "allow_blocks_to_fail": True,
        "streams": [
            {"stream": name, "destination_table": name.replace("crm.", "main_")} for name in ("crm.a", "crm.b")
        ],
    }

    class Change(Progress):
        def run_started(self, run: Any, plan: Any) -> None:
            with psycopg.connect(bench.url) as connection:
                connection.execute("alter table crm.a add column w int")

    result = bench.run(Change())
    assert statuses(result) == {"crm.a": "failure", "crm.b": "success"}
    assert "has changed at the source between the plan and the run" in str(result.streams["crm.a"].error)
    assert statuses(bench.run())["crm.a"] == "success"


def test_a_client_or_an_executor_of_the_caller_is_used_and_left_open(bench: SpreadBench, cluster: Cluster) -> None:
    bench.seed("a", 2)
    bench.document["executor"] = "threads"
    with distributed.Client(cluster.address, set_as_default=False) as client:
        assert bench.run(executor=client).exit_code == 0
        assert client.status == "running"
        assert bench.run(executor=client.get_executor()).exit_code == 0
    with ThreadPoolExecutor(2) as pool:
        assert bench.run(executor=pool).exit_code == 0
        assert pool.submit(lambda: 7).result() == 7
    assert bench.ask("select count(*) from _syncblocks_stream_run where worker is not null") == [(3,)]
    assert len(bench.rows("a")) == 2


def test_workers_have_no_connection_left_when_the_last_events_are_told(bench: SpreadBench) -> None:
    bench.seed("a", 2)
    (bench.folder / "count.py").write_text(
        "import psycopg\n\n@callback('success')\ndef count(configuration, **kwargs):\n"
        f"    with psycopg.connect({bench.url!r}) as connection:\n"
        '        asked = connection.execute("select application_name, state from pg_stat_activity where datname = '
        "current_database() and pid <> pg_backend_pid() and query not ilike '%_syncblocks_%'\")\n"
        "        open(__file__ + '.log', 'w').write(repr(asked.fetchall()))\n"
    )
    bench.document["callbacks"] = [{"file": "count.py", "on": ["pipeline"]}]
    assert bench.run().exit_code == 0
    left = (bench.folder / "count.py.log").read_text()
    # The run store of the coordinator stays open, and nothing else.
    assert left.count("(") <= 2, left


def test_a_worker_of_another_version_is_refused_before_anything_runs(
    bench: SpreadBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.seed("a", 1)
    monkeypatch.setattr("syncblocks.sync.run.executors.dask.own_version", lambda: "0.0.9")
    with pytest.raises(ConfigError, match="install the same version everywhere"):
        bench.run()
    assert bench.ask("select to_regclass('_syncblocks_pipeline_run')") == [(None,)]


@pytest.mark.full
def test_a_run_store_that_a_worker_does_not_reach_fails_the_streams_with_its_reason(
    bench: SpreadBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.seed("a", 1)
    bench.record()
    monkeypatch.setenv("SYNCBLOCKS_STORE", "postgresql://127.0.0.1:1/nowhere")
    CHILDREN.end()  # of another test, and its environment
    with ThreadPoolExecutor(1) as pool:
        result = bench.run(executor=pool)
    CHILDREN.end()
    assert statuses(result) == {"a": "failure"}
    assert "no worker has run this stream" in str(result.streams["a"].error)
    assert "run store" in str(result.streams["a"].error)
    assert [(call["status"], call["is_last_block_run"]) for call in bench.calls()] == [("failure", True)]


def test_the_command_line_takes_an_address(bench: SpreadBench, cluster: Cluster, run_cli: Any) -> None:
    bench.seed("a", 2)
    bench.document["executor"] = "threads"
    bench.write()
    done = run_cli(["run", "bench.yaml", "--executor", cluster.address, "--json"], cwd=bench.folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["streams"][0]["records"] == 2
    assert bench.ask("select count(*) from _syncblocks_stream_run where worker is not null") == [(1,)]
    assert run_pipeline(bench.folder / "bench.yaml").exit_code == 0


def test_data_reaches_callbacks_through_storage_by_url_and_is_removed_once_delivered(bench: SpreadBench) -> None:
    shared = bench.folder / "shared"
    bench.document["executor"]["spool"] = f"file://{shared}"
    bench.document["allow_blocks_to_fail"] = True
    bench.document["source"]["config"]["fail_at"] = {"b": 1}
    bench.seed("a", 3)
    bench.seed("b", 3)
    bench.record_frames("load", "export")
    assert statuses(bench.run()) == {"a": "success", "b": "failure"}
    lines = [json.loads(line) for line in (bench.folder / "frames.log").read_text().splitlines()]
    assert sorted(lines) == [["export", [0, 1, 2], 3], ["load", [0, 1, 2], 3]]
    kept = bench.ask("select distinct data from _syncblocks_delivery where data is not null")
    assert [place.startswith(f"file://{shared}/") for (place,) in kept] == [True, True]
    assert shared.is_dir()
    assert list(shared.iterdir()) == []


def test_data_that_cannot_be_written_to_shared_storage_is_none_and_the_stream_succeeds(bench: SpreadBench) -> None:
    (bench.folder / "shared").write_text("no folder")
    bench.document["executor"]["spool"] = f"file://{bench.folder}/shared"
    bench.seed("a", 3)
    bench.record_frames("export")
    assert statuses(bench.run()) == {"a": "success"}
    assert json.loads((bench.folder / "frames.log").read_text()) == ["export", None, 3]


def test_a_stream_on_a_cluster_costs_few_round_trips_of_the_run_store(bench: SpreadBench, postgres_url: str) -> None:
    for number in range(96):
        bench.seed(f"s{number}", 1)
    bench.document["concurrency"] = "auto"
    with counted(postgres_url) as proxy:
        bench.document["store"] = proxy.url
        assert bench.run(streams=["s0"]).exit_code == 0  # makes the store
        trips, locked, started = proxy.trips, proxy.locked, time.monotonic()
        assert bench.run().exit_code == 0
        looks = 8 * (time.monotonic() - started)  # the run twice a second, a worker once; each is two trips or fewer
        # Of them three are the stream's own; claims, plans and the start of the workers have the rest.
        assert proxy.trips - trips <= 6 * 96 + looks
        assert proxy.locked - locked <= 1.2 * 96
