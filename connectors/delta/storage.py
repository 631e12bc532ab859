"""The folder of one table: small files of ours, and data files. Local files are durable before a commit names them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from unicodedata import is_normalized
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs
from msgspec import Struct

from ..errors import ConnectorConfigError, FatalConnectorError, RetriableError
from ..settings import is_url, resolve_path
from .settings import DeltaSettings

#: Longest name of a table's folder, in bytes.
MAX_NAME_BYTES = 200

#: Bytes that are sent to a store at once.
_PART_BYTES = 8 << 20

#: Errors of a disk without room, or of a limit of the size of files.
FULL = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG])

#: What stores answer to wrong credentials, or without a bucket.
_REFUSED = re.compile(
    "AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|NoSuchBucket|Unauthenticated|PermissionDenied"
    "|AuthenticationFailed|40[13] (?:Unauthorized|Forbidden)|(?:bucket|container) .*not (?:found|exist)"
)

_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class Root(Struct, frozen=True, kw_only=True):
    """The folder of all tables."""

    #: As people know it, without credentials.
    label: str
    #: Without a slash at its end.
    uri: str
    options: Mapping[str, str]
    #: None: an object store.
    local: Path | None


def root_of(settings: DeltaSettings, folder: Path) -> Root:
    """Return the folder that the settings name; opens nothing."""
    path = settings.path
    if is_url(path) and not path.lower().startswith("file://"):
        parts = urlsplit(path)
        # `container@account` of Azure is no login.
        netloc = parts.netloc if ":" not in parts.netloc.rpartition("@")[0] else parts.netloc.rpartition("@")[2]
        label = urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))
        uri = urlunsplit((parts.scheme, parts.netloc, quote(parts.path.rstrip("/")), "", ""))
        return Root(label=label, uri=uri, options=dict(settings.storage_options), local=None)
    local = resolve_path(path.partition("://")[2] if is_url(path) else path, folder)
    if "%" in str(local):
        text = f"{local} has a `%`, which deltalake takes for an escape: give a path without one"
        raise ConnectorConfigError(text, connector="delta", key="path")
    return Root(label=str(local), uri=local.as_uri(), options={}, local=local)


def folder_name(table: str) -> str:
    """Return the name of a table's folder: letters, digits and `._- ` stay, a `~` begins the hex of other bytes.

    Raises:
        FatalConnectorError: the name is empty, too long, or has a lone surrogate.
    """
    try:
        parts = [letter if _is_plain(letter, place, table) else _hex(letter) for place, letter in enumerate(table)]
    except UnicodeEncodeError as error:
        raise FatalConnectorError(f"table name {table!r} holds a lone surrogate, which no folder can have") from error
    name = "".join(parts)
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise FatalConnectorError(f"table name {table!r} makes no folder: it is empty, or too long")
    return name


def table_name(folder: str) -> str | None:
    """Return the table whose folder has this name; None: no table's would be called so."""
    table = unquote(re.sub("~(?=[0-9A-F]{2})", "%", folder), errors="replace")
    try:
        return table if folder_name(table) == folder else None
    except FatalConnectorError:
        return None


def _is_plain(letter: str, place: int, table: str) -> bool:
    if letter == " ":
        return 0 < place < len(table) - 1
    if letter in "._":
        return place > 0
    return letter == "-" or (
        letter.isalnum() if letter.isascii() else letter.isalpha() and is_normalized("NFC", letter)
    )


def _hex(letter: str) -> str:
    return "".join(f"~{byte:02X}" for byte in letter.encode())


