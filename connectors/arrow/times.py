"""Find numbers in date and time columns that are no dates or times: 24:00, and DuckDB's infinities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import pyarrow as pa

from . import compute as pc

_DAY_S = 24 * 3600
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def has_leaf(array: pa.Array, is_odd: Callable[[pa.Array], bool]) -> bool:
    """Apply a test to an array of times, or to the times nested in its lists, structs and maps."""
    return _has_times(array.type) and any(map(is_odd, leaves(array)))


@lru_cache(maxsize=1024)
def _has_times(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_times(kind.storage_type)
    children = (kind.field(place).type for place in range(kind.num_fields))
    return bool(pa.types.is_temporal(kind)) or any(map(_has_times, children))


def leaves(array: pa.Array) -> Iterator[pa.Array]:
    """Yield the innermost arrays of a column's lists, structs and maps."""
    types = pa.types
    if isinstance(array.type, pa.BaseExtensionType):
        yield from leaves(array.storage)
    elif types.is_struct(array.type):
        for each in array.flatten():
            yield from leaves(each)
    elif types.is_map(array.type):
        first, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        for each in (array.keys, array.items):
            yield from leaves(each.slice(first, end - first))
    elif types.is_list(array.type) or types.is_large_list(array.type) or types.is_fixed_size_list(array.type):
        yield from leaves(array.flatten())
    else:
        yield array


def is_infinite(array: pa.Array) -> bool:
    """Tell whether there is an infinite date or timestamp.

    Not of nanoseconds: their highest number is a finite instant elsewhere (pandas' Timestamp.max).
    """
    types = pa.types
    is_one = types.is_date32(array.type) or (types.is_timestamp(array.type) and array.type.unit != "ns")
    return is_one and has_extremes(array)


def is_last_nanosecond(array: pa.Array) -> bool:
    """Tell whether there is the first or last timestamp of nanoseconds."""
    return pa.types.is_timestamp(array.type) and array.type.unit == "ns" and has_extremes(array)


def has_extremes(array: pa.Array) -> bool:
    """Tell whether an array of dates or timestamps has a number that DuckDB calls infinite."""
    bits = 32 if pa.types.is_date32(array.type) else 64
    numbers, most = array.view(pa.int32() if bits == 32 else pa.int64()), 2 ** (bits - 1) - 1
    return most in (pc.max(numbers).as_py(), -(pc.min(numbers).as_py() or 0))


def is_fine(kind: pa.DataType) -> bool:
    """Tell whether a type of moments or times counts nanoseconds."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_time64(kind)) and bool(kind.unit == "ns")


def in_micros(kind: pa.DataType) -> pa.DataType:
    """Return the type of microseconds for one of nanoseconds."""
    return pa.time64("us") if pa.types.is_time(kind) else pa.timestamp("us", kind.tz)


def is_past_day(array: pa.Array) -> bool:
    """Tell whether there is a time of 24:00 or later."""
    if not pa.types.is_time(array.type):
        return False
    last = pc.max(counts(array)).as_py()
    return last is not None and last >= _day(array.type)


def first_outside_day(array: pa.Array) -> int | None:
    """Return the place of the first time below 0:00 or past 24:00, which no system takes; None: there is none."""
    ticks = counts(array)
    least, most = pc.min(ticks).as_py(), pc.max(ticks).as_py()
    if least is None or (least >= 0 and most <= _day(array.type)):
        return None
    return int(pc.index(ticks, least if least < 0 else most).as_py())


def counts(times: pa.Array) -> pa.Array:
    """Return the numbers of times: units since midnight, or since 1970 for dates and timestamps."""
    return times.view(pa.int32() if times.type.bit_width == 32 else pa.int64())


def _day(kind: pa.DataType) -> int:
    return _DAY_S * _UNITS[kind.unit]


__all__ = [
    "counts",
    "first_outside_day",
    "has_leaf",
    "in_micros",
    "is_fine",
    "is_infinite",
    "is_last_nanosecond",
    "is_past_day",
    "leaves",
]
