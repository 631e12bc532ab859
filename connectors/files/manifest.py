"""The manifest of one table: a small JSON file with the table's files and its ledger rows.

Replacing the manifest is the commit. Data files are staged under `_syncblocks_ledger/staging/<token>/`. The manifest
that names them says where they move (`moved_from` -> `name`), and which old files are deleted (`dead`). Both happens
right after the commit; after a crash the next run does it. Until then a file is where it was staged.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any
from unicodedata import is_normalized

import pyarrow as pa
from msgspec import Struct, field

from ..errors import FatalConnectorError
from ..failpoints import failpoint
from ..stream import LedgerKey, LedgerRow
from ..struct_helpers import replace
from .storage import Storage, checked_name

LEDGER = "_syncblocks_ledger"
STAGING = f"{LEDGER}/staging"

#: Of a manifest that names segments, without which an earlier version would take all files for new.
VERSION = 2
FIRST_VERSION = 1

#: Longest quoted name: a suffix and a part's number must fit into the 255 bytes of a file name.
MAX_NAME_BYTES = 180

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


class TableFile(Struct, frozen=True, kw_only=True):
    """One file of a table."""

    #: Its final name, relative to the destination's folder.
    name: str
    #: Where it may still be; None: it has its final name.
    moved_from: str | None = None
    records: int
    size_bytes: int
    #: Columns of this file, in order; later files may have more.
    columns: tuple[str, ...]


class ReadList(Struct, frozen=True, kw_only=True):
    """The files that were read for one ledger row, see `read_list`; of one path the last entry counts."""

    #: As JSON, of those before the segments: as an earlier version keeps it, and after some were forgotten.
    text: str = ""
    segments: tuple[TableFile, ...] = ()


class Manifest(Struct, frozen=True, kw_only=True):
    """Files, columns and ledger rows of one table."""

    table: str
    files: tuple[TableFile, ...] = ()
    #: Files that an earlier commit replaced, and that may still exist.
    dead: tuple[str, ...] = ()
    #: Files of rejected records of the last commit, which are moved beside the table.
    rejected: tuple[TableFile, ...] = ()
    #: None: no data was committed.
    schema: pa.Schema | None = None
    rows: tuple[LedgerRow, ...] = ()
    #: `Format.written` of the files.
    written: Mapping[str, Any] = field(default_factory=dict)
    #: What was read of streams of files.
    read_lists: Mapping[LedgerKey, ReadList] = field(default_factory=dict)

    @property
    def placed(self) -> tuple[TableFile, ...]:
        """All files that may still have to be moved."""
        segments = (segment for listed in self.read_lists.values() for segment in listed.segments)
        return (*self.files, *self.rejected, *segments)

    def row(self, key: LedgerKey) -> LedgerRow | None:
        return next((row for row in self.rows if row.key == key), None)

    def with_row(self, row: LedgerRow) -> Manifest:
        return replace(self, rows=(*(other for other in self.rows if other.key != row.key), row))

    def without_row(self, key: LedgerKey) -> Manifest:
        return replace(self, rows=tuple(row for row in self.rows if row.key != key)).with_read_list(key, ReadList())

    def with_read_list(self, key: LedgerKey, listed: ReadList) -> Manifest:
        """Return the manifest with another list of the files that were read for a key; segments that go are dead."""
        before = self.read_lists.get(key, ReadList()).segments
        dead = [segment.name for segment in before if segment not in listed.segments]
        return replace(self, read_lists={**self.read_lists, key: listed}, dead=(*self.dead, *dead))


def quote(name: str) -> str:
    """Return a file name for a table's name. It is reversible; only a name that is too long ends in a hash.

    All but letters, digits, `.`, `_` and `-` is percent-encoded, also a leading `.` or `_`, which would hide the file.

    Raises:
        FatalConnectorError: the name is empty, or has a lone surrogate.
    """
    if not name:
        raise FatalConnectorError("a table needs a name")
    try:
        raw = name.encode()
    except UnicodeEncodeError as error:
        raise FatalConnectorError(
            f"table name {name!r} contains a lone surrogate, which file names cannot have"
        ) from error
    quoted = "".join(
        chr(byte) if byte in _PLAIN and (place or byte not in b"._") else f"%{byte:02X}"
        for place, byte in enumerate(raw)
    )
    if len(quoted) <= MAX_NAME_BYTES:
        return quoted
    digest = blake2b(raw, digest_size=12).hexdigest()
    return f"{quoted[: MAX_NAME_BYTES - 30]}~{digest}"


def file_stem(table: str) -> str:
    """Return what a table's files are called: as `quote` says, but with the blanks and letters of the name.

    Of letters only those that every file system keeps as they are. Earlier versions called the files as `quote` says.
    """
    quoted, last = quote(table), len(table) - 1
    readable = "".join(
        letter
        if (letter == " " and 0 < place < last) or (letter.isalpha() and is_normalized("NFC", letter))
        else quote(f"a{letter}")[1:]
        if place
        else quote(letter)
        for place, letter in enumerate(table)
    )
    return readable if len(readable.encode()) <= MAX_NAME_BYTES else quoted


def manifest_name(table: str, suffix: str) -> str:
    """Return the name of a table's manifest, one for each format in a folder."""
    return f"{LEDGER}/{quote(table)}.{suffix}.json"