class TableFolder:
    """The files of one table."""

    def __init__(self, root: Root, table: str) -> None:
        self.root = root
        name = folder_name(table)
        self.label = f"{root.label}/{name}"
        self.uri = f"{root.uri}/{quote(name, safe='~')}"
        self.local = None if root.local is None else root.local / name

    @cached_property
    def _store(self) -> Any:
        return store_of(self.root, self.uri)

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None: it is not there."""
        try:
            if self.local is not None:
                return (self.local / name).read_bytes()
            with self._store.open_input_stream(name) as file:
                return bytes(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_there(self, name: str) -> bool:
        """Tell whether a file exists."""
        if self.local is not None:
            return (self.local / name).is_file()
        return bool(self._store.get_file_info(name).type == pa.fs.FileType.File)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, durable, and whole or not at all."""
        new = name if self.local is None else f"{name}.tmp"
        file = self.open_output(new)
        try:
            file.write(data)
        finally:
            self.finish_output(file, new)
        if self.local is not None:
            (self.local / new).replace(self.local / name)
            sync_folder((self.local / name).parent)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.local is not None:
            (self.local / name).unlink(missing_ok=True)
        else:
            with suppress(FileNotFoundError):
                self._store.delete_file(name)

    def names(self, folder: str = "") -> list[str]:
        """List what is in a folder, files and folders; empty if it is not there."""
        if self.local is not None:
            path = self.local / folder
            return sorted(each.name for each in path.iterdir()) if path.is_dir() else []
        found = self._store.get_file_info(pa.fs.FileSelector(folder, allow_not_found=True, recursive=False))
        return sorted(each.base_name for each in found)

    def open_output(self, name: str) -> Any:
        """Create a file."""
        if self.local is None:
            return self._store.open_output_stream(name, buffer_size=_PART_BYTES)
        path = self.local / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")

    def finish_output(self, file: Any, name: str) -> None:
        """Close a file, and make it durable."""
        try:
            if self.local is not None:
                file.flush()
                os.fsync(file.fileno())
        finally:
            file.close()
        if self.local is not None:
            sync_folder((self.local / name).parent)

    def open_input(self, name: str) -> Any:
        """Open a data file for reading at any place."""
        return pa.OSFile(str(self.local / name)) if self.local is not None else self._store.open_input_file(name)

    def size_bytes(self, name: str) -> int:
        """Return the size of a file that was just written."""
        if self.local is not None:
            return (self.local / name).stat().st_size
        return int(self._store.get_file_info(name).size)

    def size_before(self, name: str, time: datetime) -> int | None:
        """Return the size of a file that was written before a time; None: it is newer, or gone."""
        if self.local is not None:
            with suppress(FileNotFoundError):
                found = (self.local / name).stat()
                return found.st_size if found.st_mtime < time.timestamp() else None
            return None
        info = self._store.get_file_info(name)
        is_old = info.type == pa.fs.FileType.File and info.mtime is not None and info.mtime < time
        return int(info.size) if is_old else None

    def make_durable(self, version: int) -> None:
        """Make the log's file of a version durable, which the library does not do on a disk."""
        if self.local is None:
            return
        path = self.local / "_delta_log" / f"{version:020}.json"
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(path.parent)


def store_of(root: Root, uri: str) -> Any:
    """Return a folder of an object store as a file system of Arrow."""
    from deltalake.fs import DeltaStorageHandler

    return pa.fs.PyFileSystem(DeltaStorageHandler(uri, dict(root.options)))


def folders(root: Root) -> list[str]:
    """List the folders and files below the folder of all tables."""
    if root.local is not None:
        return sorted(each.name for each in root.local.iterdir()) if root.local.is_dir() else []
    found = store_of(root, root.uri).get_file_info(pa.fs.FileSelector("", allow_not_found=True, recursive=False))
    return sorted(each.base_name for each in found)


def sync_folder(path: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def said(error: BaseException) -> str:
    """Return what the library says, in one line and without colours."""
    return " ".join(_COLORS.sub("", str(error)).split())[:400] or type(error).__name__


def is_refusal(error: BaseException) -> bool:
    """Tell whether a store refuses who asks, which another try does not change."""
    return _REFUSED.search(str(error)) is not None


@contextmanager
def translated(label: str) -> Iterator[None]:
    """Turn an error of the library or of the file system into one that names the table."""
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise RetriableError(f"{label}: {said(error)}") from error
    except DeltaError as error:
        raise FatalConnectorError(f"{label}: {said(error)}") from error
    except (PermissionError, NotADirectoryError) as error:
        raise ConnectorConfigError(f"{label}: {said(error)}", connector="delta", key="path") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise ConnectorConfigError(f"{label}: {said(error)}", connector="delta", key="path") from error
        if is_refusal(error):
            text = f"{label}: {said(error)}; `storage_options` and the environment hold credentials"
            raise ConnectorConfigError(text, connector="delta", key="path") from error
        if error.errno in FULL:
            raise FatalConnectorError(f"{label}: {said(error)}; nothing of this commit was kept") from error
        raise RetriableError(f"{label}: {said(error)}") from error
