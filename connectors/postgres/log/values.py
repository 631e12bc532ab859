"""Values as the server writes them -> the columns that the ordinary reader's driver returns of the same table.

What comes next, the ordinary reader does: `PostgresSource.to_schema`.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...arrow import compute as pc
from ...arrow.compute import constant
from ...arrow.gather import array_of
from ...errors import FatalConnectorError
from ...field_facts import Precision, facts_of
from ..type_names import Name
from ..types import arrow_of

#: Settings of the session: each type has one text, from which its value can be read whatever the database's settings.
SESSION = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
}

_DAY_US = 86_400_000_000
#: What the driver makes of an infinite date or time, which the reader refuses by it.
_LEAST = {pa.date32(): -(2**31), pa.timestamp("us"): -(2**63)}

_PLAIN_MOMENT = r"^\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d(\.\d+)?)?(\+00)?$"
_MOMENT = re.compile(r"(\d+)-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?(?:\+00)?( BC)?", re.ASCII)
_INTERVAL = (
    r"^P(?:(?P<years>-?\d+)Y)?(?:(?P<months>-?\d+)M)?(?:(?P<days>-?\d+)D)?"
    r"(?:T(?:(?P<hours>-?\d+)H)?(?:(?P<minutes>-?\d+)M)?(?:(?P<sign>-)?(?P<seconds>\d+)(?:\.(?P<micros>\d{1,6}))?S)?)?$"
)
#: More hours than nanoseconds in 64 bits have, less an hour.
_MOST_HOURS = 2_562_046

Numbers = npt.NDArray[np.int64]

_HEX = np.full(256, 255, np.uint8)
_HEX[list(b"0123456789abcdef")] = range(16)


def values_of(texts: pa.Array, field: pa.Field, stream: str) -> pa.Array:
    """Return a column's values in the type in which the ordinary reader gets them.

    Args:
        texts: bytes, each a value as the server writes it under `SESSION`.
        field: of the stream's schema, with what is known of the column.
        stream: for errors.

    Raises:
        FatalConnectorError: a text is none of its type's.
    """
    facts = facts_of(field)
    name = Name.parse(facts.native_type)
    try:
        if facts.read_as == "text":
            return _cast_text(pc.cast(texts, pa.string()), name)
        if facts.precision is Precision.WIDENS:
            return pc.replace_substring_regex(pc.cast(texts, pa.string()), r"(\.\d*?)0+$", r"\1")
        return _read(texts, name, arrow_of(facts.native_type)[0])
    except (pa.ArrowException, ValueError) as error:
        text = f"column {field.name!r} holds what is no {facts.native_type}"
        raise FatalConnectorError(text, connector="postgres", stream=stream, has_no_values=True) from error


def _read(texts: pa.Array, name: Name, kind: pa.DataType) -> pa.Array:
    types = pa.types
    if types.is_binary(kind):
        return _bytes(texts)
    texts = pc.cast(texts, pa.string())  # looks for what is no UTF-8
    if name.base == "money":
        return pc.replace_substring_regex(texts, r"[$,]", "")
    if types.is_boolean(kind):
        return _flags(texts)
    if types.is_timestamp(kind) or types.is_date32(kind):
        return _moments(texts, kind)
    if types.is_time64(kind):
        return _times(texts, kind)
    if kind == pa.month_day_nano_interval():
        return _intervals(texts)
    if types.is_integer(kind) or types.is_floating(kind):
        return pc.cast(texts, kind)
    # Decimals and JSON come as text from the driver as well.
    return texts


def _cast_text(texts: pa.Array, name: Name) -> pa.Array:
    """Return what a cast to text makes of values, where the server's own text is another one."""
    if name.is_array:
        return texts
    if name.base == "boolean":
        return pc.if_else(_flags(texts), constant("true"), constant("false"))
    if name.is_filled:
        return pc.utf8_rtrim(texts, " ")
    if name.base == "inet":
        mask = pc.if_else(pc.match_substring(texts, ":"), constant("/128"), constant("/32"))
        full = pc.binary_join_element_wise(texts, mask, constant(""))
        return pc.if_else(pc.match_substring(texts, "/"), texts, full)
    return texts


def _flags(texts: pa.Array) -> pa.Array:
    found = pc.equal(texts, constant("t"))
    if pc.any(pc.invert(pc.or_(found, pc.equal(texts, constant("f"))))).as_py():
        raise ValueError("no boolean")
    return found


