"""The wire `singer`: a tap's lines go to a target as they are; only other messages than RECORDs are parsed.

Records of a stream with a replication key are parsed, too: the hashes of those at the bookmark are kept, and records
that were committed before are not sent again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
import pyarrow as pa

from ..programs.line_reader import HEAD_BYTES
from ..programs.records import MALFORMED
from ..stream import Stream
from .lines import RecordLines, to_line
from .reader import RECORD, Message, TapReader
from .tap_stream import TapStream

WIRE = "singer"

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class RawLines(bytes):
    """Whole lines of one stream, as its tap wrote them: RECORDs, or one SCHEMA or ACTIVATE_VERSION."""

    kind: Literal["RECORD", "SCHEMA", "ACTIVATE_VERSION"]
    #: The common beginning of every RECORD, up to `"record"`; empty: they differ.
    head: bytes
    records: int

    @classmethod
    def of(
        cls, data: bytes, kind: Literal["RECORD", "SCHEMA", "ACTIVATE_VERSION"], *, head: bytes = b"", records: int = 0
    ) -> RawLines:
        """Make a block; add a missing line feed at the end."""
        made = cls(data if data.endswith(b"\n") else data + b"\n")
        made.kind, made.head, made.records = kind, head, records
        return made


class RawReader(TapReader):
    """A reader that passes on each stream's lines instead of batches."""

    def _schema(self, message: Message, number: int) -> Iterator[tuple[str, Any]]:
        tap_stream = self._called(self._stream_of(message, number), number, needs_schema=False)
        if tap_stream is not None:
            yield from self._flush(tap_stream)
        for _ in super()._schema(message, number):
            pass  # the line itself declares the new columns
        if tap_stream is not None:
            said = {
                "type": "SCHEMA",
                "stream": tap_stream.called,
                "schema": message.schema,
                "key_properties": message.key_properties,
                "bookmark_properties": message.bookmark_properties,
            }
            line = to_line({name: value for name, value in said.items() if value is not None})
            yield tap_stream.stream.name, RawLines.of(line, "SCHEMA")

    def _activate(self, message: Message, number: int) -> Iterator[tuple[str, Any]]:
        tap_stream = self._called(self._stream_of(message, number), number, needs_schema=True)
        if tap_stream is not None:
            yield from self._flush(tap_stream)
            line = to_line({"type": message.type, "stream": tap_stream.called, "version": message.version})
            yield tap_stream.stream.name, RawLines.of(line, "ACTIVATE_VERSION")

    def _records(
        self, stream: TapStream, block: bytes, numbers: Sequence[int], *, is_wrapped: bool = True, file: str = ""
    ) -> Iterator[tuple[str, Any]]:
        if not is_wrapped:  # from a file: a target may not know BATCH
            for name, event in super()._records(stream, block, numbers, is_wrapped=False, file=file):
                if not isinstance(event, Stream):
                    yield name, event
            return
        count = len(numbers)
        if stream.is_incremental and stream.resent.column is not None:
            kept = self._kept(stream, block, numbers)
            if kept is not None:
                texts = [text for text in block.split(b"\n") if text.strip()]
                block = b"\n".join(text for text, is_kept in zip(texts, kept, strict=True) if is_kept)
                count = sum(kept)
        stream.pending += count
        if count:
            yield stream.stream.name, RawLines.of(block, "RECORD", head=_head(block, count), records=count)

    def _kept(self, stream: TapStream, block: bytes, numbers: Sequence[int]) -> list[bool] | None:
        """Return which records were not committed before; None: all."""
        for batch in self._parsed(stream, block, numbers):
            if isinstance(batch, pa.RecordBatch):
                mask = stream.resent.mark(stream.conform(batch))
                return None if mask is None else mask.to_pylist()
        return None

    def batches(self, stream: TapStream, batch: pa.RecordBatch) -> Iterator[tuple[str, Any]]:
        """Write a file's records as lines."""
        writer = RecordLines(stream.called)
        for _, part in super().batches(stream, batch):
            assert isinstance(part, pa.RecordBatch)
            data = b"".join(writer.write(part))
            yield (
                stream.stream.name,
                RawLines.of(data, "RECORD", head=_head(data, part.num_rows), records=part.num_rows),
            )


def _head(block: bytes, count: int) -> bytes:
    """Return the common beginning of all lines, if it has all keys but the record."""
    place = block.find(RECORD, 0, HEAD_BYTES)
    head = block[:place] if place > 0 else b""
    is_common = head and b"\n" not in head and block.count(b"\n" + head + RECORD) == count - 1
    return head if is_common and "stream" in _pairs(head) else b""


def _pairs(head: bytes) -> dict[str, Any]:
    """Return the keys and values before the record."""
    try:
        found = json.loads(head + b'"":0}')
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if key} if isinstance(found, dict) else {}


def first_version(lines: RawLines) -> Any:
    """Return the version of the first RECORD."""
    line = lines[: lines.find(b"\n")]
    try:
        return msgspec.json.decode(_fields.decode(line).get("version", b"null"))
    except MALFORMED:
        return None


def addressed(lines: RawLines, stream: str, version: int | None) -> bytes:
    """Return RECORDs under another stream name, and with a version if one is given."""
    if lines.head:
        pairs = _pairs(lines.head)
        if pairs["stream"] == stream and version is None:
            return lines
        pairs = {**pairs, "stream": stream, **({} if version is None else {"version": version})}
        head = to_line(pairs).rstrip()[:-1] + b","
        return head + lines[len(lines.head) :].replace(b"\n" + lines.head + RECORD, b"\n" + head + RECORD)
    return b"".join(_addressed(line, stream, version) for line in lines.split(b"\n") if line.strip())


def _addressed(line: bytes, stream: str, version: int | None) -> bytes:
    try:
        found: dict[str, Any] = dict(_fields.decode(line))
    except MALFORMED:
        found = json.loads(line)  # NaN and infinities, as Python's JSON writer writes them
        return (
            json.dumps({**found, "stream": stream, **({} if version is None else {"version": version})}).encode()
            + b"\n"
        )
    return to_line({**found, "stream": stream, **({} if version is None else {"version": version})})


__all__ = ["WIRE", "RawLines", "RawReader", "addressed", "first_version"]
