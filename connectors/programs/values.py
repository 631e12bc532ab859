"""Turn single JSON values into values that Arrow takes, for lines that cannot be parsed by blocks."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import pyarrow as pa

from ..arrow.decimals import bounded, fitting
from ..arrow.text import SPECIAL, revive
from .numbers import Wider, decimal_for, is_exact
from .types import JSONReading, PropertyColumn

_values = msgspec.json.Decoder(float_hook=Decimal)


class ParsedValue:
    """A value that is parsed already."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def value_of(column: PropertyColumn, raw: Any) -> Any:
    """Turn one JSON value into a value that Arrow takes for the column.

    Raises:
        ValueError: the value does not have the column's type.
    """
    if column.reading is JSONReading.JSON:
        text = _as_json(raw.value) if isinstance(raw, ParsedValue) else bytes(raw).decode()
        return None if text == "null" else text
    value = raw.value if isinstance(raw, ParsedValue) else _values.decode(raw)
    if value is None:
        return None
    if column.reading is JSONReading.NUMBER:
        return _number(column, value)
    if column.reading is JSONReading.NUMERIC:
        return _digits(value)
    kind = column.type
    if pa.types.is_integer(kind):
        return _integer(column, value)
    if pa.types.is_decimal(kind):
        return _decimal(column, value)
    if column.reading is JSONReading.TEXT or pa.types.is_string(kind):
        if not isinstance(value, str):
            raise ValueError("no text")
        return value
    return revive(value, kind)


def _number(column: PropertyColumn, value: Any) -> float | None:
    if isinstance(value, str):
        if value not in SPECIAL.values():
            raise ValueError("no number")
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal | float):
        raise ValueError("no number")
    if isinstance(value, float):
        return value
    if isinstance(value, Decimal) and not value:
        return float(value)
    if not is_exact(value):
        raise Wider(column, decimal_for([bounded(Decimal(value))]))
    return float(value)


def _integer(column: PropertyColumn, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("no integer")
    if isinstance(value, Decimal):
        value = bounded(value)
        if value != value.to_integral_value():
            raise ValueError("no integer")
    number = int(value)
    if column.type.bit_width == 64 and not -(2**63) <= number < 2**63:
        raise Wider(column, pa.decimal128(38, 0) if abs(number) < 10**38 else None)
    return number


def _decimal(column: PropertyColumn, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise ValueError("no number")
    number = bounded(Decimal(value))
    try:
        return fitting(number, column.type)
    except ValueError:
        if column.is_widened:
            raise Wider(column, None) from None
        raise


def _digits(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str | float):
        raise ValueError("no number")
    if isinstance(value, float):  # NaN or infinity
        return SPECIAL.get(str(value), str(value))
    try:
        number = bounded(Decimal(value))
    except InvalidOperation as error:
        raise ValueError("no number") from error
    if not number.is_finite():
        return str(value)
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _as_json(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, float):
        return json.dumps(SPECIAL.get(str(value), str(value)))
    if isinstance(value, dict):
        pairs = (f"{json.dumps(name, ensure_ascii=False)}:{_as_json(item)}" for name, item in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_as_json(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def shown(raw: Any, limit: int = 80) -> str:
    """Return a value for a message, shortened."""
    if raw is None:
        return "null"
    if isinstance(raw, ParsedValue):
        raw = repr(raw.value).encode("utf-8", "replace")
    text = bytes(raw).decode("utf-8", "replace").strip()
    return text if len(text) <= limit else f"{text[:limit]}..."