def read_manifest(storage: Storage, name: str) -> Manifest | None:
    """Read a manifest; None: there is none.

    Raises:
        FatalConnectorError: the file is no manifest, or one of a newer version.
    """
    raw = storage.read_bytes(name)
    if raw is None:
        return None
    try:
        document = json.loads(raw)
        is_newer = isinstance(document["version"], int) and document["version"] > VERSION
        parsed = None if is_newer else _parse(document)
    except (ValueError, KeyError, TypeError, binascii.Error, pa.ArrowException) as error:
        raise FatalConnectorError(
            f"{storage.label(name)} is damaged ({type(error).__name__}): restore it from a backup, or delete it; "
            "after that only `write_disposition: replace` can write the table"
        ) from error
    if parsed is None:
        raise FatalConnectorError(
            f"{storage.label(name)} was written by a newer version of syncblocks: use that version"
        )
    return parsed


def write_manifest(storage: Storage, name: str, manifest: Manifest) -> None:
    """Replace the manifest, which is the commit."""
    failpoint("files.manifest.before")
    storage.replace_bytes(name, json.dumps(_document(manifest), ensure_ascii=False, indent=1).encode())
    failpoint("files.manifest.after")


def roll_forward(storage: Storage, name: str, manifest: Manifest) -> Manifest:
    """Move and delete files as the manifest says, under the table's lock. Idempotent.

    Returns:
        The manifest with no work left. It is written only if a file came from outside the staging folder: a name in
        the table's own folder could be used again.
    """
    pending = [file for file in manifest.placed if file.moved_from]
    if not pending and not manifest.dead:
        return manifest
    for file in pending:
        assert file.moved_from is not None
        if storage.kind(file.moved_from) == "file":
            storage.move(file.moved_from, file.name)
    live = {file.name for file in manifest.files}
    for dead in manifest.dead:
        if dead not in live:
            storage.delete(dead)
    folders = {folder for dead in manifest.dead if not dead.startswith(f"{LEDGER}/") for folder in _folders(dead)}
    for folder in sorted(folders, key=len, reverse=True):  # those within others first
        storage.delete_folder(folder, only_empty=True)
    files = _moved(manifest.files)
    lists = {key: replace(each, segments=_moved(each.segments)) for key, each in manifest.read_lists.items()}
    done = replace(manifest, files=files, rejected=(), dead=(), read_lists=lists)
    if any(file.moved_from and not file.moved_from.startswith(f"{STAGING}/") for file in pending):
        write_manifest(storage, name, done)
    return done


def _moved(files: Iterable[TableFile]) -> tuple[TableFile, ...]:
    return tuple(replace(file, moved_from=None) for file in files)


def _folders(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[:size]) for size in range(1, len(parts) + 1)]


def manifest_files(storage: Storage, folder: str, suffix: str) -> list[str]:
    """List the manifests of one format in a folder's ledger."""
    inside = f"{folder}/{LEDGER}" if folder else LEDGER
    end = f".{suffix}.json"
    return [f"{inside}/{name}" for name, is_folder in storage.names(inside) if not is_folder and name.endswith(end)]


