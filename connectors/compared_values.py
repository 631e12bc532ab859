"""Values by which two copies of a table are compared: keys, ranges, digests, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import pyarrow as pa

from .stream import Bookmark, Stream

#: A key as canonical texts, one a column.
Key = tuple[str | None, ...]


class TextForm(StrEnum):
    """Canonical text form of a column's values: equal values have equal texts in every system."""

    #: The system's own text; for two copies in one system.
    NATIVE = "native"
    INTEGER = "integer"
    #: Digits with a point; no trailing zeros unless both sides have the same scale.
    DECIMAL = "decimal"
    #: The shortest digits that read back as the same double; -0 is 0.
    FLOAT = "float"
    #: 0 or 1.
    BOOLEAN = "boolean"
    TEXT = "text"
    #: Hexadecimal digits.
    BINARY = "binary"
    #: ISO 8601, seconds without trailing zeros; instants in UTC.
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMP_NS = "timestamp_ns"
    #: `P<months>M<days>DT<seconds>S`, nine digits behind the point; as `arrow.text` writes it.
    INTERVAL = "interval"
    UUID = "uuid"
    #: JSON as it was written, where both sides keep the text.
    JSON = "json"
    #: JSON as a file of JSON lines keeps it: no blanks around it; `null` is NULL.
    JSON_LINE = "json_line"
    #: JSON as PostgreSQL's jsonb writes it.
    JSONB = "jsonb"
    #: JSON as jsonb writes it, but numbers without trailing zeros.
    JSON_VALUE = "json_value"
    #: A list of scalars, as the JSON that `arrow.text` writes.
    LIST = "list"
    #: Nested lists, structs and maps, as the JSON that `arrow.text` writes; the second as jsonb writes that JSON.
    NESTED = "nested"
    NESTED_JSONB = "nested_jsonb"


#: Unit of a time type -> fractional digits of a second.
DIGITS = {"s": 0, "ms": 3, "us": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedColumn:
    """How one column of one side is compared."""

    #: Its name on this side.
    name: str
    field: pa.Field
    form: TextForm
    #: DECIMAL: the scale of both sides; None: the scales differ, and trailing zeros do not count.
    scale: int | None = None
    #: LIST: form of the items, and fractional digits of a second of the source's type.
    item: TextForm | None = None
    digits: int = 6
    #: The side's SQL cannot write the form: its records are read, as records of files are.
    is_read: bool = False


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Keys from `start` to before `end`, compared by value, texts by their bytes; None: no limit."""

    start: Key | None = None
    end: Key | None = None


EVERYTHING = KeyRange()


class Digest(NamedTuple):
    """Number of some records, and the sum of their hashes."""

    records: int
    checksum: int


class Row(NamedTuple):
    """One record as canonical texts."""

    #: Position of its range among those asked for.
    place: int
    key: Key
    #: In the order of `Side.columns`; None: NULL.
    values: tuple[str | None, ...]
    #: Its bookmark is past `Side.until`: the record has changed since the last run.
    is_past: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of two copies: the records and columns that count, and their forms."""

    stream: Stream
    #: Empty: no record can be identified, so only all records together are compared.
    key: tuple[ComparedColumn, ...]
    columns: tuple[ComparedColumn, ...]
    #: INCREMENTAL: digests leave out the records past this bookmark.
    until: Bookmark | None = None
    #: Both sides are PostgreSQL and all forms NATIVE: its own hash is twice as fast as MD5.
    has_own_hash: bool = False


class Checksums(Protocol):
    """The opened checksums of one side, all from one snapshot. Ranges are ascending and disjoint."""

    @property
    def rejected(self) -> int:
        """How many records the stream has rejected so far: they are in no digest."""
        ...

    def digests(self, ranges: Sequence[KeyRange]) -> list[Digest]:
        """Return one digest for each range."""
        ...

    def sample(self, records: int) -> list[Key]:
        """Return about so many keys, drawn at random, ascending; empty: the table is small, or its keys are not known.

        It costs little beside digests. The comparison splits a large table by them before its first digests.
        """
        ...

    def boundaries(self, ranges: Sequence[tuple[KeyRange, int]]) -> list[list[Key]]:
        """Return for each range the keys, ascending, that split it into pieces of so many records."""
        ...

    def sizes(self, ranges: Sequence[KeyRange]) -> list[int]:
        """Return the characters of the records of each range as canonical texts, with those past the bookmark."""
        ...

    def rows(self, ranges: Sequence[KeyRange]) -> list[Row]:
        """Return the records of some (small) ranges, with those past the bookmark."""
        ...


__all__ = [
    "DIGITS",
    "EVERYTHING",
    "Checksums",
    "ComparedColumn",
    "Digest",
    "Key",
    "KeyRange",
    "Row",
    "Side",
    "TextForm",
]
