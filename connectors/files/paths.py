"""Map the setting `path` to streams and their files.

A file is a stream named by its stem, with `_` for each dot. In a folder each file is a stream, and each subfolder is
one stream of its files, sorted; `key=value` folders add columns. The setting `streams` names streams by patterns. A
compression suffix is not part of the name. Where a destination keeps a manifest, only the files that the manifest
names belong to the table.
"""

from __future__ import annotations

import codecs
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, cast
from urllib.parse import unquote, urlsplit

import msgspec
import pyarrow as pa

from ..errors import ConnectorConfigError, FatalConnectorError
from ..settings import is_url, resolve_path, url_scheme
from ..stream import Place
from ..struct_helpers import replace
from .local import LocalStorage
from .manifest import LEDGER, Manifest, file_stem, manifest_files, quote, read_manifest
from .opening import local_path, open_storage
from .patterns import Matches
from .storage import Entry, Listing, Storage, translated, without_credentials

#: Suffix -> codec.
COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}

#: Suffixes of compressions that are not read.
_NOT_READ = (".xz", ".lzma", ".lz4", ".br", ".7z", ".rar")

#: First bytes of compressed files -> what to do with one whose name does not say so.
_PACKED = {
    b"\x1f\x8b": "compressed by gzip: its name must end in .gz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: its name must end in .zst",
    b"BZh": "compressed by bzip2: its name must end in .bz2",
    b"PK\x03\x04": "a zip archive: its name must end in .zip",
    b"\xfd7zXZ": "compressed by xz: unpack it",
}

_BEGIN_BYTES = max(map(len, _PACKED))

#: First bytes of texts in other encodings than UTF-8; the mark of UTF-32 begins as that of UTF-16 does.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

#: Which of the first four bytes are zero, where a text of ASCII has no mark.
_ZEROS: dict[tuple[bool, ...], str] = {
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}

#: A URL with a query behind the name of a file.
_QUERIED = re.compile(r"(?P<root>[^?]*)/(?P<name>[^/?]+)\?(?P<query>.*)", re.DOTALL)

#: What reading an opened file raises that is damaged, or not compressed as its name says.
UNREADABLE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowException)
with suppress(ImportError):  # a Python without it unpacks no such archive
    from lzma import LZMAError

    UNREADABLE = (*UNREADABLE, LZMAError)

#: Hive's text for NULL.
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"

_GLOB = frozenset("*?[")


@dataclass(slots=True, unsafe_hash=True)
class DataFile:
    """One file of a stream. None is changed; `frozen` would take most of the time of finding very many."""

    storage: Storage
    name: str
    #: Its staged name, if it may not have been moved yet.
    moved_from: str | None = None
    #: Folders of the path that add a column each, such as `day=2024-01-31`.
    folders: tuple[str, ...] = ()
    #: Columns from the manifest; no types are inferred.
    schema: pa.Schema | None = None
    #: As it was listed; None: it was not.
    listed: Entry | None = None
    #: Name of the file within a zip archive; empty: it is a file of its own.
    member: str = ""
    #: Down to how many levels objects become columns.
    levels: int = 0

    @property
    def label(self) -> str:
        return self.storage.label(self.name) + (f":{self.member}" if self.member else "")

    @property
    def partitions(self) -> tuple[tuple[str, str | None], ...]:
        """The columns that the path adds, with their texts.

        Raises:
            FatalConnectorError: a folder's name is no UTF-8, or two folders name one column.
        """
        if not self.folders:
            return ()
        pairs = [folder.partition("=") for folder in self.folders]
        try:
            values = tuple((_decoded(key), None if value == HIVE_NULL else _decoded(value)) for key, _, value in pairs)
        except UnicodeError as error:
            raise FatalConnectorError(
                f"{self.label}: a folder's column or value is not UTF-8: rename the folder", key="path"
            ) from error
        if len({key for key, _ in values}) < len(values):
            raise FatalConnectorError(
                f"{self.label}: two folders of the path give the same column: rename one of them", key="path"
            )
        return values

    @property
    def place(self) -> str:
        """Its present name."""
        if self.moved_from and self.storage.kind(self.moved_from) == "file":
            return self.moved_from
        return self.name

    @property
    def is_local(self) -> bool:
        return isinstance(self.storage, LocalStorage)

    def size_bytes(self) -> int:
        if self.listed is not None:
            return self.listed.size_bytes
        with translated(self.label):
            return self.storage.size_bytes(self.place)

    def entry(self) -> Entry:
        """Return the file as it was listed, else as it is."""
        if self.listed is not None:
            return self.listed
        with translated(self.label):
            found = self.storage.entry(self.place)
            if found is None:
                raise FileNotFoundError(self.label)
        return found

    def as_listed(self) -> Self:
        """Return the file with its size and time."""
        return replace(self, listed=self.entry())

    def open_raw(self) -> BinaryIO:
        """Open the file as it is stored.

        Raises:
            FatalConnectorError: it may not be read. It is this file that is amiss, not the settings.
        """
        with translated(self.label):
            try:
                return self.storage.open_input(self.place)
            except PermissionError as error:
                raise FatalConnectorError(
                    f"{self.label}: this user has no permission to read it", key="path"
                ) from error

    def kind_of_text(self, encoded: str) -> str:
        """Say what to do with a file that is no text of UTF-8, as `kind_of_text`."""
        with self.open() as content:
            return kind_of_text(content.read(_BEGIN_BYTES), encoded)

    def open(self) -> BinaryIO:
        """Open the file decompressed.

        Raises:
            FatalConnectorError: it may not be read, or is compressed in a way that is not known here.
        """
        if (self.member or self.name).lower().endswith(_NOT_READ):
            mend = "unpack the file, or compress it as .gz, .zst or .bz2"
            raise FatalConnectorError(f"{self.label}: this compression is not supported: {mend}", key="path")
        raw = self.open_raw()
        if self.member:
            raw = _opened_member(raw, self.member, self.label)
        codec = compression(self.member or self.name)
        if codec is None:
            return raw
        return cast("BinaryIO", pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec))


