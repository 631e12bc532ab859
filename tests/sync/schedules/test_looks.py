"""What a look at a schedule makes of the times since the last one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.sync.schedules import MOST_MISSED, Schedule, due, look, skip_all
from syncblocks.sync.schedules.looks import NO_SERVER, NO_STORE, STILL_GOES, TOO_MANY
from tests.tiers import examples

Missed = Literal["latest", "all", "skip"]
Overlap = Literal["skip", "wait"]
NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)


def found(
    cron: str = "*/15 * * * *",
    *,
    since: str,
    now: str,
    missed: Missed = "latest",
    overlap: Overlap = "skip",
    is_busy: bool = False,
    waiting: int = 0,
    silent_since: str = "",
) -> tuple[str, list[tuple[str, str, int, str]]]:
    """Return the ticks of a look, those that wait in brackets, and the stretches without one."""
    schedule = Schedule(cron=cron, missed=missed, overlap=overlap)
    day = "2027-06-01T"
    seen = look(
        schedule,
        datetime.fromisoformat(f"{day}{since}Z"),
        datetime.fromisoformat(f"{day}{now}Z"),
        is_busy=is_busy,
        waiting=waiting,
        silent_since=datetime.fromisoformat(f"{day}{silent_since}Z") if silent_since else None,
    )
    ticks = " ".join(f"({each.due_at:%H:%M})" if each.waits else f"{each.due_at:%H:%M}" for each in seen.ticks)
    assert seen.replaces_waiting == any(each.waits for each in seen.ticks)
    return ticks, [(f"{each.first:%H:%M}", f"{each.last:%H:%M}", each.count, each.why) for each in seen.skipped]


def test_a_time_that_a_server_sees_at_once_is_a_tick() -> None:
    assert found(since="11:59:30", now="12:00:01") == ("12:00", [])
    assert found(since="12:00:01", now="12:14:59") == ("", [])
    assert found(since="12:00:00", now="12:00:00") == ("", [])
    assert found(since="13:00:00", now="12:00:00") == ("", [])  # the clock was set back


@pytest.mark.parametrize(("now", "is_missed"), [("12:00:59", False), ("12:01:00", False), ("12:01:01", True)])
def test_a_time_is_missed_after_a_minute(now: str, is_missed: bool) -> None:
    expected = ("", [("12:00", "12:00", 1, NO_SERVER)]) if is_missed else ("12:00", [])
    assert found(since="11:59:00", now=now, missed="skip") == expected


@pytest.mark.parametrize(
    ("missed", "ticks", "skipped"),
    [
        ("latest", "12:00", [("10:15", "11:45", 7, NO_SERVER)]),
        ("all", "10:15 10:30 10:45 11:00 11:15 11:30 11:45 12:00", []),
        ("skip", "", [("10:15", "12:00", 8, NO_SERVER)]),
    ],
)
def test_missed_decides_which_times_are_kept(missed: Missed, ticks: str, skipped: list[object]) -> None:
    assert found(since="10:05:00", now="12:05:00", missed=missed) == (ticks, skipped)


def test_the_latest_missed_time_makes_room_for_one_in_time() -> None:
    """One run is enough: it covers what the missed times were for."""
    assert found(since="10:05:00", now="12:00:30") == ("12:00", [("10:15", "11:45", 7, NO_SERVER)])


def test_all_missed_times_run_and_one_in_time_queues_behind_them() -> None:
    for overlap in ("skip", "wait"):
        assert found(since="11:20:00", now="12:00:30", missed="all", overlap=overlap) == ("11:30 11:45 12:00", [])


def test_of_all_missed_times_the_newest_hundred_are_kept() -> None:
    ticks, skipped = found("* * * * *", since="08:00:00", now="12:01:30", missed="all")
    assert len(ticks.split()) == MOST_MISSED
    assert (ticks.split()[0], ticks.split()[-1]) == ("10:22", "12:01")
    assert skipped == [("08:01", "10:21", 141, TOO_MANY)]


def test_waiting_ticks_are_skipped_for_newer_missed_times_when_a_hundred_wait() -> None:
    schedule = Schedule(cron="* * * * *", missed="all")

    def displaced(minutes: int, waiting: int) -> tuple[int, int, int]:
        now = NOON + timedelta(minutes=minutes, seconds=30)
        seen = look(schedule, NOON, now, is_busy=True, waiting=waiting)
        return seen.displaced, len(seen.ticks), sum(each.count for each in seen.skipped if each.why == TOO_MANY)

    assert displaced(5, 95) == (0, 5, 0)
    assert displaced(5, 96) == (1, 5, 0)
    assert displaced(5, 101) == (6, 5, 0)
    assert displaced(120, 3) == (3, 100, 20)
    assert look(schedule, NOON, NOON, is_busy=True, waiting=101).displaced == 0


@pytest.mark.parametrize(
    ("missed", "is_busy", "ticks", "skipped"),
    [
        ("latest", False, "12:00", [("11:58", "11:59", 2, NO_STORE)]),
        ("latest", True, "", [("11:58", "11:59", 2, NO_STORE), ("12:00", "12:00", 1, STILL_GOES)]),
        ("all", False, "11:58 11:59 12:00", []),
        ("all", True, "11:58 11:59 12:00", []),
        ("skip", False, "", [("11:58", "12:00", 3, NO_STORE)]),
        ("skip", True, "", [("11:58", "12:00", 3, NO_STORE)]),
    ],
)
def test_times_while_the_store_did_not_answer_are_missed_however_late_they_are(
    missed: Missed, is_busy: bool, ticks: str, skipped: list[object]
) -> None:
    seen = found("* * * * *", since="11:57:10", now="12:00:02", silent_since="11:57:58", missed=missed, is_busy=is_busy)
    assert seen == (ticks, skipped)


def test_a_skipped_time_before_the_store_failed_to_answer_has_its_own_reason() -> None:
    seen = found("* * * * *", since="11:50:10", now="11:55:02", silent_since="11:52:30", missed="skip")
    assert seen == ("", [("11:51", "11:52", 2, NO_SERVER), ("11:53", "11:55", 3, NO_STORE)])


@pytest.mark.parametrize(
    ("overlap", "now", "missed", "expected"),
    [
        ("skip", "11:30:10", "latest", ("", [("11:30", "11:30", 1, STILL_GOES)])),
        ("wait", "11:30:10", "latest", ("(11:30)", [])),
        ("skip", "12:05:00", "all", ("11:30 11:45 12:00", [])),
        ("wait", "12:05:00", "all", ("11:30 11:45 12:00", [])),
        ("wait", "11:45:10", "all", ("11:30 11:45", [])),
        ("wait", "11:30:10", "all", ("(11:30)", [])),
        ("skip", "11:30:10", "all", ("", [("11:30", "11:30", 1, STILL_GOES)])),
        ("wait", "12:05:00", "latest", ("(12:00)", [("11:30", "11:45", 2, NO_SERVER)])),
        ("wait", "12:05:00", "skip", ("", [("11:30", "12:00", 3, NO_SERVER)])),
    ],
)
def test_overlap_decides_while_the_former_run_goes(
    overlap: Overlap, now: str, missed: Missed, expected: tuple[str, list[object]]
) -> None:
    assert found(since="11:20:00", now=now, overlap=overlap, missed=missed, is_busy=True) == expected


def test_two_times_of_one_look_do_not_both_start() -> None:
    assert found("* * * * *", since="11:59:50", now="12:01:00") == ("12:00", [("12:01", "12:01", 1, STILL_GOES)])
    assert found("* * * * *", since="11:59:50", now="12:01:00", overlap="wait") == ("12:00 (12:01)", [])


def test_the_times_of_a_replaced_schedule_are_one_stretch() -> None:
    schedule = Schedule(every_s=900)
    (stretch,) = skip_all(schedule, NOON, NOON + timedelta(hours=1), "schedule changed")
    assert (stretch.first, stretch.last) == (NOON + timedelta(minutes=15), NOON + timedelta(hours=1))
    assert (stretch.count, stretch.why) == (4, "schedule changed")
    assert skip_all(schedule, NOON, NOON + timedelta(minutes=14), "schedule changed") == ()


@pytest.mark.sampled
@settings(deadline=None, max_examples=examples(400))
@given(
    cron=st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0 0 * * mon"]),
    missed=st.sampled_from(["latest", "all", "skip"]),
    overlap=st.sampled_from(["skip", "wait"]),
    is_busy=st.booleans(),
    waiting=st.integers(0, 120),
    gap_s=st.integers(0, 400_000),
    silent_s=st.none() | st.integers(0, 400_000),
    second=st.integers(0, 59),
)
def test_each_time_is_a_tick_or_in_one_stretch(
    cron: str,
    missed: Missed,
    overlap: Overlap,
    is_busy: bool,
    waiting: int,
    gap_s: int,
    silent_s: int | None,
    second: int,
) -> None:
    schedule = Schedule(cron=cron, timezone="Europe/Berlin", missed=missed, overlap=overlap)
    now = datetime(2027, 3, 29, 12, 0, second, tzinfo=UTC)
    looked_at = now - timedelta(seconds=gap_s)
    silent_since = None if silent_s is None else now - timedelta(seconds=silent_s)
    seen = look(schedule, looked_at, now, is_busy=is_busy, waiting=waiting, silent_since=silent_since)
    times = due(schedule, looked_at, now)
    ticks = [each.due_at for each in seen.ticks]
    assert ticks == sorted(ticks)
    told = list(ticks)
    for stretch in seen.skipped:
        inside = [each for each in times if stretch.first <= each <= stretch.last]
        assert (inside[0], inside[-1], len(inside)) == (stretch.first, stretch.last, stretch.count)
        told += inside
    assert sorted(told) == times
    assert len([each for each in seen.ticks if each.waits]) <= 1
    assert len(ticks) <= (MOST_MISSED if missed == "all" else 2)
    if missed == "all" and any(each.is_missed for each in seen.ticks):
        assert len(ticks) + waiting - seen.displaced <= MOST_MISSED
        assert {each.why for each in seen.skipped} <= {TOO_MANY}
