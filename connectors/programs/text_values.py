"""Turn texts of JSON into dates, times, UUIDs and bytes, in all the forms that taps write."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.text import from_text, is_uuid

_OFFSET = r"([Zz]|[+-]\d{2}:?\d{2})$"


def from_texts(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Turn a column of texts into its type, all at once if the texts have the usual form.

    A time without an offset is UTC, as everywhere in Singer; a time with one also fits a column without a zone.

    Raises:
        ValueError: (`pa.ArrowInvalid` is one) a value does not have that type.
    """
    if is_uuid(kind):
        return _uuids(column, kind)
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return from_text(column, kind, is_empty_null=False)
    zoned = pa.timestamp("us", "UTC") if pa.types.is_timestamp(kind) and kind.tz else kind
    try:
        return column.cast(zoned)
    except pa.ArrowInvalid:
        pass
    if zoned is not kind or (pa.types.is_timestamp(kind) and kind.tz):
        has_offset = pc.match_substring_regex(column, _OFFSET)
        is_day = pc.equal(pc.binary_length(column), 10)
        ending = pc.if_else(has_offset, "", pc.if_else(is_day, "T00:00:00Z", "Z"))
        try:
            return pc.binary_join_element_wise(column, ending, "").cast(zoned)
        except pa.ArrowInvalid:
            pass
    return pa.array([None if text is None else _moment(text, kind) for text in column.to_pylist()], kind)


def _moment(text: str, kind: pa.DataType) -> Any:
    """Parse one text of an unusual form: lower-case letters, offsets such as +00, a date with midnight."""
    digits = text.partition(".")[2]
    rest = digits[6 : len(digits) - len(digits.lstrip("0123456789"))]
    if rest.strip("0"):
        raise ValueError(f"{text!r} is finer than microseconds")
    if pa.types.is_date(kind):
        moment = datetime.fromisoformat(text.upper())
        if (moment.hour, moment.minute, moment.second, moment.microsecond) != (0, 0, 0, 0):
            raise ValueError(f"{text!r} is not a date without a time")
        return date(moment.year, moment.month, moment.day)
    moment = datetime.fromisoformat(text.upper())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    moment = moment.astimezone(UTC)
    return moment if kind.tz else moment.replace(tzinfo=None)


def _uuids(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Parse all hexadecimal digits at once; texts of another form one by one."""
    if not len(column):
        return pa.ExtensionArray.from_storage(kind, pa.array([], kind.storage_type))
    bare = pc.replace_substring(column, "-", "")
    filled = pc.fill_null(bare, "0" * 32)
    if pc.all(pc.equal(pc.binary_length(filled), 32)).as_py():
        try:
            data = bytes.fromhex("".join(filled.to_pylist()))
        except ValueError:
            return from_text(column, kind, is_empty_null=False)
        whole = pa.Array.from_buffers(kind.storage_type, len(column), [None, pa.py_buffer(data)])
        valid = pc.is_valid(column)
        storage = whole if column.null_count == 0 else pc.if_else(valid, whole, pa.scalar(None, kind.storage_type))
        return pa.ExtensionArray.from_storage(kind, storage)
    return from_text(column, kind, is_empty_null=False)
