"""Whether a pipeline is late or has moved too little: pure, so each case is a few values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.freshness.judge import Judgement, expected, judge, last_success, span
from syncblocks.sync.schedules import Schedule, due
from syncblocks.sync.schedules.expect import Expect, Volume
from syncblocks.sync.store.freshness_facts import Facts, RunFacts, RunRows, StreamFacts
from syncblocks.sync.store.schedules import Pause
from tests.tiers import examples

NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)
HOUR, DAY = Expect(every_s=3600), Expect(every_s=86_400)


def ago(minutes: float) -> datetime:
    return NOON - timedelta(minutes=minutes)


def streams(**minutes: float | None) -> dict[str, StreamFacts]:
    """Streams with their last successes so many minutes before noon; None: never."""
    return {
        name: StreamFacts() if each is None else StreamFacts(succeeded_at=ago(each), rows=10)
        for name, each in minutes.items()
    }


def judged(
    expect: Expect | None = None,
    schedule: Schedule | None = None,
    *,
    first_seen: float = 10_000,
    expects: dict[str, Expect] | None = None,
    **facts: Any,
) -> Judgement:
    given = facts.get("streams", {})
    known = Facts(now=NOON, selected=tuple(given), expects=expects or {}, **facts)
    seen = {subject: ago(first_seen) for subject in expected(expect, known.expects)}
    return judge("crm", schedule, expect, known, seen)


def found(judgement: Judgement) -> list[tuple[str, str, datetime | None]]:
    return [(each.stream, each.kind, each.since) for each in judgement.findings]


def test_a_pipeline_is_as_old_as_its_oldest_stream() -> None:
    assert found(judged(HOUR, streams=streams(a=10, b=59))) == []
    assert found(judged(HOUR, streams=streams(a=10, b=61))) == [("", "late", ago(1))]
    (finding,) = judged(HOUR, streams=streams(a=10, b=61)).findings
    assert (finding.what, finding.last_success) == ("no success for 1h", ago(61))


def test_a_stream_has_an_age_of_its_own() -> None:
    assert found(judged(expects={"a": HOUR, "b": DAY}, streams=streams(a=61, b=61))) == [("a", "late", ago(1))]


@pytest.mark.parametrize(("first_seen", "is_late"), [(59, False), (60, False), (61, True)])
def test_before_the_first_success_age_counts_from_when_the_expectation_was_first_seen(
    first_seen: float, is_late: bool
) -> None:
    """Of a stream that came later, from the first run that planned it."""
    assert bool(judged(HOUR, first_seen=first_seen).findings) == is_late
    assert bool(judged(HOUR, first_seen=first_seen, streams=streams(a=None, b=5)).findings) == is_late
    new = {"a": StreamFacts(planned_at=ago(30)), **streams(b=5)}
    assert found(judged(HOUR, first_seen=first_seen, streams=new)) == []


def test_within_counts_from_the_first_time_of_the_schedule_that_has_no_success() -> None:
    expect, hourly = Expect(within_s=600), Schedule(every_s=3600)
    assert found(judged(expect, hourly, streams=streams(a=59))) == []  # the time of 12:00 has until 12:10
    assert found(judged(expect, hourly, streams=streams(a=60))) == []  # ended when it was due
    assert found(judged(expect, hourly, streams=streams(a=61))) == [("", "late", ago(50))]
    assert found(judged(expect, hourly, streams=streams(a=601))) == [("", "late", ago(590))]
    assert found(judged(expect, hourly, streams=streams(a=600), first_seen=30)) == []
    assert found(judged(expect, hourly, streams=streams(a=600), resumed_at=ago(30))) == []


def test_of_two_expectations_the_one_that_was_missed_first_counts() -> None:
    both, hourly = Expect(within_s=600, every_s=5400), Schedule(every_s=3600)
    assert [each.since for each in judged(both, hourly, streams=streams(a=150)).findings] == [ago(110)]
    sooner = replace(both, every_s=60)
    assert [each.since for each in judged(sooner, hourly, streams=streams(a=150)).findings] == [ago(149)]


def test_nothing_is_said_of_a_pipeline_that_is_paused() -> None:
    both = Expect(every_s=60, rows=Volume(1))
    judgement = judged(both, streams=streams(a=600), pause=Pause(), last_rows=RunRows(ago(600), 0))
    assert (judgement.findings, judgement.unjudged) == ((), {("", "late"), ("", "volume")})


@pytest.mark.parametrize(
    ("rows", "expected"), [(0, [("", "volume", ago(5))]), (4, [("", "volume", ago(5))]), (5, []), (None, [])]
)
def test_too_few_records_of_the_last_run_are_told_and_unknown_figures_give_no_verdict(
    rows: int | None, expected: list[Any]
) -> None:
    judgement = judged(Expect(rows=Volume(5)), last_rows=RunRows(ago(5), rows))
    assert found(judgement) == expected
    assert (("", "volume") in judgement.unjudged) == (rows is None)
    of_stream = judged(
        expects={"a": Expect(rows=Volume(5))}, streams={"a": StreamFacts(succeeded_at=ago(5), rows=rows)}
    )
    assert found(of_stream) == [("a", *each[1:]) for each in expected]


def test_records_of_a_span_are_judged_once_the_whole_span_was_looked_at() -> None:
    expect = Expect(rows=Volume(5, 3600))
    assert found(judged(expect, windows={("", 3600): 4})) == [("", "volume", None)]
    assert found(judged(expect, windows={("", 3600): 5})) == []
    for judgement in (
        judged(expect, windows={("", 3600): 4}, first_seen=59),
        judged(expect, windows={("", 3600): None}),
    ):
        assert (judgement.findings, judgement.unjudged) == ((), {("", "volume")})


def run(*, is_active: bool, is_alive: bool, status: str = "success") -> RunFacts:
    return RunFacts(
        id=7,
        status=status,
        is_active=is_active,
        is_alive=is_alive,
        lease_until=ago(3),
        started_at=ago(9),
        ended_at=None if is_active else ago(3),
    )


def test_what_is_stuck_is_told_whatever_the_file_expects() -> None:
    dead = judged(run=run(is_active=True, is_alive=False), dead_deliveries=2, due_deliveries=1, missing=("a", "b"))
    assert found(dead) == [("", "run", ago(3)), ("", "dead", None), ("a", "missing", None), ("b", "missing", None)]
    left = judged(run=run(is_active=False, is_alive=False), due_deliveries=1)
    assert [each.what for each in left.findings] == ["1 callback due, and no process delivers"]
    assert found(judged(run=run(is_active=True, is_alive=True), due_deliveries=1)) == []


def test_a_start_that_fails_or_was_refused_and_a_clock_behind_are_told_whatever_the_file_expects() -> None:
    assert found(judged(refused="no key", waiting="down")) == [("", "refused", None)]
    (finding,) = judged(waiting="down", starts_fail=True).findings
    assert (finding.kind, finding.what) == ("start", "its run has not begun for over 10 minutes: down")
    (finding,) = judged(ahead=NOON + timedelta(minutes=5)).findings
    assert (finding.kind, "nothing starts before 2027-06-01 12:05 UTC" in finding.what) == ("clock", True)


@pytest.mark.parametrize(
    ("expect", "expects", "is_told"),
    [
        (None, {}, True),
        (Expect(rows=Volume(1)), {}, True),
        (HOUR, {}, False),
        (None, {"a": DAY}, False),
    ],
)
def test_a_run_that_failed_is_told_where_nothing_says_how_late_a_success_may_come(
    expect: Expect | None, expects: dict[str, Expect], is_told: bool
) -> None:
    failed = judged(
        expect, expects=expects, streams=streams(a=5), run=run(is_active=False, is_alive=False, status="failure")
    )
    assert found(failed) == ([("", "failed", ago(3))] if is_told else [])
    again = judged(expect, expects=expects, streams=streams(a=5), run=run(is_active=True, is_alive=True))
    assert (found(again), ("", "failed") in again.unjudged) == ([], True)


def test_after_a_gap_without_a_server_nothing_is_late_that_catches_up() -> None:
    facts = Facts(now=NOON, streams=streams(a=600), selected=("a",))
    seen = {("", "late"): ago(10_000)}
    judgement = judge("crm", None, HOUR, facts, seen, is_catching_up=True)
    assert (judgement.findings, judgement.unjudged) == ((), {("", "late"), ("", "volume")})
    assert [each.kind for each in judge("crm", None, HOUR, facts, seen).findings] == ["late"]


def test_age_counts_from_the_end_of_a_pause_and_from_a_change_of_the_schedule() -> None:
    assert found(judged(HOUR, streams=streams(a=600), resumed_at=ago(30))) == []
    assert found(judged(HOUR, streams=streams(a=600), resumed_at=ago(61))) == [("", "late", ago(1))]


def test_the_last_success_of_a_pipeline_is_that_of_its_oldest_stream() -> None:
    assert last_success(Facts(now=NOON, streams=streams(a=1, b=2, other=9), selected=("a", "b"))) == ago(2)
    assert last_success(Facts(now=NOON, streams=streams(a=1, b=None), selected=("a", "b"))) is None
    assert last_success(Facts(now=NOON)) is None


def test_a_span_is_written_as_the_file_writes_it() -> None:
    assert [span(each) for each in (0, 45, 1800, 129_600, 90_061.9)] == ["0s", "45s", "30m", "1d12h", "1d1h1m1s"]


MINUTES = st.integers(0, 5000)


@pytest.mark.sampled
@settings(max_examples=examples(200))
@given(
    ages=st.lists(st.none() | MINUTES, max_size=4),
    first_seen=MINUTES,
    every=st.integers(1, 3000),
    within=st.none() | st.integers(1, 3000),
    cron=st.sampled_from(["*/15 * * * *", "30 2 * * *", "0 0 * * mon"]),
)
def test_late_is_what_no_success_covers(
    ages: list[int | None], first_seen: int, every: int, within: int | None, cron: str
) -> None:
    """Judged anew in the plainest way: each time of the schedule since it counts, and the age of each stream."""
    schedule = Schedule(cron=cron)
    expect = Expect(every_s=every * 60, within_s=None if within is None else within * 60)
    given_streams = {f"s{place}": streams(a=each)["a"] for place, each in enumerate(ages)}
    judgement = judged(expect, schedule, first_seen=first_seen, streams=given_streams)
    bases = [ago(first_seen if each is None else each) for each in ages] or [ago(first_seen)]
    missed = [base + timedelta(minutes=every) for base in bases]
    if within is not None:
        counts_from = max(min(bases), ago(first_seen))
        missed += [at + timedelta(minutes=within) for at in due(schedule, counts_from, NOON)]
    passed = sorted(each for each in missed if each < NOON)
    assert [each.since for each in judgement.findings] == passed[:1]
    for finding in judgement.findings:
        assert finding.last_success == (
            None if None in (oldest := oldest_of(ages, first_seen)) else ago(oldest[0] or 0)
        )


def oldest_of(ages: list[int | None], first_seen: int) -> list[int | None]:
    """Ages of the stream that the pipeline's age is of; None if it never succeeded."""
    most = max((first_seen if each is None else each for each in ages), default=first_seen)
    return next(([each] for each in ages if (first_seen if each is None else each) == most), [None])


@pytest.mark.sampled
@settings(max_examples=examples(100))
@given(age=MINUTES, first_seen=MINUTES, limit=st.integers(1, 3000), later=st.integers(0, 3000))
def test_what_is_late_stays_late_until_a_success_and_since_the_same_moment(
    age: int, first_seen: int, limit: int, later: int
) -> None:
    facts = Facts(now=NOON, streams=streams(a=age), selected=("a",))
    seen = {("", "late"): ago(first_seen)}
    expect = Expect(every_s=limit * 60)
    before = judge("crm", None, expect, facts, seen)
    after = judge("crm", None, expect, replace(facts, now=NOON + timedelta(minutes=later)), seen)
    assert set(before.findings) <= set(after.findings)
    fresh = replace(facts, streams=streams(a=0))
    assert judge("crm", None, expect, fresh, seen).findings == ()
