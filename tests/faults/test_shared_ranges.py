"""A table whose ranges the workers of a cluster load: workers and the run's process are killed, frozen, cancelled."""

from __future__ import annotations

import csv
import itertools
import os
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
from tests.faults.test_dask_kills import CHILD, wait_for
from tests.faults.test_dask_zombies import state_of
from tests.faults.test_ranges import Ranged
from tests.faults.workshop import LOADER, postgres, values
from tests.zygote import Process, Zygote

#: Where a worker's process is killed: a range is staged, its commit is sent, its commit is kept.
POINTS = ("postgres.range.before", "postgres.commit.inside", "postgres.commit.after")
#: On a busy machine a worker that was killed is there again after a minute.
PATIENCE_S = 300
#: Point, at which of its ranges each process dies, and how the table is written; a few of them with each commit.
CASES = [("postgres.range.before", 4, "replace"), ("postgres.commit.after", 4, "merge")]
#: Of a file's ranges, which differ only in how they are read.
OF_FILES = CASES[:1]
if os.environ.get("SYNCBLOCKS_FAULTS") == "full":
    # Before its first commit: then no process would ever load a range.
    every = itertools.product(POINTS, (1, 2, 4), ("replace", "merge"))
    CASES = [(point, hit, way) for point, hit, way in every if hit > 1 or point == POINTS[2]]
    OF_FILES = [(point, 4, "replace") for point in POINTS]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster(3)
    yield made
    made.close()


class Shared(Ranged):
    """The table of `Ranged`, in about ten ranges, loaded by the workers of a cluster."""

    def __init__(self, zygote: Zygote, folder: Path, url: str, cluster: Cluster, disposition: str = "replace") -> None:
        super().__init__(zygote, folder, url, disposition)
        self.store = "postgres"
        self.document |= {"store": url, "executor": {"dask": cluster.address}}
        self.document["streams"][0] |= {"retries": 40, "retry_delay_s": 0.0}
        self.write()

    def grow(self, name: str, records: int) -> None:
        super().grow(name, records)
        with postgres(self.url) as connection:  # else one worker takes all ranges of a table of unknown size
            connection.execute("analyze src.a")

    def wait_for_workers(self, process: Process) -> None:
        """Wait until a worker has taken a range."""
        taken = "select 1 from _syncblocks_range_claim where worker is not null"
        has_store = "select 1 where to_regclass('_syncblocks_range_claim') is not null"
        deadline = time.monotonic() + PATIENCE_S
        with self.kept_open():  # a load takes less than a second
            while process.code is None and not (self.store_rows(has_store) and self.store_rows(taken)):
                assert time.monotonic() < deadline, process.log()
                wait_for(process, 0.01)

    def ended_well(self, process: Process, kills: int = 0) -> list[str]:
        """Return what is wrong after a run that is to be a success."""
        found = (
            [] if process.code == 0 else [f"it ended with {process.code}: {process.result()} {process.log()[-3000:]}"]
        )
        claims = self.store_rows("select * from _syncblocks_range_claim")
        found += [f"a claim is left: {claim}" for claim in claims]
        return found + untrue(self, process) + violations(self, kills=kills)


class SharedFile(Shared):
    """The records of `Shared` in a CSV file, in about ten ranges of its bytes."""

    def __init__(self, zygote: Zygote, folder: Path, url: str, cluster: Cluster, disposition: str = "replace") -> None:
        self.path = folder / "a.csv"
        super().__init__(zygote, folder, url, cluster, disposition)
        self.tables["a"] = self.tables.pop("src.a")
        config = {"path": str(self.path), "range_bytes": 8192}
        self.document["source"] = {"block": LOADER, "connector": "csv", "config": config}
        self.document["streams"][0] |= {"stream": "a", "destination_table": "a"}
        self.write()

    def grow(self, name: str, records: int) -> None:
        super().grow(name, records)
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "t", "v"), *values(self.tables[name]["records"])])


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("made", "point", "hit", "disposition"),
    [*((Shared, *case) for case in CASES), *((SharedFile, *case) for case in OF_FILES)],
)
def test_the_range_of_a_killed_worker_is_loaded_by_another_each_record_once(
    zygote: Zygote,
    folder: Path,
    postgres_url: str,
    made: type[Shared],
    point: str,
    hit: int,
    disposition: str,
    injected: Count,
) -> None:
    # Each process dies at its so-manieth range, again and again.
    cluster = Cluster(2, SYNCBLOCKS_FAILPOINT=f"{point}:{hit}:kill")
    try:
        shared = made(zygote, folder, postgres_url, cluster, disposition)
        process = shared.start()
        process.wait(120)
        assert shared.ended_well(process) == []
        assert "was killed by SIGKILL" in process.log()
        injected()
    finally:
        cluster.close()


