"""Write columns as text and read them back without loss: how CSV and JSON lines keep types that they lack.

Text of a type: true/false; digits; `1e-07`, `nan`, `inf`; decimals plain; ISO 8601 for dates, times and timestamps
(zoned ones in UTC with `Z`); binary as base64; UUIDs with hyphens; durations as a number of their unit; intervals as
ISO 8601 durations of months, days and seconds (`P1M2DT0.000000003S`, `PT90S`); lists, structs and maps as JSON (maps
as a list of pairs).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import FatalConnectorError
from .compute import constant
from .decimals import as_number, fitting, from_texts
from .times import counts, is_past_day
from .type_names import type_text

#: Numbers that JSON lacks are written as these texts, and read back in a column of numbers.
SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

#: Also with zeros, as earlier versions wrote each part: `P0M0DT90.000000000S`.
_INTERVAL = re.compile(
    r"P(?=-?\d|T)(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(-?)(\d+)(?:\.(\d{1,9}))?S)?",
)

#: First and last instant with a year of four digits.
_FIRST, _LAST = date(1, 1, 1), date(9999, 12, 31)
_EPOCH = date(1970, 1, 1)
_DAY_S = 86_400
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def is_json(kind: pa.DataType) -> bool:
    """Tell whether a column holds JSON texts."""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json"


def is_uuid(kind: pa.DataType) -> bool:
    """Tell whether a column holds UUIDs."""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column's values are their own text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Tell whether a column holds raw bytes."""
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def is_nested(kind: pa.DataType) -> bool:
    """Tell whether values of the type hold other values."""
    return bool(pa.types.is_nested(kind))


def from_text(column: pa.Array, kind: pa.DataType, *, is_empty_null: bool) -> pa.Array:
    """Turn a column of strings into its type.

    Args:
        column: strings.
        kind: the type wanted.
        is_empty_null: an empty text is NULL, except where text or binary is wanted (CSV).

    Raises:
        ValueError: (`pa.ArrowInvalid` is one) a value does not have that type; see `first_invalid`.
    """
    types = pa.types
    if is_text(kind):
        return column.cast(kind)
    if is_empty_null and not is_bytes(kind):  # base64 of no bytes is the empty text
        is_empty = pc.equal(column, constant(""))
        if pc.any(is_empty).as_py():  # seldom, and to choose copies the column
            column = pc.if_else(is_empty, pa.nulls(1, column.type)[0], column)
    if types.is_decimal(kind):
        return from_texts(column, kind)
    if is_json(kind):
        return pa.ExtensionArray.from_storage(kind, column.cast(kind.storage_type))
    if is_uuid(kind):
        return pa.ExtensionArray.from_storage(kind, _uuid_bytes(column, kind.storage_type))
    if types.is_timestamp(kind) and kind.tz is not None:
        return column.cast(pa.timestamp(kind.unit, "UTC")).cast(kind)
    if types.is_time(kind):
        unit = "ns" if kind.unit == "ns" else "us"
        joined = pc.binary_join_element_wise(constant("1970-01-01T"), column, constant(""))
        return joined.cast(pa.timestamp(unit)).cast(pa.time64(unit)).cast(kind)
    if types.is_date64(kind):
        return column.cast(pa.date32()).cast(kind)
    if types.is_duration(kind):
        return column.cast(pa.int64()).cast(kind)
    if is_bytes(kind):
        return _each(column, lambda text: base64.b64decode(text, validate=True), kind)
    if types.is_interval(kind):
        return _each(column, read_interval, kind)
    if is_nested(kind):
        return _each(column, lambda text: revive(json.loads(text, parse_float=Decimal), kind), kind)
    if types.is_null(kind):
        if column.null_count < len(column):
            raise ValueError("a value where none is expected")
        return pa.nulls(len(column))
    return _floats(column, kind) if types.is_floating(kind) else column.cast(kind)


def checked_json(column: pa.Array) -> pa.Array:
    """Return a column; of JSON each text was looked at, unless it is nested too deep to tell.

    Raises:
        ValueError: a text is no JSON.
    """
    if is_json(column.type):
        import msgspec  # few columns are said to be JSON

        decoder = msgspec.json.Decoder(msgspec.Raw)
        for text in column.storage.drop_null().to_pylist():
            with suppress(RecursionError):
                try:
                    decoder.decode(text)
                except msgspec.DecodeError:  # half a surrogate pair is JSON to others
                    json.loads(text, parse_constant=_no_constant)
    return column


def _no_constant(text: str) -> None:
    raise ValueError(f"JSON has no {text}")


