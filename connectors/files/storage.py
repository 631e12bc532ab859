"""Where files are touched: a folder on local disk here, one on an object store in `objects.py`.

Whatever replaces something is written beside it, fsynced and renamed; locks are `flock`, so they end with the process.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import urlsplit, urlunsplit

from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, Interrupted, RetriableError
from ..failpoints import failpoint
from ..settings import is_url, resolve_path

#: Schemes of URLs that are opened; others (chained or executable ones) are refused.
SCHEMES = frozenset(
    [
        *("file", "local", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "http", "https"),
        *("hdfs", "webhdfs", "oci", "r2", "oss", "cos", "sftp", "ssh", "ftp"),
    ]
)

#: Seconds between two tries for a lock that another process holds.
LOCK_POLL_S = 0.02

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file below a storage's root."""

    #: Relative to the root, parts divided by "/".
    name: str
    size_bytes: int


class Storage(Protocol):
    """A folder with everything below it; every name is relative to it and stays inside."""

    root: str

    def label(self, name: str = "") -> str: ...
    def kind(self, name: str) -> str | None: ...
    def names(self, folder: str = "") -> list[tuple[str, bool]]: ...
    def entries(self, folder: str = "") -> list[Entry]: ...
    def glob(self, pattern: str) -> list[str]: ...
    def size_bytes(self, name: str) -> int: ...
    def open_input(self, name: str) -> BinaryIO: ...
    def open_output(self, name: str) -> BinaryIO: ...
    def finish_output(self, file: BinaryIO) -> None: ...
    def read_bytes(self, name: str) -> bytes | None: ...
    def replace_bytes(self, name: str, data: bytes) -> None: ...
    def move(self, before: str, after: str) -> None: ...
    def delete(self, name: str) -> None: ...
    def delete_folder(self, name: str, *, only_empty: bool = False) -> None: ...
    def lock(self, name: str, is_interrupted: Callable[[], bool]) -> Any: ...
    def check_writable(self) -> None: ...


@contextmanager
def translated(label: str) -> Iterator[None]:
    """Turn an error of the file system into the connector's own, naming the file."""
    try:
        yield
    except ConnectorError:
        raise
    except FileNotFoundError as error:
        raise ConnectorConfigError(f"{label}: no such file or folder", key="path") from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        message = f"{label}: {reason}"
        if error.errno in _FULL:
            raise FatalConnectorError(f"{message}; nothing of this commit was kept, free some space") from error
        if error.errno in _REFUSED or isinstance(error, PermissionError):
            raise ConnectorConfigError(message, key="path") from error
        raise RetriableError(message) from error


def checked_name(name: str) -> str:
    """Return the name if it stays below the root; names out of a manifest are not to be trusted."""
    parts = name.split("/")
    if not name or "\0" in name or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise FatalConnectorError(f"the manifest names a file outside its folder: {name!r}")
    return name


