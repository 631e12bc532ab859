"""Times of a schedule on the days on which the clock of its zone is changed, as Debian's cron runs them."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from .cron import Cron

DAY_S = 86_400
_SECOND = timedelta(seconds=1)


class ClockChange(NamedTuple):
    """How many seconds the clock of a zone is ahead of UTC on a day and beside it, and when this changes."""

    before: int
    #: Seconds since 1970; None: it does not change.
    at: int | None
    after: int


@lru_cache(maxsize=8192)
def clock_change(timezone: str, day: int) -> ClockChange:
    """Look up a day, counted from 1970. No zone changes its clock twice within three days."""
    zone = ZoneInfo(timezone)

    def ahead(at_s: int) -> int:
        offset = datetime.fromtimestamp(at_s, zone).utcoffset()
        assert offset is not None
        return offset // _SECOND

    low, high = (day - 1) * DAY_S, (day + 2) * DAY_S
    before, after = ahead(low), ahead(high)
    if before == after:
        return ClockChange(before, None, after)
    while high - low > 1:
        middle = (low + high) // 2
        if ahead(middle) == before:
            low = middle
        else:
            high = middle
    return ClockChange(before, high, after)


def times_around(change: ClockChange, cron: Cron, day: int, after: int, until: int) -> list[int]:
    """Return the times of a day on which, or beside which, the clock is changed; only those of a span."""
    assert change.at is not None
    midnight = day * DAY_S

    def between(first: int, last: int, ahead: int) -> list[int]:
        """Return the times after one second and up to another while the clock is so far ahead of UTC."""
        shift = midnight - ahead
        start, end = bisect_right(cron.times, first - shift), bisect_right(cron.times, last - shift)
        return [shift + wall for wall in cron.times[start:end]]

    earlier = between(after, min(until, change.at - 1), change.before)
    if cron.is_interval:
        return earlier + between(max(after, change.at - 1), until, change.after)
    # A time that comes twice counts once, at first. One that the clock leaves out counts when the clock is changed.
    gap = change.after - change.before
    later = between(max(after, change.at - min(gap, 0) - 1), until, change.after)
    if after < change.at <= until and between(change.at - 1, change.at + gap - 1, change.before):
        later.append(change.at)
    return earlier + later


__all__ = ["DAY_S", "ClockChange", "clock_change", "times_around"]