def kind_of_text(begin: bytes, encoded: str) -> str:
    """Say what to do with a file that is compressed, or in UTF-16 or UTF-32, though nothing says so; else empty.

    Args:
        begin: its first bytes.
        encoded: what to do about the encoding, which is put in the place of `{}`.
    """
    way = next((way for mark, way in _PACKED.items() if begin.startswith(mark)), "")
    if not way and (encoding := marked_encoding(begin) or _ZEROS.get(tuple(byte == 0 for byte in begin[:4]), "")):
        way = f"{encoding[:6].upper()}: {encoded.format(encoding)}"
    return way and f"; it is {way}"


def marked_encoding(begin: bytes) -> str:
    """Return the encoding that a byte order mark says, other than UTF-8; else empty."""
    return next((encoding for mark, encoding in _MARKS.items() if begin.startswith(mark)), "")


def expanded(files: Iterable[DataFile], suffixes: Sequence[str]) -> Iterator[DataFile]:
    """Yield files; of a zip archive those in it that have one of the suffixes, sorted by name.

    Raises:
        FatalConnectorError: it is no archive, or has no such file.
    """
    for file in files:
        if not file.name.lower().endswith(".zip") or file.member:
            yield file
            continue
        with file.open_raw() as raw:
            try:
                names = zipfile.ZipFile(raw).namelist()
            except zipfile.BadZipFile as error:
                raise FatalConnectorError(f"{file.label}: is not a zip archive: {error}", key="path") from error
        found = [name for name in sorted(names) if stem_of(name, suffixes) and not _is_hidden(name)]
        if not found:
            raise FatalConnectorError(f"{file.label}: no file in it ends in {' or '.join(suffixes)}", key="path")
        for name in found:
            yield replace(file, member=name)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _opened_member(raw: BinaryIO, member: str, label: str) -> BinaryIO:
    """Open a file of an archive; the archive's own is closed with it."""
    try:
        opened = zipfile.ZipFile(raw).open(member)  # noqa: SIM115 (the caller closes it)
    except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError) as error:
        raw.close()
        raise FatalConnectorError(f"{label}: cannot be unpacked: {error}", key="path") from error
    close = opened.close

    def close_both() -> None:
        close()
        raw.close()

    opened.close = close_both  # type: ignore[method-assign]
    return cast("BinaryIO", opened)


class StreamFiles(msgspec.Struct):
    """The files of one stream, and its schema if a manifest has it."""

    name: str
    files: list[DataFile] = msgspec.field(default_factory=list)
    schema: pa.Schema | None = None
    #: The file, the folder or the table's folder below the storage's root; empty: partitions of the root itself.
    place: str = ""
    #: The stem of the file or folder, where it has dots and so is not the name.
    stem: str = ""
    #: Why there are no files; empty: there are.
    absent: str = ""


