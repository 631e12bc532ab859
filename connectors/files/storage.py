"""The interface of a folder of files, on local disk (`local.py`) or on an object store (`objects.py`)."""

from __future__ import annotations

import errno
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, NamedTuple, Protocol
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct, field

from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, RetriableError
from ..settings import is_url, nearest, url_scheme

#: Seconds between two tries to take a lock.
LOCK_POLL_S = 0.02

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}

#: Packages whose errors are an object store's or a file server's; many are no OSError.
_PACKAGES = frozenset(
    {"aiobotocore", "aiohttp", "azure", "botocore", "ftplib", "gcsfs", "google", "oci", "ocifs"}
    | {"oss2", "ossfs", "paramiko", "requests", "s3fs", "urllib3"}
)
#: What Python says of an option that no function of the driver takes: `storage_options` are passed on as they are.
_UNKNOWN_OPTION = re.compile(r"unexpected keyword argument '([^']+)'")
_CREDENTIALS = re.compile("Authentic|Credential|Login|Profile")
_MENDABLE = re.compile(
    "Connection|Disconnected|HTTPClientError|Payload|SSHException|Temporar|error_temp|Throttl|Timeout"
)
#: Codes and HTTP states: of refused credentials, and of what another try can mend.
_UNKNOWN_USERS = re.compile(r"\b(401|403|530)\b|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken")
_BUSY = re.compile(
    r"\b(408|429|50\d)\b|Throttl|SlowDown|TooManyRequests|RequestLimitExceeded|ServiceUnavailable|InternalError"
)


class Entry(NamedTuple):
    """One file below a storage's root; a tuple, since there may be very many."""

    #: Name relative to the root, with "/" between the parts.
    name: str
    size_bytes: int
    #: When it was last written, in UTC; None: the storage does not say.
    modified: datetime | None = None
    #: The storage's hash or version of the content; empty: it has none.
    etag: str = ""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Listing(Struct, frozen=True):
    """Files below a storage's root, column by column: of very many, few are looked at one by one."""

    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    #: Microseconds since 1970; None: the storage does not say.
    times: list[int | None] = field(default_factory=list)
    #: As `Entry.etag`.
    etags: list[str] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Add a file."""
        self.names.append(entry.name)
        self.sizes.append(entry.size_bytes)
        self.times.append(None if entry.modified is None else (entry.modified - _EPOCH) // timedelta(microseconds=1))
        self.etags.append(entry.etag)

    def entry(self, place: int) -> Entry:
        """Return one file."""
        time = self.times[place]
        modified = None if time is None else _EPOCH + timedelta(microseconds=time)
        return Entry(self.names[place], self.sizes[place], modified, self.etags[place])

    def entries(self) -> list[Entry]:
        """Return all files."""
        return [self.entry(place) for place in range(len(self.names))]

    def taken(self, places: Sequence[int]) -> Listing:
        """Return some files of it."""
        if len(places) == len(self.names):
            return self
        columns = (self.names, self.sizes, self.times, self.etags)
        return Listing(*([column[place] for place in places] for column in columns))  # type: ignore[arg-type]


class Storage(Protocol):
    """A folder and the files below it; names are relative to it and stay inside."""

    root: str

    def label(self, name: str = "") -> str: ...
    def kind(self, name: str) -> str | None: ...
    def names(self, folder: str = "") -> list[tuple[str, bool]]: ...
    def entries(self, folder: str = "") -> list[Entry]: ...
    def listing(self, folder: str = "") -> Listing:
        """List the files below a folder, but no hidden ones and none whose name begins with `_`."""
        ...

    def entry(self, name: str) -> Entry | None:
        """Return one file; None: there is no file of that name."""
        ...

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
    def demand_destination(self) -> None:
        """Raise if no table can be written here, whoever asks; create nothing."""
        ...


@contextmanager
def translated(label: str) -> Iterator[None]:
    """Turn an error of the file system into a ConnectorError that names the file.

    That of a server comes without its cause: its text, and variables of the driver's functions, hold the password.
    """

    def shown(error: Exception) -> Exception | None:
        return error if not is_url(label) else FileNotFoundError() if isinstance(error, FileNotFoundError) else None

    try:
        yield
    except ConnectorError:
        raise
    except FileNotFoundError as error:
        raise ConnectorConfigError(f"{label}: no such file or folder", key="path") from shown(error)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        message = f"{label}: {reason}"
        if error.errno in _FULL:
            raise FatalConnectorError(f"{message}; this commit was not written, free some space") from shown(error)
        if error.errno in _REFUSED or isinstance(error, PermissionError):
            raise ConnectorConfigError(message, key="path") from shown(error)
        raise RetriableError(message) from shown(error)
    except EOFError as error:  # ftplib and paramiko: the server has closed the connection
        raise RetriableError(f"{label}: the connection was closed") from shown(error)
    except Exception as error:
        if isinstance(error, TypeError) and is_url(label) and (found := _UNKNOWN_OPTION.search(str(error))):
            raise _unknown_option(label, found[1]) from None
        if type(error).__module__.partition(".")[0] not in _PACKAGES:
            raise
        raise _of_store(label, error) from shown(error)


def _unknown_option(label: str, name: str) -> ConnectorConfigError:
    """Say which option the driver does not know, and which it has that may be meant."""
    import fsspec

    scheme = url_scheme(label)
    known = [*inspect.signature(fsspec.get_filesystem_class(scheme).__init__).parameters]
    near = nearest(name, known)
    hint = f"; did you mean {near!r}?" if near and near != name else ""
    return ConnectorConfigError(
        f"storage_options: the driver of {scheme}:// has no such option {name!r}{hint}",
        key="storage_options",
    )


def _of_store(label: str, error: Exception) -> ConnectorError:
    """Sort an error of an object store or a file server by its classes' names and its code."""
    names = " ".join(kind.__name__ for kind in type(error).__mro__)
    text = " ".join(str(error).split()) or type(error).__name__
    message = f"{label}: {type(error).__name__}: {without_secrets(text)}"
    if _CREDENTIALS.search(names) or _UNKNOWN_USERS.search(text):
        return ConnectorConfigError(
            f"{message}; set credentials in `storage_options` or in the environment", key="path"
        )
    if _MENDABLE.search(names) or _BUSY.search(text):
        return RetriableError(message)
    return FatalConnectorError(message)


def without_secrets(text: str) -> str:
    """Return a message without the credentials and the queries of its URLs."""
    return re.sub(r"[a-z][a-z0-9+.-]*://[^\s\"'>]+", lambda found: without_credentials(found[0]), text)


def checked_name(name: str) -> str:
    """Return the name if it stays below the root; names in a manifest are not trusted."""
    parts = name.split("/")
    if not name or "\0" in name or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise FatalConnectorError(f"the manifest names a file outside its folder: {name!r}")
    return name


def without_credentials(url: str) -> str:
    """Return the URL without user, password, query and fragment."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")) or url
