"""What a test costs: processor time of this process and of all it has started, which waiting makes no longer.

A test that is not marked `full` may cost one second, all of them together fifteen minutes. A machine that computes more
slowly than the one these were measured on, or is disturbed by what else runs there, is allowed more.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

#: Seconds of a test, and of the fast tier with its collection.
TEST_S, TIER_S = 1.0, 900.0
#: How much more a test may cost than that: other work on the machine makes some cost more than `_work` shows.
SLACK = 1.9
#: What `_work` takes on a machine of 2024 on which nothing else runs.
WORK_S = 0.0100
#: Seconds until it is looked again how slow the machine is.
LOOK_S = 30.0

#: Living children whose own children have ended, such as the server that forks engines.
_PARENTS: list[psutil.Process] = []


def count(pid: int) -> None:
    """Count a child that outlives tests, and what it has waited for."""
    _PARENTS.append(psutil.Process(pid))


def spent() -> float:
    """Return seconds of processor time so far."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for parent in list(_PARENTS):
        try:
            total += sum(parent.cpu_times()[:4])
        except psutil.NoSuchProcess:  # has been waited for: now it is among those that have ended
            _PARENTS.remove(parent)
    return total


def slowness() -> float:
    """Return how many times as long as it should a fixed piece of work takes now; never less than 1."""
    return max(1.0, statistics.median(_work() for _ in range(5)) / WORK_S)


def too_much(cost: float, slow: float) -> str | None:
    """Return what is wrong with a test that cost so many seconds on a machine that is so slow."""
    if cost <= TEST_S * SLACK * slow:
        return None
    return f"costs {cost / slow:.1f} s of CPU, {TEST_S} is allowed: make it cheaper or mark it `full`"


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block costs more seconds of CPU in this process, on a machine as slow as this one is now."""
    start = time.process_time()
    yield
    cost = time.process_time() - start
    # The time of the machine is measured only where it matters.
    assert cost < seconds or cost < seconds * SLACK * slowness()


def _work() -> float:
    start = time.thread_time()
    numbers = [number * 7919 % 10007 for number in range(50_000)]
    found = {str(number): number for number in numbers}
    sum(found[key] for key in sorted(found))
    return time.thread_time() - start


class Tally:
    """What a session has cost, and how slow the machine was meanwhile."""

    def __init__(self) -> None:
        self.cost = 0.0
        self._slow: list[float] = []
        self._looks_at = 0.0

    def look(self) -> None:
        """Look how slow the machine is, now and then."""
        if time.monotonic() >= self._looks_at:
            self._slow.append(slowness())
            self._looks_at = time.monotonic() + LOOK_S

    def own(self) -> tuple[float, float]:
        """Return what this process has cost, and how slow the machine was for it."""
        return spent(), statistics.mean(self._slow or [1.0])

    def add(self, cost: float, slow: float) -> None:
        """Add a process, as `own` of it says."""
        self.cost += cost
        self._slow.append(slow)

    def allowed(self) -> float:
        """Return what all processes together may cost."""
        return TIER_S * statistics.mean(self._slow or [1.0])
