"""A worker that is frozen or cut off past its lease comes back: what it commits and closes is refused.

It stops at a failpoint, by SIGSTOP. Then it either stays so with the process around it, or its network namespace goes
dark and it goes on there, until another has ended its stream.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster import Cluster, ClusterApart
from tests.faults.conftest import Count
from tests.faults.dark import Dark, dark
from tests.faults.oracle import untrue, violations
from tests.faults.test_dask_kills import CHILD
from tests.faults.workshop import Workshop
from tests.zygote import Process, Zygote

pytestmark = pytest.mark.full

#: Before and after its token, before and after its commit, before its close. At none of them it has locks that others
#: wait for.
POINTS = (
    "stream.before_take_over:1",
    "stream.after_take_over:1",
    "postgres.commit.before:1",
    "stream.after_commit:1",
    "store.close.before:1",
)
#: From here on the ledger says that the stream is complete, whoever has not closed it.
COMMITTED = POINTS[3:]
FROZEN, CUT_OFF = "frozen", "cut off"
#: The rest is only in the full set.
FEW = {(FROZEN, POINTS[3], 0), (CUT_OFF, POINTS[2], 0)}
FULL = os.environ.get("SYNCBLOCKS_FAULTS") == "full"
CASES = [(how, point, number) for how in (FROZEN, CUT_OFF) for point in POINTS for number in range(2)]

#: Reached when a load has committed, and before a close commits.
COMMITS = ("stream.after_commit", "store.close.inside")

#: What no process of another stream or run writes: how far the stream is, and who has brought it there.
LEDGER = "select bookmark, completed_by, rows, committed_at from _syncblocks_ledger"
CLOSED = "select run_id, attempt, block, status, type_index, is_last, row_count, ended_at from _syncblocks_block_run"
OPEN = "select stream from _syncblocks_stream_run where status = 'running'"
END_LEASE = "update _syncblocks_stream_run set lease_until = '2001-01-01 00:00:00+00' where status = 'running'"


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("how", "point", "number"), CASES if FULL else [case for case in CASES if case in FEW])
def test_what_a_worker_commits_and_closes_after_its_lease_is_refused(
    zygote: Zygote, folder: Path, postgres_url: str, how: str, point: str, number: int, injected: Count
) -> None:
    with worker(folder, postgres_url, how, point) as (cluster, net):
        workshop = Workshop(zygote, folder, destination="postgres", store="postgres", url=postgres_url)
        workshop.document |= {"executor": {"dask": cluster.address}, "allow_blocks_to_fail": True}
        # Where the worker lives, another address leads there.
        workshop.document["destination"]["config"]["url"] = "{{ env_var('TEST_DESTINATION') }}"
        workshop.stream("full", 10, write_disposition="append")
        workshop.write()
        environment = {"TEST_DESTINATION": postgres_url}
        # The table is there: nobody waits for the transaction that makes it.
        assert workshop.run("--executor", "threads", environment=environment).code == 0
        process = workshop.start(environment=environment)
        child = stopped_child(cluster, process)
        before = trace(folder)
        end_stream_of(child, workshop, process, net)
        if net is None:
            process.wait(90)
            for each in cluster.workers():  # they would end a child that says nothing for a minute
                each.suspend()
            other = workshop.run("--executor", "threads", environment=environment)
        kept = said(workshop)
        if net is None:
            for each in (child, *cluster.workers()):
                each.send_signal(signal.SIGCONT)
        else:
            net.join()
        until(lambda: close_refused(folder), process, 60)
        assert [place for place in trace(folder)[len(before) :] if place.startswith(COMMITS)] == []
        assert said(workshop) == kept
        if net is not None:
            process.wait(90)
            other = workshop.run("--executor", "threads", environment=environment)
        assert process.code == (0 if point in COMMITTED else 1), process.log()
        assert untrue(workshop, process) + untrue(workshop, other) + violations(workshop) == []
    injected()


@contextmanager
def worker(folder: Path, url: str, how: str, point: str) -> Iterator[tuple[Cluster, Dark | None]]:
    """Run a cluster with one worker that stops at a point, in a namespace if it is to be cut off."""
    environment = {
        "SYNCBLOCKS_FAILPOINT": f"{point}:stop",
        "SYNCBLOCKS_FAILPOINT_TRACE": str(folder / "trace"),
        # A busy machine does not make the scheduler lose the worker.
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "600s",
    }
    if how == FROZEN:
        cluster, net = Cluster(1, said=folder / "said", TEST_DESTINATION=url, **environment), None
        try:
            yield cluster, net
        finally:
            cluster.close()
        return
    with dark() as net:
        far, _ = net.relay(url)
        environment |= {"TEST_DESTINATION": far, "SYNCBLOCKS_STORE": far}
        cluster = ClusterApart(net.enter, here=net.near_ip, there=net.far_ip, said=folder / "said", **environment)
        try:
            yield cluster, net
        finally:
            cluster.close()


def end_stream_of(child: psutil.Process, workshop: Workshop, process: Process, net: Dark | None) -> None:
    """End the lease of a process that is frozen or goes on in the dark; wait until its run has closed its stream."""
    if net is not None:
        net.cut()
        child.send_signal(signal.SIGCONT)
    workshop.change_store(END_LEASE)
    until(lambda: not workshop.store_rows(OPEN), process, 60)


def said(workshop: Workshop) -> list[Any]:
    """Return what ledger, run store and table say."""
    return [workshop.store_rows(LEDGER), workshop.store_rows(CLOSED), workshop.rows("full")]


def stopped_child(cluster: Cluster, process: Process) -> psutil.Process:
    """Wait until the process in which streams run has stopped itself."""
    found: list[psutil.Process] = []

    def has_stopped() -> bool:
        found[:] = [child for child in cluster.children(CHILD) if state_of(child) == psutil.STATUS_STOPPED]
        return bool(found)

    until(has_stopped, process, 60)
    return found[0]


def state_of(child: psutil.Process) -> str:
    try:
        return child.status()
    except psutil.NoSuchProcess:
        return ""


def until(is_so: Callable[[], Any], process: Process, seconds: float) -> None:
    """Look until something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, process.log()
        process.zygote.read_until(lambda: False, 0.05)


def close_refused(folder: Path) -> bool:
    """Whether the worker has said that it could not close its stream."""
    why = ("was taken from this worker", "another process closed it", "is finished")
    lines = (folder / "said").read_text().splitlines()
    return any(line.startswith("full: ") and line.endswith(why) for line in lines)


def trace(folder: Path) -> list[str]:
    """Return the failpoints that the worker has reached."""
    return (folder / "trace").read_text().splitlines()
