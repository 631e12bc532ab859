"""Open, make and replace files on local disk, such that no symbolic link leads elsewhere."""

from __future__ import annotations

import os
import secrets
import shlex
import stat
from pathlib import Path
from typing import BinaryIO, cast

from .database_files import is_used
from .errors import ConnectorConfigError, RetriableError

#: How often a file is opened that somebody replaces meanwhile.
_TRIES = 20

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def inside(path: Path, root: Path, allowed: Path | None = None) -> Path:
    """Return the path after following links.

    Args:
        path: a path below `root`, which need not exist.
        root: the folder.
        allowed: a path outside of the root that links may lead to.

    Raises:
        ConnectorConfigError: a link leads out of the root.
    """
    real = Path(os.path.realpath(path))
    if real.is_relative_to(os.path.realpath(root)) or real == allowed:
        return real
    raise ConnectorConfigError(f"{path} is a link to {real}, outside of {root}; name that path itself", key="path")


def open_inside(path: Path, root: Path, allowed: Path | None = None) -> BinaryIO:
    """Open a regular file inside a folder, after following links; check again once it is open.

    A file that is replaced meanwhile, as a manifest is by each commit, is opened anew.

    Raises:
        ConnectorConfigError: it is outside, or no regular file.
        RetriableError: it was exchanged each time.
    """
    for _ in range(_TRIES):
        real = inside(path, root, allowed)
        if not stat.S_ISREG(real.stat().st_mode):  # opening a pipe would wait for its writer
            raise ConnectorConfigError(f"{path}: not a regular file", key="path")
        if is_used(real):  # closing it would drop the database's locks
            raise ConnectorConfigError(
                f"{path} is a database that this process has opened: read it as a database", key="path"
            )
        descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        file = os.fdopen(descriptor, "rb", buffering=0)
        try:
            if os.path.samestat(os.fstat(descriptor), inside(path, root, allowed).stat()):
                return cast("BinaryIO", file)
        except BaseException:
            file.close()
            raise
        file.close()
    raise RetriableError(f"{path}: replaced while it was being opened")


def demand_writable(path: Path, *beside: Path) -> None:
    """Raise if this process may not write a file, or not create it; creates nothing, neither file nor folder.

    A folder is one in which files are to be created. `beside` are files that are written with it where they are there.

    Raises:
        ConnectorConfigError: a file, or the nearest folder around the first that exists, may not be written.
    """
    if (closed := unwritable(path, *beside)) is not None:
        raise ConnectorConfigError(f"{closed}: no permission to write to it", key="path")


def unwritable(path: Path, *beside: Path) -> Path | None:
    """Return what this process may not write of a file, those beside it and the nearest folder; None: nothing."""
    nearest = path if _is_there(path) and path.is_dir() else path.parent
    while not _is_there(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    files = [(file, os.W_OK) for file in (path, *beside)]
    for needed, mode in (*files, (nearest, os.W_OK | os.X_OK)):
        if _is_there(needed) and not os.access(needed, mode, effective_ids=os.access in os.supports_effective_ids):
            return needed
    return None


def demand_folder(path: Path) -> None:
    """Raise if the folder of a database file does not exist, because a mistyped folder must not be created.

    Raises:
        ConnectorConfigError: the folder does not exist. The message names the nearest folder that exists.
    """
    if _is_there(folder := path.parent):
        return
    missing = folder
    while not _is_there(missing.parent):
        missing = missing.parent
    try:
        beside = [each.name for each in missing.parent.iterdir() if each.is_dir()]
    except OSError:  # a file, or a folder that this user may not read
        beside = []
    import difflib  # only for this message

    near = difflib.get_close_matches(missing.name, beside, n=1)
    hint = (
        f"Did you mean {str(missing.with_name(near[0]))!r}?"
        if near
        else f"The nearest folder is {str(missing.parent)!r}."
    )
    raise ConnectorConfigError(
        f"the folder {str(folder)!r} does not exist. {hint} To create it, run `mkdir -p {shlex.quote(str(folder))}`",
        key="path",
    )


def sqlite_files(path: Path) -> tuple[Path, ...]:
    """Return the files that SQLite keeps beside a database while it is written; few are there at a time."""
    return tuple(path.with_name(f"{path.name}-{suffix}") for suffix in ("wal", "shm", "journal"))


def _is_there(path: Path) -> bool:
    """Tell whether a path exists; one below a folder that this user may not enter does not."""
    try:
        return path.exists()
    except PermissionError:
        return False


def create_file(path: Path, mode: int = 0o666) -> BinaryIO:
    """Create a file that must not exist, not even as a link, and open it for writing."""
    return os.fdopen(os.open(path, _NEW, mode), "wb")


def write_beside(path: Path, data: bytes, mode: int = 0o666) -> Path:
    """Write durable data under a random name beside a file that it is going to replace; return that name."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with create_file(draft, mode) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
    except OSError as error:  # of the file that the user knows
        raise OSError(error.errno, error.strerror, str(path)) from error
    return draft


def make_private_folder(folder: Path) -> None:
    """Make a folder and its missing parents for this user only."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
