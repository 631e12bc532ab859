"""Dates and times of text files that are not written as ISO 8601: `formats` of the source's settings."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

#: Words for numbers since 1970 in UTC -> microseconds of one.
SINCE_1970 = {"unix": 1_000_000, "unix_ms": 1_000}

#: What `strptime` reads that is a part of a date, of a time, and of a zone.
_DAY, _CLOCK, _ZONE = set("YymdbBjaA"), set("HIMSfp"), {"z"}
_DIRECTIVE = re.compile("%(.?)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def checked_format(said: str) -> str:
    """Return a format that can be read.

    Raises:
        ValueError: it is no word of `SINCE_1970`, or does not say the day.
    """
    if said in SINCE_1970:
        return said
    found = [each for each in _DIRECTIVE.findall(said) if each != "%"]
    allowed = _DAY | _CLOCK | _ZONE
    if odd := next((each for each in found if each not in allowed), ""):
        raise ValueError(
            f"{said!r}: %{odd} is not supported; supported: {', '.join(f'%{each}' for each in sorted(allowed))}"
        )
    has_day = {"Y", "y"} & set(found) and ("j" in found or ("d" in found and {"m", "b", "B"} & set(found)))
    if not has_day:
        raise ValueError(
            f"{said!r} does not contain the full date: write the year (%Y), the month (%m, %b or %B) and the day "
            f"(%d), such as '%d.%m.%Y %H:%M', or {' or '.join(SINCE_1970)}"
        )
    return said


def type_of_format(said: str) -> str:
    """Return the name of the type of what is written in a format."""
    found = set(_DIRECTIVE.findall(said))
    if said in SINCE_1970 or found & _ZONE:
        return "timestamptz"
    return "timestamp" if found & _CLOCK else "date"


def is_time(kind: pa.DataType) -> bool:
    """Tell whether values of a type are days or moments."""
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def iso_texts(column: pa.Array, said: str, kind: pa.DataType, *, is_empty_null: bool) -> pa.Array:
    """Return texts in a format as ISO 8601 of days or moments; NULL stays NULL.

    Raises:
        ValueError: a text is none in that format, or has a time where a day is wanted.
    """
    import pyarrow as pa

    is_day = pa.types.is_date(kind)
    codes = column.dictionary_encode()
    found = [
        None if text == "" and is_empty_null else _iso(text, said, is_day=is_day)
        for text in codes.dictionary.to_pylist()
    ]
    return pa.DictionaryArray.from_arrays(codes.indices, pa.array(found, pa.string())).dictionary_decode()


def _iso(text: str, said: str, *, is_day: bool) -> str:
    moment = _since_1970(text, SINCE_1970[said]) if said in SINCE_1970 else datetime.strptime(text, said)  # noqa: DTZ007
    if not is_day:
        return moment.isoformat()
    if moment.time() != time():
        raise ValueError(f"{text!r} has a time, but must be a day")
    return moment.date().isoformat()


def _since_1970(text: str, unit: int) -> datetime:
    """Read a number of seconds or parts of them; `unit`: microseconds of one."""
    try:
        microseconds = Decimal(text) * unit
        if microseconds != int(microseconds):
            raise ValueError(f"{text} has digits below the microsecond")
        return _EPOCH + timedelta(microseconds=int(microseconds))
    except (InvalidOperation, OverflowError) as error:
        raise ValueError(f"{text!r} is not a number of seconds") from error


__all__ = ["SINCE_1970", "checked_format", "is_time", "iso_texts", "type_of_format"]
