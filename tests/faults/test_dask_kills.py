"""Workers and coordinators of a Dask cluster are killed, runs cancelled: the promises of one machine hold."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.workshop import Workshop
from tests.zygote import Process, Zygote

pytestmark = pytest.mark.full

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["t"]}
CHILD = "syncblocks.sync.run.executors.worker.child"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster(4)
    yield made
    made.close()


def make(zygote: Zygote, folder: Path, url: str, cluster: Cluster) -> Workshop:
    """Streams that a lost worker would lose or double."""
    workshop = Workshop(zygote, folder, destination="postgres", store="postgres", url=url)
    workshop.document |= {"executor": {"dask": cluster.address}, "concurrency": 3, "allow_blocks_to_fail": True}
    workshop.source_settings.update({"checkpoint_records": 4, "delay_s": 0.05})
    workshop.stream("full", 10, write_disposition="append")
    workshop.stream("added", 10, write_disposition="append", **INCREMENTAL)
    workshop.stream("merged", 10, write_disposition="merge", **INCREMENTAL)
    workshop.stream("replaced", 10, write_disposition="replace")
    workshop.stream("late", 10, write_disposition="append", **INCREMENTAL)
    return workshop


def grow(workshop: Workshop, chance: random.Random) -> None:
    for name in ("added", "merged", "replaced", "late"):
        workshop.grow(name, chance.randrange(2, 8))
    workshop.write()


def ended_well(workshop: Workshop, killed: int) -> list[str]:
    """Run once more, to the end; return what is wrong."""
    last = workshop.run()
    found = [] if last.code == 0 else [f"the next run ended with {last.code}: {last.result()} {last.log()[-3000:]}"]
    return found + untrue(workshop, last) + violations(workshop, kills=killed)


def wait_for(process: Process, seconds: float) -> None:
    process.zygote.read_until(lambda: process.code is not None, seconds)


def wait_for_workers(workshop: Workshop, process: Process) -> None:
    """Wait until a worker has taken a stream of the run."""
    taken = "select 1 from _syncblocks_stream_run where status = 'running' and worker is not null"
    deadline = time.monotonic() + 60
    while process.code is None and not workshop.store_rows(taken):
        assert time.monotonic() < deadline, process.log()
        wait_for(process, 0.05)


@pytest.mark.timeout(0)
def test_a_killed_worker_loses_its_streams_and_no_record(
    zygote: Zygote, folder: Path, postgres_url: str, cluster: Cluster, injected: Count, is_full: bool
) -> None:
    workshop, chance = make(zygote, folder, postgres_url, cluster), random.Random(f"workers {is_full}")
    workshop.write()
    killed, wanted = 0, 100 if is_full else 6
    while killed < wanted:
        grow(workshop, chance)
        process = workshop.start()
        wait_for_workers(workshop, process)
        wait_for(process, chance.uniform(0.0, 1.5))
        # A child, in which streams run, or the worker around it, whose nanny starts another one.
        victims = cluster.children(CHILD) if chance.random() < 0.8 else cluster.workers()
        if victims and process.code is None:
            chance.choice(victims).kill()
            killed += 1
        process.wait(90)
        assert untrue(workshop, process) == []
    injected(killed)
    assert ended_well(workshop, 0) == []


@pytest.mark.timeout(0)
def test_calls_that_wait_for_the_only_worker_go_to_the_one_in_its_place(
    zygote: Zygote, folder: Path, postgres_url: str, injected: Count
) -> None:
    alone = Cluster(1)
    try:
        workshop = make(zygote, folder, postgres_url, alone)
        workshop.write()
        process = workshop.start()
        wait_for_workers(workshop, process)
        (worker,) = alone.workers()
        worker.kill()
        process.wait(90)
        injected()
        assert untrue(workshop, process) == []
        ended = Counter(row["status"] for row in workshop.store_rows("select status from _syncblocks_stream_run"))
        assert ended.keys() <= {"success", "failure"}
        assert ended["success"] >= 3
        assert ended_well(workshop, 0) == []
    finally:
        alone.close()


@pytest.mark.timeout(0)
def test_a_killed_coordinator_is_recovered_while_its_workers_go_on(
    zygote: Zygote, folder: Path, postgres_url: str, cluster: Cluster, injected: Count, is_full: bool
) -> None:
    workshop, chance = make(zygote, folder, postgres_url, cluster), random.Random(f"coordinator {is_full}")
    killed = 0
    for _ in range(20 if is_full else 2):
        grow(workshop, chance)
        process = workshop.start()
        wait_for_workers(workshop, process)
        wait_for(process, chance.uniform(0.0, 1.5))
        process.kill()
        killed += process.code == -signal.SIGKILL
        assert ended_well(workshop, killed) == []
    injected(killed)


@pytest.mark.timeout(0)
def test_a_cancelled_run_stops_its_workers(
    zygote: Zygote, folder: Path, postgres_url: str, cluster: Cluster, injected: Count, is_full: bool
) -> None:
    workshop, chance = make(zygote, folder, postgres_url, cluster), random.Random(f"cancel {is_full}")
    workshop.source_settings.update({"delay_s": 0.3, "batch_size": 1})
    workshop.write()
    for _ in range(20 if is_full else 2):
        grow(workshop, chance)
        process = workshop.start()
        wait_for_workers(workshop, process)
        wait_for(process, chance.uniform(0.0, 2.0))
        asked = time.monotonic()
        zygote.start(folder, ("runs", "cancel", "pipeline.yaml")).wait()
        process.wait(60)
        assert process.code in (0, 1), process.log()
        assert time.monotonic() - asked < 20
        assert untrue(workshop, process) == []
        injected()
    workshop.source_settings.update({"delay_s": 0.0, "batch_size": 4})
    workshop.write()
    assert ended_well(workshop, 0) == []
