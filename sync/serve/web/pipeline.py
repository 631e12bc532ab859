"""The page of a pipeline: what is wrong first, then what happened and when it is due; and its buttons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ...config.head import Head
from ...freshness.judge import FAILED
from ...freshness.look import Looked, times_to_come
from ...schedules import Schedule
from ...store.alerts import Finding
from ...store.freshness_facts import Facts
from ...store.ticks import TickOptions
from ...store.views import BY_HAND, Between, RunFilter, RunLine, RunLines, TickLine
from .looks import Looks
from .pages import Problem, orders_of, page, query_number, render
from .paths import path_of
from .pipelines import connectors_of, expected, paged, zone_of
from .sessions import WHO, served_by
from .words import roughly, same_failures

#: Streams and runs of one page.
STREAMS, RUNS = 100, 40
#: Times of a schedule that are shown: to come, and decided.
NEXT, LAST = 5, 8
MOST_REASON = 500

STATUSES = ("failure", "cancelled", "success", "running")
KINDS = ("schedule", "api", "callback", "backfill", BY_HAND)

#: Kind of a finding -> what to do about it.
_WAYS: Mapping[str, str] = {
    "late": "Look at the last run. If none was begun, look at the schedule and at what waits.",
    "volume": "Compare the rows of the streams below with those of earlier runs.",
    "run": "A server of this pipeline ends it by itself within a minute. By hand: syncblocks recover FILE.",
    "failed": "Look at the run. A later success ends this.",
    "refused": "Mend the file, then order the run again or wait for the next time.",
    "start": "Mend the reason. A server goes on trying, each five minutes at last.",
    "clock": "Set the clock right. If it was ahead before: syncblocks schedule reset FILE.",
    "dead": "Mend the callback, then deliver again.",
    "due": "A server of this pipeline delivers by itself. A callback that fails is tried again later.",
    "missing": "If the table is gone on purpose, take the stream out of the file; else look at the source.",
    "broken": "Mend the file; the server reads it again by itself.",
}


class Entry(Struct, frozen=True, kw_only=True):
    """Something that happened to a pipeline."""

    at: datetime
    #: run, action, began, over, tick or changed.
    kind: str
    what: Any
    #: Earlier runs that failed with the same error, without another entry in between.
    same: tuple[RunLine, ...] = ()


class StreamOfPipeline(Struct, frozen=True, kw_only=True):
    """A stream of a pipeline."""

    stream: str
    #: In the latest run; None: that run had not planned it.
    status: str | None
    succeeded_at: datetime | None
    rows: int | None
    expected: str
    is_wrong: bool
    is_missing: bool


@page
def _pipeline(request: Request) -> Response:
    name: str = request.path_params["pipeline"]
    served = served_by(request)
    views = served.store.views
    looks: Looks = request.app.state.looks
    looked, facts = looks.one(name) or (looks.without_head(name), None)
    head = None if looked is None else looked.head
    zone = zone_of(head)
    wanted, shown = _filter(request, ZoneInfo(zone))
    before = query_number(request, "before")
    lines = views.runs(name, wanted, before=before, most=RUNS)
    if looked is None and not lines.runs and not _is_known(request, name):
        raise Problem(404, f"There is no pipeline {name!r}.", "No file of this server and no run has this name.")
    is_all = wanted == RunFilter()
    recent = views.recent([name])[name]
    streams = [] if facts is None or looked is None else _streams(request, looked, facts)
    pages, part = paged(request, len(streams), STREAMS)
    source, destination = ("", "") if head is None else connectors_of(head)
    schedule = None if head is None else head.schedule
    return render(
        request,
        "pipeline.html",
        pipeline=name,
        looked=looked,
        head=head,
        run=None if facts is None else facts.run,
        source=source,
        destination=destination,
        findings=[] if looked is None else _findings(looked.judgement.findings, has_failure=recent.failure is not None),
        ways=_WAYS,
        failure=recent.failure,
        recent=recent,
        streams=streams[part],
        stream_count=len(streams),
        pages=pages,
        entries=list(_entries(request, name, lines, before, is_all=is_all)),
        before=lines.before,
        filter=shown,
        statuses=STATUSES,
        kinds=KINDS,
        waiting=views.waiting(name),
        schedule=schedule,
        when=None if schedule is None else when(schedule),
        next=[] if schedule is None or facts is None else times_to_come(schedule, facts.pause, facts.now, NEXT),
        ticks=views.last_ticks([name], LAST)[name],
        expected="" if head is None else expected(head.expect),
        zone=zone,
        alert_variable=served.alert_variable,
    )


def when(schedule: Schedule) -> str:
    """Return when a schedule is due, as its file writes it."""
    return schedule.cron if schedule.cron is not None else f"every {roughly(schedule.every_s)}"


def _findings(findings: tuple[Finding, ...], *, has_failure: bool) -> list[Finding]:
    """Return what is wrong beside the failure that is shown; missing streams come last, since they may be many."""
    found = [each for each in findings if not (has_failure and each.kind == FAILED)]
    return sorted(found, key=lambda each: each.kind == "missing")


def _is_known(request: Request, name: str) -> bool:
    """Whether the run store knows a pipeline that has no file here, and no run that is asked for."""
    store = served_by(request).store
    return store.latest_run(name) is not None or any(each.pipeline == name for each in store.schedules.known())


def _filter(request: Request, zone: ZoneInfo) -> tuple[RunFilter, dict[str, str]]:
    """Return which runs the query asks for; and its values, as the form shows them again."""
    shown = {key: request.query_params.get(key, "").strip() for key in ("status", "kind", "since", "until")}
    if shown["status"] not in ("", *STATUSES) or shown["kind"] not in ("", *KINDS):
        raise Problem(400, "This address asks for a status or a kind that does not exist.")
    return RunFilter(
        status=shown["status"] or None,
        kind=shown["kind"] or None,
        since=_moment(shown["since"], zone),
        until=_moment(shown["until"], zone),
    ), shown


def _moment(text: str, zone: ZoneInfo) -> datetime | None:
    """Read what a browser sends for a time of a zone; empty: None."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Problem(400, f"{text[:40]!r} is no time.", "Write it like 2026-05-01T06:00.") from None


