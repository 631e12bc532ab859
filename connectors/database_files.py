"""Files of SQLite and DuckDB that this process has open, and what else in it must not open them.

Their locks belong to the process: whoever closes the file drops the locks of the library that has it open, and another
process then writes or deletes what is in use. So a file is open with one library at a time, and nothing else opens it.
Source: SQLite, How To Corrupt An SQLite Database File, 2.2.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import RetriableError

#: Where the process's open files are listed; on other systems (Windows) locks belong to the handle.
_OPEN_FILES = Path("/dev/fd")

#: Held while a file is opened, and while a fast reader closes one.
lock = threading.RLock()

#: Who opens a file with Python's own driver or DuckDB, perhaps later.
_users: weakref.WeakKeyDictionary[object, Path] = weakref.WeakKeyDictionary()

#: Run stores of this process.
_stores: set[Path] = set()

#: Device and inode of a file -> its readers by ADBC's driver, which brings a SQLite of its own.
_fast_readers: Counter[tuple[int, int]] = Counter()


def add_user(user: object, path: Path) -> None:
    """Note that a connector lives that opens this file."""
    with lock:
        _users[user] = path.resolve()


def add_store(path: Path) -> None:
    """Note a run store, which Python's own driver opens."""
    with lock:
        _stores.add(path.resolve())


def is_used(path: Path) -> bool:
    """Tell whether a connector or the run store opens this file, perhaps later."""
    with lock:
        real = path.resolve()
        return real in _stores or real in _users.values()


def first_bytes(path: Path, size: int) -> bytes:
    """Read the beginning of a file, through the descriptor of the library that has it open if there is one."""
    with lock:
        descriptor = _descriptor(path)
        if descriptor is not None:
            return os.pread(descriptor, size, 0)
        with path.open("rb") as file:
            return file.read(size)


def _descriptor(path: Path) -> int | None:
    """Return a number under which this process has a file open, with whatever library; None: it has not."""
    wanted = path.stat()
    for name in os.listdir(_OPEN_FILES) if _OPEN_FILES.exists() else ():  # noqa: PTH208 -- names, without looking
        try:
            held = os.fstat(int(name))
        except OSError:  # the listing itself, or closed meanwhile
            continue
        if os.path.samestat(held, wanted):
            return int(name)
    return None


def takes_fast_reader(path: Path) -> bool:
    """Tell whether ADBC's driver may open a SQLite file: no other library has it open, or will. Hold `lock`."""
    return not is_used(path) and (bool(_fast_readers[_inode(path)]) or _descriptor(path) is None)


def add_fast_reader(path: Path) -> tuple[int, int]:
    """Note that ADBC's driver has a file open; return what `remove_fast_reader` takes."""
    inode = _inode(path)
    _fast_readers[inode] += 1
    return inode


def remove_fast_reader(inode: tuple[int, int]) -> None:
    """Note that a reader has closed."""
    _fast_readers[inode] -= 1


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Let Python's own driver open a SQLite file.

    Raises:
        RetriableError: another pipeline of this process reads the file, by the other library.
    """
    with lock:
        if _fast_readers.total() and path.exists() and _fast_readers[_inode(path)]:
            raise RetriableError(
                f"{path} is in use by another pipeline of this process: run them one after the other, or in "
                "separate processes",
                connector="sqlite",
            )
        yield


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


__all__ = [
    "add_fast_reader",
    "add_store",
    "add_user",
    "first_bytes",
    "is_used",
    "lock",
    "opening",
    "remove_fast_reader",
    "takes_fast_reader",
]
