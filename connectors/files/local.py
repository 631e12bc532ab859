"""A folder on local disk.

A file that replaces another is written beside it, fsynced and renamed. Locks are `flock`: they end with the process.
"""

from __future__ import annotations

import fcntl
import glob
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from ..errors import ConnectorConfigError, Interrupted
from ..failpoints import failpoint
from ..local_files import create_file, demand_writable, inside, open_inside, write_beside
from .storage import LOCK_POLL_S, Entry, Listing


class LocalStorage:
    """A folder on local disk. Symbolic links that lead outside are not followed."""

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
        """List `(name, is a folder)` directly in a folder; empty if the folder is missing."""
        try:
            with os.scandir(self._path / folder) as found:
                return sorted((entry.name, entry.is_dir()) for entry in found)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def entries(self, folder: str = "") -> list[Entry]:
        """List the files below a folder, sorted, without hidden files and names that begin with `_`."""
        return sorted(self.listing(folder).entries(), key=lambda entry: entry.name.split("/"))

    def listing(self, folder: str = "") -> Listing:
        found = Listing()
        self._list(folder, found)
        found.etags.extend([""] * len(found.names))
        return found

    def _list(self, folder: str, found: Listing) -> None:
        """Add the files below a folder, without etags."""
        start = f"{folder}/" if folder else ""
        names, sizes, times = found.names, found.sizes, found.times
        folders: list[tuple[str, bool]] = []
        try:
            with os.scandir(self._path / folder) as listed:
                for item in listed:
                    name = item.name
                    if name[0] in "._":
                        continue
                    try:
                        status = item.stat()
                    except FileNotFoundError:  # deleted since, or a link to nothing
                        continue
                    if stat.S_ISREG(status.st_mode):
                        names.append(start + name)
                        sizes.append(status.st_size)
                        times.append(status.st_mtime_ns // 1000)
                    elif stat.S_ISDIR(status.st_mode):
                        folders.append((start + name, item.is_symlink()))
        except (FileNotFoundError, NotADirectoryError):
            return
        for inner, is_link in sorted(folders):
            leads_to = self._inside(inner)
            if is_link and self._inside(folder).is_relative_to(leads_to):
                continue  # a circle: its files are found where they stand
            self._list(inner, found)

    def entry(self, name: str) -> Entry | None:
        try:
            status = (self._path / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _entry(name, status) if stat.S_ISREG(status.st_mode) else None

    def glob(self, pattern: str) -> list[str]:
        # Unlike Path.glob it leaves out hidden files.
        return sorted(glob.glob(pattern, root_dir=self.root, recursive=True))  # noqa: PTH207 (hidden files)

    def size_bytes(self, name: str) -> int:
        return (self._path / name).stat().st_size

    def open_input(self, name: str) -> BinaryIO:
        return open_inside(self._path / name, self._path, self._allowed)

    def open_output(self, name: str) -> BinaryIO:
        path = self._written(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return create_file(path)

    def finish_output(self, file: BinaryIO) -> None:
        """Make a file written through `open_output` durable and close it."""
        file.flush()
        os.fsync(file.fileno())
        file.close()

    def read_bytes(self, name: str) -> bytes | None:
        try:
            with self.open_input(name) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def replace_bytes(self, name: str, data: bytes) -> None:
        """Replace a small file under its lock: readers see the old file or the new one, also after a crash."""
        path = self._written(name)
        self._make_folders(path.parent)
        for left, _ in self.names(name.rpartition("/")[0]):
            if left.startswith(f".{path.name}.") and left.endswith(".tmp"):  # of a killed process: the lock is held
                (path.parent / left).unlink()
        failpoint("files.replace.before")
        draft = write_beside(path, data)
        try:
            failpoint("files.replace.inside")
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
        failpoint("files.replace.after")

    def move(self, before: str, after: str) -> None:
        source, target = self._written(before), self._written(after)
        self._make_folders(target.parent)
        failpoint("files.move.before")
        source.replace(target)
        failpoint("files.move.after")
        _sync_folder(target.parent)

    def delete(self, name: str) -> None:
        failpoint("files.delete.before")
        self._written(name).unlink(missing_ok=True)
        failpoint("files.delete.after")

    def delete_folder(self, name: str, *, only_empty: bool = False) -> None:
        """Remove a folder and the files directly in it."""
        path = self._inside(name)
        if not only_empty:
            for inner, is_folder in self.names(name):
                if not is_folder:
                    (path / inner).unlink(missing_ok=True)
        with suppress(OSError):  # Not empty, or missing: nothing to do.
            path.rmdir()

    @contextmanager
    def lock(self, name: str, is_interrupted: Callable[[], bool]) -> Iterator[None]:
        """Wait for the exclusive lock of a name and hold it; the lock ends with the process at the latest."""
        path = self._written(name)
        self._make_folders(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            while not _try_lock(descriptor):
                if is_interrupted():
                    raise Interrupted(f"{self.label(name)}: stopped while waiting for the lock")
                threading.Event().wait(LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def check_writable(self) -> None:
        """Check, without creating anything, that files can be created here."""
        nearest = self._path
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir():
            raise ConnectorConfigError(f"{nearest}: not a folder; a destination's path is one", key="path")
        demand_writable(nearest)

    def demand_destination(self) -> None:
        if self.kind("") in ("file", "other"):
            raise ConnectorConfigError(f"{self.label()}: not a folder; a destination's path is one", key="path")

    def _inside(self, name: str) -> Path:
        return inside(self._path / name, self._path, self._allowed)

    def _written(self, name: str) -> Path:
        """Return the path of a file to write or remove: its folder is inside; the file itself may be a link."""
        path = self._path / name
        return self._inside(str(Path(name).parent)) / path.name

    def _make_folders(self, folder: Path) -> None:
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for made in reversed(missing):
            made.mkdir(exist_ok=True)
            _sync_folder(made.parent)


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


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _entry(name: str, status: os.stat_result) -> Entry:
    seconds, rest = divmod(status.st_mtime_ns // 1000, 1_000_000)
    return Entry(name, status.st_size, _EPOCH + timedelta(0, seconds, rest))