def _streams(request: Request, looked: Looked, facts: Facts) -> list[StreamOfPipeline]:
    """Return the streams of a pipeline: those that are wrong first, then in run order."""
    run = facts.run
    statuses = {}
    if run is not None:
        # Of the latest attempt: its rows come last.
        statuses = {each.stream: each.status for each in served_by(request).store.stream_statuses(run.id)}
    wrong = {each.stream for each in looked.judgement.findings if each.stream}
    names = dict.fromkeys((*facts.selected, *facts.expects, *facts.missing, *statuses))
    lines = []
    for name in names:
        known = facts.streams.get(name)
        status = statuses.get(name)
        lines.append(
            StreamOfPipeline(
                stream=name,
                status=status,
                succeeded_at=None if known is None else known.succeeded_at,
                rows=None if known is None else known.rows,
                expected=expected(facts.expects.get(name)),
                is_wrong=name in wrong or status == "failure",
                is_missing=name in facts.missing,
            )
        )
    return sorted(lines, key=lambda each: (not each.is_wrong, each.is_missing))


def _entries(request: Request, name: str, lines: RunLines, before: int | None, *, is_all: bool) -> Iterator[Entry]:
    """Return what happened, the latest first: runs; and between them, unless a filter is set, all else."""
    found = [Entry(at=run.started_at, kind="run", what=run) for run in lines.runs]
    if is_all:
        views = served_by(request).store.views
        runs = lines.runs
        earliest = views.begun_at(name, runs[-1].id) if runs and lines.before is not None else None
        former = None if before is None else views.begun_at(name, before)
        found += _between(views.between(name, earliest, former, [run.id for run in runs]))
    found.sort(key=lambda each: (each.at, isinstance(each.what, RunLine)), reverse=True)
    for entry, *others in same_failures(found, lambda each: each.what.error if each.kind == "run" else None):
        yield replace(entry, same=tuple(each.what for each in others))


def _between(between: Between) -> Iterator[Entry]:
    for action in between.actions:
        yield Entry(at=action.created_at, kind="action", what=action)
    for alert in between.alerts:
        yield Entry(at=alert.begun_at, kind="began", what=alert)
        if alert.ended_at is not None:
            yield Entry(at=alert.ended_at, kind="over", what=alert)
    for tick in between.ticks:
        yield Entry(at=_last_of(tick), kind="tick", what=tick)
    for change in between.changes:
        yield Entry(at=change.at, kind="changed", what=change)


def _last_of(tick: TickLine) -> datetime:
    return tick.skipped_to or tick.due_at


# -- buttons -----------------------------------------------------------------------------------------------------


@page
def _run(request: Request) -> Response:
    name: str = request.path_params["pipeline"]
    orders_of(request).run(name, TickOptions(), who=WHO)
    return _back(name)


@page
def _pause(request: Request) -> Response:
    name: str = request.path_params["pipeline"]
    head: Head | None = served_by(request).files.heads.get(name)
    zone = ZoneInfo(zone_of(head))
    until = _moment(request.state.form.get("until", "").strip(), zone)
    reason = request.state.form.get("reason", "").strip()
    if len(reason) > MOST_REASON:
        raise Problem(400, f"The reason is longer than {MOST_REASON} characters.")
    orders_of(request).pause(name, until=until, reason=reason or None, who=WHO)
    return _back(name)


@page
def _resume(request: Request) -> Response:
    name: str = request.path_params["pipeline"]
    orders_of(request).resume(name, who=WHO)
    return _back(name)


def _back(name: str) -> Response:
    return RedirectResponse(f"/pipelines/{path_of(name)}", status_code=303)


ROUTES = [
    Route("/pipelines/{pipeline:name}", _pipeline),
    Route("/pipelines/{pipeline:name}/run", _run, methods=["POST"]),
    Route("/pipelines/{pipeline:name}/pause", _pause, methods=["POST"]),
    Route("/pipelines/{pipeline:name}/resume", _resume, methods=["POST"]),
]