@pytest.mark.timeout(0)
def test_workers_that_are_killed_with_and_without_their_processes_lose_and_double_nothing(
    zygote: Zygote, folder: Path, postgres_url: str, injected: Count, is_full: bool
) -> None:
    # Each process stays in its third range: the run ends only as they are killed.
    cluster = Cluster(3, SYNCBLOCKS_FAILPOINT=f"{POINTS[0]}:3:sleep")
    try:
        shared, chance = Shared(zygote, folder, postgres_url, cluster), random.Random("ranges")
        killed, found, deadline = 0, list[str](), time.monotonic() + (600 if is_full else 100)
        for _ in range(10 if is_full else 1):
            shared.grow("src.a", chance.randrange(2, 30))
            process = shared.start()
            while process.code is None:
                assert time.monotonic() < deadline, process.log()
                shared.wait_for_workers(process)
                wait_for(process, chance.uniform(0.5, 1.5))
                # A process that loads, or the worker around it, whose nanny starts another one.
                victims = cluster.children(CHILD) if killed % 2 else cluster.workers()
                if victims and process.code is None:
                    chance.choice(victims).kill()
                    killed += 1
            found += shared.ended_well(process)
        injected(killed)
        assert found == []
        assert killed
    finally:
        cluster.close()


@pytest.mark.timeout(0)
def test_a_process_that_is_killed_while_workers_load_its_ranges_is_recovered(
    zygote: Zygote, folder: Path, postgres_url: str, cluster: Cluster, injected: Count, is_full: bool
) -> None:
    shared, chance = Shared(zygote, folder, postgres_url, cluster), random.Random(f"leader {is_full}")
    killed, found = 0, list[str]()
    for _ in range(20 if is_full else 1):
        shared.grow("src.a", chance.randrange(2, 30))
        process = shared.start()
        shared.wait_for_workers(process)
        wait_for(process, chance.uniform(0.0, 0.2))
        process.kill()
        killed += process.code == -signal.SIGKILL
        following = shared.start()
        following.wait(90)
        found += shared.ended_well(following, killed)
        if found:
            break
    injected(killed)
    assert found == []


@pytest.mark.timeout(0)
def test_a_cancelled_run_stops_the_workers_of_its_ranges(
    zygote: Zygote, folder: Path, postgres_url: str, injected: Count
) -> None:
    cluster = Cluster(2, SYNCBLOCKS_FAILPOINT=f"{POINTS[0]}:1:sleep")
    try:
        shared = Shared(zygote, folder, postgres_url, cluster)
        process = shared.start()
        shared.wait_for_workers(process)
        zygote.start(folder, ("runs", "cancel", "pipeline.yaml")).wait()
        process.wait(60)
        assert (process.code, untrue(shared, process)) == (1, []), process.log()
        assert shared.rows("src.a") is None
        assert shared.leftovers() == []
        deadline = time.monotonic() + PATIENCE_S
        while not cluster.is_idle():
            assert time.monotonic() < deadline, "the workers do not stop"
            time.sleep(0.2)
        injected()
    finally:
        cluster.close()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("point", [POINTS[0], POINTS[2]])
def test_a_worker_that_was_frozen_past_its_lease_adds_nothing_when_it_wakes_up(
    zygote: Zygote, folder: Path, postgres_url: str, point: str, injected: Count, is_full: bool
) -> None:
    if not is_full and point != POINTS[0]:
        pytest.skip("in the full set of faults")
    cluster = Cluster(1, SYNCBLOCKS_FAILPOINT=f"{point}:2:stop")
    try:
        shared = Shared(zygote, folder, postgres_url, cluster)
        process = shared.start()
        frozen: list[psutil.Process] = []
        deadline = time.monotonic() + PATIENCE_S
        while not frozen:
            assert time.monotonic() < deadline, process.log()
            wait_for(process, 0.05)
            frozen = [each for each in cluster.children(CHILD) if state_of(each) == psutil.STATUS_STOPPED]
        staged = shared.leftovers()
        with cluster.another_worker():
            shared.change_store(
                "update _syncblocks_range_claim set lease_until = '2001-01-01' where worker is not null"
            )
            while set(staged) & set(shared.leftovers()):
                assert process.code is None, process.log()
                assert time.monotonic() < deadline, process.log()
                wait_for(process, 0.05)
            frozen[0].send_signal(signal.SIGCONT)
            process.wait(120)
        assert shared.ended_well(process) == []
        assert "ranges were loaded before it was cut short, and are kept" in process.log()
        injected()
    finally:
        cluster.close()
