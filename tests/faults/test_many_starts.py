"""One pipeline started several times at once: one runs, the others refuse or wait."""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.test_kill_loop import make
from tests.faults.test_zombie import freeze
from tests.zygote import Zygote

pytestmark = pytest.mark.full

PLACES = [("duckdb", "sqlite"), ("sqlite", "postgres"), ("postgres", "postgres"), ("sqlite", "sqlite")]


@pytest.mark.thinned(1)
@pytest.mark.timeout(600)  # 125 processes in the full set
@pytest.mark.parametrize(("destination", "store"), PLACES)
@pytest.mark.parametrize("starts", [2, 5])
def test_one_runs_and_the_others_refuse(
    zygote: Zygote,
    folder: Path,
    postgres_url: str,
    destination: str,
    store: str,
    starts: int,
    injected: Count,
    is_full: bool,
) -> None:
    workshop = make(zygote, folder, destination, store, postgres_url)
    workshop.source_settings["delay_s"] = 0.05
    workshop.write()
    for number in range(25 if is_full else 2):
        processes = [workshop.start() for _ in range(starts)]
        codes = sorted(process.wait() for process in processes)
        injected(starts - 1)
        logs = [process.result() for process in processes]
        assert set(codes) <= {0, 2}, logs
        assert 0 in codes, logs
        refused = {process.result()["error"]["code"] for process in processes if process.code == 2}
        assert refused <= {"already_running"}, logs
        for process in processes:
            assert untrue(workshop, process) == []
        assert violations(workshop) == [], number


@pytest.mark.parametrize(("destination", "store"), PLACES)
def test_those_that_wait_run_one_after_the_other(
    zygote: Zygote, folder: Path, postgres_url: str, destination: str, store: str, injected: Count, is_full: bool
) -> None:
    starts = 8 if is_full else 3
    workshop = make(zygote, folder, destination, store, postgres_url)
    workshop.write()
    processes = [workshop.start("--wait") for _ in range(starts)]
    codes = [process.wait(55) for process in processes]
    injected(starts - 1)
    assert codes == [0] * starts, [process.result() for process in processes]
    assert violations(workshop) == []
    spans = workshop.store_rows("select started_at, ended_at from _syncblocks_attempt order by run_id")
    assert len(spans) == starts
    assert all(str(before["ended_at"]) <= str(after["started_at"]) for before, after in pairwise(spans))


def test_a_start_that_planned_before_another_run_goes_on_from_where_that_one_ended(
    zygote: Zygote, folder: Path, injected: Count
) -> None:
    workshop = make(zygote, folder, "sqlite", "sqlite", "")
    workshop.write()
    assert workshop.run().code == 0
    for name in ("added", "merged", "replaced"):
        workshop.grow(name, 5)
    workshop.write()
    slow = freeze(workshop, "store.begin_run.before:1")
    assert workshop.run().code == 0
    slow.signal(signal.SIGCONT)
    assert slow.wait() == 0, slow.log()
    injected()
    assert untrue(workshop, slow) + violations(workshop) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_waits_can_be_interrupted(
    zygote: Zygote, folder: Path, number: signal.Signals, injected: Count
) -> None:
    workshop = make(zygote, folder, "sqlite", "sqlite", "")
    workshop.write()
    running = freeze(workshop, "stream.after_take_over:1")
    waiting = workshop.start("--wait")
    while "waiting" not in waiting.log():
        assert not waiting.has_ended(), waiting.log()
        waiting.zygote.read_until(lambda: waiting.code is not None, 0.02)
    waiting.signal(number)
    assert waiting.wait() == 128 + number
    running.signal(signal.SIGCONT)
    assert running.wait() == 0
    injected()
    assert violations(workshop) == []
