"""The list of files that a stream of files has read: segments beside the manifest, which names them.

A commit writes the files that it has read into a new segment, and puts short segments before it into the same one: so
it costs what it adds, not what is known. A segment is an Arrow file that never changes. It is staged and moved as a
table's files are: the manifest alone decides.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Sequence

import pyarrow as pa

from ..errors import FatalConnectorError
from ..known_files import KnownFiles
from ..stream import FileRead, LedgerKey
from ..struct_helpers import replace
from .manifest import LEDGER, STAGING, Manifest, ReadList, TableFile, quote
from .storage import Storage

#: A segment of at most so many times the files that come behind it is written anew, with them.
_FACTOR = 8

#: Times that a list is read again whose segments another process has put together meanwhile.
_TRIES = 5

#: Fields of a `FileRead` that are kept, as a segment's columns.
_NAMES = ("path", "size_bytes", "modified", "etag")


def known_by(storage: Storage, read: Callable[[], Manifest], key: LedgerKey) -> KnownFiles:
    """Return the files that were read for a key, as the newest manifest says; `read` reads it.

    Raises:
        FatalConnectorError: the list is damaged.
    """
    for _ in range(_TRIES):
        manifest = read()
        known = _known(storage, manifest, key, manifest.read_lists.get(key, ReadList()))
        if known is not None:
            return known
    raise _damaged(manifest, key)


def add_known(
    storage: Storage, manifest: Manifest, key: LedgerKey, files: Sequence[FileRead], suffix: str
) -> tuple[Manifest, str]:
    """Return the manifest with a segment that says that these files were read as well, and where it is staged.

    It is staged under the token of the key's row, under the table's lock.

    Raises:
        FatalConnectorError: the list is damaged.
    """
    row, listed = manifest.row(key), manifest.read_lists.get(key, ReadList())
    assert row is not None
    count, kept = len(files), list(listed.segments)
    while kept and (listed.text or kept[-1].records <= _FACTOR * count):
        count += kept.pop().records
    before = _known(storage, manifest, key, replace(listed, segments=listed.segments[len(kept) :]))
    if before is None:
        raise _damaged(manifest, key)
    known = KnownFiles.together([before, KnownFiles.of(files)])
    data, name = _data(known), uuid.uuid4().hex
    staged = f"{STAGING}/{quote(row.token)}/{name}.arrow"
    segment = TableFile(
        name=f"{LEDGER}/{quote(manifest.table)}.{suffix}.read-{name[:12]}.arrow",
        moved_from=staged,
        records=len(known),
        size_bytes=len(data),
        columns=(),
    )
    storage.replace_bytes(staged, data)
    return manifest.with_read_list(key, ReadList(segments=(*kept, segment))), staged


def listed_again(files: Collection[FileRead]) -> ReadList:
    """Return a list in the manifest itself, which the next commit makes a segment of."""
    return ReadList(text=json.dumps([each[: len(_NAMES)] for each in files], check_circular=False) if files else "")


def _known(storage: Storage, manifest: Manifest, key: LedgerKey, listed: ReadList) -> KnownFiles | None:
    """Return the files of a list; None: a segment is gone, and a newer manifest names others."""
    try:
        parts = [KnownFiles.of(_files_of(listed.text or "[]"))]
        for segment in listed.segments:
            # Whoever holds the lock moves it.
            places = (segment.moved_from, segment.name) if segment.moved_from else (segment.name,)
            raw = next(filter(None, map(storage.read_bytes, places)), None)
            if raw is None:
                return None
            parts.append(_of_segment(raw))
        return KnownFiles.together(parts)
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        raise _damaged(manifest, key) from error


def _damaged(manifest: Manifest, key: LedgerKey) -> FatalConnectorError:
    return FatalConnectorError(
        f"the manifest of table {manifest.table!r} is damaged: the list of files already read is lost; "
        "--full-refresh reads them all again",
        stream=key.stream,
    )


def _data(known: KnownFiles) -> bytes:
    columns = [known.paths, known.sizes, known.modified, known.etags]
    batch = pa.RecordBatch.from_arrays(columns, names=list(_NAMES))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _of_segment(raw: bytes) -> KnownFiles:
    batch = pa.ipc.open_file(pa.BufferReader(raw)).get_batch(0)
    batch.validate(full=True)
    if batch.schema.types != [pa.binary(), pa.int64(), pa.binary(), pa.binary()]:
        raise ValueError("columns")
    return KnownFiles(*batch.columns)


def _files_of(text: str) -> list[tuple[str, int, str, str]]:
    from msgspec import convert  # few streams keep files
    from msgspec.json import decode

    kind = list[tuple[str, int, str, str]]
    try:
        return decode(text, type=kind)
    except ValueError:  # it does not take names with bytes that are no text
        return convert(json.loads(text), kind)


__all__ = ["add_known", "known_by", "listed_again"]
