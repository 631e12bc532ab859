"""Whether a pipeline is late, has moved too little, or is stuck. Pure: the facts and the time are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from ..schedules import Schedule, next_times
from ..schedules.expect import Expect, Volume
from ..store.alerts import Finding
from ..store.freshness_facts import Facts, StreamFacts, Subject
from ..store.model import SUCCESS

LATE, VOLUME = "late", "volume"
#: The last run of a pipeline has failed of which nothing says how late a success may come.
FAILED = "failed"
_NO_EXPECT = Expect()


class Judgement(Struct, frozen=True, kw_only=True):
    """What is wrong with a pipeline."""

    findings: tuple[Finding, ...] = ()
    #: Expectations about which nothing can be said now; what was found before still holds.
    unjudged: frozenset[Subject] = frozenset()


class _Age(Struct, frozen=True):
    """From when a pipeline or stream has an age, and its last success; None: there was none."""

    base: datetime
    succeeded_at: datetime | None


def expected(expect: Expect | None, expects: Mapping[str, Expect]) -> frozenset[Subject]:
    """Return the expectations of a pipeline and of its streams that count from when they were first seen."""
    found = set()
    for stream, each in {"": expect or _NO_EXPECT, **expects}.items():
        found |= {(stream, LATE)} if _is_timed(each) else set()
        found |= {(stream, VOLUME)} if each.rows is not None else set()
    return frozenset(found)


def judge(
    pipeline: str,
    schedule: Schedule | None,
    expect: Expect | None,
    facts: Facts,
    seen: Mapping[Subject, datetime],
    *,
    is_catching_up: bool = False,
) -> Judgement:
    """Say what is wrong with a pipeline at `facts.now`.

    Args:
        pipeline: its name.
        schedule: of its file.
        expect: what is expected of it; `facts.expects` says what of its streams.
        facts: how it stands.
        seen: when each expectation was first seen.
        is_catching_up: no server looked for a while, and what came of it waits or runs.
    """
    findings = [
        Finding(pipeline=pipeline, stream=stream, kind=kind, what=what, since=since, last_success=last_success(facts))
        for stream, kind, what, since in _stuck(facts)
    ]
    wanted = {"": expect or _NO_EXPECT, **facts.expects}
    unjudged: set[Subject] = set()
    run = facts.run
    if run is not None and run.is_active:  # its end will tell
        unjudged |= {("", FAILED)}
    elif run is not None and run.status != SUCCESS and not any(_is_timed(each) for each in wanted.values()):
        what = f"run {run.id} ended as {run.status}; `syncblocks runs show` says why"
        at, success = run.ended_at, last_success(facts)
        findings.append(Finding(pipeline=pipeline, kind=FAILED, what=what, since=at, last_success=success))
    for stream, each in wanted.items():
        if facts.pause is not None or is_catching_up:  # nobody expects success of it now
            unjudged |= {(stream, LATE), (stream, VOLUME)}
            continue
        seen_at = seen.get((stream, LATE), facts.now)
        age = _age(stream, facts, seen_at)
        wrong: list[tuple[str, tuple[datetime | None, str]]] = [
            (LATE, found) for found in _late(each, schedule, age, facts, seen_at)
        ]
        if each.rows is not None:
            judged = _few(stream, each.rows, facts, seen.get((stream, VOLUME), facts.now))
            unjudged |= {(stream, VOLUME)} if judged is None else set()
            wrong += [(VOLUME, found) for found in judged or ()]
        findings += [
            Finding(pipeline=pipeline, stream=stream, kind=kind, what=what, since=since, last_success=age.succeeded_at)
            for kind, (since, what) in wrong
        ]
    return Judgement(findings=tuple(findings), unjudged=frozenset(unjudged))


def last_success(facts: Facts) -> datetime | None:
    """Return when the oldest selected stream last succeeded; None: one has not, or none is known."""
    found = [facts.streams[name].succeeded_at for name in facts.selected]
    return None if not found or None in found else min(each for each in found if each is not None)


def _is_timed(expect: Expect) -> bool:
    return expect.within_s is not None or expect.every_s is not None


def _age(stream: str, facts: Facts, seen: datetime) -> _Age:
    names = (stream,) if stream else facts.selected
    ages = [_age_of(facts.streams.get(name, StreamFacts()), seen) for name in names]
    return min(ages, key=lambda age: age.base, default=_Age(seen, None))


def _age_of(stream: StreamFacts, seen: datetime) -> _Age:
    base = stream.succeeded_at or max(seen, stream.planned_at or seen)
    return _Age(base, stream.succeeded_at)


def _late(
    expect: Expect, schedule: Schedule | None, age: _Age, facts: Facts, seen: datetime
) -> list[tuple[datetime, str]]:
    """Return since when it is late, and what was expected: of the expectation that was missed first."""
    found = []
    if expect.every_s is not None:
        base = max(age.base, facts.resumed_at or age.base)
        found.append((base + timedelta(seconds=expect.every_s), f"no success for {span(expect.every_s)}"))
    if expect.within_s is not None and schedule is not None:
        after = max(age.base, seen, facts.resumed_at or age.base)
        for at in next_times(schedule, after, 1):
            what = f"no success within {span(expect.within_s)} of {at:%Y-%m-%d %H:%M} UTC"
            found.append((at + timedelta(seconds=expect.within_s), what))
    return sorted(each for each in found if each[0] < facts.now)[:1]


def _few(stream: str, rows: Volume, facts: Facts, seen: datetime) -> list[tuple[datetime | None, str]] | None:
    """Return since when it moves too few records, and how few; None: no verdict."""
    since, number = None, None
    if rows.in_s is not None:
        if seen + timedelta(seconds=rows.in_s) <= facts.now:
            number = facts.windows.get((stream, rows.in_s))
    elif stream:
        since, number = (of_stream := facts.streams.get(stream, StreamFacts())).succeeded_at, of_stream.rows
    elif facts.last_rows is not None:
        since, number = facts.last_rows.ended_at, facts.last_rows.rows
    if number is None:
        return None
    where = "the last run" if rows.in_s is None else f"the last {span(rows.in_s)}"
    what = f"{_counted(number, 'record')} in {where}, expected at least {rows.min:,}"
    return [(since, what)] if number < rows.min else []


def _stuck(facts: Facts) -> Iterator[tuple[str, str, str, datetime | None]]:
    """Return stream, kind, text and begin of what is wrong whatever the file expects."""
    run = facts.run
    if run is not None and run.is_active and not run.is_alive:
        what = f"the process of run {run.id} is dead; `syncblocks recover` ends the run"
        yield "", "run", what, min(run.lease_until, facts.now)
    if facts.refused is not None:
        yield "", "refused", f"its start was refused: {facts.refused}", None
    if facts.starts_fail:
        yield "", "start", f"its run has not begun for over 10 minutes: {facts.waiting}", None
    if facts.ahead is not None:
        until = f"{facts.ahead:%Y-%m-%d %H:%M} UTC"
        what = f"the run store's clock is behind: nothing starts before {until}, or `syncblocks schedule reset`"
        yield "", "clock", what, None
    if facts.dead_deliveries:
        number = _counted(facts.dead_deliveries, "callback")
        yield "", "dead", f"{number} dead: all attempts have failed; `syncblocks callbacks retry` delivers again", None
    if facts.due_deliveries and not (run is not None and run.is_active):
        yield "", "due", f"{_counted(facts.due_deliveries, 'callback')} due, and no process delivers", None
    for stream in facts.missing:
        yield stream, "missing", "the source does not offer it any more", None


def span(seconds: float) -> str:
    """Return `1d12h`, `30m` or `45s`: a span as the pipeline file writes it."""
    left, text = int(seconds), ""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        text += f"{number}{unit}" if number else ""
    return text or "0s"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
