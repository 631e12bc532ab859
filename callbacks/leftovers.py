"""Processes that a call has left in sessions of their own, found by a mark in their environment. Only on Linux."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

#: Environment variable of a child and of all that it starts.
MARK = "SYNCBLOCKS_CALLBACK_PROCESS"

_PROCESSES = Path("/proc")
#: A process that is being killed may have started another one.
_ROUNDS = 3


def since_boot_s() -> float:
    """Return the time on the clock by which the kernel notes when a process starts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else 0.0


def kill_marked(mark: str, began_s: float) -> None:
    """Kill the processes that have this mark and started at `began_s` (see `since_boot_s`) or later."""
    for _ in range(_ROUNDS):
        found = [pid for pid in _marked(mark) if _started_s(pid) >= began_s - 1 / os.sysconf("SC_CLK_TCK")]
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in _PROCESSES.iterdir() if _PROCESSES.is_dir() else ():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended, or belongs to another user
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def _started_s(pid: int) -> float:
    with suppress(OSError):
        # The name, in parentheses, may hold anything; 20 fields after it is the start.
        fields = (_PROCESSES / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return 0.0
