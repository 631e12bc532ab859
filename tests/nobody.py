"""Tests as a user without root's rights, who may write nothing but what is open to all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that every user can enter; pytest's own ones are closed."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up the rights of root, who may write everywhere."""
    own = os.geteuid()
    if own:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(own)
