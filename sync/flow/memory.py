"""The memory budget of a run (`memory` in the pipeline file): its default and its shares."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

#: Memory to allow for one stream; the budget divided by this limits the streams at once.
STREAM_BYTES = 64_000_000

#: Memory limit of a container: control groups version 2, version 1.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@cache
def machine_bytes() -> int:
    """Return the memory of this machine, or its container's limit, as read at the first call."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            found.append(int(Path(path).read_text()))
    return min(found)


def budget_bytes(given: int | None) -> int:
    """Return the budget: the value of the pipeline file, else a quarter of the machine's memory."""
    return given if given is not None else max(STREAM_BYTES, machine_bytes() // 4)


def in_flight_bytes(budget: int) -> int:
    """Return the share of batches in memory; the rest is for copies that sources and destinations make of them."""
    return budget // 4


def connector_bytes(budget: int) -> int:
    """Return the share of a connector's own buffers: an embedded database, the row groups of a file."""
    return budget // 2


def side_bytes(budget: int) -> int:
    """Return the share of the keys and hashes of one side of a comparison."""
    return budget // 8


def record_bytes(budget: int) -> int:
    """Return the largest size of one record; several copies of a record are made between source and destination."""
    return budget


def streams_at_once(budget: int) -> int:
    """Return the number of streams that the budget allows at once; at least one."""
    return max(1, budget // STREAM_BYTES)
