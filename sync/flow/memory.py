"""The memory budget of a run: `memory` in the pipeline file. What it is by default, and who gets how much."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

#: A stream at its usual batches stays far below this; fewer streams run at once where the budget has not so much.
STREAM_BYTES = 64_000_000

#: Where containers are limited: version 2 of control groups, version 1.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_bytes() -> int:
    """Return the memory of this machine, or what its container may use of it."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            found.append(int(Path(path).read_text()))
    return min(found)


def budget_bytes(given: int | None) -> int:
    """Return the budget: what the pipeline file says, else a quarter of the machine."""
    return given if given is not None else max(STREAM_BYTES, machine_bytes() // 4)


def in_flight_bytes(budget: int) -> int:
    """Return what batches between sources and destinations may hold; the rest is for what both make of them."""
    return budget // 4


def connector_bytes(budget: int) -> int:
    """Return what one connector's own buffers may hold: a database within the process, a file's row groups."""
    return budget // 2


def record_bytes(budget: int) -> int:
    """Return what one record may have: a larger one is refused, since several copies of it are made on its way."""
    return budget


def streams_at_once(budget: int) -> int:
    """Return for how many streams the budget is enough; at least one."""
    return max(1, budget // STREAM_BYTES)
