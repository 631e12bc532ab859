"""Parquet files that go over as they are: pages are copied, and only the footer is written again where it must be.

On the wire `parquet` a file is one block with the length of its body and its footer, then blocks of the body: all bytes
between the magic number at its start and the footer. Several files become one, whose footer has all their row groups,
each moved by as much as its file's body is. A footer is a Thrift struct in the compact protocol; it is kept whole, with
whatever nobody here knows.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Generator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet

from ..errors import FatalConnectorError, RetriableError
from ..protocols import Block
from .paths import DataFile
from .ranges import Seen
from .settings import BLOCK_BYTES
from .thrift import BINARY, LIST, STRUCT, Struct, parse, written

#: The wire's name.
WIRE = "parquet"

MAGIC = b"PAR1"

#: Files whose row groups are smaller on average are not joined as they are: readers would pay for each of them.
LEAST_GROUP_BYTES = 1 << 20

#: Bytes behind the footer: its length and the magic number.
_TAIL_BYTES = 8

#: Fields of the footer (FileMetaData in parquet.thrift).
_RECORDS, _GROUPS, _NOTES, _CIPHER = 3, 4, 5, 8
#: Fields that are places in the file: of a row group, of a column in it, and of that column's metadata.
_GROUP_PLACES, _COLUMN_PLACES, _METADATA_PLACES = (5,), (2,), (9, 10, 11, 14)
_COLUMNS, _METADATA, _ORDINAL = 1, 3, 7
#: Of a column in a row group: where its page index is, which itself holds places and is left out where pages move.
_INDEXES = (4, 5, 6, 7)
#: The note in which Arrow keeps the types that Parquet lacks.
_ARROW = b"ARROW:schema"
_MOST_ORDINAL = 2**15 - 1


def metadata_of(header: Block) -> pyarrow.parquet.FileMetaData:
    """Return what the first block of a file says about it."""
    return pyarrow.parquet.read_metadata(pa.BufferReader(_whole(bytes(header[_TAIL_BYTES:]))))


def blocks(file: DataFile) -> Generator[bytes, None, None]:
    """Yield a file for the wire.

    Raises:
        RetriableError: it changed meanwhile.
    """
    seen = Seen.of(file)
    with file.open_raw() as opened:
        footer, end = _footer(file, opened)
        yield struct.pack("<q", end - len(MAGIC)) + footer
        opened.seek(len(MAGIC))
        left = end - len(MAGIC)
        while left:
            block = opened.read(min(left, BLOCK_BYTES))
            if not block:
                raise RetriableError(f"{file.label} became shorter while it was read")
            left -= len(block)
            yield block
    seen.check()


def _footer(file: DataFile, opened: BinaryIO) -> tuple[bytes, int]:
    """Return the footer and where it begins."""
    size = opened.seek(0, 2)
    opened.seek(max(size - _TAIL_BYTES, 0))
    tail = opened.read(_TAIL_BYTES)
    start = size - _TAIL_BYTES - int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or start < len(MAGIC):
        raise RetriableError(f"{file.label} is no Parquet file any more: no footer at its end")
    opened.seek(start)
    parts, left = [], size - _TAIL_BYTES - start
    while left and (part := opened.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts), start


def _whole(footer: bytes) -> bytes:
    """Return a file of nothing but a footer."""
    return MAGIC + footer + len(footer).to_bytes(4, "little") + MAGIC


class Joiner:
    """Writes files of one schema into one file, in the order in which they come."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        #: Footers, and how far each file's pages have moved.
        self._footers: list[tuple[bytes, int]] = []
        self._first: Struct | None = None
        self._place = len(MAGIC)
        self._left = 0
        sink.write(MAGIC)

    def takes(self, block: Block) -> bool:
        """Tell whether a block goes on with this file: with the body under way, or with a file like the first one."""
        if self._left or not self._footers:
            return True
        if self._first is None:
            self._first = parse(self._footers[0][0])
        return _kind(self._first) == _kind(parse(bytes(block[_TAIL_BYTES:]))) and not _is_bound(self._first)

    def write(self, block: Block) -> pyarrow.parquet.FileMetaData | None:
        """Take the next block; return what the file says about itself that begins with it."""
        if self._left:
            self._left -= len(block)
            if self._left < 0:
                raise FatalConnectorError("a Parquet file is longer than it said")
            self._sink.write(block)
            self._place += len(block)
            return None
        (self._left,) = struct.unpack_from("<q", block)
        self._footers.append((bytes(block[_TAIL_BYTES:]), self._place - len(MAGIC)))
        return metadata_of(block)

    def close(self) -> None:
        """Write the footer: the file's own if there is only one."""
        if self._left or not self._footers:
            raise FatalConnectorError("a Parquet file ended before its end")
        footer = self._footers[0][0] if len(self._footers) == 1 else joined(self._footers)
        self._sink.write(_whole(footer)[len(MAGIC) :])

    def abandon(self) -> None:
        """Nothing is held back."""


