"""Whole processes, from start to exit: how long they take, what they use, and how two of them compare."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: `ru_maxrss` counts kilobytes on Linux, bytes on macOS.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one command, or one pipe of commands, took."""

    wall_s: float
    #: User and system time of the processes and of all that they waited for; not of the database's server.
    cpu_s: float
    #: Of the largest of these processes.
    peak_rss_bytes: int


class CommandFailed(Exception):
    """A measured command did not exit with 0: there is nothing to measure."""


def run(*pipe: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> Usage:
    """Run commands at once, each one's output the next one's input; the last one's output is dropped.

    Raises:
        CommandFailed: with the end of what the commands wrote to stderr.
    """
    # A child's peak begins with the memory of the process that forks it: a small one forks them, this one may be large.
    request = {"pipe": [list(map(str, command)) for command in pipe], "cwd": str(cwd), "env": dict(env or {})}
    command = [sys.executable, "-IS", __file__]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFailed(done.stderr)
    return Usage(**json.loads(done.stdout))


def _run(pipe: Sequence[Sequence[str]], cwd: Path, env: Mapping[str, str]) -> Usage:
    log = cwd / "stderr.txt"
    started = time.monotonic()
    children: list[subprocess.Popen[bytes]] = []
    with log.open("wb") as errors:
        before = None
        for number, command in enumerate(pipe, start=1):
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, **env},
                stdin=before or subprocess.DEVNULL,
                stdout=subprocess.PIPE if number < len(pipe) else subprocess.DEVNULL,
                stderr=errors,
            )
            if before is not None:
                before.close()  # the next one alone holds it, so that its end is seen
            before = child.stdout
            children.append(child)
        ended = [_wait(child) for child in children]
    wall_s = time.monotonic() - started
    if any(child.returncode for child in children):
        codes = ", ".join(f"{command[0]}: {child.returncode}" for command, child in zip(pipe, children, strict=True))
        raise CommandFailed(f"{codes}\n{log.read_text(errors='replace')[-4000:]}")
    return Usage(
        wall_s=wall_s,
        cpu_s=sum(usage.cpu_s for usage in ended),
        peak_rss_bytes=max(usage.peak_rss_bytes for usage in ended),
    )


def _wait(child: subprocess.Popen[bytes]) -> Usage:
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return Usage(wall_s=0.0, cpu_s=usage.ru_utime + usage.ru_stime, peak_rss_bytes=usage.ru_maxrss * _RSS_UNIT)


def alternate(cases: Mapping[str, Callable[[], Usage]], repeat: int) -> dict[str, list[Usage]]:
    """Measure each case `repeat` times, in turns: what else the machine does then weighs on all of them alike."""
    taken: dict[str, list[Usage]] = {name: [] for name in cases}
    for number in range(repeat):
        names = list(cases) if number % 2 == 0 else list(reversed(list(cases)))
        for name in names:
            taken[name].append(cases[name]())
    return taken


def median_ratio(limit: Sequence[Usage], case: Sequence[Usage]) -> float:
    """Return how near the case comes to the limit's speed (1.0: as fast), as the median over the rounds."""
    return statistics.median(best.wall_s / own.wall_s for best, own in zip(limit, case, strict=True))


def median_extra_s(limit: Sequence[Usage], case: Sequence[Usage]) -> float:
    """Return how much longer the case takes than the limit, as the median over the rounds."""
    return statistics.median(own.wall_s - best.wall_s for best, own in zip(limit, case, strict=True))


def median_usage(usages: Sequence[Usage]) -> Usage:
    """Return the median of time and CPU, and the highest peak."""
    return Usage(
        wall_s=statistics.median(usage.wall_s for usage in usages),
        cpu_s=statistics.median(usage.cpu_s for usage in usages),
        peak_rss_bytes=max(usage.peak_rss_bytes for usage in usages),
    )


def _main() -> None:
    """Do what is asked on stdin, and say on stdout what it took."""
    request = json.load(sys.stdin)
    try:
        usage = _run(request["pipe"], Path(request["cwd"]), request["env"])
    except CommandFailed as error:
        sys.exit(str(error))
    json.dump(dataclasses.asdict(usage), sys.stdout)


if __name__ == "__main__":
    _main()