class FilesLocation(msgspec.Struct, frozen=True):
    """The setting `path`, resolved."""

    storage: Storage
    #: `folder` (the whole root), `match` (one file or folder in it) or `glob`.
    kind: str
    #: Name of the match, or pattern of the glob, below the storage's root.
    name: str = ""


def compression(name: str) -> str | None:
    """Return the codec of a name's suffix."""
    return COMPRESSIONS.get(os.path.splitext(name)[1].lower())  # noqa: PTH122 (a name in any storage, no path)


def stem_of(name: str, suffixes: Iterable[str] | None) -> str | None:
    """Return a file's stem; None: it has none of the suffixes. With `suffixes` None, every suffix is right."""
    base = name.rpartition("/")[2]
    if compression(base):
        base = base[: base.rindex(".")]
    dot = base.rfind(".")
    if suffixes is None:
        return base[:dot] if dot > 0 else base
    return base[:dot] if dot > 0 and base[dot:].lower() in suffixes else None


def identity(connector: str, path: str, folder: Path) -> str:
    """Return connector and place without credentials."""
    if is_url(path) and url_scheme(path) not in ("file", "local"):
        return f"{connector}:{without_credentials(path)}"
    return f"{connector}:{local_path(path, folder) if is_url(path) else resolve_path(path, folder)}"


def reach(path: str) -> Place:
    """Tell from where a path or URL leads to the same files."""
    return "anywhere" if is_url(path) and url_scheme(path) not in ("file", "local") else "host"


def unverified(path: str) -> str:
    """Return a warning of a server that anybody on the way may stand in for; empty: it is verified, or local."""
    if not is_url(path) or url_scheme(path) not in ("ftp", "http"):
        return ""
    host = urlsplit(path).hostname or ""
    if host in ("localhost", "127.0.0.1", "::1"):
        return ""
    return (
        f"the server at {host} is not verified: another machine on the network can impersonate it, and read and "
        "change all data; use sftp:// or https://"
    )


def locate(path: str, folder: Path, options: Mapping[str, Any], suffix: str) -> FilesLocation:
    """Resolve the setting `path`; the folder of a destination's table is resolved from the folder above it.

    Raises:
        ConnectorConfigError: there is no such file or folder.
    """
    url = is_url(path) and url_scheme(path) not in ("file", "local")
    where = path.rstrip("/") if url else str(local_path(path, folder) if is_url(path) else resolve_path(path, folder))

    def opened(root: str) -> Storage:
        if url:
            return open_storage(root, folder, options)
        return LocalStorage(Path(root), Path(where).resolve())

    if url and url_scheme(path) in ("http", "https") and (queried := _QUERIED.fullmatch(where)):
        root, name, query = queried.groups()
        storage = open_storage(root, folder, options, (name, query))
        with translated(storage.label(name)):
            if storage.kind(name) is None:
                raise ConnectorConfigError(f"path: {storage.label(name)}: no such file", key="path")
        return FilesLocation(storage, "match", name)

    root, kind, name = _split(where, opened)
    above, _, base = root.rpartition("/")
    if base and above and not above.endswith("/"):
        storage = opened(above)
        with translated(storage.label()):
            tables = manifest_files(storage, "", suffix)
        if f"{LEDGER}/{base}.{suffix}.json" in tables:
            return FilesLocation(storage, "match" if kind == "folder" else kind, f"{base}/{name}" if name else base)
    return FilesLocation(opened(root), kind, name)


def _split(where: str, opened: Callable[[str], Storage]) -> tuple[str, str, str]:
    """Return the root, the kind and the name below it."""
    storage = opened(where)
    with translated(storage.label()):
        kind = storage.kind("")
    if kind == "folder":
        return where, "folder", ""
    if kind is not None:
        parent, _, name = where.rpartition("/")
        return parent or "/", "match", name
    parts = where.split("/")
    first = next((place for place, part in enumerate(parts) if _GLOB & set(part)), None)
    if first is None:
        raise ConnectorConfigError(f"path: {without_credentials(where)}: no such file or folder", key="path")
    return "/".join(parts[:first]) or "/", "glob", "/".join(parts[first:])


