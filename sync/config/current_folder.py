"""The folder where relative paths start."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError


def current_folder() -> Path:
    """Return the current folder.

    Raises:
        ConfigError: it was deleted; relative paths have no meaning then.
    """
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise ConfigError("the current folder has been deleted: change into another one (`cd`)") from error


def absolute(path: Path) -> Path:
    """Return a path from the root on, without `..`; a relative one starts at the current folder.

    The ledger names files by their paths: they must not depend on the folder where a command is started.

    Raises:
        ConfigError: the current folder was deleted.
    """
    whole = path if path.is_absolute() else current_folder() / path
    if ".." not in whole.parts:
        return whole
    plain = Path(os.path.normpath(whole))
    try:
        is_same = plain.samefile(whole)  # behind a symbolic link `..` leads elsewhere
    except OSError:
        is_same = False
    return plain if is_same else whole.resolve()