def _bytes(texts: pa.Array) -> pa.Array:
    """Read `\\x00ff`."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(texts) + 1)
    digits = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    digits = digits[: bounds[-1]]  # the buffer may be longer
    lengths = np.diff(bounds)
    # Of a NULL there are no digits, and no beginning.
    has_value = lengths > 0
    firsts = bounds[:-1][has_value]
    is_paired = (lengths % 2 == 0).all() and len(firsts) == len(texts) - texts.null_count
    if not is_paired or (digits[firsts] != ord("\\")).any() or (digits[firsts + 1] != ord("x")).any():
        raise ValueError("no hexadecimal digits")
    is_digit = np.ones(len(digits), bool)
    is_digit[firsts] = is_digit[firsts + 1] = False
    halves = _HEX[digits[is_digit]]
    if (halves > 15).any():
        raise ValueError("no hexadecimal digits")
    made = np.zeros(len(texts) + 1, np.int32)
    np.cumsum((lengths - 2 * has_value) // 2, out=made[1:])
    joined = halves[0::2] << 4 | halves[1::2]
    return pa.Array.from_buffers(
        pa.binary(), len(texts), [texts.buffers()[0], pa.py_buffer(made), pa.py_buffer(joined)]
    )


def _moments(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return pc.cast(texts, kind)
    except pa.ArrowInvalid:
        pass
    # Before the year 1, past 9999, or infinite: seldom, and read one by one.
    is_plain = pc.match_substring_regex(texts, _PLAIN_MOMENT)
    plain = pc.cast(pc.if_else(is_plain, texts, pa.nulls(1, pa.string())[0]), kind)
    number = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    values = np.array(plain.view(number).fill_null(0))
    naive = pa.date32() if pa.types.is_date32(kind) else pa.timestamp("us")
    for place in np.flatnonzero(~np.array(is_plain.fill_null(True))).tolist():
        text = texts[place].as_py()
        values[place] = _LEAST[naive] if text in ("infinity", "-infinity") else _moment(text, naive)
    nulls = np.array(texts.is_null())
    return array_of(kind, values, nulls if texts.null_count else None)


def _moment(text: str, kind: pa.DataType) -> int:
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ValueError("no date and no time")
    year = 1 - int(found[1]) if found[8] else int(found[1])
    months = np.int64((year - 1970) * 12 + int(found[2]) - 1)
    day = int(months.view("M8[M]").astype("M8[D]").view(np.int64)) + int(found[3]) - 1
    if pa.types.is_date32(kind):
        return day
    seconds = (int(found[4] or 0) * 60 + int(found[5] or 0)) * 60 + int(found[6] or 0)
    return day * _DAY_US + seconds * 1_000_000 + int((found[7] or "0").ljust(6, "0"))


def _times(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    is_last = pc.equal(texts, constant("24:00:00"))
    texts = pc.if_else(is_last, constant("00:00:00"), texts)
    moments = pc.binary_join_element_wise(constant("1970-01-01 "), texts, constant(""))
    found = pc.cast(moments, pa.timestamp("us")).view(pa.int64())
    if (low := pc.min_max(found).as_py())["min"] is not None and not 0 <= low["min"] <= low["max"] < _DAY_US:
        raise ValueError("no time of day")
    # The reader refuses it by its number, as it does the driver's.
    return pc.if_else(is_last, constant(_DAY_US), found).view(kind)


def _intervals(texts: pa.Array) -> pa.Array:
    parts = pc.extract_regex(texts, _INTERVAL)
    if parts.null_count != texts.null_count:
        raise ValueError("no interval of finite length")

    def number(name: str, digits: int = 1) -> Numbers:
        found = pc.fill_null(pc.struct_field(parts, name), "")
        return np.array(pc.cast(pc.utf8_rpad(found, digits, "0"), pa.int64()))

    hours = number("hours")
    if (np.abs(hours) > _MOST_HOURS).any():
        raise ValueError("an interval that is too long")
    clock = number("seconds") * 1_000_000 + number("micros", 6)
    is_negative = np.array(pc.equal(pc.fill_null(pc.struct_field(parts, "sign"), ""), constant("-")))
    micros = (hours * 60 + number("minutes")) * 60_000_000 + np.where(is_negative, -clock, clock)
    made = np.empty(len(texts), [("months", "<i4"), ("days", "<i4"), ("nanos", "<i8")])
    months, days = number("years") * 12 + number("months"), number("days")
    if (np.abs(months) >= 2**31).any() or (np.abs(days) >= 2**31).any():
        raise ValueError("an interval that is too long")
    made["months"], made["days"] = months, days
    made["nanos"] = micros * 1000
    nulls = np.array(texts.is_null()) if texts.null_count else None
    return array_of(pa.month_day_nano_interval(), made, nulls)


__all__ = ["SESSION", "values_of"]
