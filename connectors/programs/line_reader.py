"""Turn blocks of lines into events of streams: records by whole blocks, other messages one by one."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa

from ..errors import FatalConnectorError
from ..stream import Event, Rejected, Stream
from .line_stream import LineStream
from .numbers import Wider
from .records import MalformedRecord
from .rejected import parse_or_reject

#: Most records of a batch.
BATCH_RECORDS = 65_536

#: Most beginnings of lines to remember: a program that writes a time before the record has one for each line.
_MAX_HEADS = 4096
HEAD_BYTES = 512

_NOT_KNOWN = object()
_NO_HEAD = object()

LineStreamT = TypeVar("LineStreamT", bound=LineStream)


class LineReader(ABC, Generic[LineStreamT]):
    """Turns the output of one run of a program into events.

    Args:
        label: the program, for errors: `tap tap-jsonl`.
        streams: the selected streams by name.
        on_wider: called with a stream's wider columns when a new one is found.
    """

    _connector: ClassVar[str]
    #: The key before a record as it stands in a line.
    _key: ClassVar[bytes]
    #: Makes a message of all before a record.
    _end: ClassVar[bytes]

    def __init__(
        self,
        label: str,
        streams: Mapping[str, LineStreamT],
        on_wider: Callable[[str, Mapping[str, Any]], None] = lambda stream, wider: None,
    ) -> None:
        self._label = label
        self._streams = dict(streams)
        self._on_wider = on_wider
        self._heads: dict[bytes, Any] = {}
        self._last_head = b""
        #: Number of the last line read.
        self.line = 0

    @abstractmethod
    def _message(self, number: int, line: bytes) -> Iterator[tuple[str, Event]]:
        """Yield the events of one message; a record is added to the lines of its stream."""

    @abstractmethod
    def _stream_by(self, head: Mapping[str, Any], number: int) -> LineStreamT | None:
        """Return the stream of a RECORD without its record; None: the stream is not selected.

        Raises:
            LookupError: the message does not tell, or is no RECORD.
        """

    def _block(self, block: bytes) -> Iterator[tuple[str, Event]]:
        first = self.line + 1
        if first == 1:
            block = block.removeprefix(b"\xef\xbb\xbf")
        count = block.count(b"\n") + (not block.endswith(b"\n"))
        self.line += count
        head = self._last_head
        if head and block.startswith(head) and block.count(b"\n" + head) == count - 1:
            stream: Any = self._heads[head[: -len(self._key)]]
            if stream is not None:
                yield from self._records(stream, block, range(first, first + count))
            return
        heads, last = self._heads, b""
        for number, line in enumerate(block.split(b"\n"), first):
            place = line.find(self._key, 0, HEAD_BYTES)
            if place > 0:
                start = line[:place]
                stream = heads.get(start, _NOT_KNOWN)
                if stream is _NOT_KNOWN:
                    stream = self._learn(start, number)
                if stream is not _NO_HEAD:
                    if stream is not None:
                        stream.lines.append(line)
                        stream.numbers.append(number)
                    last = start
                    continue
            if line and not line.isspace():
                yield from self._message(number, line)
        if last:
            self._last_head = last + self._key
        for stream in self._streams.values():
            yield from self._flush(stream)

    def _learn(self, start: bytes, number: int) -> Any:
        """Return the stream of all lines with this beginning; `_NO_HEAD`: the beginning does not tell."""
        found: Any = _NO_HEAD
        with contextlib.suppress(ValueError, RecursionError, LookupError):
            found = self._stream_by(json.loads(start + self._end, object_pairs_hook=_unambiguous), number)
        if len(self._heads) < _MAX_HEADS:
            self._heads[start] = found
        return found

    def _flush(self, stream: LineStreamT) -> Iterator[tuple[str, Event]]:
        if not stream.lines:
            return
        lines, numbers = stream.lines, stream.numbers
        stream.lines, stream.numbers = [], []
        yield from self._records(stream, b"\n".join(lines), numbers)

    def _records(
        self, stream: LineStreamT, block: bytes, numbers: Sequence[int], *, is_wrapped: bool = True, file: str = ""
    ) -> Iterator[tuple[str, Event]]:
        for event in self._parsed(stream, block, numbers, is_wrapped=is_wrapped, file=file):
            if isinstance(event, pa.RecordBatch):
                yield from self.batches(stream, event)
            else:
                yield stream.stream.name, event

    def _parsed(
        self, stream: LineStreamT, block: bytes, numbers: Sequence[int], *, is_wrapped: bool = True, file: str = ""
    ) -> Iterator[Stream | pa.RecordBatch | Rejected]:
        """Parse lines of one stream; yield the stream first if a value needs a wider column."""
        limit = stream.stream.read.max_rejected
        while True:
            parser = stream.parser(is_wrapped=is_wrapped)
            try:
                yield parser.parse(block, numbers)
                return
            except Wider as wider:
                changed = self._widen(stream, wider)
            except MalformedRecord as malformed:
                if limit is None:
                    place = f"of file {file} " if file else ""
                    raise self._error(
                        malformed.line,
                        f"{place}{malformed}",
                        stream.stream.name,
                        without_values=malformed.without_values and f"{place}{malformed.without_values}",
                    ) from malformed
                try:
                    yield from parse_or_reject(parser, block, numbers, limit, file or self._label)
                    return
                except Wider as wider:
                    changed = self._widen(stream, wider)
            if changed is not None:
                yield changed

    def _widen(self, stream: LineStreamT, wider: Wider) -> Stream | None:
        changed = stream.widen(wider.column, wider.kind)
        self._on_wider(stream.stream.name, stream.wider())
        return changed

    def batches(self, stream: LineStreamT, batch: pa.RecordBatch) -> Iterator[tuple[str, Event]]:
        """Yield the records of a batch that were not committed before, in pieces."""
        batch = stream.conform(batch)
        if stream.is_incremental:
            batch = stream.resent.take(batch)
        stream.pending += batch.num_rows
        for start in range(0, batch.num_rows, BATCH_RECORDS):
            yield stream.stream.name, batch.slice(start, BATCH_RECORDS)

    def _error(
        self, line: int, reason: str, stream: str = "", *, without_values: str = "", has_no_values: bool = False
    ) -> FatalConnectorError:
        where = f"{self._label}, stream {stream!r}" if stream else self._label
        clear = reason if has_no_values else without_values
        return FatalConnectorError(
            f"{where}: line {line} {reason}",
            connector=self._connector,
            stream=stream,
            without_values=clear and f"{where}: line {line} {clear}",
        )


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a mapping; raise if a key is there twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise LookupError("a key is there twice")
    return found


__all__ = ["BATCH_RECORDS", "HEAD_BYTES", "LineReader"]
