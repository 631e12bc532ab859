"""The values of the contract tests, the features that a connector may lack, and how records are compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pyarrow as pa


class Feature(StrEnum):
    """A feature that a connector may lack; the suite checks both a present and a lacking one."""

    #: Source: finds the key of a table by itself. Without: `key_properties` is empty.
    KEYS = "keys"
    #: Source: knows the types of columns. Without (CSV): it infers them, and only the records' identity is compared.
    TYPES = "types"
    #: Source: knows the columns of a table without records. Without: the stream is not offered, or has no columns.
    EMPTY_STREAMS = "empty streams"
    #: Destination: write disposition merge. Without: refused.
    MERGE = "merge"
    #: Destination: refuses a replace in which two records have one key. Without: both are there.
    UNIQUE_KEYS = "unique keys"
    #: NaN and infinities in floats. Without: refused.
    SPECIAL_FLOATS = "special floats"
    #: Binary columns. Without: refused.
    BINARY = "binary"
    #: Tells the empty text from NULL. Without: refused.
    EMPTY_TEXT = "empty text"
    #: Columns whose names differ in case only. Without: refused, or the second one gets a name of its own.
    CASE_PAIRS = "case pairs"


@dataclass(frozen=True, slots=True)
class Quirks:
    """The features that one connector lacks, each with the reason."""

    lacks: Mapping[Feature, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for feature, reason in self.lacks.items():
            if not reason.strip():
                raise ValueError(f"quirk {feature.value!r} needs a reason")


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one column, each of which has failed in some system."""

    kind: pa.DataType
    values: tuple[Any, ...]
    #: A connector that lacks this feature must refuse the values.
    feature: Feature | None = None


VALUES: Mapping[str, Values] = {
    "wide integers": Values(pa.int64(), (0, -1, 2**53 + 1, 2**63 - 1, -(2**63), None)),
    "narrow integers": Values(pa.int16(), (0, -(2**15), 2**15 - 1, None)),
    "decimals": Values(
        pa.decimal128(38, 10),
        (Decimal("0E-10"), Decimal("9" * 28 + "." + "9" * 10), Decimal("-0.0000000001"), Decimal("0.1"), None),
    ),
    "booleans": Values(pa.bool_(), (True, False, None)),
    "floats": Values(pa.float64(), (0.0, 0.1, -1.5, 1.7976931348623157e308, 5e-324, 1 / 3, None)),
    "special floats": Values(pa.float64(), (math.nan, math.inf, -math.inf, None), Feature.SPECIAL_FLOATS),
    "aware datetimes": Values(
        pa.timestamp("us", "UTC"),
        (
            datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
            datetime(1, 1, 2, tzinfo=UTC),
            datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC),
            None,
        ),
    ),
    "naive timestamps": Values(
        pa.timestamp("us"),
        (
            datetime(2024, 3, 31, 2, 30, 0, 123456),  # noqa: DTZ001 -- an hour that summer time leaves out somewhere
            datetime(1, 1, 1),  # noqa: DTZ001 -- naive on purpose
            datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001 -- naive on purpose
            None,
        ),
    ),
    "dates": Values(pa.date32(), (date(1, 1, 1), date(1582, 10, 10), date(2024, 2, 29), date(9999, 12, 31), None)),
    "times": Values(pa.time64("us"), (time(0, 0), time(12, 30), time(23, 59, 59, 999999), None)),
    "binary": Values(pa.binary(), (b"\x00\xff\\x41'\"", bytes(range(256)), b"", None), Feature.BINARY),
    "text": Values(
        pa.string(),
        (
            "é",
            "e\u0301",
            "\U0001d11e\U0001f600",
            "\u202eabc\u200b",
            "line\nbreak\r\nand tab\t",
            "quote\"s'`",
            "back\\slash \\N \\.",
            "NULL",
            "null",
            "a,b;c|d",
            "  spaces  ",
            "00123",
            "true",
            "2024-01-01",
            "{}%s :x $1",
            "x" * 10_000,
            None,
        ),
    ),
    "empty text": Values(pa.string(), ("", None, " "), Feature.EMPTY_TEXT),
    "json text": Values(pa.string(), ('{"a": [1, null, "\\u00e9"]}', "[]", "null", '"text"', None)),
}

#: Column names that have failed in some system.
COLUMN_NAMES = (
    "with space",
    'double"quote',
    "single'quote",
    "back`tick",
    "back\\slash",
    "select",
    "Order",
    "percent%s",
    "semi;colon",
    "colon:name",
    "comma,name",
    "dot.name",
    "{braces}",
    "$1",
    "1st",
    "new\nline",
    "ünï",
    "emoji\U0001f600",
)

TABLE_NAMES = (
    "with space",
    'double"quote',
    "single'quote",
    "back`tick",
    "select",
    "Order",
    "percent%s",
    "semi;colon",
    "colon:name",
    "ünï emoji\U0001f600",
)


def canonical(value: Any) -> Any:
    """Bring a driver's value into a form that compares: one zone, one type of bytes, NaN equal to NaN."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, Decimal):
        # The scale belongs to the column; `normalize` would round to the context's 28 digits.
        return format(value, "f").rstrip("0").rstrip(".") if "." in format(value, "f") else format(value, "f")
    return value


def same_records(left: Iterable[Mapping[str, Any]] | None, right: Iterable[Mapping[str, Any]] | None) -> bool:
    """Compare two collections of records as multisets; None (no such table) equals None only."""
    return in_order(left) == in_order(right)


def in_order(records: Iterable[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Return the records in a form and order that compare."""
    if records is None:
        return None
    plain = [{name: canonical(value) for name, value in record.items()} for record in records]
    return sorted(plain, key=lambda record: repr(sorted(record.items())))