def joined(footers: list[tuple[bytes, int]]) -> bytes:
    """Return one footer for files whose bodies stand behind each other, each moved by so many bytes."""
    files = [(parse(footer), moved) for footer, moved in footers]
    whole: Struct = dict(files[0][0])
    groups: list[Struct] = []
    records = 0
    for file, moved in files:
        records += file[_RECORDS][1]
        for group in file[_GROUPS][1][1]:
            _move(group, moved, len(groups))
            groups.append(group)
    whole[_RECORDS] = (whole[_RECORDS][0], records)
    whole[_GROUPS] = (LIST, (STRUCT, groups))
    if _NOTES in whole:
        whole[_NOTES] = (LIST, (STRUCT, _common([file for file, _ in files])))
    return written(whole)


def _common(files: Sequence[Struct]) -> list[Struct]:
    """Return what may be said of all files together: notes that each of them has, and the first one's Arrow types."""
    first, *others = [file[_NOTES][1][1] if _NOTES in file else [] for file in files]
    kept = [note for note in first if all(note in notes for notes in others) and note[1][1] != _ARROW]
    types = [note for note in first if note[1][1] == _ARROW]
    return kept + [{1: note[1], 2: (BINARY, _with_notes(note[2][1], kept))} for note in types]


def _with_notes(encoded: bytes, kept: Sequence[Struct]) -> bytes:
    """Return Arrow's types with those notes only, since they hold all of them once more."""
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))
    notes = {note[1][1]: note[2][1] for note in kept if 2 in note}
    return base64.b64encode(schema.with_metadata(notes or None).serialize())


def _kind(footer: Struct) -> Struct:
    """Return what files must have in common to become one: the schema, the version, and who wrote them."""
    return {number: field for number, field in footer.items() if number not in (_RECORDS, _GROUPS, _NOTES)}


def _is_bound(footer: Struct) -> bool:
    """Tell whether pages cannot move, since they are encrypted: the key's use depends on their place."""
    return any(number >= _CIPHER for number in footer)


def _move(group: Struct, moved: int, place: int) -> None:
    _shift(group, _GROUP_PLACES, moved)
    if _ORDINAL in group:
        if place > _MOST_ORDINAL:
            del group[_ORDINAL]
        else:
            group[_ORDINAL] = (group[_ORDINAL][0], place)
    for column in group[_COLUMNS][1][1]:
        for number in _INDEXES:
            column.pop(number, None)
        _shift(column, _COLUMN_PLACES, moved)
        if _METADATA in column:
            _shift(column[_METADATA][1], _METADATA_PLACES, moved)


def _shift(fields: Struct, numbers: tuple[int, ...], moved: int) -> None:
    for number in numbers:
        if number in fields and fields[number][1] > 0:  # 0: there is none
            kind, place = fields[number]
            fields[number] = (kind, place + moved)


__all__ = ["LEAST_GROUP_BYTES", "WIRE", "Joiner", "blocks", "metadata_of"]
