"""Split a stream of files into ranges: by files, a large CSV file by bytes, a Parquet file by row groups.

A CSV file is split after line ends outside quotes, found by counting quotes. A stray quote (`5" pipe`) makes the count
wrong. So each part but the last ends in one additional record, the mark. The parser returns the mark as a record only
if the part ended between two records, and then the next part began at a record. Otherwise the stream is read as a
whole.
"""

from __future__ import annotations

import codecs
import io
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import pyarrow as pa
from msgspec import Struct

from ..errors import RetriableError
from ..ranges import RangesRefused, SnapshotLost
from ..struct_helpers import replace
from .paths import DataFile, compression

_CHUNK_BYTES = 1 << 20
#: Bytes of each end of a file, by which it is recognised.
_END_BYTES = 4096


@dataclass(slots=True, unsafe_hash=True)
class FilePart(DataFile):
    """Some bytes or some row groups of a file."""

    start: int = 0
    end: int | None = None
    #: Number of columns of the mark at the end; 0: there is no mark.
    marked: int = 0
    delimiter: str = ","
    mark: str = field(default_factory=lambda: secrets.token_hex(16))
    #: Row groups, ascending.
    groups: Sequence[int] | None = None

    def open(self) -> BinaryIO:
        """Open its bytes, followed by the mark."""
        raw = DataFile.open(self)
        if self.end is None and not self.start:
            return raw
        tail = (self.delimiter.join([self.mark] * self.marked) + "\n").encode() if self.marked else b""
        return cast("BinaryIO", io.BufferedReader(_Window(raw, self.start, self.end, tail), _CHUNK_BYTES))


class _Window(io.RawIOBase):
    """Some bytes of a file, followed by a mark."""

    def __init__(self, raw: BinaryIO, start: int, end: int | None, tail: bytes) -> None:
        super().__init__()
        self._raw = raw
        self._left = None if end is None else end - start
        self._tail = tail
        raw.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        size = len(target) if self._left is None else min(len(target), self._left)
        data = self._raw.read(size) if size else b""
        if self._left is not None:
            self._left -= len(data)
        if not data:
            data, self._tail = self._tail[: len(target)], self._tail[len(target) :]
        target[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def part_of(file: DataFile, **changes: Any) -> FilePart:
    """Return a part of a file."""
    return FilePart(
        storage=file.storage,
        name=file.name,
        moved_from=file.moved_from,
        folders=file.folders,
        schema=file.schema,
        listed=file.listed,
        member=file.member,
        levels=file.levels,
        **changes,
    )


def cut(file: DataFile, count: int, quote: str) -> list[int]:
    """Return where the parts of a text file begin: at 0, and after line ends outside quotes."""
    size, mark = file.size_bytes(), quote.encode()
    targets = [size * place // count for place in range(1, count)]
    found, offset, is_quoted = [0], 0, False
    with file.open_raw() as opened:
        while targets and (chunk := opened.read(_CHUNK_BYTES)):
            place = 0
            while targets and targets[0] < offset + len(chunk):
                begin = max(targets[0] - offset, place)
                is_quoted ^= _is_odd(chunk, mark, place, begin)
                end = chunk.find(b"\n", begin)
                if end < 0:
                    place = begin
                    break
                is_quoted ^= _is_odd(chunk, mark, begin, end)
                place = end + 1
                # The parser would drop a byte order mark here; one at the end of the chunk could not be seen.
                if is_quoted or chunk[place : place + 3] == codecs.BOM_UTF8 or place + 3 > len(chunk):
                    targets[0] = offset + place
                    continue
                found.append(offset + place)
                targets = [target for target in targets if target >= offset + place]
            is_quoted ^= _is_odd(chunk, mark, place, len(chunk))
            offset += len(chunk)
    return [place for place in found if place < size]


def _is_odd(chunk: bytes, mark: bytes, start: int, end: int) -> bool:
    return bool(mark) and chunk.count(mark, start, end) % 2 == 1


def without_mark(part: FilePart, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the records of a part without its mark.

    Raises:
        RangesRefused: the mark was not parsed as a record.
    """
    held: pa.RecordBatch | None = None
    for batch in batches:
        if held is not None:
            yield held
        held = batch
    last = held.num_rows - 1 if held is not None else -1
    if held is None or any(column[last].as_py() != part.mark for column in held.columns):
        raise RangesRefused(f"{part.label} cannot be split by bytes: a quote in it does not begin a quoted field")
    yield held.slice(0, last)


class Seen(Struct, frozen=True):
    """State of a file at one moment, to notice that the file has changed since."""

    file: DataFile
    #: None: it cannot be recognised.
    stamp: tuple[Any, ...] | None
    #: Bytes at both ends, which do not change by an append; empty: they are not compared.
    ends: bytes = b""

    @classmethod
    def of(cls, file: DataFile) -> Seen:
        """Note the state of a file that must not change, see `check`."""
        return cls(file, _stamp(file) or _stamp_of_store(file))

    @classmethod
    def growing(cls, file: DataFile) -> Seen:
        """Note the state of a file that may be appended to, see `check_whole`."""
        stamp = _stamp(file)
        return cls(file, stamp, b"" if stamp is None else _ends(file, stamp[2]))

    def check(self) -> None:
        """Raise if the file has changed since."""
        if self.stamp is None:
            return
        if self.stamp != (_stamp(self.file) or _stamp_of_store(replace(self.file, listed=None))):
            raise SnapshotLost(f"{self.file.label} changed while it was read")

    def check_whole(self) -> None:
        """Raise if the bytes that were read have changed since.

        An append, as to a log, is no change: a later run reads it. A file that replaced this one is a change.
        """
        with suppress(FileNotFoundError):
            now = _stamp(self.file)
            if now is None or self.stamp is None or now[:2] != self.stamp[:2]:
                return
            (*_, size, time), (*_, size_now, time_now) = self.stamp, now
            is_same = time_now == time if size_now == size else size_now > size and _ends(self.file, size) == self.ends
            if not is_same:
                raise RetriableError(
                    f"{self.file.label} was rewritten while it was read: move finished files into the folder"
                )


def _stamp(file: DataFile) -> tuple[Any, ...] | None:
    """Return what changes with a local file."""
    if not file.is_local:
        return None
    found = os.stat(file.storage.label(file.place))  # noqa: PTH116 (a name in a storage)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _stamp_of_store(file: DataFile) -> tuple[Any, ...] | None:
    """Return what changes with a file of a store: a hash of the content says more than the time."""
    entry = file.entry()
    mark = entry.etag or (entry.modified and entry.modified.isoformat())
    return (entry.size_bytes, mark) if mark else None


def _ends(file: DataFile, size: int) -> bytes:
    with file.open_raw() as opened:
        first = opened.read(min(size, _END_BYTES))
        opened.seek(max(0, size - _END_BYTES))
        return first + opened.read(min(size, _END_BYTES))


def is_cuttable(file: DataFile, encoding: str, escape: str | None) -> bool:
    """Tell whether a CSV file can be cut by bytes."""
    return file.is_local and not file.member and compression(file.name) is None and encoding == "utf-8" and not escape


__all__ = ["FilePart", "Seen", "cut", "is_cuttable", "part_of", "without_mark"]
