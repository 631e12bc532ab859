"""Programs that an engine under test runs, and how to kill them at a moment."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

from tests.zygote import Process


def victims(process: Process, whom: str) -> list[psutil.Process]:
    """Return ours, or those children of it that run a program; none where it has ended."""
    try:
        ours = psutil.Process(process.pid)
        if whom == "ours":
            return [ours]
        return [child for child in ours.children(recursive=True) if any(whom in part for part in child.cmdline()[:3])]
    except psutil.NoSuchProcess:
        return []


def lifetime(process: Process, whom: str) -> float:
    """Wait for a quiet run to end; return for how many seconds a program was there."""
    began = time.monotonic()
    seen = [began] if whom == "ours" else []
    while not process.has_ended():
        assert time.monotonic() < began + 900, process.log()
        if victims(process, whom):
            seen.append(time.monotonic())
        process.zygote.read_until(lambda: process.code is not None, 0.01)
    return seen[-1] - seen[0]


def killed(process: Process, whom: str, moment_s: float) -> bool:
    """Kill a program so long after it has appeared, and wait for ours to end; False if there was none to kill."""
    while not victims(process, whom):
        if process.has_ended():
            return False
        process.zygote.read_until(lambda: process.code is not None, 0.01)
    process.zygote.read_until(lambda: process.code is not None, moment_s)
    found = victims(process, whom)
    for victim in found:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    process.wait(600)
    return bool(found) and process.code != 0