class LocalStorage:
    """A folder on local disk. Symbolic links are followed only as long as they stay inside it."""

    def __init__(self, root: Path, allowed: Path | None = None) -> None:
        self.root = str(root)
        self._path = root
        self._allowed = allowed

    def label(self, name: str = "") -> str:
        return str(self._path / name) if name else self.root

    def kind(self, name: str) -> str | None:
        try:
            mode = (self._path / name).stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"

    def names(self, folder: str = "") -> list[tuple[str, bool]]:
        """List `(name, is a folder)` directly in a folder; empty where there is none."""
        try:
            with os.scandir(self._path / folder) as found:
                return sorted((entry.name, entry.is_dir()) for entry in found)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def entries(self, folder: str = "") -> list[Entry]:
        """List the files below a folder, sorted; hidden ones and those that begin with `_` do not count."""
        found: list[Entry] = []
        for name, is_folder in self.names(folder):
            if name.startswith((".", "_")):
                continue
            inner = f"{folder}/{name}" if folder else name
            if is_folder:
                self._inside(inner)
                found += self.entries(inner)
            elif self.kind(inner) == "file":
                found.append(Entry(inner, self.size_bytes(inner)))
        return found

    def glob(self, pattern: str) -> list[str]:
        # Unlike Path.glob it leaves out hidden files.
        return sorted(glob.glob(pattern, root_dir=self.root, recursive=True))  # noqa: PTH207 (hidden files)

    def size_bytes(self, name: str) -> int:
        return (self._path / name).stat().st_size

    def open_input(self, name: str) -> BinaryIO:
        """Open a regular file that is, links followed, still inside the root; checked again once it is open."""
        path = self._inside(name)
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConnectorConfigError(f"{self.label(name)}: not a regular file", key="path")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        file = os.fdopen(descriptor, "rb", buffering=0)
        try:
            same = os.path.samestat(os.fstat(descriptor), self._inside(name).stat())
            if not same:
                raise RetriableError(f"{self.label(name)}: exchanged while it was being opened")
        except BaseException:
            file.close()
            raise
        return cast("BinaryIO", file)

    def open_output(self, name: str) -> BinaryIO:
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._inside(str(Path(name).parent))
        return path.open("xb")

    def finish_output(self, file: BinaryIO) -> None:
        """Make a file written through `open_output` durable and close it."""
        file.flush()
        os.fsync(file.fileno())
        file.close()

    def read_bytes(self, name: str) -> bytes | None:
        try:
            return (self._path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def replace_bytes(self, name: str, data: bytes) -> None:
        """Replace a small file whole, under its lock: readers and crashes see the old or the new one."""
        path = self._path / name
        self._make_folders(path.parent)
        beside = path.with_name(f".{path.name}.tmp")  # One name: what a kill leaves behind is used again.
        failpoint("files.replace.before")
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            failpoint("files.replace.inside")
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
        failpoint("files.replace.after")

    def move(self, before: str, after: str) -> None:
        target = self._path / after
        self._make_folders(target.parent)
        failpoint("files.move.before")
        (self._path / before).replace(target)
        failpoint("files.move.after")
        _sync_folder(target.parent)

    def delete(self, name: str) -> None:
        failpoint("files.delete.before")
        (self._path / name).unlink(missing_ok=True)
        failpoint("files.delete.after")

    def delete_folder(self, name: str, *, only_empty: bool = False) -> None:
        """Remove a folder and the files directly in it."""
        path = self._path / name
        if not only_empty:
            for inner, is_folder in self.names(name):
                if not is_folder:
                    (path / inner).unlink(missing_ok=True)
        with suppress(OSError):  # Not empty, or not there: then there is nothing to do.
            path.rmdir()

    @contextmanager
    def lock(self, name: str, is_interrupted: Callable[[], bool]) -> Iterator[None]:
        """Hold the exclusive lock of that name, waiting for it; ends with the process at the latest."""
        path = self._path / name
        self._make_folders(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            while not _try_lock(descriptor):
                if is_interrupted():
                    raise Interrupted(f"{self.label(name)}: stopped while waiting for the lock")
                threading.Event().wait(LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def check_writable(self) -> None:
        """Prove, creating nothing, that files can be made here."""
        nearest = self._path
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir():
            raise ConnectorConfigError(f"{nearest}: not a folder; a destination's path is one", key="path")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise ConnectorConfigError(f"{nearest}: no permission to write there", key="path")

    def _inside(self, name: str) -> Path:
        real = Path(os.path.realpath(self._path / name))
        if real.is_relative_to(os.path.realpath(self._path)) or real == self._allowed:
            return real
        raise ConnectorConfigError(
            f"{self.label(name)} is a link to {real}, outside of {self.root}; name that path itself", key="path"
        )

    def _make_folders(self, folder: Path) -> None:
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for made in reversed(missing):
            made.mkdir(exist_ok=True)
            _sync_folder(made.parent)


def open_storage(path: str, folder: Path, options: Mapping[str, Any]) -> Storage:
    """Return the storage whose root is that folder path or URL; nothing needs to be there yet."""
    if not is_url(path):
        return LocalStorage(resolve_path(path, folder))
    scheme = url_scheme(path)
    if scheme in ("file", "local"):
        return LocalStorage(local_path(path, folder))
    import fsspec.core

    from .objects import ObjectStorage

    try:
        with translated(without_credentials(path)):
            fs, root = fsspec.core.url_to_fs(path, **options)
    except ImportError as error:
        raise ConnectorConfigError(f"{scheme}:// needs {error.name or scheme}: pip install it", key="path") from error
    except (ValueError, TypeError) as error:
        where = without_credentials(path)
        raise ConnectorConfigError(f"{where} cannot be opened: {type(error).__name__}", key="path") from error
    return ObjectStorage(fs, root, path)


def local_path(path: str, folder: Path) -> Path:
    """Return the absolute path of a `file://` URL; a relative one counts from the pipeline file's folder."""
    return resolve_path(path.partition("://")[2], folder)


def url_scheme(path: str) -> str:
    """Return the scheme of a URL, if it is one that is opened."""
    scheme = path.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise ConnectorConfigError(
            f"URLs of scheme {scheme!r} are not opened; allowed: {', '.join(sorted(SCHEMES))}", key="path"
        )
    return scheme


def without_credentials(url: str) -> str:
    """Return the URL without user, password, query and fragment."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")) or url


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
