"""Cut wide records out of a CSV file, one by one.

Arrow's parser holds several blocks at once, each as long as the longest record, and copies a value three times. Here a
wide record becomes a batch of its own, and its values are not copied. Fields and records end as in Arrow's lexer: a
quote counts only at the start of a field, is doubled within it, and text after the closing quote belongs to the field.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import pyarrow as pa

#: Most bytes of a record, unless the engine sets a lower limit.
MAX_RECORD_BYTES = 1 << 30

#: About how many bytes of records make a piece; a longer record is a piece of its own.
PIECE_BYTES = 4 << 20

#: State of the lexer: before a record, before a field, within a field, within a quoted field.
_RECORD, _FIELD, _TEXT, _QUOTED = range(4)


class TooLong(Exception):
    """A record is longer than the limit."""


class Records:
    """The rest of a file in pieces of whole records; a wide record is a piece of its own."""

    def __init__(
        self,
        read: Callable[[int], bytes],
        *,
        delimiter: str,
        quote: str,
        escape: str | None,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        """Begin at the start of a record.

        Args:
            read: returns the next bytes, at most about the given number; empty at the end.
            delimiter: one character.
            quote: one character; empty: no field is quoted, and each line end ends a record.
            escape: the character that escapes the next one; None: there is none.
            piece_bytes: about how many bytes of records make a piece.
        """
        self._read, self._piece_bytes = read, piece_bytes
        self._chunk_bytes = max(1, piece_bytes // 4)
        self._syntax = _Syntax(delimiter.encode(), quote.encode(), (escape or "").encode())
        self._state = _RECORD
        #: Bytes that were read, and the position up to which they were scanned.
        self._held, self._place = bytearray(), 0
        #: End of its last whole record, and of the first one if that began before the last read.
        self._end = self._first = 0
        self._opened = self._lines = 0
        #: Number of line ends before the last piece, or before the record that is too long.
        self.line = 0
        #: Whether the last piece is one wide record.
        self.is_wide = False
        #: Position of a quote in it that is not closed; -1: none.
        self.open_quote = -1

    def take(self, most_bytes: int) -> bytearray:
        """Return the next piece; empty: there is none. The file's last record may lack its line end.

        Raises:
            TooLong: a record has more bytes than the limit.
        """
        self.line += self._lines
        is_last = False
        while not (size := self._ready()):
            chunk = self._read(self._chunk_bytes)
            if not chunk:
                size, is_last = self._rest(), not self._end
                break
            self._held += chunk
            del chunk
            self._scan()
            if len(self._held) - self._end > most_bytes:
                self.line += line_ends(self._held[: self._end])
                raise TooLong
        self.is_wide = size >= self._piece_bytes and (is_last or size == self._first)
        piece = self._held
        self._held = piece[size:]
        del piece[size:]
        self._place, self._opened = self._place - size, self._opened - size
        self._end, self._first = max(0, self._end - size), 0
        self._lines = line_ends(piece)
        return piece

    def batch(
        self, record: bytearray, names: Sequence[str], wanted: Sequence[str], nulls: Collection[str]
    ) -> pa.RecordBatch | None:
        """Return the texts of a wide record; None: the record has another number of fields.

        Raises:
            pa.ArrowInvalid: a text is no UTF-8.
        """
        fields = self._syntax.fields(record, len(names))
        if len(fields) != len(names):
            return None
        chosen = [fields[names.index(name)] for name in wanted]
        return pa.record_batch([self._syntax.array(record, field, nulls) for field in chosen], list(wanted))

    def _ready(self) -> int:
        """Return the size of the next piece; 0: more bytes must be read."""
        if self._first >= self._piece_bytes:
            return self._first
        size = len(self._held)
        return self._end if size >= self._piece_bytes or size - self._end >= self._chunk_bytes else 0

    def _rest(self) -> int:
        if self._end:
            return self._end
        if self._state == _QUOTED and self._held[self._place :] != self._syntax.quote:
            self.open_quote = self._opened
        return len(self._held)

    def _scan(self) -> None:
        """Scan until more bytes are needed."""
        held, place, size, syntax = self._held, self._place, len(self._held), self._syntax
        while place < size:
            if self._state == _RECORD:
                place = self._end = _matched(syntax.records, held, place)
                self._state = _FIELD
                continue
            if self._state == _FIELD:
                self._opened = place
                is_quoted = bool(syntax.quote) and held.startswith(syntax.quote, place)
                self._state, place = (_QUOTED, place + 1) if is_quoted else (_TEXT, place)
            if self._state == _QUOTED:
                place = _matched(syntax.quoted, held, place)
                if place + 1 >= size:  # the byte after a quote decides whether the quote closes the field
                    break
                self._state, place = _TEXT, place + 1
            place = _matched(syntax.text, held, place)
            mark = bytes(held[place : place + 1])
            if mark == syntax.between:
                self._state, place = _FIELD, place + 1
            elif mark in (b"\r", b"\n") and (mark == b"\n" or place + 1 < size):
                place += 2 if held.startswith(b"\r\n", place) else 1
                self._first = self._first if self._end else place
                self._state, self._end = _RECORD, place
            else:
                break
        self._place = place


class _Field(NamedTuple):
    """Position of a field's text: between its quotes (-1: none), and after them."""

    start: int
    end: int
    tail: int
    stop: int


