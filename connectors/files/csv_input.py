"""Read the bytes of a CSV file of any encoding, with any line ends and delimiter."""

from __future__ import annotations

import atexit
import codecs
import csv
import io
import re
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from typing import BinaryIO, Literal

import pyarrow as pa

from ..errors import FatalConnectorError
from .csv_plain import PlainCSV
from .formats import unreadable
from .paths import UNREADABLE, DataFile, marked_encoding

_CHUNK_BYTES = 1 << 16
_DELIMITERS = (",", ";", "\t", "|")

#: First line that says the delimiter, and its most bytes.
_SAID, _SAID_BYTES = re.compile(rb"sep=(\\t|[\t !#-/:-@[-`{-~])(?:\r\n?|\n|\Z)", re.IGNORECASE), len("sep=\\t\r\n")

#: Blocks that Arrow's parser needs before it yields a batch.
LEAST_AHEAD = 3

#: Seconds that a read waits for a batch that, unexpectedly, does not come without the read.
_PATIENCE_S = 2.0

#: Seconds that a read takes to leave Python.
_LEAVING_S = 0.05

#: Inputs whose reads may be waiting.
_open: weakref.WeakSet[Input] = weakref.WeakSet()


def mark_before(data: bytes | bytearray) -> bytes:
    """Return a second byte order mark if the data begin with one: the parser drops the first that it meets."""
    return codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""


