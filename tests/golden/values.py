"""Values that types are held to: what each system's own tables and files say, and how any library's answer compares."""

from __future__ import annotations

import base64
import json
import re
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any


@dataclass(frozen=True)
class Column:
    """One column of a system's table."""

    name: str
    #: Its type there: DDL, or the Arrow type of a file.
    type: Any
    #: How its values compare: a key of `NORMAL`.
    kind: str
    #: As they are put in (SQL literals, texts of a file, Python values) -> as they must come out.
    values: tuple[tuple[Any, Any], ...]
    #: Destinations that have no such value and must refuse it.
    refused_by: tuple[str, ...] = ()
    #: Destinations in which it is known to come out otherwise, documented in docs/types.md.
    unlike: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


def same(values: list[Any], kind: str = "text") -> tuple[tuple[Any, Any], ...]:
    """Pair SQL literals of numbers or quoted texts with what they mean."""
    return tuple((f"'{value}'" if kind == "text" else str(value), value) for value in values)


_INTERVAL = re.compile(r"P(?=.)(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(-?)(\d+)(?:\.(\d{1,9}))?S)?")
_UNITS = {"year": (12, 0), "mon": (1, 0), "month": (1, 0), "day": (0, 1)}
_CLOCK = re.compile(r"([-+]?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?")


def interval(value: Any) -> tuple[int, int, int]:
    """Months, days and nanoseconds of any form."""
    if hasattr(value, "months"):
        return value.months, value.days, value.nanoseconds
    if isinstance(value, tuple):
        return value
    if isinstance(value, timedelta):
        return 0, 0, (value // timedelta(microseconds=1)) * 1000
    if re.fullmatch(r"-?\d+", str(value)):  # durations in text files: microseconds
        return 0, 0, int(value) * 1000
    own = _INTERVAL.fullmatch(value)
    if own:
        nanos = int(own[4] or 0) * 10**9 + int(f"{own[5] or '':0<9}")
        return int(own[1] or 0), int(own[2] or 0), -nanos if own[3] else nanos
    months = days = nanos = 0
    for number, unit in re.findall(r"([-+]?\d+) (year|mon|month|day)s?", value):
        months, days = months + int(number) * _UNITS[unit][0], days + int(number) * _UNITS[unit][1]
    for sign, hours, minutes, seconds, fraction in _CLOCK.findall(value):
        nanos = (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 10**9 + int(f"{fraction:0<9}")
        nanos = -nanos if sign == "-" else nanos
    return months, days, nanos


def moment(value: Any) -> str:
    """A date, a time or a timestamp in ISO 8601; zoned ones in UTC, no zeros at the end of the fraction."""
    if isinstance(value, timedelta):
        value = (datetime(1, 1, 1, tzinfo=UTC) + value).time()
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    text = value.isoformat() if isinstance(value, date | time) else str(value)
    text = re.sub(r"\+00(:00)?$|Z$", "", text.replace(" ", "T"))
    return text.rstrip("0").rstrip(".") if "." in text else text


def nested(value: Any) -> Any:
    """A JSON value; numbers with all their digits."""
    if isinstance(value, dict):
        return {key: nested(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nested(item) for item in value]
    return Decimal(repr(value)) if isinstance(value, float) else value


def parsed(value: Any) -> Any:
    return nested(json.loads(value, parse_float=Decimal) if isinstance(value, str | bytes) else value)


NORMAL: dict[str, Any] = {
    "int": int,
    "decimal": lambda value: Decimal(re.sub("[$,]", "", str(value))),  # money has both
    "double": lambda value: repr(float(value)),
    "float": lambda value: struct.pack("f", float(value)),
    "bool": lambda value: {"true": True, "false": False}.get(value, value) == 1,
    "text": str,
    "bytes": lambda value: base64.b64decode(value) if isinstance(value, str) else bytes(value),
    "uuid": lambda value: uuid.UUID(bytes=value) if isinstance(value, bytes) else uuid.UUID(str(value)),
    "moment": moment,
    "interval": interval,
    "json": parsed,
}


def normal(kind: str, value: Any) -> Any:
    """Bring a value into the form in which it compares; the kind is a key of `NORMAL`."""
    return None if value is None else NORMAL[kind](value)
