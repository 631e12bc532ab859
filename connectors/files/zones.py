"""Times without a zone in files of text, taken as those of the zone that the settings say."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.compute import constant
from ..arrow.text import from_text

#: A date, or a time without a zone; a time only.
_WITHOUT_ZONE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?)?$"
_TIME_WITHOUT_ZONE = _WITHOUT_ZONE.removesuffix("?$") + "$"


def is_zoned(kind: pa.DataType) -> bool:
    """Tell whether values of a type are moments."""
    return bool(pa.types.is_timestamp(kind) and kind.tz is not None)


def moments(column: pa.Array, kind: pa.DataType, zone: str, *, is_empty_null: bool) -> pa.Array:
    """Turn texts into moments; those without a zone are times of `zone`.

    The hour that comes twice when the clocks go back is the later one, as in PostgreSQL.

    Raises:
        ValueError: a text is no time, or one that the clocks pass over when they go forward.
    """
    is_local = pc.fill_null(pc.match_substring_regex(column, _WITHOUT_ZONE), constant(False))
    if not pc.any(is_local).as_py():
        return from_text(column, kind, is_empty_null=is_empty_null)
    local = column.filter(is_local).cast(pa.timestamp(kind.unit))
    found = pc.assume_timezone(local, zone, ambiguous="latest", nonexistent="raise").cast(kind)
    others = pc.if_else(is_local, pa.nulls(1, column.type)[0], column)
    return pc.replace_with_mask(from_text(others, kind, is_empty_null=is_empty_null), is_local, found)


def with_zone(column: pa.Array) -> pa.Array:
    """Return texts to guess a type from: times without a zone have one."""
    is_local = pc.fill_null(pc.match_substring_regex(column, _TIME_WITHOUT_ZONE), constant(False))
    if not pc.any(is_local).as_py():
        return column
    zoned = pc.binary_join_element_wise(column, constant("Z"), constant(""))
    return pc.if_else(is_local, zoned, column)


__all__ = ["is_zoned", "moments", "with_zone"]
