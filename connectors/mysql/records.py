"""Records -> Arrow: column by column, over all records of a block at once.

What a server sends is trusted in nothing that says where to read: no value is taken before it is known to lie within
its packet, and each record has to end where its packet does. A column of fixed width is read before that is known:
never more than `packets.MARGIN` bytes, which the buffer has behind the last packet.

Source: MySQL, Client/Server Protocol, Binary Protocol Resultset Row, Text Resultset Row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct

from ..arrow import compute as pc
from ..arrow.gather import Buffer, Mask, Places, array_of, pieces, values_at
from .failures import broken_answer

#: Type of a column's definition -> what its values are if signed, and if not.
_NUMBERS = {
    1: ("i1", "u1"),  # tinyint
    2: ("<i2", "<u2"),  # smallint
    13: ("<i2", "<u2"),  # year
    9: ("<i4", "<u4"),  # mediumint
    3: ("<i4", "<u4"),  # int
    8: ("<i8", "<u8"),  # bigint
    4: ("<f4", "<f4"),  # float
    5: ("<f8", "<f8"),  # double
}
_DATE, _TIME, _MOMENTS = 10, 11, (7, 12)
#: Digits, though their characters are said to be bytes; and JSON.
_TEXTS = (0, 246, 245)
_BYTES = 63

#: Lengths up to this are a byte; else that byte says how many bytes the length has.
_SHORT = 0xFA
_LENGTHS = ((0xFC, "<u2", 0xFFFF, 2), (0xFD, "<u4", 0xFFFFFF, 3), (0xFE, "<i8", -1, 8))

#: Byte that stands in the place of a text's length, and means NULL.
_NULL = 0xFB
#: Byte with which no length begins.
_NO_LENGTH = 0xFF

#: Length in bytes -> whether a date or timestamp, and a time, may have it.
_MOMENT_SIZES, _TIME_SIZES = np.isin(np.arange(256), (0, 4, 7, 11)), np.isin(np.arange(256), (0, 8, 12))

#: More days than a time has in any server, and few enough for its microseconds.
_MOST_DAYS = 10_000

_DAY_US = 86_400_000_000


class RecordKind(Struct, frozen=True):
    """What a column's definition says of its values."""

    code: int
    is_unsigned: bool
    is_text: bool

    @property
    def is_parsed(self) -> bool:
        """Tell whether its values are no texts and no bytes."""
        return self.code in _NUMBERS or self.code in (_DATE, _TIME, *_MOMENTS)

    @classmethod
    def of(cls, field: Any) -> RecordKind:
        """Take it from a definition, as the driver parses it."""
        code = int(field.type_code)
        return cls(code, bool(field.flags & 32), code in _TEXTS or field.charsetnr != _BYTES)


def decode(buffer: Buffer, at: Places, ends: Places, kinds: Sequence[RecordKind]) -> list[pa.Array]:
    """Return the columns of some records in the binary protocol.

    Args:
        buffer: holds them, and `packets.MARGIN` more bytes.
        at: where each payload begins.
        ends: where each payload ends.
        kinds: one a column.

    Returns:
        Numbers as they are; dates, moments (timestamp[us]) and times (time64[us]); bytes; everything else as strings
        that nobody has checked to be UTF-8. A column with a date, moment or time that Arrow has no value for comes as
        strings as well.

    Raises:
        BrokenAnswer: a record is not as long as its packet, or none of these columns.
    """
    width = (len(kinds) + 9) // 8
    _check(at + (1 + width) <= ends)
    bits = _taken(buffer, at + 1, width)
    is_set = np.bitwise_or.reduce(bits, 0)
    at = at + 1 + width
    columns = []
    for place, kind in enumerate(kinds, start=2):
        byte, bit = divmod(place, 8)
        nulls = (bits[:, byte] >> bit & 1).astype(bool) if is_set[byte] >> bit & 1 else None
        column, sizes = _column(buffer, at, ends, kind, nulls)
        at = at + (sizes if nulls is None else np.where(nulls, 0, sizes))
        _check(at <= ends)
        columns.append(column)
    _check(at == ends)
    return columns


