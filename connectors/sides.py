"""What two copies of a table are compared by: values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import pyarrow as pa

from .stream import Bookmark, Stream

#: A key as canonical texts, one a column.
Key = tuple[str | None, ...]


class Form(StrEnum):
    """Canonical text of a column's values: the same in every system for values that are the same."""

    #: The system's own text; between two copies in one system.
    NATIVE = "native"
    INTEGER = "integer"
    #: Digits with a point; without trailing zeros unless both sides have one scale.
    DECIMAL = "decimal"
    #: The shortest digits that read back as the same double; -0 is 0.
    FLOAT = "float"
    #: 0 or 1.
    BOOLEAN = "boolean"
    TEXT = "text"
    #: Hexadecimal digits.
    BINARY = "binary"
    #: ISO, without trailing zeros of a second; moments in UTC.
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMP_NS = "timestamp_ns"
    #: `P<months>M<days>DT<seconds>S`, nine digits behind the point; as `files.text` writes it.
    INTERVAL = "interval"
    UUID = "uuid"
    #: JSON as it is written, where both sides keep that.
    JSON = "json"
    #: JSON as a line of JSON lines keeps it: no blanks around it, and `null` is the same as NULL.
    JSON_LINE = "json_line"
    #: JSON as PostgreSQL's jsonb writes it.
    JSONB = "jsonb"
    #: JSON as jsonb writes it, but numbers by their value: no zeros at their end.
    JSON_VALUE = "json_value"
    #: A list of scalars: the JSON that `files.text` writes of it.
    LIST = "list"
    #: Lists, structs and maps of anything: the JSON that `files.text` writes of it; and as jsonb writes that anew.
    NESTED = "nested"
    NESTED_JSONB = "nested_jsonb"


#: Unit of a type -> digits of a second that it has.
DIGITS = {"s": 0, "ms": 3, "us": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One column of one side."""

    #: As this side calls it.
    name: str
    field: pa.Field
    form: Form
    #: DECIMAL: digits behind the point that both sides have; None: they differ, and trailing zeros do not count.
    scale: int | None = None
    #: LIST: form of its items, and the digits of a second that the source's type has.
    item: Form | None = None
    digits: int = 6
    #: No SQL of this side writes the form: its records are read, as those of files are.
    is_read: bool = False


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Keys from `start` (included) to `end` (not included), by value, texts by their bytes; None: open."""

    start: Key | None = None
    end: Key | None = None


EVERYTHING = KeyRange()


class Digest(NamedTuple):
    """What some records come to: how many, and the sum of a hash of each."""

    records: int
    checksum: int


class Row(NamedTuple):
    """One record in canonical texts."""

    #: Number of the range that it is in.
    place: int
    key: Key
    #: In the order of `Side.columns`; None: NULL.
    values: tuple[str | None, ...]
    #: Its bookmark is past `Side.until`: it has changed since the last run.
    is_past: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of two copies: which records and columns count, and how they are written."""

    stream: Stream
    #: Empty: records cannot be told apart, so only all of them together are compared.
    key: tuple[Compared, ...]
    columns: tuple[Compared, ...]
    #: INCREMENTAL: records past this bookmark are left out of digests.
    until: Bookmark | None = None
    #: Both sides are PostgreSQL and all forms NATIVE: its own hash is twice as fast as MD5.
    has_own_hash: bool = False


class Checksums(Protocol):
    """One side, opened: everything is answered from one snapshot. Ranges are given in ascending order, disjoint."""

    @property
    def rejected(self) -> int:
        """How many records the stream has rejected so far: they are in no digest."""
        ...

    def digests(self, ranges: Sequence[KeyRange]) -> list[Digest]:
        """Return one digest a range."""
        ...

    def boundaries(self, ranges: Sequence[tuple[KeyRange, int]]) -> list[list[Key]]:
        """Return for each range the keys at which it falls into pieces of that many records, ascending."""
        ...

    def rows(self, ranges: Sequence[KeyRange]) -> list[Row]:
        """Return the records of some (small) ranges, also those past the bookmark."""
        ...


__all__ = ["DIGITS", "EVERYTHING", "Checksums", "Compared", "Digest", "Form", "Key", "KeyRange", "Row", "Side"]
