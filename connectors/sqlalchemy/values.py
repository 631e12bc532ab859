"""Columns of Python values <-> Arrow arrays, as drivers give and take them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ..arrow import compute as pc
from ..arrow.decimals import bounded, fitting
from ..errors import FatalConnectorError
from ..field_facts import facts_of
from ..incremental.bookmarks import to_json
from .types import EXACT_DIGITS


def array_of(values: Sequence[Any], field: pa.Field, stream: str) -> pa.Array:
    """Build a stream's column from a driver's values.

    Raises:
        FatalConnectorError: a value that the column's type does not hold.
    """
    kind = field.type
    try:
        if isinstance(kind, pa.BaseExtensionType) or pa.types.is_string(kind) or pa.types.is_temporal(kind):
            raise TypeError  # these take more than one form
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    native = facts_of(field).native_type
    try:
        plain = [None if value is None else _plain(value, kind, native, field.name, stream) for value in values]
        if isinstance(kind, pa.BaseExtensionType):
            return kind.wrap_array(pa.array(plain, kind.storage_type))
        if pa.types.is_temporal(kind) and any(isinstance(value, str) for value in plain):
            return _parsed(pa.array(plain, pa.string()), kind)
        return pa.array(plain, kind)
    except (pa.ArrowException, TypeError, ValueError, ArithmeticError) as error:
        raise FatalConnectorError(
            f"column {field.name!r}: a value does not fit {native or kind}: {str(error).partition(chr(10))[0]}; "
            "correct it, read it through a view with a CAST, or exclude the column with `columns`",
            connector="sqlalchemy",
            stream=stream,
        ) from error


def _parsed(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_time(kind):
        return pc.cast(texts, kind)
    if pc.any(pc.less(pc.binary_length(texts), len("23:59"))).as_py():
        raise ValueError("not a time of the form 23:59:59.999999")
    moments = pc.cast(pc.binary_join_element_wise("1970-01-01", texts, " "), pa.timestamp("us"))
    return pc.cast(moments, kind)


def _decimal(value: float, scale: int) -> Decimal:
    """Return the decimal that a double stands for, with the digits that a double can hold."""
    return Decimal(f"{value:.{EXACT_DIGITS}g}" if abs(value) < 10 ** (EXACT_DIGITS - scale) else repr(value))


def _plain(value: Any, kind: pa.DataType, native: str, column: str, stream: str) -> Any:
    if hasattr(value, "read"):  # a large object that is not fetched yet
        value = value.read()
    types = pa.types
    if kind == pa.uuid():
        return (value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))).bytes
    if types.is_timestamp(kind) and isinstance(value, datetime):
        is_zoned = kind.tz is not None
        if is_zoned:
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    if types.is_temporal(kind) and isinstance(value, int | float):
        raise ValueError(f"{value} is a number")  # Arrow would count days, or microseconds
    if types.is_binary(kind) and isinstance(value, bytearray | memoryview):
        return bytes(value)
    if kind == pa.json_() or types.is_string(kind):
        return _text(value, native, column, stream)
    if types.is_decimal(kind) and isinstance(value, Decimal) and value.is_finite():
        return fitting(value, kind)
    if types.is_decimal(kind) and isinstance(value, float | str):
        return fitting(Decimal(value), kind) if isinstance(value, str) else _decimal(value, kind.scale)
    if types.is_boolean(kind) and value in (0, 1):
        return bool(value)
    return value


def _text(value: Any, native: str, column: str, stream: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return format(bounded(value), "f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | uuid.UUID):
        return str(value)
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, float) and native == "numeric":
        return format(Decimal(repr(value)), "f")
    if isinstance(value, dict | list | tuple) or (native == "json" and isinstance(value, float)):
        return json.dumps(value, ensure_ascii=False, default=to_json)
    raise FatalConnectorError(
        f"column {column!r} is {native or 'of an unknown type'}, whose values ({type(value).__name__}) cannot "
        "become text: read it through a view with a CAST, or exclude it with `columns`",
        connector="sqlalchemy",
        stream=stream,
    )


def values_of(array: pa.Array, column: str) -> list[Any]:
    """Return a column's values as drivers take them.

    Raises:
        FatalConnectorError: a date that Python does not have.
    """
    if array.type == pa.uuid():
        return [None if value is None else uuid.UUID(bytes=value) for value in array.storage.to_pylist()]
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    try:
        values: list[Any] = array.to_pylist()
    except (OverflowError, ValueError) as error:
        raise FatalConnectorError(
            f"column {column!r}: a date is outside the years 1 to 9999 ({error})", connector="sqlalchemy"
        ) from error
    return values


__all__ = ["array_of", "values_of"]