class Input(io.RawIOBase):
    """A file's bytes as UTF-8 without a byte order mark; lines can be taken off the front.

    Arrow's parser reads up to 32 blocks ahead in a thread of its own. Here it reads at most `ahead` blocks past the
    batches that were taken, unless the next batch needs more.
    """

    #: What Python closes if the file cannot be opened.
    _raw: BinaryIO = io.BytesIO()

    def __init__(
        self, file: DataFile, encoding: str, quote: str = "", ahead: int = LEAST_AHEAD, *, is_checked: bool = False
    ) -> None:
        super().__init__()
        _open.add(self)
        self._ahead = ahead
        self._changed = threading.Condition()
        self._is_wanted = True
        self._is_stopped = False
        self._waiting = 0
        self.file = file
        #: Whether an odd number of quotes was read, not counting the lines taken.
        self.is_quote_open = False
        self._quote = quote.encode()
        self._raw = file.open()
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        #: Checks what Arrow does not: it makes a text of a record with a wrong number of fields without looking.
        self._validator = codecs.getincrementaldecoder("utf-8")() if is_checked and self._decoder is None else None
        self._buffer = b""
        self._is_over = False
        #: Lines that were taken from the front.
        self.lines_taken = 0
        self._plain: PlainCSV | None = None
        self._have(len(codecs.BOM_UTF32_LE))
        if self._decoder is None and (marked := marked_encoding(self._buffer)):
            raise FatalConnectorError(
                f"{file.label}: begins like a {marked.upper()} file: set `config.encoding: {marked}`", key="encoding"
            )
        self._buffer = self._buffer.removeprefix(codecs.BOM_UTF8)

    def make_plain(self, plain: PlainCSV) -> None:
        """Return the bytes that were not taken yet as plain CSV."""
        self._plain = plain
        self._buffer = plain.made(self._buffer, is_last=self._is_over)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the parser's next block, if possible without a copy."""
        assert size is not None, "the parser asks for a block"
        if not self._may_read():
            return b""
        self._have(size)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        if self._quote:
            self.is_quote_open ^= data.count(self._quote) % 2 == 1
        return data

    def _may_read(self) -> bool:
        with self._changed:
            self._waiting += 1
            while self._ahead <= 0 and not self._is_stopped:
                is_wanted = self._is_wanted
                if not self._changed.wait(_PATIENCE_S if is_wanted else None) and is_wanted:
                    break
            self._waiting -= 1
            self._ahead -= 1
            return not self._is_stopped

    def parsed(self, reader: Iterator[pa.RecordBatch]) -> Generator[pa.RecordBatch]:
        """Yield the parser's batches; while a batch is asked for, the parser may read what it needs."""
        try:
            while True:
                self._want(True)
                batch = next(reader, None)
                self._want(False)
                if batch is None:
                    return
                yield batch
                del batch  # not held while the next one is made
        finally:
            self._stop()

    def _want(self, is_wanted: bool) -> None:
        with self._changed:
            self._is_wanted = is_wanted
            self._ahead += not is_wanted
            self._changed.notify_all()

    def _stop(self) -> None:
        """End the parser's reads: the rest of the file is not needed."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def lines(self) -> Iterator[str]:
        """Yield lines with their ends and take no further byte; bytes that are no UTF-8 become lone surrogates."""
        while line := self._line():
            self.lines_taken += 1
            yield line.decode("utf-8", "surrogateescape")

    def take_said_delimiter(self, wanted: str | None) -> str:
        """Take a first line `sep=;` off the front, by which Excel knows the delimiter.

        Return the delimiter; empty: there is no such line, or the line says another delimiter than the wanted one.
        """
        self._have(_SAID_BYTES)
        line = _SAID.match(self._buffer)
        said = "" if line is None else line[1].decode().replace("\\t", "\t")
        if line is None or wanted not in (None, said):
            return ""
        self._buffer = self._buffer[line.end() :]
        self.lines_taken += 1
        return said

    def take(self, size: int) -> bytes:
        """Return some of the next bytes, about so many at most; none at the end."""
        while not self._buffer and not self._is_over:
            self._fill(size)
        data, self._buffer = self._buffer, b""
        return data

    def keep_mark(self) -> None:
        """Let the parser keep a mark (U+FEFF) that the next text begins with, as it keeps those of later texts."""
        self._have(len(codecs.BOM_UTF8))
        self._buffer = mark_before(self._buffer) + self._buffer

    def is_at_end(self) -> bool:
        self._have(1)
        return not self._buffer

    def close(self) -> None:
        self._stop()
        if not self.closed:
            self._raw.close()
        super().close()

    def end(self) -> None:
        """End all waiting reads: the process ends, and a read inside Python would abort it."""
        if self._waiting:
            self._stop()
            time.sleep(_LEAVING_S)

    def _line(self) -> bytes:
        begun: list[bytes] = []
        while True:
            held = self._buffer
            place = min((place for end in (b"\n", b"\r") if (place := held.find(end)) >= 0), default=-1)
            is_cut = place + 1 == len(held) and held[place:] == b"\r"  # perhaps the first of a pair
            if place >= 0 and (self._is_over or not is_cut):
                size = place + (2 if held[place : place + 2] == b"\r\n" else 1)
            elif self._is_over:
                size = len(held)
            else:
                size = max(place, 0) if is_cut else len(held)
                begun.append(held[:size])
                self._buffer = held[size:]
                self._fill(_CHUNK_BYTES)
                continue
            self._buffer = held[size:]
            return b"".join([*begun, held[:size]])

    def _have(self, size: int) -> None:
        """Have so many bytes, or all there are: a storage may give few at a time, and a decoder none of them."""
        while len(self._buffer) < size and not self._is_over:
            self._fill(max(size - len(self._buffer), _CHUNK_BYTES))

    def _fill(self, size: int) -> None:
        try:
            chunk = self._raw.read(size)
            self._is_over = not chunk
            if self._validator is not None:
                self._check(self._validator, chunk)
            text = chunk if self._decoder is None else self._decoder.decode(chunk, final=not chunk).encode()
            self._buffer += text if self._plain is None else self._plain.made(text, is_last=not chunk)
        except UnicodeError as error:
            raise FatalConnectorError(
                f"{self.file.label}: does not match `config.encoding`: {error}", key="encoding"
            ) from error
        except UNREADABLE as error:
            if isinstance(error.__cause__, UnicodeError):
                raise
            raise unreadable(self.file, error) from error

    def _check(self, validator: codecs.IncrementalDecoder, chunk: bytes) -> None:
        """Raise `pa.ArrowInvalid`, as the parser does of other records, for bytes that are no UTF-8."""
        try:
            validator.decode(chunk, final=not chunk)
        except UnicodeError as error:
            raise pa.ArrowInvalid("invalid UTF8 data") from error


def _end_all() -> None:
    for source in list(_open):
        source.end()


atexit.register(_end_all)


def delimiter_of(line: str, default: str, quote: str) -> str:
    """Return the delimiter of a file's first line: the default, unless only another one finds several fields."""

    def count(delimiter: str) -> int:
        if delimiter == quote:  # which Python's parser refuses since 3.13; at the begin of a line it is the quote
            return 1 if line.startswith(quote) else line.count(quote) + 1
        row = next(csv.reader([line], delimiter=delimiter, quotechar=quote or None, quoting=_quoting(quote)), [])
        return len(row)

    return max((default, *_DELIMITERS), key=count) if count(default) == 1 else default


def _quoting(quote: str) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE


__all__ = ["LEAST_AHEAD", "Input", "delimiter_of"]