class _Syntax:
    """Patterns without backtracking: the time grows with the length of the record, the memory does not."""

    def __init__(self, delimiter: bytes, quote: bytes, escape: bytes) -> None:
        self.quote, self._delimiter, self._escape = quote, delimiter, escape
        mark, between, escaped = re.escape(quote), re.escape(delimiter), re.escape(escape)
        line_end = rb"(?:\r\n|\n|\r(?=[^\n]))"
        text = _run(rb"[^%b%b\r\n]" % (between, escaped), rb"%b." % escaped if escape else b"")
        #: End of a field, to cut records by: without quotes each line is a record.
        self.between = delimiter if quote else None
        if quote:
            quoted = _run(b"[^%b%b]" % (mark, escaped), b"(?:%b%b|%b.)" % (mark, mark, escaped) if escape else mark * 2)
            closed = b"(?:%b(%b)%b|(?!%b))" % (mark, quoted, mark, mark)
            field = b"(?:%b%b%b|(?!%b))%b" % (mark, quoted, mark, mark, text)
            records, cut = b"(?:(?:%b%b)*+%b%b)*+" % (field, between, field, line_end), text
        else:
            quoted, closed, cut = b"", b"((?!))?", rb"[^\r\n]*+"
            records = b"(?:%b%b)*+" % (cut, line_end)
        self.records, self.text, self.quoted = (re.compile(part, re.DOTALL) for part in (records, cut, quoted))
        self._field = re.compile(b"%b(%b)" % (closed, text), re.DOTALL)
        #: An escape and the byte it escapes: outside quotes, and within.
        self._escaped = re.compile(b"%b(.)" % escaped, re.DOTALL)
        self._escaped_quoted = re.compile(b"(?:%b(?=%b)|%b)(.)" % (mark, mark, escaped), re.DOTALL)

    def fields(self, record: bytearray, most: int) -> list[_Field]:
        """Return the fields of a record: `most` + 1 of them if it has more than `most`, none if it is malformed."""
        found: list[_Field] = []
        place = 0
        while len(found) <= most and (match := self._field.match(record, place)):
            found.append(_Field(*match.span(1), *match.span(2)))
            place = match.end()
            if not record.startswith(self._delimiter, place):
                return found if bytes(record[place : place + 3]) in (b"", b"\n", b"\r\n", b"\r") else []
            place += 1
        return found if len(found) > most else []

    def array(self, record: bytearray, field: _Field, nulls: Collection[str]) -> pa.Array:
        """Return a field's text as an array of one value, without a copy unless quotes or escapes change the text."""
        start, end, tail, stop = field
        is_quoted = start >= 0
        if not is_quoted:
            start, end, tail = tail, stop, stop
        special = (self.quote if is_quoted else b"", self._escape)
        if tail == stop and not any(mark and record.find(mark, start, end) >= 0 for mark in special):
            buffer = pa.py_buffer(record).slice(start, end - start)
        else:
            value = self._unescaped(record[start:end], is_quoted=is_quoted)
            buffer = pa.py_buffer(value + self._unescaped(record[tail:stop], is_quoted=False) if tail < stop else value)
        if not is_quoted and buffer.size <= max(map(len, nulls), default=-1) * 4 and _decoded(buffer) in nulls:
            return pa.nulls(1, pa.string())
        array = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(struct.pack("=ii", 0, buffer.size)), buffer])
        try:
            array.validate(full=True)
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid("invalid UTF8 data") from error  # the message of Arrow's own parser
        return array

    def _unescaped(self, text: bytearray, *, is_quoted: bool) -> bytes | bytearray:
        if self._escape:
            return (self._escaped_quoted if is_quoted else self._escaped).sub(rb"\1", text)
        return text.replace(self.quote * 2, self.quote) if is_quoted else text


def line_ends(data: bytes | bytearray) -> int:
    """Count line ends of any kind."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _run(plain: bytes, other: bytes) -> bytes:
    """Write the pattern of any number of two alternatives; the first is a set, which is fast."""
    return b"%b*+(?:%b%b*+)*+" % (plain, other, plain) if other else b"%b*+" % plain


def _matched(pattern: re.Pattern[bytes], held: bytearray, place: int) -> int:
    match = pattern.match(held, place)
    return place if match is None else match.end()


def _decoded(buffer: pa.Buffer) -> str:
    return bytes(buffer).decode("utf-8", "replace")
