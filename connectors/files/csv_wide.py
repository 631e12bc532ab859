"""Wide records of a CSV file, cut out one by one.

Arrow's parser holds several blocks at once, each as long as the longest record, and copies a value three times. Here a
wide record becomes a batch of its own, whose values lie where they were read. Fields and records end where its lexer
ends them: a quote means something at the beginning of a field only, within it is doubled, and what follows the one that
closes it is text up to the next delimiter.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import pyarrow as pa

#: A record may be as long as this, unless the engine says less.
MAX_RECORD_BYTES = 1 << 30

#: Records are handed over together up to about so many bytes; longer ones alone.
PIECE_BYTES = 4 << 20

#: What comes next: a record, a field, more of one, more of a quoted one.
_RECORD, _FIELD, _TEXT, _QUOTED = range(4)


class TooLong(Exception):
    """A record is longer than it may be."""


class Records:
    """What is left of a file, in pieces of whole records; a wide one is a piece of its own."""

    def __init__(
        self,
        read: Callable[[int], bytes],
        *,
        delimiter: str,
        quote: str,
        escape: str | None,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        """Begin where a record does.

        Args:
            read: returns some of the next bytes, about so many at most; none at the end.
            delimiter: one character.
            quote: one character; empty: nothing is quoted, and each line end ends a record.
            escape: what takes the next character's meaning away, if anything does.
            piece_bytes: records are handed over together up to about so many; longer ones alone.
        """
        self._read, self._piece_bytes = read, piece_bytes
        self._chunk_bytes = max(1, piece_bytes // 4)
        self._syntax = _Syntax(delimiter.encode(), quote.encode(), (escape or "").encode())
        self._state = _RECORD
        #: What was read, and up to where it was looked at.
        self._held, self._place = bytearray(), 0
        #: Where its whole records end; and the first one, if it began before the bytes that were read last.
        self._end = self._first = 0
        self._opened = self._lines = 0
        #: Line ends before the piece that was taken last, or before the record that is too long.
        self.line = 0
        #: Whether that piece is one wide record.
        self.is_wide = False
        #: Where it has a quote that nothing closes; -1: nowhere.
        self.open_quote = -1

    def take(self, most_bytes: int) -> bytearray:
        """Return the next piece; the file's last record may lack its end. Empty: there is none.

        Raises:
            TooLong: a record has more than so many bytes.
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
        """Return the texts of a wide record; None: it has another number of fields.

        Raises:
            pa.ArrowInvalid: they are no UTF-8.
        """
        fields = self._syntax.fields(record, len(names))
        if len(fields) != len(names):
            return None
        chosen = [fields[names.index(name)] for name in wanted]
        return pa.record_batch([self._syntax.array(record, field, nulls) for field in chosen], list(wanted))

    def _ready(self) -> int:
        """Return the size of a piece that can be taken; 0: more has to be read."""
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
        """Go on to where more bytes are needed."""
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
                if place + 1 >= size:  # what follows a quote says whether it closes the field
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
    """Where a field's text is: between its quotes (-1: it has none), and behind them."""

    start: int
    end: int
    tail: int
    stop: int


class _Syntax:
    """Patterns that never go back over what they have matched: a record takes time as it is long, and no memory."""

    def __init__(self, delimiter: bytes, quote: bytes, escape: bytes) -> None:
        self.quote, self._delimiter, self._escape = quote, delimiter, escape
        mark, between, escaped = re.escape(quote), re.escape(delimiter), re.escape(escape)
        line_end = rb"(?:\r\n|\n|\r(?=[^\n]))"
        text = _run(rb"[^%b%b\r\n]" % (between, escaped), rb"%b." % escaped if escape else b"")
        #: What ends a field where several are in a line, as far as cutting goes: without quotes each line is a record.
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
        #: What takes the next byte's meaning away, and that byte: outside of quotes, and within.
        self._escaped = re.compile(b"%b(.)" % escaped, re.DOTALL)
        self._escaped_quoted = re.compile(b"(?:%b(?=%b)|%b)(.)" % (mark, mark, escaped), re.DOTALL)

    def fields(self, record: bytearray, most: int) -> list[_Field]:
        """Return the fields of a record; some other number of them where there are more, or it is none."""
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
        """Return a field's text as an array of one, in the record's own memory unless it has to be changed."""
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
            raise pa.ArrowInvalid("invalid UTF8 data") from error  # as Arrow's own parser says it
        return array

    def _unescaped(self, text: bytearray, *, is_quoted: bool) -> bytes | bytearray:
        if self._escape:
            return (self._escaped_quoted if is_quoted else self._escaped).sub(rb"\1", text)
        return text.replace(self.quote * 2, self.quote) if is_quoted else text


def line_ends(data: bytes | bytearray) -> int:
    """Count line ends of any kind."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _run(plain: bytes, other: bytes) -> bytes:
    """Write the pattern of any number of either; the first is a set, which is quick."""
    return b"%b*+(?:%b%b*+)*+" % (plain, other, plain) if other else b"%b*+" % plain


def _matched(pattern: re.Pattern[bytes], held: bytearray, place: int) -> int:
    match = pattern.match(held, place)
    return place if match is None else match.end()


def _decoded(buffer: pa.Buffer) -> str:
    return bytes(buffer).decode("utf-8", "replace")