def _floats(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast to floats, and refuse a number out of range, which Arrow makes an infinity or 0."""
    found = column.cast(kind)
    wide = found.cast(pa.float32()) if pa.types.is_float16(kind) else found  # Arrow has no kernels for half floats
    odd = column.filter(pc.or_(pc.is_inf(wide), pc.equal(wide, constant(0))))
    if pc.any(pc.match_substring_regex(odd, "^[^eE]*[1-9]")).as_py():
        raise ValueError(f"a number that does not fit any {type_text(kind)}")
    return found


def first_invalid(column: pa.Array, converts: Callable[[pa.Array], Any]) -> int:
    """Return the position of the first value for which `converts` raises, by halving."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            converts(column.slice(low, middle - low))
        except (ValueError, TypeError, ArithmeticError, pa.ArrowException):
            high = middle
        else:
            low = middle
    return low


def to_text(column: pa.Array, name: str) -> pa.Array:
    """Turn a column into strings that `from_text` turns back.

    Raises:
        FatalConnectorError: a year of more than four digits, or bytes that are no text.
    """
    kind = column.type
    types = pa.types
    if is_text(kind):
        return column
    if is_json(kind):
        return column.storage.cast(pa.string())
    if is_uuid(kind):
        return _texts(column, str)
    if types.is_timestamp(kind):
        _check_years(column, name)
        # Arrow takes ten times as long to write a time with a zone.
        text = column.cast(pa.timestamp(kind.unit, None if kind.tz is None else "UTC")).cast(pa.timestamp(kind.unit))
        text = pc.replace_substring(text.cast(pa.string()), " ", "T", max_replacements=1)
        return text if kind.tz is None else pc.binary_join_element_wise(text, constant("Z"), constant(""))
    if types.is_date(kind):
        _check_years(column, name)
        return column.cast(pa.date32()).cast(pa.string())
    if types.is_time(kind) and is_past_day(column):
        raise FatalConnectorError(f"column {name!r} contains the time 24:00, which text cannot store; Parquet can")
    if types.is_decimal(kind):
        return _plain(column)
    if types.is_duration(kind):
        return column.cast(pa.int64()).cast(pa.string())
    if is_bytes(kind):
        return _texts(column, lambda value: base64.b64encode(value).decode("ascii"))
    if types.is_interval(kind):
        return _texts(column, _interval_text)
    if is_nested(kind):
        return _texts(column, lambda value: to_json(value, kind))
    return column.cast(pa.string())


def is_utf8(data: bytes | bytearray) -> bool:
    """Tell whether bytes are a text; nothing is copied."""
    offsets = struct.pack("=qq", 0, len(data))
    text = pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def to_json(value: Any, kind: pa.DataType) -> str:
    """Write one nested value as JSON; numbers keep all digits."""
    if value is None:
        return "null"
    types = pa.types
    if types.is_struct(kind):
        fields = (f"{json.dumps(f.name, ensure_ascii=False)}:{to_json(value[f.name], f.type)}" for f in kind)
        return "{" + ",".join(fields) + "}"
    if types.is_map(kind):
        pairs = (f"[{to_json(k, kind.key_type)},{to_json(v, kind.item_type)}]" for k, v in value)
        return "[" + ",".join(pairs) + "]"
    if is_nested(kind):
        return "[" + ",".join(to_json(item, kind.value_type) for item in value) + "]"
    if is_json(kind):
        return str(value).replace("\n", " ").replace("\r", " ")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float):
        return repr(value) if abs(value) < float("inf") else json.dumps(SPECIAL[str(value)])
    if isinstance(value, int):
        return str(value)
    text = to_text(pa.array([value], kind), "")[0].as_py()
    return json.dumps(text, ensure_ascii=False)


def revive(value: Any, kind: pa.DataType) -> Any:
    """Turn a parsed JSON value (floats as Decimal) into a value that Arrow takes for the type.

    Raises:
        ValueError: the value does not have that type.
    """
    types = pa.types
    if value is None:
        return None
    if types.is_struct(kind):
        _demand(isinstance(value, dict))
        return {field.name: revive(value.get(field.name), field.type) for field in kind}
    if types.is_map(kind):
        pairs = value.items() if isinstance(value, dict) else value
        return [(revive(k, kind.key_type), revive(v, kind.item_type)) for k, v in pairs]
    if is_nested(kind):
        _demand(isinstance(value, list))
        return [revive(item, kind.value_type) for item in value]
    if is_json(kind):
        from msgspec.json import Encoder  # few streams have nested JSON

        return Encoder(decimal_format="number").encode(value).decode()
    if types.is_boolean(kind):
        _demand(isinstance(value, bool))
        return value
    if types.is_integer(kind):
        _demand(isinstance(value, int | Decimal) and not isinstance(value, bool))
        number = as_number(value) if isinstance(value, Decimal) else value
        _demand(isinstance(number, int))
        return number
    if types.is_floating(kind):
        _demand(value in SPECIAL.values() if isinstance(value, str) else isinstance(value, int | Decimal))
        _demand(not isinstance(value, bool))
        number = float(value)
        _demand(isinstance(value, str) or (bool(number) == bool(value) and abs(number) != float("inf")))
        return number
    if types.is_decimal(kind):
        _demand(isinstance(value, int | Decimal | str) and not isinstance(value, bool))
        return fitting(Decimal(value), kind)
    _demand(isinstance(value, str))
    if is_uuid(kind):
        return uuid.UUID(value).bytes
    return from_text(pa.array([value], pa.string()), kind, is_empty_null=False)[0].as_py()


