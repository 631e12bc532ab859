"""When schedules are due: against a walk through every minute, as Debian's cron makes it, over changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.sync.schedules import CronMistake, Schedule, due, next_times, parse_cron, previous_time
from tests.tiers import examples

#: Beside those that are common: half an hour, none, at midnight to and from, two hours.
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Africa/Cairo",
    "America/Havana",
    "Antarctica/Troll",
)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# -- a reference that shares no line with the code -------------------------------------------------------------------


def values(field: str, low: int, high: int) -> set[int]:
    found = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        found |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


def walked(cron: str, timezone: str, start: datetime, end: datetime) -> list[datetime]:
    """Walk from minute to minute and run what matches the clock on the wall.

    A job with fixed times runs for every minute that the clock has passed since its latest reading, once for all of
    them; while the clock repeats what it has shown, it does not run.
    """
    fields, zone = cron.split(), ZoneInfo(timezone)
    spans = [(field, low, high) for field, (low, high) in zip(fields, LIMITS, strict=True)]
    minutes, hours, days, months, weekdays = (values(*each) for each in spans)
    needs_both = fields[2].startswith("*") or fields[4].startswith("*")

    def matches(wall: datetime) -> bool:
        is_day, is_weekday = wall.day in days, bool({wall.isoweekday(), wall.isoweekday() % 7} & weekdays)
        is_on = is_day and is_weekday if needs_both else is_day or is_weekday
        return wall.minute in minutes and wall.hour in hours and wall.month in months and is_on

    found = []
    at, shown = start, start.astimezone(zone).replace(tzinfo=None)
    while at < end:
        at += MINUTE
        wall = at.astimezone(zone).replace(tzinfo=None)
        if fields[0].startswith("*") or fields[1].startswith("*"):
            if matches(wall):
                found.append(at)
            continue
        is_due = False
        while shown < wall:
            shown += MINUTE
            is_due |= matches(shown)
        if is_due:
            found.append(at)
    return found


@cache
def changes(timezone: str, year: int) -> tuple[datetime, ...]:
    """Return the days of a year, at noon, before which the clock of a zone was changed."""
    noons = [datetime(year, 1, 1, 12, tzinfo=UTC) + DAY * number for number in range(366)]
    offsets = [noon.astimezone(ZoneInfo(timezone)).utcoffset() for noon in noons]
    return tuple(noon for noon, (before, now) in zip(noons[1:], pairwise(offsets), strict=True) if before != now)


def a_field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.integers(2, high - low)
    stepped = st.tuples(st.just("*") | span, step).map(lambda pair: f"{pair[0]}/{pair[1]}")
    lists = st.lists(number.map(str) | span, min_size=1, max_size=4).map(",".join)
    return st.just("*") | stepped | lists


#: Hours in which the clocks are changed, or any.
CRONS = st.tuples(a_field(0, 59), a_field(0, 4) | a_field(0, 23), st.just("*"), st.just("*"), st.just("*"))
DATED = st.tuples(a_field(0, 59), a_field(0, 3), a_field(1, 31), a_field(1, 12), a_field(0, 7))


@pytest.mark.sampled
@settings(deadline=None, max_examples=examples(1500))
@given(
    fields=CRONS | DATED,
    timezone=st.sampled_from(ZONES),
    year=st.integers(2020, 2030),
    place=st.integers(0, 7),
    minute=st.integers(0, 1440),
)
def test_due_is_what_a_walk_through_every_minute_finds(
    fields: tuple[str, ...], timezone: str, year: int, place: int, minute: int
) -> None:
    cron = " ".join(fields)
    try:
        parse_cron(cron)
    except CronMistake:  # the 31st of February
        return
    noons = (*changes(timezone, year), datetime(year, 1 + place, 3 * (1 + place), 12, tzinfo=UTC))
    start = noons[place % len(noons)] - 2 * DAY + MINUTE * minute
    end = start + 2 * DAY
    schedule = Schedule(cron=cron, timezone=timezone)
    found = due(schedule, start, end)
    assert found == walked(cron, timezone, start, end)
    middle = start + MINUTE * minute
    assert due(schedule, start, middle) + due(schedule, middle, end) == found


# -- by example ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "timezone", "day", "expected"),
    [
        # 02:00 to 03:00 does not exist: fixed times run at the moment that follows, together with its own
        ("30 2 * * *", "Europe/Berlin", "2027-03-28", ["01:00"]),
        ("15,30 2 * * *", "Europe/Berlin", "2027-03-28", ["01:00"]),
        ("0 2,3,4 * * *", "Europe/Berlin", "2027-03-28", ["01:00", "02:00"]),
        ("30 * * * *", "Europe/Berlin", "2027-03-28", [f"{hour:02}:30" for hour in range(24)]),
        ("*/30 2 * * *", "Europe/Berlin", "2027-03-28", []),
        # 02:00 to 03:00 comes twice
        ("30 2 * * *", "Europe/Berlin", "2027-10-31", ["00:30"]),
        ("*/30 2 * * *", "Europe/Berlin", "2027-10-31", ["00:00", "00:30", "01:00", "01:30"]),
        # half an hour: 02:00 becomes 02:30, and 02:00 becomes 01:30
        ("10 2 * * *", "Australia/Lord_Howe", "2027-10-02", ["15:30"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2027-04-03", ["14:45"]),
        ("45 1-2 * * *", "Australia/Lord_Howe", "2027-04-03", ["14:45", "16:15"]),
        ("*/15 1 * * *", "Australia/Lord_Howe", "2027-04-03", ["14:00", "14:15", "14:30", "14:45", "15:00", "15:15"]),
        # midnight does not exist
        ("@daily", "Africa/Cairo", "2027-04-29", ["22:00"]),
    ],
)
def test_a_change_of_the_clock(cron: str, timezone: str, day: str, expected: list[str]) -> None:
    start = utc(day) - MINUTE
    found = due(Schedule(cron=cron, timezone=timezone), start, start + DAY)
    assert [f"{at:%H:%M}" for at in found] == expected


def test_a_span_counts_real_time_from_1970_on() -> None:
    """Seven hours do not divide a day; the clock of the zone does not matter."""
    schedule = Schedule(every_s=7 * 3600, timezone="Europe/Berlin")
    start = utc("2027-03-26")
    found = due(schedule, start, start + 4 * DAY)
    assert {int(at.timestamp()) % (7 * 3600) for at in found} == {0}
    assert {after - before for before, after in pairwise(found)} == {timedelta(hours=7)}
    assert found[0] - start < timedelta(hours=7)
    assert start + 4 * DAY - found[-1] < timedelta(hours=7)
    assert due(schedule, found[0], found[1]) == [found[1]]


def test_a_time_belongs_to_the_look_that_reaches_it() -> None:
    schedule = Schedule(cron="*/15 * * * *")
    at = utc("2027-01-01T10:15:00")
    second = timedelta(seconds=1)
    assert due(schedule, at - second, at) == [at]
    assert due(schedule, at, at + second) == []
    assert due(schedule, at - second / 2, at + second / 2) == [at]
    assert due(schedule, at + DAY, at) == []


def test_next_and_previous_times_are_found_years_away() -> None:
    leap = Schedule(cron="0 0 29 2 *", timezone="Asia/Kolkata")
    assert next_times(leap, utc("2027-01-01"), 2) == [utc("2028-02-28T18:30:00"), utc("2032-02-28T18:30:00")]
    assert previous_time(leap, utc("2027-01-01")) == utc("2024-02-28T18:30:00")
    sunday = Schedule(cron="0 0 29 2 */7")  # day and weekday, since one begins with a star
    assert next_times(sunday, utc("2027-01-01"), 1) == [utc("2032-02-29")]


@pytest.mark.parametrize("schedule", [Schedule(cron="* * * * *", timezone="Asia/Kolkata"), Schedule(every_s=3600)])
def test_the_calendar_ends(schedule: Schedule) -> None:
    assert next_times(schedule, utc("9999-12-31T23:59:59"), 5) == []


@pytest.mark.sampled
@settings(deadline=None, max_examples=examples(200))
@given(fields=DATED, timezone=st.sampled_from(ZONES), minute=st.integers(0, 1440 * 3000))
def test_the_time_before_the_next_one_is_not_after_now(fields: tuple[str, ...], timezone: str, minute: int) -> None:
    schedule = Schedule(cron=" ".join(fields), timezone=timezone)
    now = utc("2021-05-05") + MINUTE * minute
    try:
        (first, second) = next_times(schedule, now, 2)
    except CronMistake:
        return
    assert now < first < second
    assert previous_time(schedule, second) == first
    before = previous_time(schedule, first)
    assert before is None or before <= now


def test_ten_thousand_schedules_for_a_day_on_which_clocks_are_changed() -> None:
    """Real time passes for those that begin with a star; the others run once on their day. The budget is the test's."""
    start, zones = utc("2027-03-28"), ZONES[:4]
    midnights = {name: datetime(2027, 3, 28, tzinfo=ZoneInfo(name)) for name in zones}
    counts: dict[str, set[int]] = {"hourly": set(), "half": set(), "fixed": set(), "span": set()}
    for number in range(10_000):
        timezone, minute, hour = zones[number % 4], number % 60, number % 24
        begin, end = start, start + DAY
        if (kind := tuple(counts)[number // 4 % 4]) == "fixed":
            schedule = Schedule(cron=f"{minute} {hour} * * *", timezone=timezone)
            begin = midnights[timezone].astimezone(UTC) - MINUTE
            end = (midnights[timezone] + DAY).astimezone(UTC) - MINUTE
        elif kind == "span":
            schedule = Schedule(every_s=1800 * (1 + number % 2), timezone=timezone)
        else:
            schedule = Schedule(cron=f"{minute if kind == 'hourly' else '*/30'} * * * *", timezone=timezone)
        counts[kind].add(len(due(schedule, begin, end)))
    assert counts == {"hourly": {24}, "half": {48}, "fixed": {1}, "span": {24, 48}}


def test_the_last_day_of_each_month_is_due() -> None:
    found = due(Schedule(cron="0 6 L,15 * *"), datetime(2023, 12, 20, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC))
    assert [f"{each:%m-%d %H}" for each in found] == ["12-31 06", "01-15 06", "01-31 06", "02-15 06", "02-29 06"]


def test_the_beginning_and_the_end_of_the_calendar_have_times() -> None:
    for schedule in (Schedule(cron="0 3 * * *", timezone="Europe/Berlin"), Schedule(every_s=3600)):
        first = next_times(schedule, datetime(1, 1, 1, tzinfo=UTC), 1)
        assert [each.year for each in first] == [2]
        assert previous_time(schedule, datetime(1, 1, 2, tzinfo=UTC)) is None
        assert next_times(schedule, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), 1) == []


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "said", "nearest"),
    [
        ("* * *", "has 3 fields, but needs five", None),
        ("", "has 0 fields", None),
        ("0 */5 * * * *", "has 6 fields", "*/5 * * * *"),
        ("0 0 * * 1 2027", "has 6 fields", None),
        ("@dialy", "there is no '@dialy'", "@daily"),
        ("@yearly", "there is no '@yearly'", "0 0 1 1 *"),
        ("@reboot", "there is no '@reboot'", None),
        ("60 * * * *", "minute '60': '60' is not from 0 to 59", None),
        ("0 24 * * *", "hour '24'", None),
        ("0 0 0 * *", "day '0'", None),
        ("0 0 * 13 *", "month '13': '13' is not from 1 to 12, or jan to dec", None),
        ("0 0 * * 8", "weekday '8'", None),
        ("0 0 * * mon-fry", "weekday 'mon-fry'", "0 0 * * mon-fri"),
        ("0 0 * * 1,tuu", "weekday '1,tuu'", "0 0 * * 1,tue"),
        ("0 22-2 * * *", "ends before it begins", "0 22-23,0-2 * * *"),
        ("5/15 * * * *", "a step needs * or a range", "5-59/15 * * * *"),
        ("*/90 * * * *", "`every: 90m` in place of `cron`", None),
        ("0 */36 * * *", "`every: 36h` in place of `cron`", None),
        ("*/0 * * * *", "a step is from 1 to 59", None),
        ("0 0 ? * *", "none of *, a, a-b, */n, a-b/n", None),
        ("0 0 * L *", "'L' is not from 1 to 12", None),
        ("0 0 L-2 * *", "'L' is not from 1 to 31", None),
        ("0 0 15W * *", "`W`, the nearest weekday", "0 0 15 * *"),
        ("0 0 1,LW * *", "`W`, the nearest weekday", "0 0 1,L * *"),
        ("0 0 * * 5#3", r"crontab `0 6 15-21 * * [ $(date +\%u) = 5 ] &&", None),
        ("0 0 * * sun#5", r"crontab `0 6 29-31 * * [ $(date +\%u) = 7 ] &&", None),
        ("1,,2 * * * *", "none of", None),
        ("-1 * * * *", "none of", None),
        ("٣ * * * *", "none of", None),
        ("0 0 30 2 *", "is in no month '2'", None),
        ("0 0 31 4,6 *", "is in no month '4,6'", None),
    ],
)
def test_a_wrong_expression_says_which_field_and_what_is_right(cron: str, said: str, nearest: str | None) -> None:
    with pytest.raises(CronMistake) as caught:
        parse_cron(cron)
    assert said in str(caught.value)
    assert caught.value.nearest == nearest
    if nearest is not None:
        parse_cron(nearest)


@pytest.mark.parametrize(
    ("cron", "same"),
    [
        ("0 0 * * mon-fri", "0 0 * * 1-5"),
        ("0 0 * JAN,dec *", "0 0 * 1,12 *"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("@weekly", "0 0 * * 0"),
        (" @hourly ", "0  *\t* * *"),
        ("0 0 30 2 1", "0 0 30 2 1"),  # day or weekday
    ],
)
def test_one_time_may_be_written_in_several_ways(cron: str, same: str) -> None:
    assert parse_cron(cron) == parse_cron(same)
