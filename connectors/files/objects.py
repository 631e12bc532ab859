"""A folder on an object store, through fsspec.

A put is atomic for one object; a move is a copy and a delete. A file server (sftp, ftp) has neither such a put nor a
copy: what is there is renamed. There is no lock. A commit checks the token just before the put, so two runs that commit
to one table at the same instant may overwrite each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from ..errors import ConnectorConfigError, Interrupted
from ..failpoints import failpoint
from ..settings import url_scheme
from .storage import LOCK_POLL_S, Entry, Listing, without_credentials

#: They have no copy, and rename onto an existing file in one step.
_FILE_SERVERS = frozenset({"ftp", "sftp", "ssh"})

_object_locks: dict[str, threading.Lock] = {}
_object_locks_guard = threading.Lock()


class ObjectStorage:
    """A prefix on an object store, through fsspec; it has no locks and no fsync."""

    def __init__(self, fs: Any, root: str, url: str) -> None:
        self.root = root.rstrip("/")
        self._fs = fs
        self._url = without_credentials(url).rstrip("/")
        self._has_rename = url_scheme(url) in _FILE_SERVERS

    def label(self, name: str = "") -> str:
        return f"{self._url}/{name}" if name else self._url

    def kind(self, name: str) -> str | None:
        full = self._full(name)
        self._fs.invalidate_cache()
        if self._fs.isfile(full):
            self._refuse_page(full)
            return "file"
        return "folder" if self._fs.isdir(full) else None

    def names(self, folder: str = "") -> list[tuple[str, bool]]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._full(folder), detail=True)
        except FileNotFoundError:
            return []
        own = self._full(folder).strip("/")
        rows = [(item["name"].strip("/"), item["type"] == "directory") for item in found]
        return sorted((name.rpartition("/")[2], is_folder) for name, is_folder in rows if name != own)

    def entries(self, folder: str = "") -> list[Entry]:
        return sorted(self.listing(folder).entries(), key=lambda entry: entry.name)

    def listing(self, folder: str = "") -> Listing:
        self._fs.invalidate_cache()
        found = Listing()
        for full, item in self._fs.find(self._full(folder), detail=True).items():
            name = self._relative(full)
            inner = name[len(folder) + 1 :] if folder else name
            if not any(part.startswith((".", "_")) for part in inner.split("/")):
                found.add(_entry(name, item))
        return found

    def entry(self, name: str) -> Entry | None:
        self._fs.invalidate_cache()
        try:
            item = self._fs.info(self._full(name))
        except FileNotFoundError:
            return None
        return _entry(name, item) if item["type"] == "file" else None

    def glob(self, pattern: str) -> list[str]:
        self._fs.invalidate_cache()
        return sorted(self._relative(full) for full in self._fs.glob(self._full(pattern)))

    def size_bytes(self, name: str) -> int:
        return int(self._fs.size(self._full(name)) or 0)

    def open_input(self, name: str) -> BinaryIO:
        return cast("BinaryIO", self._fs.open(self._full(name), "rb"))

    def open_output(self, name: str) -> BinaryIO:
        full = self._full(name)
        self._fs.makedirs(full.rpartition("/")[0], exist_ok=True)
        return cast("BinaryIO", self._fs.open(full, "wb"))

    def finish_output(self, file: BinaryIO) -> None:
        file.close()

    def read_bytes(self, name: str) -> bytes | None:
        try:
            return cast("bytes", self._fs.cat_file(self._full(name)))
        except FileNotFoundError:
            return None

    def replace_bytes(self, name: str, data: bytes) -> None:
        full = self._full(name)
        self._fs.makedirs(full.rpartition("/")[0], exist_ok=True)
        failpoint("files.replace.before")
        if self._has_rename:
            folder, _, base = full.rpartition("/")
            draft = f"{folder}/.{base}.tmp"
            self._fs.pipe_file(draft, data)
            failpoint("files.replace.inside")
            self._fs.mv(draft, full)
        else:
            self._fs.pipe_file(full, data)
        failpoint("files.replace.after")

    def move(self, before: str, after: str) -> None:
        target = self._full(after)
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        failpoint("files.move.before")
        if self._has_rename:
            self._fs.mv(self._full(before), target)
        else:
            self._fs.copy(self._full(before), target)
            failpoint("files.move.inside")
            self._fs.rm_file(self._full(before))
        failpoint("files.move.after")

    def delete(self, name: str) -> None:
        failpoint("files.delete.before")
        if self.kind(name) is not None:  # ftp does not say why it deletes nothing
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._full(name))
        failpoint("files.delete.after")

    def delete_folder(self, name: str, *, only_empty: bool = False) -> None:
        if not only_empty:
            for inner, is_folder in self.names(name):
                if not is_folder:
                    self.delete(f"{name}/{inner}")
        with suppress(Exception):  # Most object stores have no folders, and each says so by an error of its own.
            if not self.names(name):
                self._fs.rmdir(self._full(name))

    @contextmanager
    def lock(self, name: str, is_interrupted: Callable[[], bool]) -> Iterator[None]:
        """Hold a lock among the threads of this process; other processes have none, see the module."""
        with _object_locks_guard:
            lock = _object_locks.setdefault(self.label(name), threading.Lock())
        while not lock.acquire(timeout=LOCK_POLL_S):
            if is_interrupted():
                raise Interrupted(f"{self.label(name)}: stopped while waiting for the lock")
        try:
            yield
        finally:
            lock.release()

    def check_writable(self) -> None:
        self._fs.exists(self.root)

    def demand_destination(self) -> None:
        can_move = self._has_rename or _has(self._fs, "cp_file")
        if not can_move or not (_has(self._fs, "rm_file") or _has(self._fs, "_rm") or _has(self._fs, "rm")):
            raise ConnectorConfigError(
                f"{self._url}: a destination must move and delete files, which is not possible there: write into a "
                "folder on disk or on an object store, and copy it",
                key="path",
            )

    def _refuse_page(self, full: str) -> None:
        """Refuse what a web server shows instead of a folder: it would be read as records."""
        if self._url.startswith(("http://", "https://")):
            kind = str(self._fs.info(full).get("mimetype") or "")
            if full.endswith("/") or kind.startswith("text/html"):
                raise ConnectorConfigError(
                    f"{without_credentials(full)} is a web page, not a file; http cannot list a folder: name one "
                    "file in `path`",
                    key="path",
                )

    def _full(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _relative(self, full: str) -> str:
        return full.strip("/")[len(self.root.strip("/")) :].lstrip("/")


class QueriedFile(ObjectStorage):
    """One file of a web server whose URL has a query, such as a signature; nothing is looked for beside the file.

    The query may be a secret: no name, label or identity has it.
    """

    def __init__(self, fs: Any, root: str, url: str, name: str, query: str) -> None:
        super().__init__(fs, root, url)
        self._name, self._query = name, query

    def kind(self, name: str) -> str | None:
        return super().kind(name) if name == self._name else None

    def names(self, folder: str = "") -> list[tuple[str, bool]]:
        return []

    def listing(self, folder: str = "") -> Listing:
        return Listing()

    def entry(self, name: str) -> Entry | None:
        return super().entry(name) if name == self._name else None

    def read_bytes(self, name: str) -> bytes | None:
        return super().read_bytes(name) if name == self._name else None

    def _full(self, name: str) -> str:
        return f"{super()._full(name)}?{self._query}"


def _has(fs: Any, operation: str) -> bool:
    """Tell whether a file system has an operation of its own; fsspec's own one copies, or raises."""
    for kind in type(fs).__mro__:
        if kind.__module__ in ("fsspec.spec", "fsspec.asyn"):
            return False
        if operation in vars(kind) or f"_{operation}" in vars(kind):
            return True
    return False


#: What the file systems of fsspec call the time of the last write, and the hash or version of the content.
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "modify", "created")
_HASHES = ("ETag", "md5Hash", "content_md5", "etag")


def _entry(name: str, item: Mapping[str, Any]) -> Entry:
    time = next((item[key] for key in _TIMES if item.get(key) is not None), None)
    etag = next((item[key] for key in _HASHES if item.get(key)), "")
    text = etag.hex() if isinstance(etag, bytes | bytearray) else str(etag).strip('"')
    return Entry(name, int(item["size"] or 0), _moment(time), text)


def _moment(time: Any) -> datetime | None:
    """Return a time in UTC; file systems give datetimes, seconds or ISO texts."""
    if isinstance(time, int | float):
        return datetime.fromtimestamp(time, UTC)
    if isinstance(time, str):
        digits = time.partition(".")[0]
        try:  # ftp writes fourteen digits
            time = datetime.strptime(digits, "%Y%m%d%H%M%S") if digits.isdigit() else datetime.fromisoformat(time)  # noqa: DTZ007
        except ValueError:
            return None
    if not isinstance(time, datetime):
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
