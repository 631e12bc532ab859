"""The run store among processes: starts at the same moment, kill -9, and a fault at each of its commit points."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncblocks.sync.errors import AlreadyRunning
from syncblocks.sync.store import Store
from tests.sync.store.store_helpers import (
    CALLBACKS,
    STORES,
    attempt_plan,
    deliver_all,
    outcome,
    query,
    store_url_of,
    stream_plan,
)
from tests.zygote import Zygote

#: Begins a run when told to, and tells who won.
RACER = """
import sys
from syncblocks.sync.errors import AlreadyRunning
from syncblocks.sync.store import Store
from tests.sync.store.store_helpers import DATE
store = Store.open(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    try:
        print("won", store.begin_run(line.strip(), execution_date=DATE).id, flush=True)
    except AlreadyRunning as error:
        print("refused", error.run_id, flush=True)
"""
#: A whole run.
ENGINE = "tests.sync.store.store_engine"


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


@contextmanager
def python(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python in a process of its own, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def recover(url: str) -> None:
    """Do with a dead run what a start does before new work; every step of it is idempotent."""
    with Store.open(url) as store:
        active = store.active_run("p")
        outbox = store.outbox("p", CALLBACKS)
        if active is not None:
            run = store.reclaim_run(active.id)
            for name in store.open_streams(run.id):
                store.close_stream(run.id, outcome(stream_plan(name), failed_block="export"))
            if store.attempt_plan(run.id, 1) is None:
                store.begin_attempt(run.id, attempt_plan([]))
            store.end_attempt(run.id)
            outbox.release_gate(run.id)
        deliver_all(outbox)
        if active is not None:
            store.finish_run(active.id)


@pytest.mark.full
def test_of_processes_that_begin_at_the_same_moment_one_wins(store_url: str) -> None:
    Store.open(store_url).close()
    racer = ("-c", RACER, store_url)
    with python(*racer) as first, python(*racer) as second, python(*racer) as third:
        racers = (first, second, third)
        assert [read_line(racer) for racer in racers] == [["ready"]] * 3
        for number in range(15):
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write(f"p{number}\n")
                racer.stdin.flush()
            answers = [read_line(racer) for racer in racers]
            assert sorted(answer[0] for answer in answers) == ["refused", "refused", "won"], answers
            assert len({answer[1] for answer in answers}) == 1
    active = query(store_url, "SELECT pipeline, count(*) FROM _syncblocks_pipeline_run GROUP BY pipeline")
    assert len(active) == 15
    assert {number for _, number in active} == {1}


def test_a_process_killed_in_mid_run_is_recovered_at_once(store_url: str) -> None:
    with python("-m", ENGINE, store_url, "pause") as engine:
        assert read_line(engine) == ["paused"]
        with Store.open(store_url) as store:
            run = store.active_run("p")
            assert run is not None
            assert run.owner.pid == engine.pid
            assert store.owner_state(run) == "alive"
            with pytest.raises(AlreadyRunning):
                store.reclaim_run(run.id)
            os.kill(engine.pid, signal.SIGKILL)
            # Wait for the death, and leave the remains: a parent need not have reaped it.
            os.waitid(os.P_PID, engine.pid, os.WEXITED | os.WNOWAIT)
            assert store.owner_state(run) == "dead"
            assert store.reclaim_run(run.id).owner.pid == os.getpid()
            assert store.open_streams(run.id) == ("a",)
            assert store.never_started(run.id) == ("b",)
    recover(store_url)
    assert query(store_url, "SELECT status FROM _syncblocks_attempt") == [("failure",)]


@pytest.mark.full
def test_a_kill_at_any_commit_point_of_the_store_leaves_nothing_open(zygote: Zygote, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert zygote.module(ENGINE, f"sqlite:///{tmp_path}/traced.db", "run", trace=trace).returncode == 0
    reached = trace.read_text().split()
    # Each name at its first hit; the closes and claims at every one.
    points = [point for point in reached if point.endswith(":1") or point.startswith(("store.close", "store.claim"))]
    assert len(points) > 35
    wrong = {}
    for number, point in enumerate(points):
        url = f"sqlite:///{tmp_path}/store{number}.db"
        assert zygote.module(ENGINE, url, "run", failpoint=f"{point}:kill").returncode == -signal.SIGKILL, point
        recover(url)
        recover(url)
        if found := violations(url):
            wrong[point] = found
    assert wrong == {}, json.dumps(wrong, indent=1)


def violations(url: str) -> list[str]:
    """Return what I4 to I6 forbid, read by plain SQL."""
    checks = {
        "left open": "SELECT status FROM _syncblocks_attempt WHERE status = 'running'"
        " UNION ALL SELECT 'active' FROM _syncblocks_pipeline_run WHERE is_active"
        " UNION ALL SELECT block FROM _syncblocks_block_run WHERE status = 'running' OR is_last IS NULL"
        " UNION ALL SELECT state FROM _syncblocks_delivery WHERE state <> 'done'",
        "not one last block run": "SELECT block_type FROM _syncblocks_block_run GROUP BY run_id, block_type"
        " HAVING total(is_last) <> 1 OR max(CASE WHEN is_last THEN type_index END) <> count(*) - 1",
        "not one event": "SELECT b.block, b.stream FROM _syncblocks_block_run AS b LEFT JOIN _syncblocks_event AS e"
        " ON e.run_id = b.run_id AND e.parent = b.block AND e.stream = b.stream AND e.status = b.status"
        " GROUP BY b.run_id, b.block, b.stream HAVING count(e.seq) <> 1",
        "no event of pipeline": "SELECT a.run_id FROM _syncblocks_attempt AS a LEFT JOIN _syncblocks_event AS e"
        " ON e.run_id = a.run_id AND e.parent = 'pipeline' AND e.status = a.status"
        " GROUP BY a.run_id HAVING count(e.seq) <> 1",
    }
    return [name for name, statement in checks.items() if query(url, statement)]
