"""How large the record batches of an Arrow IPC file are once decompressed, told before anything is decompressed.

Each compressed buffer begins with its length. The library believes it and allocates as much: a file of some kilobytes
may say gigabytes, and be right.

Source: Arrow columnar format, "Serialization and Interprocess Communication"; the tables of Message.fbs and File.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

_MAGIC = b"ARROW1"
_CONTINUATION = b"\xff\xff\xff\xff"
#: Kinds of messages, by the number in their metadata.
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
#: Length of a buffer that was left as it is.
_NOT_COMPRESSED = -1


def check_decompressed(raw: IO[bytes], most_bytes: int) -> None:
    """Read the file's metadata; leave the file at its start.

    Args:
        raw: an Arrow file or stream, which can seek.
        most_bytes: for each record batch, and for all dictionaries together.

    Raises:
        ValueError: something is larger, or the metadata are damaged.
    """
    #: Number of a dictionary -> bytes of the last one and of what was added to it.
    dictionaries: dict[int, int] = {}
    try:
        for number, message in enumerate(_messages(raw), start=1):
            header = message.metadata.table(2)
            if message.kind == _RECORD_BATCH:
                size, what = _decompressed(raw, header, message.body_at), "a record batch"
            else:
                key, is_added = header.number(0, "q"), header.number(2, "B")
                before = dictionaries.get(key, 0) if is_added else 0
                dictionaries[key] = before + _decompressed(raw, header.table(1), message.body_at)
                size, what = sum(dictionaries.values()), "dictionaries"
            if size > most_bytes:
                raise ValueError(
                    f"batch {number}: {what} of {size:,} bytes after decompression; the maximum is {most_bytes:,}: "
                    "write smaller record batches"
                )
    except (struct.error, OverflowError) as error:
        raise ValueError("the metadata of the Arrow file is damaged") from error
    raw.seek(0)


def is_file(raw: IO[bytes]) -> bool:
    """Tell whether it is a file with a footer, else a stream; leave it at its start."""
    raw.seek(0)
    magic = raw.read(len(_MAGIC))
    raw.seek(0)
    return magic == _MAGIC


class _Table:
    """A table of a flatbuffer; fields go by their number."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._fields_at = at - self._unpack("i", at)

    def _unpack(self, form: str, at: int) -> Any:
        if at < 0:  # would count from the end
            raise struct.error
        return struct.unpack_from(f"<{form}", self._data, at)[0]

    def _place(self, field: int) -> int | None:
        """Return where a field is; None: it has its default."""
        at = 4 + 2 * field
        offset = self._unpack("H", self._fields_at + at) if at + 2 <= self._unpack("H", self._fields_at) else 0
        return self._at + offset if offset else None

    def has(self, field: int) -> bool:
        return self._place(field) is not None

    def number(self, field: int, form: str) -> int:
        place = self._place(field)
        return 0 if place is None else int(self._unpack(form, place))

    def table(self, field: int) -> _Table:
        place = self._place(field)
        if place is None:
            raise struct.error
        return _Table(self._data, place + self._unpack("I", place))

    def structs(self, field: int, form: str, size: int) -> Iterator[tuple[int, ...]]:
        """Yield the members of each struct of a vector."""
        place = self._place(field)
        if place is not None:
            at = place + self._unpack("I", place)
            for number in range(self._unpack("I", at)):
                yield struct.unpack_from(f"<{form}", self._data, at + 4 + number * size)


class _Message(NamedTuple):
    kind: int
    metadata: _Table
    body_at: int


def _messages(raw: IO[bytes]) -> Iterator[_Message]:
    """Yield the messages that hold buffers."""
    size_bytes = raw.seek(0, 2)
    for message in _of_file(raw, size_bytes) if is_file(raw) else _of_stream(raw, size_bytes):
        if message.kind in (_DICTIONARY_BATCH, _RECORD_BATCH):
            yield message


def _of_stream(raw: IO[bytes], size_bytes: int) -> Iterator[_Message]:
    at = 0
    while (message := _message(raw, at, size_bytes)) is not None:
        yield message
        body_bytes = message.metadata.number(3, "q")
        if body_bytes < 0:
            raise struct.error
        at = message.body_at + body_bytes


def _of_file(raw: IO[bytes], size_bytes: int) -> Iterator[_Message]:
    """Follow the footer, as a reader does."""
    raw.seek(max(0, size_bytes - 10))
    (footer_bytes,) = struct.unpack("<i", raw.read(4))
    if not 0 < footer_bytes <= size_bytes - 10:
        raise struct.error
    raw.seek(size_bytes - 10 - footer_bytes)
    footer = _root(raw.read(footer_bytes))
    for field in (2, 3):  # dictionaries, record batches
        for offset, metadata_bytes, _ in footer.structs(field, "qi4xq", 24):
            message = _message(raw, offset, size_bytes)
            if message is None or message.body_at != offset + metadata_bytes:
                raise struct.error
            yield message


def _message(raw: IO[bytes], at: int, size_bytes: int) -> _Message | None:
    """Return the message at a place; None: the end."""
    if at < 0:
        raise struct.error
    raw.seek(at)
    head = raw.read(4)
    if head == _CONTINUATION:
        head = raw.read(4)
    metadata_bytes = int.from_bytes(head, "little", signed=True)
    if len(head) < 4 or metadata_bytes == 0:
        return None
    if not 0 < metadata_bytes <= size_bytes:
        raise struct.error
    metadata = _root(raw.read(metadata_bytes))
    return _Message(metadata.number(1, "B"), metadata, raw.tell())


def _root(data: bytes) -> _Table:
    return _Table(data, struct.unpack_from("<I", data)[0])


def _decompressed(raw: IO[bytes], batch: _Table, body_at: int) -> int:
    """Return the bytes that a batch's compressed buffers say that they have, and 0 if it is not compressed."""
    size = 0
    if batch.has(3):
        for offset, length in batch.structs(2, "qq", 16):
            if length:
                raw.seek(body_at + offset if offset >= 0 else -1)
                (said,) = struct.unpack("<q", raw.read(8))
                size += length if said == _NOT_COMPRESSED else said
                if said < _NOT_COMPRESSED:
                    raise struct.error
    return size


__all__ = ["check_decompressed", "is_file"]
