"""Which files of a stream are new or changed since they were read, and the checkpoints between them."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self

import pyarrow as pa

from ..arrow import compute as pc
from ..errors import FatalConnectorError, RetriableError
from ..incremental.bookmarks import BOUNDARY, CHECKPOINT_S
from ..known_files import NO_TIME, KnownFiles, integers_of, texts_of
from ..read_spec import ChangedFiles
from ..stream import FILE_MODIFIED, Bookmark, Checkpoint, FileRead, Stream
from .paths import DataFile
from .storage import Entry, Listing

#: In a bookmark's boundary: the columns of all files read so far.
_SCHEMA = "schema"


class NewFiles:
    """The files of a stream that are to be read, in order, and what is to be kept of them."""

    def __init__(self, listing: Listing, made: Callable[[Entry], DataFile], read: Collection[FileRead]) -> None:
        """Compare all files that are there with those that were read.

        Args:
            listing: all files of the stream.
            made: makes a file of the stream of one that is listed.
            read: what the destination knows.
        """
        known = KnownFiles.of(read)
        places, is_new = _compared(listing, known)
        found = [listing.entry(place) for place in is_new]
        #: New and changed files by time, then by name; times decide nothing but the order.
        self.files = sorted(map(made, found), key=_order)
        self._changed = {entry.name for entry, place in zip(found, places, strict=True) if place is not None}

    @classmethod
    def among(cls, files: Iterable[DataFile], read: Collection[FileRead]) -> Self:
        """Compare files of the stream, which know how they were listed or are looked at."""
        listing, by_name = Listing(), {file.name: file for file in files}
        for file in by_name.values():
            listing.add(file.entry())
        return cls(listing, lambda entry: by_name[entry.name], read)

    def chosen(self, stream: Stream) -> list[DataFile]:
        """Return the files that the stream reads.

        Raises:
            FatalConnectorError: a file has changed, and the stream does not say what to do.
        """
        changed = [file for file in self.files if file.name in self._changed]
        if changed and stream.read.changed_files is ChangedFiles.FAIL:
            more = f", as {len(changed) - 1} others have" if len(changed) > 1 else ""
            raise FatalConnectorError(
                f"{changed[0].label} has changed since it was read{more}: another append would write its records "
                "twice. Merge by `key_properties` (once with --full-refresh), or replace the records of each file "
                "(`write_disposition: replace_range` with `range_column: _file`). Or set for this stream "
                "`changed_files: append` (all its records are appended again) or `changed_files: ignore` (its "
                "earlier records stay)",
                stream=stream.name,
                key="changed_files",
            )
        is_read = stream.read.changed_files is not ChangedFiles.IGNORE
        return [file for file in self.files if is_read or file.name not in self._changed]

    def note(self, file: DataFile) -> FileRead:
        """Return what is kept of a file that was read."""
        return file_read(file.entry())._replace(is_changed=file.name in self._changed)


class FileCheckpoints:
    """The checkpoints of one read, which come between files."""

    def __init__(
        self,
        stream: Stream,
        bookmark: Bookmark | None,
        new: NewFiles,
        checkpoint_records: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._new = new
        self._newest: str | None = (bookmark or {}).get(FILE_MODIFIED)
        self._schema = united(known_columns(bookmark), stream.locator.get(_SCHEMA) or stream.schema)
        self._least = checkpoint_records
        self._clock = clock
        self._files: list[FileRead] = []
        self._records, self._since = 0, clock()

    def finish(self, file: DataFile, records: int, schema: pa.Schema) -> Iterator[Checkpoint]:
        """Note a file that was read, and yield a checkpoint if one is due.

        Raises:
            RetriableError: the file has changed since it was listed.
        """
        demand_unchanged(file)
        read = self._new.note(file)
        self._files.append(read)
        self._newest = max(filter(None, (self._newest, read.modified)), default=None)
        self._schema = united(self._schema, schema)
        self._records += records
        if self._records >= self._least or self._clock() - self._since >= CHECKPOINT_S:
            yield from self.end()

    def end(self) -> Iterator[Checkpoint]:
        """Yield a checkpoint of the files that no other has named."""
        if self._files:
            kept = base64.b64encode(self._schema.serialize()).decode("ascii")
            bookmark = {FILE_MODIFIED: self._newest, BOUNDARY: {_SCHEMA: kept}}
            yield Checkpoint(bookmark=bookmark, files=tuple(self._files))
        self._files = []
        self._records, self._since = 0, self._clock()


def known_columns(bookmark: Bookmark | None) -> pa.Schema:
    """Return the columns of the files read so far."""
    boundary: Mapping[str, Any] = (bookmark or {}).get(BOUNDARY) or {}
    if not boundary.get(_SCHEMA):
        return pa.schema([])
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(boundary[_SCHEMA])))


def united(before: pa.Schema, arriving: pa.Schema) -> pa.Schema:
    """Return the columns of both; what arrives decides the type."""
    own = {field.name: field for field in arriving}
    new = [field for field in arriving if field.name not in before.names]
    return pa.schema([*(own.get(field.name, field.with_nullable(True)) for field in before), *new])


def demand_unchanged(file: DataFile) -> None:
    """Raise if a file is not as it was listed."""
    now = file.storage.entry(file.place)
    if now is None or file_read(now) != file_read(file.entry()):
        raise RetriableError(f"{file.label} changed while it was read: move only finished files into this folder")


def _compared(listing: Listing, known: KnownFiles) -> tuple[list[int | None], list[int]]:
    """Return the places of the files that are not as they are known, among those that are known and those listed.

    A hash of the content says more than the time.
    """
    before = pc.index_in(texts_of(listing.names), value_set=known.paths)
    etags, times = texts_of(listing.etags), [NO_TIME if time is None else time for time in listing.times]
    is_same = pc.equal(integers_of(listing.sizes), known.sizes.take(before))
    is_same = pc.and_(is_same, pc.equal(etags, known.etags.take(before)))
    has_hash = pc.greater(pc.binary_length(etags), pc.constant(0, pa.int32()))
    is_same_time = pc.equal(integers_of(times), known.times().take(before))
    is_same = pc.and_(is_same, pc.or_(has_hash, is_same_time))
    new = pc.indices_nonzero(pc.invert(pc.coalesce(is_same, pc.constant(False))))
    return before.take(new).to_pylist(), new.to_pylist()


def _order(file: DataFile) -> tuple[datetime, str]:
    return file.entry().modified or datetime.min.replace(tzinfo=UTC), file.name


def file_read(entry: Entry) -> FileRead:
    """Return what is kept of a file."""
    return FileRead(entry.name, entry.size_bytes, _text(entry.modified), entry.etag)


def _text(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat(timespec="microseconds")
