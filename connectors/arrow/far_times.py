"""Texts of dates and times that Python and Arrow cannot write: infinities, years outside 1 to 9999, the time 24:00."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Any

import pyarrow as pa

from . import compute as pc
from .text import to_json, to_text, year_limits
from .times import counts, has_leaf

#: The Gregorian calendar repeats after so many days, which are 400 years.
_CYCLE_DAYS, _CYCLE_YEARS = 146_097, 400
_EPOCH = date(1970, 1, 1).toordinal()
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S = 86_400


def has_far_times(column: pa.Array) -> bool:
    """Return true if `to_text` cannot write one of the column's dates and times, nested ones included."""
    return has_leaf(column, lambda leaf: _is_time(leaf.type) and bool(pc.any(_are_far(leaf)).as_py()))


def far_texts(column: pa.Array) -> pa.Array:
    """Write the values of a column as `to_text` does. Far dates have the form `20000-01-01` or `-0043-03-15`."""
    kind = column.type
    if pa.types.is_nested(kind):
        numbers, texts = _with_leaves(kind, _number_type), _with_leaves(kind, lambda _: pa.string())
        values = column.cast(numbers).to_pylist()
        return pa.array([None if each is None else to_json(_written(each, kind), texts) for each in values])
    are_far = pc.fill_null(_are_far(column), False)
    near = to_text(pc.if_else(are_far, pa.nulls(len(column), kind), column), "").cast(pa.string())
    far = [_time_text(each, kind) for each in counts(column).filter(are_far).to_pylist()]
    return pc.replace_with_mask(near, are_far, pa.array(far, pa.string()))


def _are_far(times: pa.Array) -> pa.Array:
    numbers = counts(times)
    first, end = (0, _DAY_S * _TICKS[times.type.unit]) if pa.types.is_time(times.type) else year_limits(times.type)
    most = 2 ** (numbers.type.bit_width - 1) - 1  # below the year 10000 in nanoseconds
    least, last = (pc.constant(each, numbers.type) for each in (max(first, -most - 1), min(end - 1, most)))
    return pc.or_(pc.less(numbers, least), pc.greater(numbers, last))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind))


def _number_type(kind: pa.DataType) -> pa.DataType:
    return pa.int32() if kind.bit_width == 32 else pa.int64()


def _with_leaves(kind: pa.DataType, made: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return a type with other types in place of the dates and times that are nested in it."""
    types = pa.types
    if types.is_struct(kind):
        return pa.struct([field.with_type(_with_leaves(field.type, made)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_with_leaves(kind.key_type, made), _with_leaves(kind.item_type, made))
    if types.is_nested(kind):
        value = _with_leaves(kind.value_type, made)
        if types.is_fixed_size_list(kind):
            return pa.list_(value, kind.list_size)
        return (pa.large_list if types.is_large_list(kind) else pa.list_)(value)
    return made(kind) if _is_time(kind) else kind


def _written(value: Any, kind: pa.DataType) -> Any:
    """Return a nested value with texts in place of the numbers of its dates and times."""
    types = pa.types
    if value is None:
        return None
    if types.is_struct(kind):
        return {field.name: _written(value[field.name], field.type) for field in kind}
    if types.is_map(kind):
        return [(_written(key, kind.key_type), _written(item, kind.item_type)) for key, item in value]
    if types.is_nested(kind):
        return [_written(each, kind.value_type) for each in value]
    return _time_text(value, kind) if _is_time(kind) else value


def _array(number: int, kind: pa.DataType) -> pa.Array:
    return pa.array([number], _number_type(kind)).view(kind)


@lru_cache(maxsize=4096)
def _time_text(number: int, kind: pa.DataType) -> str:
    """Write one date or time; `number` counts the units of its type."""
    if not has_far_times(_array(number, kind)):
        return str(to_text(_array(number, kind), "")[0].as_py())
    if abs(number) == 2 ** (kind.bit_width - 1) - 1:
        return "infinity" if number > 0 else "-infinity"
    unit = "s" if pa.types.is_date32(kind) else "ms" if pa.types.is_date64(kind) else kind.unit
    days, ticks = (number, 0) if pa.types.is_date32(kind) else divmod(number, _DAY_S * _TICKS[unit])
    clock = str(to_text(_array(ticks, pa.timestamp(unit)), "")[0].as_py()).partition("T")[2]
    if pa.types.is_time(kind):
        return f"{24 * days + int(clock[:2])}{clock[2:]}"
    cycles, place = divmod(days + _EPOCH - 1, _CYCLE_DAYS)
    day = date.fromordinal(place + 1)
    year = day.year + _CYCLE_YEARS * cycles
    text = f"{'-' if year < 0 else ''}{abs(year):04}-{day.month:02}-{day.day:02}"
    if pa.types.is_date(kind):
        return text
    return f"{text}T{clock}{'' if kind.tz is None else 'Z'}"


__all__ = ["far_texts", "has_far_times"]
