"""Values of columns that are stored as JSON, read back in the type of their column."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any

import pyarrow as pa

from . import compute as pc
from .decimals import fitting

#: Types of bytes, which JSON has in hexadecimal digits.
BINARY = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)


def scalar_from_json(value: Any, kind: pa.DataType) -> pa.Scalar:
    """Return a JSON value as a scalar of a type.

    Raises:
        ValueError, TypeError, ArithmeticError, pyarrow.ArrowException: the value does not have that type.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(value)
    if any(is_kind(kind) for is_kind in BINARY):
        return pa.scalar(bytes.fromhex(str(value)), kind)
    if pa.types.is_decimal(kind):
        return pa.scalar(fitting(Decimal(str(value)), kind), kind)
    if pa.types.is_timestamp(kind):
        moment = datetime.fromisoformat(str(value))
        if (moment.tzinfo is None) != (kind.tz is None):
            raise ValueError("times with a zone and times without one cannot be compared")
        since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
        return _of_microseconds(since // _MICROSECOND, pa.timestamp("us", kind.tz), kind, str(value))
    if pa.types.is_date(kind):
        days = (date.fromisoformat(str(value)) - _EPOCH.date()).days
        return pc.cast(pc.constant(days, pa.int32()), pa.date32()).cast(kind)
    if pa.types.is_time(kind):
        of_day = datetime.combine(_EPOCH.date(), time_of_day.fromisoformat(str(value)), UTC) - _EPOCH
        return _of_microseconds(of_day // _MICROSECOND, pa.time64("us"), kind, str(value))
    if pa.types.is_integer(kind):
        if int(value) != Decimal(value):
            raise ValueError(value)
        is_small = -(1 << 63) <= int(value) < 1 << 63
        return pc.constant(int(value), kind) if is_small else pa.scalar(int(value), kind)
    if pa.types.is_floating(kind):
        return pc.constant(float(value), kind)
    return pc.constant(str(value), kind)


def _of_microseconds(number: int, coarse: pa.DataType, kind: pa.DataType, text: str) -> pa.Scalar:
    """Make a time by casts, because `pyarrow.scalar` imports pandas for it. Nanoseconds are read from the text."""
    if kind.unit != "ns":
        return pc.cast(pc.constant(number, coarse), kind)
    digits = re.search(r"\.\d{6}(\d{1,3})", text)
    return pc.constant(number * 1000 + int(digits[1].ljust(3, "0") if digits else 0), kind)


__all__ = ["BINARY", "scalar_from_json"]
