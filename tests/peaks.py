"""Peaks of whole processes: what one takes at most, whatever it frees."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: A process's peak begins with the memory of the one that forked it: a small one must.
_SMALL_PARENT = """import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
sys.exit(os.waitstatus_to_exitcode(status))"""


def peak_bytes(command: Sequence[str], folder: Path) -> int:
    """Run a command in a folder and return its peak; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_PARENT, *command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def peak_of_code(code: str, folder: Path, *arguments: str) -> int:
    """Run Python code in a process of its own and return its peak."""
    return peak_bytes([sys.executable, "-c", code, *arguments], folder)


__all__ = ["peak_bytes", "peak_of_code"]
