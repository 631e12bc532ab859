"""When a schedule is due."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from msgspec import Struct

from .clock_change import DAY_S, clock_change, times_around
from .cron import parse_cron

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_FIRST_DAY = _EPOCH.toordinal()
#: How far a next or former time is looked for: a 29th of February on a given weekday comes each 28 years, or 40.
_FARTHEST_S = 41 * 366 * DAY_S
#: Python knows no year 10000, nor the zones of the days before it.
_LAST_S = (datetime(9999, 12, 1, tzinfo=UTC) - _EPOCH) // _SECOND
#: First second of schedules. Zones need dates before it.
_FIRST_S = (datetime(2, 1, 1, tzinfo=UTC) - _EPOCH) // _SECOND
#: The first span in which it is looked for, then four times as long: most schedules are due soon.
_FIRST_SPAN_S = 3600


class Schedule(Struct, frozen=True, kw_only=True):
    """When a pipeline is due; `cron` or `every_s`, both checked."""

    cron: str | None = None
    #: Counted from 1970-01-01 UTC.
    every_s: int | None = None
    #: Name of the zone in which `cron` counts, and in which times are shown.
    timezone: str = "UTC"
    #: Which of the times that no server saw become ticks: the latest, all of them, or none.
    missed: Literal["latest", "all", "skip"] = "latest"
    #: What becomes of a time that comes while the former run goes: no tick, or a tick that waits.
    overlap: Literal["skip", "wait"] = "skip"


def due(schedule: Schedule, from_: datetime, to: datetime) -> list[datetime]:
    """Return the times of a schedule after `from_` and up to `to`, in UTC and ascending."""
    return [moment(each) for each in due_s(schedule, second(from_), second(to))]


def next_times(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """Return the next times after a moment; fewer if there are no more in forty years."""
    found: list[int] = []
    first, span = second(after), _FIRST_SPAN_S
    start = first
    while len(found) < count and start - first < _FARTHEST_S:
        found += due_s(schedule, start, start + span)
        start, span = start + span, span * 4
    return [moment(each) for each in found[:count]]


def previous_time(schedule: Schedule, before: datetime) -> datetime | None:
    """Return the last time before a moment; None: there is none in forty years."""
    last, span = second(before - timedelta(microseconds=1)), _FIRST_SPAN_S
    end = last
    while last - end < _FARTHEST_S:
        if found := due_s(schedule, end - span, end):
            return moment(found[-1])
        end, span = end - span, span * 4
    return None


def due_s(schedule: Schedule, after: int, until: int) -> list[int]:
    """Return the times after one second and up to another, as seconds since 1970; none near the end of the calendar."""
    after, until = max(after, _FIRST_S), min(until, _LAST_S)
    if schedule.every_s is not None:
        return list(range((after // schedule.every_s + 1) * schedule.every_s, until + 1, schedule.every_s))
    assert schedule.cron is not None
    cron = parse_cron(schedule.cron)
    found: list[int] = []
    is_changed = False
    # The local date is at most one day from that in UTC.
    for day in range(after // DAY_S - 1, until // DAY_S + 2) if after < until else ():
        if not cron.is_on(date.fromordinal(_FIRST_DAY + day)):
            continue
        change = clock_change(schedule.timezone, day)
        midnight = day * DAY_S - change.before
        if change.at is None:
            first, last = bisect_right(cron.times, after - midnight), bisect_right(cron.times, until - midnight)
            found += [midnight + each for each in cron.times[first:last]]
        else:
            is_changed = True
            found += times_around(change, cron, day, after, until)
    return sorted(set(found)) if is_changed else found


def second(at: datetime) -> int:
    """Return the last full second since 1970 up to a moment."""
    return (at - _EPOCH) // _SECOND


def moment(at_s: int) -> datetime:
    """Return a second since 1970 as a time in UTC."""
    return datetime.fromtimestamp(at_s, UTC)
