"""Cut the elements of an array of JSON into lines, chunk by chunk.

Brackets and quotes are found in a chunk as a whole. That delimits the elements; what an element holds is for the parser
of JSON lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct

from ..arrow.conform import shown
from ..arrow.record_size import SLACK_BYTES, too_wide
from ..errors import FatalConnectorError

#: Reads the text of an array of records at once; None: it is none, or has something that needs more care.
Whole = Callable[[bytes], "pa.RecordBatch | None"]

HALF_PAIR = "a text contains half a surrogate pair, which is not a character"

#: Most bytes of a record, whatever the memory: the texts of a batch have at most 2 GiB together.
MOST_BYTES = 2_000_000_000

#: What the parser raises for a value; the last one for a deeply nested one.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_QUOTE, _BACKSLASH, _COMMA, _LINE_END = b'"\\,\n'
_OPEN_OBJECT, _CLOSE_OBJECT, _CLOSE_ARRAY = b"{}]"
SPACE = re.compile(rb"[ \t\r\n]*")
#: Between two elements; looked for from the end, as often as an attempt is cheap beside `split`.
_BETWEEN = re.compile(rb"\},[ \t\r\n]*\{")
_QUICK_TRIES = 4
#: Where the parser says that its text is wrong.
_BYTE = re.compile(r"\(byte ([0-9]+)\)")

#: +1 for brackets that open, -1 (as a byte) for those that close.
_BRACKETS = bytes({b"{": 1, b"[": 1, b"}": 255, b"]": 255}.get(bytes([each]), 0) for each in range(256))
#: A record becomes one line. No line end is right within a text, and neither is a tab.
ONE_LINE = bytes.maketrans(b"\r\n", b"\t\t")
_SPACES = np.zeros(256, np.bool_)
_SPACES[list(b" \t\r\n")] = True


class NoDocument(FatalConnectorError):
    """A file is no JSON document, or has no records at the path."""


class Brackets(Struct):
    """Where brackets stand outside of texts; it goes on from chunk to chunk."""

    depth: int = 0
    is_text: bool = False
    is_escaped: bool = False

    def find(self, chunk: bytes) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the brackets' places in the next chunk, and the depth behind each."""
        quotes = self._quotes(chunk)
        classes = np.frombuffer(chunk.translate(_BRACKETS), np.int8)
        places = np.flatnonzero(classes)
        is_outside = (np.searchsorted(quotes, places) + self.is_text) % 2 == 0
        places = places[is_outside]
        depths = self.depth + np.cumsum(classes[places], dtype=np.int64)
        self.is_text = (len(quotes) + self.is_text) % 2 == 1
        if len(depths):
            self.depth = int(depths[-1])
        return places, depths

    def _quotes(self, chunk: bytes) -> npt.NDArray[Any]:
        data = np.frombuffer(chunk, np.uint8)
        is_quote = data == _QUOTE
        was_escaped, self.is_escaped = self.is_escaped, False
        if was_escaped and len(data):
            is_quote[0] = False
        if b"\\" in chunk:
            marks = np.flatnonzero(data == _BACKSLASH)
            if was_escaped and len(marks) and marks[0] == 0:
                marks = marks[1:]
            if len(marks):
                order = np.arange(len(marks))
                begins = np.ones(len(marks), np.bool_)
                begins[1:] = np.diff(marks) > 1
                start = np.maximum.accumulate(np.where(begins, order, 0))
                escaped = marks[(order - start) % 2 == 0] + 1
                self.is_escaped = bool(escaped[-1:] == len(data))
                is_quote[escaped[: len(escaped) - self.is_escaped]] = False
        return np.flatnonzero(is_quote)