def decode_texts(buffer: Buffer, at: Places, ends: Places, kinds: Sequence[RecordKind]) -> list[pa.Array]:
    """Return the columns of some records that are texts, of the same types as `decode` does."""
    columns = []
    for kind in kinds:
        nulls = buffer[at] == _NULL
        is_text = kind.is_text or kind.is_parsed
        texts, sizes = _texts(buffer, at, ends, nulls if nulls.any() else None, is_text=is_text)
        at = at + sizes
        _check(at <= ends)
        columns.append(_parsed(texts, kind) if kind.is_parsed else texts)
    _check(at == ends)
    return columns


def _check(is_within: Mask) -> None:
    """Refuse the records if one does not keep to its packet."""
    if not is_within.all():
        raise broken_answer("a record is not as long as its packet")


def _parsed(texts: pa.Array, kind: RecordKind) -> pa.Array:
    if kind.code in _NUMBERS:
        return pc.cast(texts, pa.from_numpy_dtype(np.dtype(_NUMBERS[kind.code][kind.is_unsigned])))
    try:
        if kind.code == _DATE:
            return pc.cast(texts, pa.date32())
        moments = texts if kind.code in _MOMENTS else pc.binary_join_element_wise("1970-01-01 ", texts, "")
        moments = pc.cast(moments, pa.timestamp("us"))
        return moments if kind.code in _MOMENTS else pc.cast(moments, pa.time64("us"))
    except pa.ArrowInvalid:  # one of them is a value that Arrow has none for
        return texts


def _column(buffer: Buffer, at: Places, ends: Places, kind: RecordKind, nulls: Mask | None) -> tuple[pa.Array, Any]:
    """Return a column, and how many bytes each value that is there takes."""
    if kind.code in _NUMBERS:
        dtype = np.dtype(_NUMBERS[kind.code][kind.is_unsigned])
        return array_of(pa.from_numpy_dtype(dtype), values_at(buffer, at, dtype), nulls), dtype.itemsize
    if kind.code == _TIME:
        return _times(buffer, at, nulls)
    if kind.code == _DATE or kind.code in _MOMENTS:
        return _moments(buffer, at, nulls, has_time=kind.code != _DATE)
    return _texts(buffer, at, ends, nulls, is_text=kind.is_text)


def _taken(buffer: Buffer, at: Places, width: int) -> Buffer:
    """Return so many bytes from each place, a row each."""
    return values_at(buffer, at, f"V{width}").view(np.uint8).reshape(len(at), width)


def _part(rows: Buffer, start: int, dtype: str) -> npt.NDArray[np.int64]:
    """Return a number out of each row."""
    return np.ndarray((len(rows),), dtype, rows, start, (rows.shape[1],)).astype(np.int64)


# --------------------------------------------------------------------- texts and bytes
def _texts(buffer: Buffer, at: Places, ends: Places, nulls: Mask | None, *, is_text: bool) -> tuple[pa.Array, Places]:
    firsts = buffer[at] if nulls is None else np.where(nulls, 0, buffer[at])
    lengths, heads = firsts.astype(np.int64), np.ones(len(at), np.int64)
    if firsts.max() > _SHORT:
        if ((firsts == _NULL) | (firsts == _NO_LENGTH)).any():
            raise broken_answer("a value has no length")
        for first, dtype, mask, size in _LENGTHS:
            where = np.flatnonzero(firsts == first)
            if len(where):
                lengths[where] = values_at(buffer, at[where] + 1, dtype) & mask
                heads[where] += size
        # Before anything is added to one: of eight bytes it may be of any size, and negative.
        _check((lengths >= 0) & (lengths <= len(buffer)))
    starts = at + heads
    stops = starts + lengths
    _check(stops <= ends if nulls is None else (stops <= ends) | nulls)
    return pieces(buffer, starts, stops, nulls, pa.string() if is_text else pa.binary()), heads + lengths