def revived(values: Any, kind: pa.DataType) -> pa.Array:
    """Make an array of values that `revive` returned; Arrow cannot make arrays with nested UUIDs or JSON."""
    stored = _stored(kind) if is_nested(kind) else kind
    return pa.array(values, kind) if stored == kind else pa.array(values, stored).cast(kind)


def _stored(kind: pa.DataType) -> pa.DataType:
    """Return the type with bytes for UUIDs and text for JSON."""
    types = pa.types
    if types.is_struct(kind):
        return pa.struct([field.with_type(_stored(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_stored(kind.key_type), _stored(kind.item_type))
    if is_uuid(kind) or is_json(kind):
        return kind.storage_type
    if not is_nested(kind) or _stored(kind.value_type) == kind.value_type:
        return kind
    return (pa.large_list if types.is_large_list(kind) else pa.list_)(_stored(kind.value_type))


def _demand(is_so: bool) -> None:
    if not is_so:
        raise ValueError("another JSON type than the column's")


def _each(column: pa.Array, convert: Callable[[str], Any], kind: pa.DataType) -> pa.Array:
    try:
        values = [None if text is None else convert(text) for text in column.to_pylist()]
    except (binascii.Error, ArithmeticError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
    return revived(values, kind)


#: A UUID as systems write it; its other forms are read one by one.
UUID_TEXT = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


def _uuid_bytes(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pc.any(pc.invert(pc.match_substring_regex(column, UUID_TEXT))).as_py():
        return _each(column, lambda text: uuid.UUID(text).bytes, kind)
    digits = pc.replace_substring(column.drop_null(), "-", "")
    data = bytes.fromhex("".join(digits.to_pylist()))
    found = pa.Array.from_buffers(kind, len(digits), [None, pa.py_buffer(data)])
    if not column.null_count:
        return found
    is_there = pc.is_valid(column)
    places = pc.subtract(pc.cumulative_sum(is_there.cast(pa.int64())), 1)
    return found.take(pc.if_else(is_there, places, pa.scalar(None, pa.int64())))


def _texts(column: pa.Array, convert: Callable[[Any], str]) -> pa.Array:
    return pa.array([None if value is None else convert(value) for value in column.to_pylist()], pa.string())


def _plain(column: pa.Array) -> pa.Array:
    text = column.cast(pa.string())
    scientific = pc.match_substring(text, "E")
    if not pc.any(scientific).as_py():
        return text
    values = [format(value, "f") for value in column.filter(scientific).to_pylist()]
    return pc.replace_with_mask(text, scientific, pa.array(values, pa.string()))


def year_limits(kind: pa.DataType) -> tuple[int, int]:
    """Return the number of the year 1 in a type of dates or timestamps, and the number of the year 10000."""
    unit = 1 if pa.types.is_date32(kind) else _UNITS["ms" if pa.types.is_date64(kind) else kind.unit] * _DAY_S
    return (_FIRST - _EPOCH).days * unit, ((_LAST - _EPOCH).days + 1) * unit


def _check_years(column: pa.Array, name: str) -> None:
    """Refuse times that Arrow writes as `<value out of range>`, or that could not be read back."""
    found, (first, last) = pc.min_max(counts(column)).as_py(), year_limits(column.type)
    if found["min"] is not None and (found["min"] < first or found["max"] >= last):
        raise FatalConnectorError(
            f"column {name!r} contains a date outside the years 1 to 9999, which text cannot store; Parquet can. "
            "`on_rejected: keep` sets such records aside"
        )


def interval_text(months: int, days: int, nanoseconds: int) -> str:
    """Write an interval in ISO 8601, without the parts that are zero."""
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    date = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    if date and not nanoseconds:
        return f"P{date}"
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"P{date}T{'-' if nanoseconds < 0 else ''}{seconds}{fraction}S"


def _interval_text(value: Any) -> str:
    return interval_text(value.months, value.days, value.nanoseconds)


def read_interval(text: str) -> tuple[int, int, int]:
    """Return months, days and nanoseconds.

    Raises:
        ValueError: it is no such text.
    """
    match = _INTERVAL.fullmatch(text)
    if match is None:
        raise ValueError(f"not an interval of the form P1M2DT3.5S: {text!r}")
    months, days, sign, seconds, rest = match.groups()
    nanoseconds = int(seconds or 0) * 10**9 + int((rest or "").ljust(9, "0"))
    return int(months or 0), int(days or 0), -nanoseconds if sign else nanoseconds


__all__ = [
    "SPECIAL",
    "UUID_TEXT",
    "first_invalid",
    "from_text",
    "interval_text",
    "is_bytes",
    "is_json",
    "is_nested",
    "is_text",
    "is_utf8",
    "is_uuid",
    "read_interval",
    "revive",
    "revived",
    "to_json",
    "to_text",
    "year_limits",
]