class Elements:
    """Cuts the elements of an array into lines."""

    def __init__(
        self,
        where: Callable[[int], str],
        broken: Callable[[str, int], NoDocument],
        most_bytes: int,
        whole: Whole | None = None,
    ) -> None:
        """Begin at the start of an array.

        Args:
            where: names an element, for messages.
            broken: makes the error for a place in the present chunk.
            most_bytes: of an element.
            whole: what `quick` tries first.
        """
        self._whole = whole
        self._where = where
        self._broken_at = broken
        self._most_bytes = most_bytes
        self._brackets = Brackets()
        #: What is there of an element that has not ended, and the place of the first element of the next block.
        self._begun = bytearray()
        self._place = 0
        #: The last chunk ended between an element and its comma; behind a comma, an element has to come.
        self._is_ended = False
        self._is_due = False
        #: What stands between two elements, with the brackets around it; empty: not known yet.
        self._between = b""

    def quick(self, chunk: bytes) -> tuple[int, tuple[int, Any]] | None:
        """Return the size of elements that the parser takes as a whole, and these; None: `split` is needed.

        Where one of the last texts that may stand between elements does, the parser takes all that is before it.
        """
        at = len(chunk)
        for _ in range(_QUICK_TRIES if self._between else 0):
            at = chunk.rfind(self._between, 0, at)
            if at < 0:
                return None
            text = b"".join((b"[", self._begun, memoryview(chunk)[: at + 1], b"]"))
            block: Any = self._whole and self._whole(text)
            if block is not None:
                size = block.num_rows
            else:
                try:
                    lines = msgspec.json.decode(text.translate(ONE_LINE), type=list[msgspec.Raw])
                except UNREADABLE:
                    continue
                block, size = bytearray(b"\n").join(lines), len(lines)
            first, self._place = self._place, self._place + size
            self._begun, self._brackets = bytearray(), Brackets()
            self._is_ended, self._is_due = False, True
            return at + self._between.index(b",") + 1, (first, block)
        return None

    def split(self, chunk: bytes) -> tuple[tuple[int, bytearray] | None, int | None]:
        """Return the elements that end in a chunk, if any, and where the array ends in it, if it does."""
        before = self._brackets.depth
        is_between = before == 0 and not self._brackets.is_text and not self._is_ended
        places, depths = self._brackets.find(chunk)
        over = np.flatnonzero(depths < 0)
        end = int(places[over[0]]) if len(over) else None
        if end is not None:
            if chunk[end] != _CLOSE_ARRAY:
                raise self._broken(chunk, end, "] should come here")
            places, depths = places[: over[0]], depths[: over[0]]
        size = len(chunk) if end is None else end
        commas = self._commas(chunk, places, depths, size)
        for comma in commas[:1] if not self._between else ():
            found = _BETWEEN.match(chunk, max(0, int(comma) - 1))
            self._between = found[0] if found else b""
        starts = places[(depths == 1) & (np.diff(depths, prepend=before) > 0)]
        self._demand_objects(chunk, starts, commas, size, is_between)
        lines = bytearray(chunk[:size].translate(ONE_LINE))
        np.frombuffer(lines, np.uint8)[commas] = _LINE_END
        if end is not None:
            if self._is_due:
                raise self._broken(chunk, end, "expected an object after the comma")
            self._begun += lines
            return self._block(len(self._begun)), end
        cut = len(self._begun) + int(commas[-1]) + 1 if len(commas) else 0
        self._begun += lines
        block = self._block(cut) if cut else None
        demand_size(len(self._begun), self._most_bytes, self._where(self._place))
        return block, None

    def unended(self) -> NoDocument:
        """Return the error for a document that ends within the array."""
        place = self._where(self._place)
        try:
            msgspec.json.decode(bytes(self._begun), type=msgspec.Raw)
            reason = unended(self._brackets)
        except UNREADABLE as error:
            reason = (
                f"{reason_of(error)}; {unended(self._brackets)}" if self._begun.strip() else unended(self._brackets)
            )
        what = f"{place}: broken JSON"
        return NoDocument(f"{what}: {reason}", key="path", without_values=what)

    def _block(self, size: int) -> tuple[int, bytearray] | None:
        block, self._begun = self._begun[:size], self._begun[size:]
        if not block or block.isspace():
            return None
        first, self._place = self._place, self._place + block.count(b"\n")
        return first, block

    def _commas(self, chunk: bytes, places: npt.NDArray[Any], depths: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
        """Return the places of the commas behind elements; the last one may come with the next chunk."""
        data = np.frombuffer(chunk, np.uint8)
        closes = depths == 0
        commas: npt.NDArray[Any] = places[closes] + 1
        late = np.flatnonzero((commas >= size) | (data[np.minimum(commas, len(data) - 1)] != _COMMA))
        is_ended = False
        for each in late[::-1]:
            at = SPACE.match(chunk, int(commas[each]), size).end()  # type: ignore[union-attr]
            if at < size and chunk[at] == _COMMA:
                commas[each] = at
            elif at < size:
                raise self._broken(chunk, at, "expected , or ]")
            else:  # the last one
                commas, is_ended = np.delete(commas, each), True
        if self._is_ended:
            at = SPACE.match(chunk, 0, size).end()  # type: ignore[union-attr]
            if at < size and chunk[at] != _COMMA:
                raise self._broken(chunk, at, "expected , or ]")
            if at < size:
                commas = np.insert(commas, 0, at)
            is_ended = is_ended or at == size
        self._is_ended = is_ended
        return commas

    def _demand_objects(
        self, chunk: bytes, starts: npt.NDArray[Any], commas: npt.NDArray[Any], size: int, is_between: bool
    ) -> None:
        """Check that each comma is followed by an object, and that nothing else stands between elements.

        Args:
            chunk: the chunk.
            starts: where elements begin in it.
            commas: where the commas behind elements are.
            size: where the chunk or the array ends.
            is_between: an element may begin at the start of the chunk.
        """
        data = np.frombuffer(chunk, np.uint8)
        last_start, last_comma = (int(each[-1]) if len(each) else -1 for each in (starts, commas))
        if len(starts):
            before = np.searchsorted(commas, starts) - 1
            begins = np.where(before >= 0, commas[before] + 1 if len(commas) else 0, 0)
            for place in np.flatnonzero(_has_other(data, begins, starts))[:1]:
                raise self._no_object(chunk, int(begins[place]), int(starts[place]), commas)
            for place in starts[data[starts] != _OPEN_OBJECT][:1]:
                raise self._no_object(chunk, int(place), int(place), commas)
        if last_comma > last_start or (is_between and not len(starts)):
            at = SPACE.match(chunk, last_comma + 1, size).end()  # type: ignore[union-attr]
            if at < size:
                raise self._no_object(chunk, at, size, commas)
        if len(starts) or len(commas):
            self._is_due = last_comma > last_start

    def _no_object(self, chunk: bytes, begin: int, end: int, commas: npt.NDArray[Any]) -> NoDocument:
        """Return the error for what stands where an element should be, or should begin."""
        number = self._place + int(np.searchsorted(commas, begin))
        found = "an array" if chunk[begin:end].strip()[:1] in (b"", b"[") else ""
        if not found:
            try:
                (value, *_) = msgspec.json.decode(
                    b"[" + chunk[begin:end].strip(b" \t\r\n,") + b"]", type=list[msgspec.Raw]
                )
            except (*UNREADABLE, ValueError):
                return self._broken(chunk, begin, "expected an object")
            found = shown(bytes(value).decode(errors="replace"))
        where = self._where(number)
        message = f"{where} is {found}, not an object: records are objects"
        return NoDocument(message, key="records", without_values=f"{where} is no object")

    def _broken(self, chunk: bytes, at: int, what: str) -> NoDocument:
        """Return the error for a place; where the parser finds an earlier one, for that."""
        before = len(self._begun)
        try:
            msgspec.json.decode(b"[" + self._begun + chunk[:at] + b"]", type=list[msgspec.Raw])
        except UNREADABLE as error:
            found = _BYTE.search(str(error))
            if found and 0 <= int(found[1]) - 1 - before < at:
                at, what = int(found[1]) - 1 - before, reason_of(error)
        return self._broken_at(what, at)


def _has_other(data: npt.NDArray[Any], begins: npt.NDArray[Any], ends: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell for each range of bytes whether there is something else than spaces in it."""
    found = np.zeros(len(begins), np.bool_)
    left = np.flatnonzero(begins < ends)
    offset = 0
    while len(left):
        found[left] |= ~_SPACES[data[begins[left] + offset]]
        offset += 1
        left = left[(begins[left] + offset < ends[left]) & ~found[left]]
    return found


def has_line_each(text: bytes | bytearray, objects: int) -> bool:
    """Tell whether some JSON, which is known to be so many objects, has each of them in a line of its own."""
    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(data == _LINE_END)
    if len(ends) and ends[-1] == len(data) - 1:
        ends = ends[:-1]
    if len(ends) + 1 != objects or data[0] != _OPEN_OBJECT:
        return False
    # Within an object, no brace follows a brace without a comma.
    return bool(np.all(data[ends - 1] == _CLOSE_OBJECT) and np.all(data[ends + 1] == _OPEN_OBJECT))


def count_of(text: bytes | bytearray | memoryview, byte: int) -> int:
    """Return how often a byte is in a text; numpy counts several times as fast as `bytes`."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == byte))


def unended(brackets: Brackets) -> str:
    return "the document ends within a text" if brackets.is_text else "the document ends before its last bracket"


def demand_size(size: int, most_bytes: int, where: str) -> None:
    """Raise for a record that is larger than it may be: `RecordTooWide`, if `memory` says so."""
    if size > most_bytes + SLACK_BYTES:
        raise too_wide(f"{where}: a record", most_bytes)
    if size > MOST_BYTES:
        raise FatalConnectorError(f"{where}: a record is longer than 2 GB, the most in JSON: write Parquet")


def has_half_pair(text: bytes | bytearray) -> bool:
    """Tell whether texts of JSON hold half a surrogate pair, of which the parser says that they are cut off."""
    if b"\\u" not in text:
        return False
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def reason_of(error: Exception, text: bytes | bytearray = b"") -> str:
    """Return what the parser says of a text, without its own preface."""
    if isinstance(error, RecursionError):
        return "values are nested too deeply"
    if has_half_pair(text):
        return HALF_PAIR
    return str(error).removeprefix("JSON is malformed: ")
