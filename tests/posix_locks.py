"""The locks that a process has on a file, as the system counts them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_LISTED = Path("/proc/locks")

on_linux = pytest.mark.skipif(not _LISTED.exists(), reason="only Linux lists the locks of a process")


def locks(path: Path, pid: int | None = None) -> list[str]:
    """Return kind and bytes of each POSIX lock that a process (None: this one) has on a file."""
    wanted, found = path.stat(), []
    for line in _LISTED.read_text().splitlines():
        fields = line.split()
        if fields[1] != "POSIX" or int(fields[4]) != (pid or os.getpid()):
            continue
        major, minor, inode = fields[5].split(":")
        device = os.makedev(int(major, 16), int(minor, 16))
        if int(inode) == wanted.st_ino and device == wanted.st_dev:
            found.append(" ".join((fields[3], *fields[6:8])))
    return sorted(found)
