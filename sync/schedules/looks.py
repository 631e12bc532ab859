"""What a check of a schedule decides: the ticks to make, and the times that get none, with the reason."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from .due import Schedule, due_s, moment, second

#: Seconds after which a time counts as missed if no server checked the schedule before.
LATE_S = 60
#: Most ticks of a schedule that wait where missed times queue.
MOST_MISSED = 100

NO_SERVER = "no server looked"
NO_STORE = "the run store did not answer"
TOO_MANY = f"{MOST_MISSED} newer times wait"
STILL_GOES = "the former run still goes, or has not begun"
NEWER = "a newer time has taken its place"


class NewTick(Struct, frozen=True):
    """A tick to make."""

    due_at: datetime
    #: Whether it waits for the former run (`overlap: wait`): a newer one takes its place.
    waits: bool = False
    #: True if its time was missed.
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
    #: Number of the oldest waiting ticks that are skipped to make room for newer ones (`TOO_MANY`).
    displaced: int = 0


def look(
    schedule: Schedule,
    looked_at: datetime,
    now: datetime,
    *,
    is_busy: bool,
    waiting: int = 0,
    silent_since: datetime | None = None,
) -> Look:
    """Decide on the times of a schedule since it was last looked at.

    First `missed` decides which of the missed times are kept. Then `overlap` decides which of these get a tick. With
    `missed: all` each kept time gets a tick, whatever `overlap` is.

    Args:
        schedule: the schedule in force.
        looked_at: when a server last looked at it; of a new schedule: when it was first seen.
        now: the store's time.
        is_busy: whether an attempt of the pipeline runs, or an earlier tick of the schedule has not begun its run. Not
            while a run only delivers callbacks: then a tick waits.
        waiting: number of ticks of the schedule that wait.
        silent_since: when the store last answered before it failed to answer. All times since then are missed. `None`
            if the store has answered each time.
    """
    times = due_s(schedule, second(looked_at), second(now))
    late = bisect_left(times, (now - timedelta(seconds=LATE_S)).timestamp())
    if silent_since is not None or (late and schedule.missed == "all"):
        late = len(times)  # with `all`, times of the last minute queue behind the missed ones
    missed, in_time = times[:late], times[late:]
    displaced = 0
    if schedule.missed == "all":
        room = MOST_MISSED - waiting
        displaced = min(waiting, max(len(missed) - room, 0)) if missed else 0
        most = room + displaced
    else:
        # The run of a time that was not missed covers the missed ones, too.
        most = 1 if schedule.missed == "latest" and not in_time else 0
    split = max(len(missed) - most, 0)
    left_out, kept = missed[:split], missed[split:]
    # Missed times that are kept run one after another; others are judged one by one.
    starts = kept if schedule.missed == "all" and kept else [] if is_busy else kept or in_time[:1]
    others = (kept + in_time)[len(starts) :]
    waits = others[-1:] if schedule.overlap == "wait" else []
    passed = others[: len(others) - len(waits)]
    return Look(
        ticks=(
            *(NewTick(moment(each), is_missed=bool(kept)) for each in starts),
            *(NewTick(moment(each), waits=True) for each in waits),
        ),
        skipped=(
            *_left_out(left_out, schedule, silent_since),
            *_stretch(passed, NEWER if waits else STILL_GOES),
        ),
        replaces_waiting=bool(waits),
        displaced=displaced,
    )


def skip_all(schedule: Schedule, looked_at: datetime, now: datetime, why: str) -> tuple[Skipped, ...]:
    """Return the stretch of all times of a schedule that was replaced or paused; empty: there were none."""
    return _stretch(due_s(schedule, second(looked_at), second(now)), why)


def _left_out(times: Sequence[int], schedule: Schedule, silent_since: datetime | None) -> tuple[Skipped, ...]:
    """Return the stretches of missed times that are not kept."""
    if schedule.missed == "all":
        return _stretch(times, TOO_MANY)
    split = len(times) if silent_since is None else bisect_right(times, second(silent_since))
    return (*_stretch(times[:split], NO_SERVER), *_stretch(times[split:], NO_STORE))


def _stretch(times: Sequence[int], why: str) -> tuple[Skipped, ...]:
    return (Skipped(moment(times[0]), moment(times[-1]), len(times), why),) if times else ()