def find_streams(location: FilesLocation, suffix: str, suffixes: Sequence[str]) -> list[StreamFiles]:
    """List the streams with their files, sorted by name.

    Raises:
        ConnectorConfigError: two files have one stem, or a glob matches no file.
    """
    finder = _Finder(location.storage, suffix, tuple(suffixes))
    with translated(location.storage.label(location.name)):
        if location.kind == "folder":
            finder.add_folder()
            if not finder.streams:
                _refuse_others(location.storage, suffixes)
        else:
            names = [location.name] if location.kind == "match" else location.storage.glob(location.name)
            for name in names:
                finder.add_match(name)
            if not finder.streams:
                raise ConnectorConfigError(f"path: {location.storage.label(location.name)} matches no file", key="path")
    return [finder.streams[name] for name in sorted(finder.streams)]


def find_matches(location: FilesLocation, patterns: Mapping[str, Sequence[str]], suffix: str) -> list[StreamFiles]:
    """List the files of streams that are named by patterns, in the order of the names; no file is no error.

    Raises:
        ConnectorConfigError: the location is no folder.
    """
    storage = location.storage
    if location.kind != "folder":
        raise ConnectorConfigError(
            f"path: {storage.label(location.name)} is not a folder; the patterns of `streams` start from a folder",
            key="path",
        )
    finder = _Finder(storage, suffix, ())
    with translated(storage.label()):
        matches, found = Matches(storage), []
        for name, globs in patterns.items():
            files = [finder.listed(entry) for entry in matches.of(globs)]
            found.append(StreamFiles(name, files, absent="" if files else _no_match(storage, globs)))
    return found


def list_matches(
    location: FilesLocation, name: str, globs: Sequence[str], suffix: str
) -> tuple[StreamFiles, Listing, Callable[[Entry], DataFile]]:
    """List the files of one such stream, of which few will be read.

    Returns:
        The stream without its files, the files as they are listed, and what makes a file of the stream of one of them.

    Raises:
        ConnectorConfigError: the location is no folder.
    """
    (found,) = find_matches(location, {name: ()}, suffix)
    with translated(location.storage.label()):
        listing = Matches(location.storage).listing(globs)
    found.absent = "" if listing.names else _no_match(location.storage, globs)
    return found, listing, _Finder(location.storage, suffix, ()).listed


def _no_match(storage: Storage, globs: Sequence[str]) -> str:
    return f"{' and '.join(map(storage.label, globs))} matches no file"


def _refuse_others(storage: Storage, suffixes: Sequence[str]) -> None:
    """Refuse a folder that has files of other suffixes only; an empty one has no streams, yet."""
    names = [entry.name for entry in storage.entries() if "." in entry.name.rpartition("/")[2]]
    if names:
        other = names[0].rpartition(".")[2]
        as_json = "`connector: json` reads documents of JSON, and " if other == "json" else ""
        raise ConnectorConfigError(
            f"path: {storage.label()} has no file that ends in {' or '.join(suffixes)}, but {names[0]}; "
            f"{as_json}`path: {storage.label()}/*.{other}` reads such files",
            key="path",
        )


def find_again(
    location: FilesLocation, suffix: str, suffixes: Iterable[str], former: StreamFiles
) -> StreamFiles | None:
    """Find one stream's files as they are now, without a look at the others; None: `find_streams` has to look."""
    finder = _Finder(location.storage, suffix, tuple(suffixes))
    with translated(location.storage.label(former.place)):
        finder.add_again(former)
    return finder.streams.get(former.name)


