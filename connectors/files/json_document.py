"""Find the records in a document of JSON, chunk by chunk: the elements of one array, each as a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from ..arrow.conform import shown
from ..arrow.record_size import SLACK_BYTES, too_wide
from .json_elements import ONE_LINE, SPACE, Brackets, Elements, NoDocument, Whole, count_of, demand_size, unended

#: The first line of the only record of a document that has an object in place of the array.
SINGLE = -1

_LINE_END = ord("\n")
_SCALAR = re.compile(rb"[^\s,\]}\[{\":]*")
_NAME = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class JSONDocument:
    """One document that is read once, from its start."""

    def __init__(
        self,
        chunks: Iterator[bytes],
        label: str,
        path: Sequence[str],
        most_bytes: int,
        whole: Whole | None = None,
    ) -> None:
        self._chunks = chunks
        self._label = label
        self._path = path
        self._most_bytes = most_bytes
        #: Reads pieces of the array as a whole.
        self._whole = whole
        #: The chunk that is looked at, from where it is, and the number of its first line.
        self._chunk = b""
        self._at = 0
        self._line = 1
        self._bytes_before = 0

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """Yield `(place of the first record, records as lines)`; the place is `SINGLE` for an object at the path.

        In place of lines there may be what `whole` makes of an array of some records.

        Raises:
            NoDocument: it is broken, has nothing at the path, or something else than records.
            RecordTooWide: a record has more bytes than it may have.
        """
        if self._peek() is None:
            raise NoDocument(f"{self._label}: is empty, so not a JSON document", key="path", has_no_values=True)
        yield from self._value(0)
        if self._peek() is not None:
            raise self._broken("another document follows; `connector: jsonl` reads one object per line")

    def _value(self, level: int) -> Iterator[tuple[int, Any]]:
        """Yield what is at the path within the value that comes next."""
        first = self._peek()
        if level == len(self._path):
            if first == "[":
                yield from self._elements()
            elif first == "{":
                yield SINGLE, self._object()
            else:
                raise self._not_there(level, f"is {self._shown()}, not an array or an object")
            return
        if first != "{":
            what = "an array" if first == "[" else self._shown()
            raise self._not_there(level, f"is {what}, and has no {self._path[level]!r}")
        names: list[str] = []
        for name in self._names():
            names.append(name)
            if name != self._path[level]:
                self._skip()
            elif names.count(name) > 1:
                raise self._not_there(level + 1, "is there twice")
            else:
                yield from self._value(level + 1)
        if self._path[level] not in names:
            listed = ", ".join(map(repr, names[:10])) or "nothing"
            raise self._not_there(level, f"has no {self._path[level]!r}, but {listed}")

    def _names(self) -> Iterator[str]:
        """Yield the names of an object; before the next one, the caller takes the value."""
        self._take("{")
        if self._peek() == "}":
            self._take("}")
            return
        while True:
            if self._peek() != '"':
                raise self._unexpected("expected a name in quotes")
            name = self._name()
            self._take(":")
            yield name
            # The caller has taken the value when it asks for the next name.
            if self._take(",", "}") == "}":
                return

    def _peek(self) -> str | None:
        """Return the next character that is no space, and do not take it; None: the document ends."""
        while True:
            self._at = SPACE.match(self._chunk, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._chunk):
                return chr(self._chunk[self._at])
            if not self._next_chunk():
                return None

    def _next_chunk(self) -> bool:
        self._line += count_of(self._chunk, _LINE_END)
        self._bytes_before += len(self._chunk)
        self._chunk, self._at = next(self._chunks, b""), 0
        return bool(self._chunk)

    def _add_chunk(self) -> None:
        """Add the next chunk to what is left of this one."""
        self._line += count_of(memoryview(self._chunk)[: self._at], _LINE_END)
        self._bytes_before += self._at
        self._chunk, self._at = self._chunk[self._at :] + next(self._chunks, b""), 0

    def _take(self, *allowed: str) -> str:
        found = self._peek()
        if found is None or found not in allowed:
            raise self._unexpected(f"{' or '.join(allowed)} should come here")
        self._at += 1
        return found

    def _name(self) -> str:
        while (found := _NAME.match(self._chunk, self._at)) is None:
            more = next(self._chunks, b"")
            if not more:
                raise self._broken("the document ends within the text that begins here")
            self._chunk += more
            if len(self._chunk) - self._at > self._most_bytes + SLACK_BYTES:
                raise too_wide(f"{self._label}: a text outside of the records", self._most_bytes)
        self._at = found.end()
        try:
            return msgspec.json.decode(found[0], type=str)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._broken(str(error)) from error

    def _skip(self) -> None:
        """Pass over a value; of objects and arrays only brackets and texts are looked at."""
        first = self._peek()
        if first in ("{", "["):
            for _ in self._nested():
                pass
        elif first == '"':
            self._name()
        else:
            self._scalar()

    def _nested(self) -> Iterator[bytes]:
        """Take an object or an array, and yield its bytes."""
        brackets = Brackets()
        while True:
            chunk = self._chunk[self._at :]
            places, depths = brackets.find(chunk)
            ends = np.flatnonzero(depths == 0)
            if len(ends):
                end = int(places[ends[0]]) + 1
                self._at += end
                yield chunk[:end]
                return
            yield chunk
            if not self._next_chunk():
                raise self._broken(unended(brackets))

    def _scalar(self) -> bytes:
        while True:
            found = _SCALAR.match(self._chunk, self._at)
            assert found is not None
            if found.end() < len(self._chunk) or not (more := next(self._chunks, b"")):
                break
            self._chunk += more
        try:
            msgspec.json.decode(found[0])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._broken(f"{shown(found[0].decode(errors='replace'))} is no value") from error
        self._at = found.end()
        return found[0]

    def _shown(self) -> str:
        """Take a value that is neither object nor array, and return it for people to read."""
        return shown(self._name()) if self._peek() == '"' else self._scalar().decode()

    def _object(self) -> bytearray:
        record = bytearray()
        for part in self._nested():
            record += part.translate(ONE_LINE)
            demand_size(len(record), self._most_bytes, self._where(SINGLE))
        return record

    def _elements(self) -> Iterator[tuple[int, Any]]:
        """Yield the elements of an array, all of which are objects."""
        self._take("[")
        elements = Elements(
            self._where, lambda what, at: self._unexpected(what, self._at + at), self._most_bytes, self._whole
        )
        while True:
            chunk = self._chunk[self._at :]
            quick = elements.quick(chunk)
            if quick is not None:
                self._at += quick[0]
                yield quick[1]
                self._add_chunk()
                continue
            block, end = elements.split(chunk)
            if block is not None:
                yield block
            if end is not None:
                self._at += end + 1
                return
            del chunk
            if not self._next_chunk():
                raise elements.unended()

    def _where(self, place: int) -> str:
        return place_of(self._label, self._path, place)

    def _not_there(self, level: int, what: str) -> NoDocument:
        where = ".".join(self._path[:level]) or "its top"
        return NoDocument(f"{self._label}: {where} {what}", key="records")

    def _unexpected(self, what: str, at: int | None = None) -> NoDocument:
        """Return the error for a place where something else should stand, with what is there."""
        at = self._at if at is None else at
        there = self._chunk[at : at + 20].decode(errors="replace")
        return self._broken(f"{what}, but {f'found {shown(there)}' if there else 'the document ends'}", at)

    def _broken(self, what: str, at: int | None = None) -> NoDocument:
        """Return the error for the place where it is, or one in the chunk."""
        at = self._at if at is None else at
        line = self._line + self._chunk.count(b"\n", 0, at)
        begin = self._chunk.rfind(b"\n", 0, at)
        where = f"line {line}, byte {at - begin}" if line > 1 else f"byte {self._bytes_before + at + 1}"
        broken = f"{self._label}: broken JSON at {where}"
        return NoDocument(f"{broken}: {what}", key="path", without_values=broken)


def place_of(label: str, path: Sequence[str], place: int) -> str:
    """Return where a record is, as jq names it: `export.json: data.items[3]`."""
    name = ".".join(path) + (f"[{place}]" if place != SINGLE else "")
    return f"{label}: {name}" if name else label
