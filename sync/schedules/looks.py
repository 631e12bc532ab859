"""What a look at a schedule finds: the ticks to make, and the times that get none, with the reason."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from .due import Schedule, due_s, moment, second

#: A time that is first seen so long after it was missed: no server looked.
LATE_S = 60
#: Most missed times of one look that become ticks.
MOST_MISSED = 100

NO_SERVER = "no server looked"
STILL_GOES = "the former run still goes, or has not begun"
NEWER = "a newer time has taken its place"


class NewTick(Struct, frozen=True):
    """A tick to make."""

    due_at: datetime
    #: Whether it waits for the former run (`overlap: wait`): a newer one takes its place.
    waits: bool = False
    #: Whether no server looked at its time.
    is_missed: bool = False


class Skipped(Struct, frozen=True):
    """Times in a row that get no tick."""

    first: datetime
    last: datetime
    count: int
    why: str


class Look(Struct, frozen=True, kw_only=True):
    """The outcome of a look. Each due time is in `ticks` or in one of `skipped`, once."""

    #: The oldest first.
    ticks: tuple[NewTick, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    #: Whether a tick that waited by `overlap: wait` loses its place (`NEWER`).
    replaces_waiting: bool = False


def look(
    schedule: Schedule, looked_at: datetime, now: datetime, *, is_busy: bool, is_catching_up: bool = False
) -> Look:
    """Decide on the times of a schedule since it was last looked at.

    First `missed` decides which of the missed times are kept. Then `overlap` decides which of these get a tick.

    Args:
        schedule: the schedule in force.
        looked_at: when a server last looked at it; of a new schedule: when it was first seen.
        now: the store's time.
        is_busy: whether an attempt of the pipeline runs, or an earlier tick of the schedule has not begun its run. Not
            while a run only delivers callbacks: then a tick waits.
        is_catching_up: whether it is busy with ticks of missed times only. With `missed: all` further missed times
            queue behind them.
    """
    times = due_s(schedule, second(looked_at), second(now))
    late = bisect_left(times, (now - timedelta(seconds=LATE_S)).timestamp())
    if late and schedule.missed == "all":
        late = len(times)  # those of the last minute queue behind the missed ones
    missed, in_time = times[:late], times[late:]
    # The run of a time that was not missed covers the missed ones, too.
    most = {"skip": 0, "latest": 0 if in_time else 1, "all": MOST_MISSED}[schedule.missed]
    split = max(len(missed) - most, 0)
    left_out, kept = missed[:split], missed[split:]
    # Missed times that are kept run one after another; others are judged one by one.
    starts = kept if schedule.missed == "all" and is_catching_up else [] if is_busy else kept or in_time[:1]
    others = (kept + in_time)[len(starts) :]
    waits = others[-1:] if schedule.overlap == "wait" else []
    passed = others[: len(others) - len(waits)]
    return Look(
        ticks=(
            *(NewTick(moment(each), is_missed=bool(kept)) for each in starts),
            *(NewTick(moment(each), waits=True) for each in waits),
        ),
        skipped=(*_stretch(left_out, NO_SERVER), *_stretch(passed, NEWER if waits else STILL_GOES)),
        replaces_waiting=bool(waits),
    )


def skip_all(schedule: Schedule, looked_at: datetime, now: datetime, why: str) -> tuple[Skipped, ...]:
    """Return the stretch of all times of a schedule that was replaced or paused; empty: there were none."""
    return _stretch(due_s(schedule, second(looked_at), second(now)), why)


def _stretch(times: Sequence[int], why: str) -> tuple[Skipped, ...]:
    return (Skipped(moment(times[0]), moment(times[-1]), len(times), why),) if times else ()
