"""Dates and times that Python cannot hold (infinity, years past 9999): displaying such a DataFrame fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

#: The years 1 to 9999, in seconds since 1970.
_FIRST_S, _END_S = -62_135_596_800, 253_402_300_800
_DAY_S = 86_400
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6}


def without_odd_times(table: pa.Table, note: Callable[[str], None]) -> pa.Table:
    """Replace each date and time that Python cannot hold by None; `note` gets the columns."""
    for place, field in enumerate(table.schema):
        column = table.column(place)
        kept = _kept(column)
        if kept is None:
            continue
        odd = kept.null_count - column.null_count
        if odd:
            note(f"column {field.name!r}: {odd} dates or times that Python cannot hold are None")
            table = table.set_column(place, field.with_nullable(True), kept)
    return table


def _kept(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return a column without such values; None if its type has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_nested(kind):
        is_held: Any = pa.array([_is_held(value) for value in column], pa.bool_()) if _has_times(kind) else None
    elif pa.types.is_date(kind):
        days = column.cast(pa.date32()).cast(pa.int32())
        is_held = pc.and_(pc.greater_equal(days, _FIRST_S // _DAY_S), pc.less(days, _END_S // _DAY_S))
    elif pa.types.is_timestamp(kind) and kind.unit in _PER_SECOND:
        # In another time zone, a moment of the first or last day may be in another year.
        margin_s, units = (0 if kind.tz is None else _DAY_S), _PER_SECOND[kind.unit]
        number = column.cast(pa.int64())
        is_late_enough = pc.greater_equal(number, (_FIRST_S + margin_s) * units)
        is_held = pc.and_(is_late_enough, pc.less(number, (_END_S - margin_s) * units))
    else:
        return None
    return None if is_held is None else pc.if_else(is_held, column, pa.scalar(None, kind))


def _has_times(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_nested(kind):
        return any(_has_times(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def _is_held(value: pa.Scalar) -> bool:
    try:
        value.as_py()
    except (OverflowError, ValueError):
        return False
    return True