class _Finder:
    """Collects the streams of one location."""

    def __init__(self, storage: Storage, suffix: str, suffixes: tuple[str, ...]) -> None:
        self.streams: dict[str, StreamFiles] = {}
        self._storage = storage
        self._suffix = suffix
        self._suffixes = suffixes
        self._manifests: dict[str, dict[str, Manifest]] = {}

    def add_folder(self) -> None:
        """Add every file and subfolder of the root; one stream if its subfolders are partitions."""
        for manifest in self._known("").values():
            self._add_table("", manifest)
        names = [entry for entry in self._storage.names() if not entry[0].startswith((".", "_"))]
        partitions = [name for name, is_folder in names if is_folder and "=" in name]
        if partitions:
            files = [self.listed(entry) for part in partitions for entry in self._data_files(part)]
            own = self._storage.root.rstrip("/").rpartition("/")[2]
            self._add(own, files, "")
        for name, is_folder in names:
            if name not in partitions:
                self._add_match(name, is_folder, self._suffixes)

    def add_match(self, name: str) -> None:
        """Add one match of a glob, or the file that `path` names, with any suffix."""
        if not any(part.startswith("_syncblocks") for part in name.split("/")):
            self._add_match(name, self._storage.kind(name) == "folder", None)

    def add_again(self, former: StreamFiles) -> None:
        """Add a stream that was found before, if it is still of the same kind: a table, a folder or a file."""
        parent, place = former.place.rpartition("/")[0], former.place
        start = f"{parent}/" if parent else ""
        base = (former.stem or former.name) if former.schema is None else quote(former.name)
        manifest = read_manifest(self._storage, f"{start}{LEDGER}/{base}.{self._suffix}.json")
        if not place or (manifest is None) != (former.schema is None):
            return
        if manifest is not None:
            self._add_table(parent, manifest)
            return
        kind = self._storage.kind(place)
        if kind == "folder" and (files := [self.listed(entry, len(place) + 1) for entry in self._data_files(place)]):
            self._add(base, files, place)
        elif kind == "file":
            self._add(base, [self._file(place)], place)

    def listed(self, entry: Entry, start: int = 0) -> DataFile:
        """Return a file with the columns of its path, from that place of its name on."""
        if "=" not in entry.name:
            return DataFile(self._storage, entry.name, listed=entry)
        return replace(self._file(entry.name, start), listed=entry)

    def _add_match(self, name: str, is_folder: bool, suffixes: tuple[str, ...] | None) -> None:
        parent, _, base = name.rpartition("/")
        stem = base if is_folder else stem_of(base, suffixes)
        if stem is None:
            return
        manifest = self._known(parent).get(stem) if is_folder or stem_of(base, self._suffixes) else None
        if manifest is not None:
            self._add_table(parent, manifest)
        elif is_folder:
            files = [self.listed(entry, len(name) + 1) for entry in self._data_files(name)]
            if files:
                self._add(stem, files, name)
        elif not self._is_part(parent, name):
            self._add(stem, [self._file(name)], name)
        else:
            self._add_table(*self._owner(parent))

    def _is_part(self, folder: str, name: str) -> bool:
        """Tell whether a file is in the folder of a destination's table."""
        above, _, base = folder.rpartition("/")
        return bool(folder) and base in self._known(above) and stem_of(name, self._suffixes) is not None

    def _owner(self, folder: str) -> tuple[str, Manifest]:
        above, _, base = folder.rpartition("/")
        return above, self._known(above)[base]

    def _known(self, folder: str) -> dict[str, Manifest]:
        if folder not in self._manifests:
            found: dict[str, Manifest] = {}
            for name in manifest_files(self._storage, folder, self._suffix):
                manifest = read_manifest(self._storage, name)
                if manifest is not None:
                    found |= dict.fromkeys((quote(manifest.table), file_stem(manifest.table)), manifest)
            self._manifests[folder] = found
        return self._manifests[folder]

    def _add_table(self, folder: str, manifest: Manifest) -> None:
        if manifest.schema is None or manifest.table in self.streams:
            return
        start = f"{folder}/" if folder else ""
        files = [
            DataFile(
                self._storage,
                start + file.name,
                None if file.moved_from is None else start + file.moved_from,
                schema=pa.schema([manifest.schema.field(name) for name in file.columns]),
            )
            for file in manifest.files
        ]
        self._add(manifest.table, files, start + file_stem(manifest.table), manifest.schema)

    def _add(self, stem: str, files: list[DataFile], place: str, schema: pa.Schema | None = None) -> None:
        # A table's name is its own; a dot in a file's name is no schema.
        name = stem if schema is not None else stem.replace(".", "_")
        if name in self.streams:
            raise ConnectorConfigError(
                f"{self._storage.label(place)} and {self._storage.label(self.streams[name].place)} would both be "
                f"stream {name!r}: rename one, or use a narrower path",
                key="path",
            )
        self.streams[name] = StreamFiles(name, files, schema, place, stem if stem != name else "")

    def _data_files(self, folder: str) -> list[Entry]:
        return [entry for entry in self._storage.entries(folder) if stem_of(entry.name, self._suffixes)]

    def _file(self, name: str, start: int = 0) -> DataFile:
        folders = name[start:].split("/")[:-1]
        return DataFile(self._storage, name, folders=tuple(folder for folder in folders if "=" in folder))


def _decoded(text: str) -> str:
    """Decode the percent signs of a folder's name; raise `UnicodeError` for bytes that are no text."""
    decoded = unquote(text, errors="strict")
    decoded.encode()
    return decoded
