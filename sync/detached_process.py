"""Processes that outlive the one that starts them: a session of their own, and output into a file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def start_detached(arguments: Sequence[str], *, folder: Path, log_file: Path) -> subprocess.Popen[bytes]:
    """Start `syncblocks` with arguments in a folder.

    Output is added to `log_file`, which only this user may read. A pipe would break when the process that started it
    ends.
    """
    log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            # -P: no file of the folder takes the place of a module.
            [sys.executable, "-P", "-m", "syncblocks", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        os.close(output)
