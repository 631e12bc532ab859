"""Find and end processes that a call started in their own sessions, by a mark in their environment. Linux only."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

#: Environment variable of a child and of all that it starts: the child's mark; after an exec with `.` and the number of
#: the call.
MARK = "SYNCBLOCKS_CALLBACK_PROCESS"

_PROCESSES = Path("/proc")
#: Rounds of killing: a process that is being killed may have started another one.
_ROUNDS = 3


def since_boot_s() -> float:
    """Return the time on the clock that the kernel uses for the start of a process."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else 0.0


def kill_marked(mark: str, call: int, began_s: float) -> None:
    """Kill the processes that a call has started; it began at `began_s` (see `since_boot_s`).

    A process that was forked without an exec does not have the call's number in its environment: it is killed if it
    started after `began_s`. The kernel gives the start to within one tick.
    """
    earliest_s = began_s - 1 / os.sysconf("SC_CLK_TCK")
    for _ in range(_ROUNDS):
        marked = _marked({f"{MARK}={mark}".encode(): False, f"{MARK}={mark}.{call}".encode(): True})
        found = [pid for pid, is_numbered in marked if is_numbered or _started_s(pid) >= earliest_s]
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _marked(marks: Mapping[bytes, bool]) -> list[tuple[int, bool]]:
    found = []
    for folder in _PROCESSES.iterdir() if _PROCESSES.is_dir() else ():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended, or belongs to another user
                for variable in (folder / "environ").read_bytes().split(b"\0"):
                    if variable in marks:
                        found.append((int(folder.name), marks[variable]))
    return found


def _started_s(pid: int) -> float:
    with suppress(OSError):
        # The name, in parentheses, may hold anything; 20 fields after it is the start.
        fields = (_PROCESSES / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return 0.0
