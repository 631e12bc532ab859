"""The folder where relative paths start."""

from __future__ import annotations

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
    """Return a path from the root on; a relative one starts at the current folder.

    Raises:
        ConfigError: the current folder was deleted.
    """
    return path if path.is_absolute() else current_folder() / path
