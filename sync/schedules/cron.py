"""Cron expressions of five fields, as Debian's cron reads them."""

from __future__ import annotations

import calendar
import re
from contextlib import suppress
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from msgspec import Struct

from ..errors import nearest_match

#: Word -> what it stands for.
WORDS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
_OTHER_WORDS = {"@midnight": "@daily", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *"}
_FORM = "five fields: minute hour day month weekday"


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    #: The unit of `every` in which a longer step is written.
    unit: str = ""
    #: Names of values from `low` on.
    names: tuple[str, ...] = ()


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    _Field("minute", 0, 59, "m"),
    _Field("hour", 0, 23, "h"),
    _Field("day", 1, 31, "d"),
    _Field("month", 1, 12, "", _MONTHS),
    _Field("weekday", 0, 7, "", _WEEKDAYS),
)
_TERM = re.compile(r"(\*|([0-9A-Za-z]{1,9})(?:-([0-9A-Za-z]{1,9}))?)(?:/([0-9]{1,9}))?")
#: Stands for `L`, the last day of a month, among the days.
_LAST_DAY = 0
#: What other programs write for the weekday nearest to a day, and for a weekday of a week of the month.
_NEAR_DAY, _NTH_WEEKDAY = re.compile(r"([0-9]{1,2}|L)W", re.IGNORECASE), re.compile(r"([0-9A-Za-z]{1,9})#([1-5])")
#: Most days of each month, in any year.
_MOST_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class CronMistake(ValueError):
    """An expression is wrong; `nearest` is one that is right, if there is one near."""

    def __init__(self, message: str, nearest: str | None = None) -> None:
        super().__init__(message)
        self.nearest = nearest


class Cron(Struct, frozen=True):
    """The times of a cron expression."""

    #: Seconds after midnight by the wall clock, ascending.
    times: tuple[int, ...]
    #: `_LAST_DAY` stands for the last day of each month.
    days: frozenset[int]
    months: frozenset[int]
    #: 0 is Sunday.
    weekdays: frozenset[int]
    #: Whether day and weekday must both match: one of them begins with `*`. Otherwise one is enough.
    needs_both: bool
    #: Whether minute or hour begins with `*`: then real time passes when the clock is changed.
    is_interval: bool

    def is_on(self, day: date) -> bool:
        """Tell whether it has times on a day."""
        if day.month not in self.months:
            return False
        is_last = _LAST_DAY in self.days and day.day == calendar.monthrange(day.year, day.month)[1]
        is_day, is_weekday = is_last or day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return is_day and is_weekday if self.needs_both else is_day or is_weekday


@lru_cache(maxsize=65_536)
def parse_cron(text: str) -> Cron:
    """Read an expression of five fields or a word.

    A field is `*`, `a`, `a-b`, `*/n`, `a-b/n` or a list of these. The day can also be `L`, the last day of the month.

    Raises:
        CronMistake: it is wrong, or never has a time.
    """
    text = text.strip()
    if text.startswith("@") and text not in WORDS:
        near = _OTHER_WORDS.get(text.lower()) or nearest_match(text, WORDS)
        raise CronMistake(f"there is no {text!r}: {', '.join(WORDS)}, or {_FORM}", near)
    fields = WORDS.get(text, text).split()
    if len(fields) != len(_FIELDS):
        count = f"{len(fields)} field{'' if len(fields) == 1 else 's'}"
        raise CronMistake(f"has {count}, but needs {_FORM}", _without_seconds(fields))
    minutes, hours, days, months, weekdays = (_values(*each, fields) for each in enumerate(_FIELDS))
    needs_both = "*" in (fields[2][0], fields[4][0])
    if needs_both and min(days) > max(_MOST_DAYS[month - 1] for month in months):
        raise CronMistake(f"day {fields[2]!r} is in no month {fields[3]!r}: it would never run")
    return Cron(
        times=tuple(hour * 3600 + minute * 60 for hour in sorted(hours) for minute in sorted(minutes)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(day % 7 for day in weekdays),
        needs_both=needs_both,
        is_interval="*" in (fields[0][0], fields[1][0]),
    )


def _without_seconds(fields: list[str]) -> str | None:
    """Return the last five of six fields, if the first one stands for the seconds."""
    if len(fields) == len(_FIELDS) + 1 and fields[0] == "0":
        with suppress(CronMistake):
            parse_cron(" ".join(fields[1:]))
            return " ".join(fields[1:])
    return None


def _values(place: int, field: _Field, fields: list[str]) -> set[int]:
    """Return the values of one field of an expression."""
    terms = fields[place].split(",")
    found: set[int] = set()
    for number, term in enumerate(terms):
        try:
            found.update(_values_of_term(term, field))
        except CronMistake as mistake:
            nearest = None
            if mistake.nearest is not None:
                mended = ",".join((*terms[:number], mistake.nearest, *terms[number + 1 :]))
                nearest = " ".join((*fields[:place], mended, *fields[place + 1 :]))
            raise CronMistake(f"{field.name} {fields[place]!r}: {mistake}", nearest) from None
    return found


def _values_of_term(term: str, field: _Field) -> range:
    if field.name == "day" and term.upper() == "L":
        return range(_LAST_DAY, _LAST_DAY + 1)
    _refuse_extension(term, field)
    parts = _TERM.fullmatch(term)
    if parts is None:
        raise CronMistake(f"{term!r} is none of *, a, a-b, */n, a-b/n")
    whole, first, last, step = parts.groups()
    low, high = field.low, field.high
    if whole != "*":
        low = _value(first, term, field)
        high = low if last is None else _value(last, term, field)
        if high < low:
            raise CronMistake(f"{whole} ends before it begins", f"{first}-{field.high},{field.low}-{last}")
        if step is not None and last is None:
            raise CronMistake("a step needs * or a range", f"{first}-{field.high}/{step}")
    size = int(step or 1)
    if not 1 <= size <= field.high - field.low:
        more = f"; `every: {size}{field.unit}` in place of `cron` counts on" if size and field.unit else ""
        raise CronMistake(f"a step is from 1 to {field.high - field.low}{more}")
    return range(low, high + 1, size)


def _refuse_extension(term: str, field: _Field) -> None:
    """Refuse what only other programs understand, with what to write instead."""
    if field.name == "day" and (near := _NEAR_DAY.fullmatch(term)):
        raise CronMistake("`W`, the nearest weekday, is not supported. Set the day itself", near[1].upper())
    if field.name == "weekday" and (nth := _NTH_WEEKDAY.fullmatch(term)):
        weekday, week = _value(nth[1], nth[1], field), int(nth[2])
        days = f"{week * 7 - 6}-{min(week * 7, 31)}"
        line = rf"{days} * * [ $(date +\%u) = {weekday % 7 or 7} ] && syncblocks run FILE"
        raise CronMistake(f"`#` is not supported. Remove `schedule`, and write into the system's crontab `0 6 {line}`")


def _value(text: str, term: str, field: _Field) -> int:
    if text.lower() in field.names:
        return field.low + field.names.index(text.lower())
    if text.isdecimal() and field.low <= int(text) <= field.high:
        return int(text)
    names = f", or {field.names[0]} to {field.names[-1]}" if field.names else ""
    near = nearest_match(text, field.names)
    message = f"{text!r} is not from {field.low} to {field.high}{names}"
    raise CronMistake(message, None if near is None else term.replace(text, near))
