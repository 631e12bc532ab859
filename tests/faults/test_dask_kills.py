"""Workers and coordinators of a Dask cluster are killed, frozen and cancelled: the promises of one machine hold."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster import Cluster
from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.workshop import Workshop
from tests.zygote import Process, Zygote

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


def state_of(pid: int) -> str:
    try:
        return psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return ""


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


#: Where a worker is frozen, outside of transactions: before and after its token, after a commit, before its close.
POINTS = ["stream.before_take_over:1", "stream.after_take_over:1", "stream.after_commit:1", "store.close.before:1"]


@pytest.mark.timeout(0)
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("point", POINTS)
def test_what_a_frozen_worker_commits_and_closes_after_its_lease_is_refused(
    zygote: Zygote, folder: Path, postgres_url: str, point: str, number: int, injected: Count, is_full: bool
) -> None:
    if not is_full and (number or point not in POINTS[1::2]):
        pytest.skip("in the full set of faults")
    cluster = Cluster(1, SYNCBLOCKS_FAILPOINT=f"{point}:stop")
    try:
        workshop = make(zygote, folder, postgres_url, cluster)
        workshop.document["concurrency"] = 1
        workshop.document["streams"] = [dict(each) for each in workshop.document["streams"][:1]]
        workshop.tables = {"full": workshop.tables["full"]}
        workshop.document["source"]["config"]["tables"] = workshop.tables
        workshop.write()
        assert revived(workshop, cluster, is_committed=point in POINTS[2:]) == []
        injected()
    finally:
        cluster.close()


def revived(workshop: Workshop, cluster: Cluster, *, is_committed: bool) -> list[str]:
    """Freeze the worker, end its lease, run elsewhere, wake it up; return what is wrong then.

    `is_committed`: the ledger says by then that the stream is complete, whoever has not closed it.
    """
    process = workshop.start()
    deadline = time.monotonic() + 60
    frozen: list[psutil.Process] = []
    while not frozen:
        assert time.monotonic() < deadline, process.log()
        wait_for(process, 0.05)
        frozen = [child for child in cluster.children(CHILD) if state_of(child.pid) == psutil.STATUS_STOPPED]
    workshop.change_store(
        "update _syncblocks_stream_run set lease_until = '2001-01-01 00:00:00+00' where status = 'running'"
    )
    process.wait(60)
    found = untrue(workshop, process)
    if process.code != (0 if is_committed else 1):
        found.append(f"the run ended with {process.code}: {process.result()}")
    other = workshop.run("--executor", "threads")
    found += untrue(workshop, other) + violations(workshop)
    (zombie,) = frozen
    zombie.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 30
    while not cluster.is_idle():
        assert time.monotonic() < deadline, "the frozen worker does not come to an end"
        time.sleep(0.2)
    return found + violations(workshop)