# --------------------------------------------------------------------- dates and times
def _moments(buffer: Buffer, at: Places, nulls: Mask | None, *, has_time: bool) -> tuple[pa.Array, Places]:
    rows = _taken(buffer, at, 12)
    sizes = _sizes(rows, nulls, _MOMENT_SIZES)
    years, months, days = _part(rows, 1, "<u2"), _part(rows, 3, "u1"), _part(rows, 4, "u1")
    is_zero = sizes == 0
    if is_zero.any():
        years[is_zero], months[is_zero], days[is_zero] = 0, 0, 0
    since = (years - 1970) * 12 + months - 1
    dates = since.view("M8[M]").astype("M8[D]").view(np.int64) + days - 1
    is_odd = (months < 1) | (months > 12) | (days < 1)
    if days.max() > 28:
        next_month = (since + 1).view("M8[M]").astype("M8[D]").view(np.int64)
        is_odd |= dates >= next_month
    clock = _clock(rows, sizes, 5) if has_time else None
    if nulls is not None:
        is_odd &= ~nulls
    if is_odd.any():
        shown = [f"{year:04}-{month:02}-{day:02}" for year, month, day in zip(years, months, days, strict=True)]
        if clock is not None:
            shown = [f"{date} {_shown(us)}" for date, us in zip(shown, clock.tolist(), strict=True)]
        return pa.array(shown, pa.string(), mask=nulls), sizes + 1
    if clock is None:
        return array_of(pa.date32(), dates.astype(np.int32), nulls), sizes + 1
    return array_of(pa.timestamp("us"), dates * _DAY_US + clock, nulls), sizes + 1


def _times(buffer: Buffer, at: Places, nulls: Mask | None) -> tuple[pa.Array, Places]:
    rows = _taken(buffer, at, 13)
    sizes = _sizes(rows, nulls, _TIME_SIZES)
    is_zero = sizes == 0
    signs = np.where(is_zero, 0, _part(rows, 1, "u1"))
    days = np.where(is_zero, 0, _part(rows, 2, "<u4"))
    if days.max() > _MOST_DAYS:
        raise broken_answer("a time has more days than a time may have")
    us = days * _DAY_US + _clock(rows, sizes, 6)
    if signs.any() or us.max() >= _DAY_US:
        shown = [("-" if sign else "") + _shown(each) for sign, each in zip(signs.tolist(), us.tolist(), strict=True)]
        return pa.array(shown, pa.string(), mask=nulls), sizes + 1
    return array_of(pa.time64("us"), us, nulls), sizes + 1


def _sizes(rows: Buffer, nulls: Mask | None, allowed: Mask) -> Places:
    """Return how many bytes of each row belong to the value: zeros at its end are left out."""
    sizes = _part(rows, 0, "u1")
    sizes = sizes if nulls is None else np.where(nulls, 0, sizes)
    _check(allowed[sizes])
    return sizes


def _clock(rows: Buffer, sizes: Places, start: int) -> npt.NDArray[np.int64]:
    """Return microseconds of hours, minutes and seconds that begin at `start`, with or without a fraction."""
    seconds = (_part(rows, start, "u1") * 60 + _part(rows, start + 1, "u1")) * 60 + _part(rows, start + 2, "u1")
    us = np.where(sizes > start, seconds, 0) * 1_000_000
    has_fraction = sizes > start + 3
    if has_fraction.any():
        us += np.where(has_fraction, _part(rows, start + 3, "<u4"), 0)
    return us


def _shown(us: int) -> str:
    """Write a time as the server does."""
    minutes, us = divmod(us, 60_000_000)
    seconds, fraction = divmod(us, 1_000_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}" + (f".{fraction:06}" if fraction else "")


__all__ = ["RecordKind", "decode", "decode_texts"]