def _document(manifest: Manifest) -> dict[str, Any]:
    schema = manifest.schema
    return {
        "version": VERSION if any(each.segments for each in manifest.read_lists.values()) else FIRST_VERSION,
        "table": manifest.table,
        "columns": None if schema is None else {field.name: str(field.type) for field in schema},
        "schema": None if schema is None else base64.b64encode(schema.serialize()).decode("ascii"),
        "files": [_file_document(file) for file in manifest.files],
        "rejected": [_file_document(file) for file in manifest.rejected],
        "dead": list(manifest.dead),
        **({"written": dict(manifest.written)} if manifest.written else {}),
        "ledger": [_row_document(row, manifest.read_lists.get(row.key, ReadList())) for row in manifest.rows],
    }


def _file_document(file: TableFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "moved_from": file.moved_from,
        "records": file.records,
        "size_bytes": file.size_bytes,
        "columns": list(file.columns),
    }


def _row_document(row: LedgerRow, listed: ReadList) -> dict[str, Any]:
    return {
        **({"files_read": listed.text} if listed.text else {}),
        **({"read_segments": [_file_document(segment) for segment in listed.segments]} if listed.segments else {}),
        "pipeline": row.key.pipeline,
        "stream": row.key.stream,
        "destination_table": row.key.destination_table,
        "source": row.source,
        "token": row.token,
        "bookmark": row.bookmark,
        "completed_by": row.completed_by,
        "owner": row.owner,
        "rows": row.rows,
        "committed_at": None if row.committed_at is None else row.committed_at.isoformat(),
        **({} if row.compared_at is None else {"compared_at": row.compared_at.isoformat()}),
        **({"history": dict(row.history)} if row.history else {}),
        **({"log": dict(row.log)} if row.log else {}),
    }


def _parse(document: Mapping[str, Any]) -> Manifest:
    if document["version"] not in (FIRST_VERSION, VERSION):
        raise ValueError("version")
    encoded = document["schema"]
    return Manifest(
        table=_text(document["table"]),
        files=tuple(_file(item) for item in document["files"]),
        rejected=tuple(_file(item) for item in document.get("rejected", ())),
        dead=tuple(checked_name(_text(name)) for name in document["dead"]),
        schema=None if encoded is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded, validate=True))),
        rows=tuple(_row(item) for item in document["ledger"]),
        written=dict(document.get("written", {})),
        read_lists={_key(item): _read_list(item) for item in document["ledger"]},
    )


def _file(item: Mapping[str, Any]) -> TableFile:
    moved_from = item["moved_from"]
    return TableFile(
        name=checked_name(_text(item["name"])),
        moved_from=None if moved_from is None else checked_name(_text(moved_from)),
        records=int(item["records"]),
        size_bytes=int(item["size_bytes"]),
        columns=_texts(item["columns"]),
    )


def _row(item: Mapping[str, Any]) -> LedgerRow:
    committed_at, compared_at, bookmark = item["committed_at"], item.get("compared_at"), item["bookmark"]
    if bookmark is not None and not isinstance(bookmark, dict):
        raise TypeError("bookmark")
    return LedgerRow(
        key=_key(item),
        source=_text(item["source"]),
        token=_text(item["token"]),
        bookmark=bookmark,
        completed_by=None if item["completed_by"] is None else _text(item["completed_by"]),
        owner=_text(item["owner"]),
        rows=None if item["rows"] is None else int(item["rows"]),
        committed_at=None if committed_at is None else datetime.fromisoformat(committed_at),
        compared_at=None if compared_at is None else datetime.fromisoformat(compared_at),
        history=dict(item.get("history", {})),
        log=dict(item.get("log", {})),
    )


def _read_list(item: Mapping[str, Any]) -> ReadList:
    return ReadList(text=_text(item.get("files_read", "")), segments=tuple(map(_file, item.get("read_segments", ()))))


def _key(item: Mapping[str, Any]) -> LedgerKey:
    names = {name: _text(item[name]) for name in ("pipeline", "stream", "destination_table")}
    return LedgerKey(**names)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(_text(value) for value in values)
