"""Arrow columns -> what SQLite stores; the forms are those of `types`."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.casts import cast_array, json_text
from ..arrow.compute import constant
from ..arrow.text import interval_text
from ..arrow.times import is_past_day
from ..errors import FatalConnectorError


def stored(array: pa.Array, column: str) -> pa.Array:
    """Return a column as integers, floats, texts or blobs.

    Raises:
        FatalConnectorError: a value has no stored form that is read back as it was.
    """
    kind, types = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _uuid_text(array.storage) if kind == pa.uuid() else stored(array.storage, column)
    if types.is_dictionary(kind):
        return stored(array.dictionary_decode(), column)
    if types.is_boolean(kind) or types.is_integer(kind):
        return pc.cast(array, pa.int64())
    if types.is_floating(kind):
        return pc.cast(array, pa.float64())
    if types.is_decimal(kind):
        return _decimal_text(array)
    if types.is_timestamp(kind):
        return _timestamp_text(array, column)
    if types.is_date(kind):
        return _of_width(pc.cast(array, pa.string()), 10, column)
    if types.is_time(kind):
        if is_past_day(array):
            raise FatalConnectorError(
                f"column {column!r} contains the time 24:00, but the latest time here is 23:59:59.999999: exclude "
                "the column with `columns`",
                connector="sqlite",
            )
        return pc.cast(pc.cast(array, pa.time64("us")), pa.string())
    if types.is_duration(kind) or types.is_interval(kind):
        return _interval_text(array, column)
    if types.is_nested(kind):
        return _json_text(array, column)
    if types.is_null(kind):
        return pc.cast(array, pa.string())
    return array


#: What SQLite stores as a number in a column that is not declared as text; an integer in its shortest form is read back
#: as it was.
_NUMBER = r"^\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*$"
_SHORTEST = r"^(?:0|-?[1-9][0-9]{0,17})$"


def refuse_numbers(array: pa.Array, column: str, declared: str) -> None:
    """Raise for texts that would become numbers which are written otherwise, such as 007."""
    is_number = pc.match_substring_regex(array, _NUMBER)
    is_changed = pc.and_(is_number, pc.invert(pc.match_substring_regex(array, _SHORTEST)))
    if pc.any(is_changed).as_py():
        text = array[pc.index(is_changed, True).as_py()].as_py()
        raise FatalConnectorError(
            f"column {column!r}: SQLite would turn {text!r} into a number, since the column's declared type "
            f"{declared} is not a text type for it: declare the column TEXT, or exclude it with `columns`",
            connector="sqlite",
        )


def _json_text(array: pa.Array, column: str) -> pa.Array:
    try:
        return json_text(array)
    except OverflowError as error:
        raise FatalConnectorError(
            f"column {column!r}: a date is outside the years 1 to 9999 ({error}): exclude the column with `columns`",
            connector="sqlite",
        ) from error


def _decimal_text(array: pa.Array) -> pa.Array:
    text = pc.cast(array, pa.string())
    if not pc.any(pc.match_substring(text, "E")).as_py():
        return text
    # Arrow writes small values as 1E-10, which sorts and reads badly.
    plain = [None if value is None else _plain(value) for value in array.to_pylist()]
    return pa.array(plain, pa.string())


def _plain(value: Decimal) -> str:
    return format(value, "f")


def _timestamp_text(array: pa.Array, column: str) -> pa.Array:
    unit = "ns" if array.type.unit == "ns" else "us"
    text = pc.cast(pc.cast(pc.cast(array, pa.timestamp(unit, array.type.tz)), pa.timestamp(unit)), pa.string())
    text = _of_width(text, 29 if unit == "ns" else 26, column)
    return text if array.type.tz is None else pc.binary_join_element_wise(text, constant("+00:00"), constant(""))


def _of_width(text: pa.Array, width: int, column: str) -> pa.Array:
    """Refuse years before 1 and past 9999: SQLite's own functions do not know them, and they sort wrongly."""
    is_fine = pc.and_(pc.equal(pc.binary_length(text), constant(width)), pc.greater_equal(text, constant("0001")))
    if pc.all(is_fine).as_py() is False:
        place = pc.index(is_fine, False).as_py()
        raise FatalConnectorError(
            f"column {column!r}: {text[place].as_py()!r} is outside the years 1 to 9999, the range of SQLite: "
            "`on_rejected: keep` sets such records aside, `text_columns` of a PostgreSQL source reads the column "
            "as text; or exclude it with `columns`",
            connector="sqlite",
        )
    return text


def _uuid_text(storage: pa.Array) -> pa.Array:
    """Write 16-byte values as 8-4-4-4-12 hexadecimal digits, all at once."""
    filled = pc.fill_null(storage, pa.scalar(bytes(16), storage.type))
    digits = b"".join(filled.to_pylist()).hex().encode()
    offsets = pa.array(range(0, 32 * (len(filled) + 1), 32), pa.int32())
    text = pa.StringArray.from_buffers(len(filled), offsets.buffers()[1], pa.py_buffer(digits))
    cuts = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
    joined = pc.binary_join_element_wise(*(pc.utf8_slice_codeunits(text, *cut) for cut in cuts), "-")
    return pc.if_else(pc.is_valid(storage), joined, pa.scalar(None, pa.string()))


def _interval_text(array: pa.Array, column: str) -> pa.Array:
    if pa.types.is_duration(array.type):
        nanos = pc.cast(cast_array(array, pa.duration("ns"), column, ""), pa.int64()).to_pylist()
        parts: Sequence[Any] = [None if value is None else (0, 0, value) for value in nanos]
    else:
        parts = array.to_pylist()
    return pa.array([None if part is None else interval_text(*part) for part in parts], pa.string())
