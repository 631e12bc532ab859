"""The page of a stream over time, and the order to read it anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ...store.documents import words_of
from ...store.views import StreamRun, StreamState
from .charts import Chart, Point, bar_chart
from .pages import Problem, orders_of, page, query_number, render
from .paths import path_of
from .pipelines import expected, zone_of
from .sessions import WHO, served_by
from .words import compact, moment, roughly, same_failures

RUNS = 60
#: What a bookmark has beside the values of its columns.


class Drawing(Struct, frozen=True, kw_only=True):
    """A chart with its title, and its largest value in words."""

    title: str
    chart: Chart
    top: str


@page
def _stream(request: Request) -> Response:
    pipeline, stream = _names(request)
    served = served_by(request)
    runs, before = served.store.views.stream_runs(pipeline, stream, before=query_number(request, "before"), most=RUNS)
    states = served.store.views.stream_states(pipeline, stream)
    found = request.app.state.looks.one(pipeline)
    looked, facts = found or (None, None)
    known = None if facts is None else facts.streams.get(stream)
    if not runs and not states and known is None:
        raise Problem(404, f"Pipeline {pipeline!r} has no stream {stream!r}.", "No run has planned it.")
    head = None if looked is None else looked.head
    zone = zone_of(head)
    findings = [] if looked is None else [each for each in looked.judgement.findings if each.stream == stream]
    return render(
        request,
        "stream.html",
        pipeline=pipeline,
        stream=stream,
        is_served=head is not None,
        zone=zone,
        findings=findings,
        known=known,
        expected="" if facts is None else expected(facts.expects.get(stream)),
        states=states,
        bookmark=bookmark_text(states[0].bookmark) if states else "",
        lag=_lag_now(states, served.clock.now()),
        runs=runs,
        failure=runs[0] if runs and runs[0].status == "failure" else None,
        in_a_row=_in_a_row(runs),
        drawings=_drawings(runs, zone),
        bookmark_values=bookmark_values,
        lag_of=lag_of,
        before=before,
        is_first="before" not in request.query_params,
    )


@page
def _anew(request: Request) -> Response:
    """Show what reading anew replaces; order it."""
    pipeline, stream = _names(request)
    served = served_by(request)
    if request.method == "POST":
        orders_of(request).read_anew(pipeline, stream, who=WHO)
        return RedirectResponse(f"/pipelines/{path_of(pipeline)}", status_code=303)
    head = served.files.heads.get(pipeline)
    states = served.store.views.stream_states(pipeline, stream)
    runs, _ = served.store.views.stream_runs(pipeline, stream, most=1)
    if head is None or not (states or runs):
        raise Problem(404, f"Pipeline {pipeline!r} has no stream {stream!r} that can be read anew.")
    return render(
        request,
        "anew.html",
        pipeline=pipeline,
        stream=stream,
        zone=zone_of(head),
        states=states,
        tables=[each.destination_table for each in states] or [runs[0].destination_table],
        bookmark_text=bookmark_text,
    )


def bookmark_text(bookmark: Mapping[str, Any] | None) -> str:
    """Return `updated_at=2026-01-01T00:00:00`."""
    return ", ".join(f"{name}={value}" for name, value in (words_of(bookmark) or {}).items())


def bookmark_values(bookmark: Mapping[str, Any] | None) -> str:
    """Return a bookmark without the names of its columns."""
    return ", ".join(str(value) for value in (words_of(bookmark) or {}).values())


def lag_of(run: StreamRun) -> float | None:
    """Return how old the bookmark was when a run had ended, in seconds; None: it is no time."""
    at = _bookmark_time(run.bookmark_after)
    return None if at is None or run.ended_at is None else (run.ended_at - at).total_seconds()


def _in_a_row(runs: Sequence[StreamRun]) -> list[int]:
    """Return for each run how many runs in a row have its error, or 0 if the error is not shown at this run."""
    groups = same_failures(runs, lambda run: run.error)
    return [len(group) if run is group[0] and run.error else 0 for group in groups for run in group]


def _lag_now(states: Sequence[StreamState], now: datetime) -> float | None:
    at = _bookmark_time(states[0].bookmark) if states else None
    return None if at is None else (now - at).total_seconds()


def _bookmark_time(bookmark: Any) -> datetime | None:
    """Return the time that a bookmark is; one without a zone counts as UTC."""
    value = next(iter(bookmark.values()), None) if isinstance(bookmark, dict) else None
    if not isinstance(value, str) or len(value) < len("2026-01-01"):
        return None
    try:
        at = datetime.fromisoformat(value)
        return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _drawings(runs: Sequence[StreamRun], zone: str) -> list[Drawing]:
    lines = list(reversed(runs))
    gaps = _gaps(lines)
    has_bookmark = any(lag_of(run) is not None for run in lines)
    drawings = [
        _drawing("Rows written", lines, zone, lambda run: run.rows_written, compact),
        _drawing("Duration", lines, zone, _duration, roughly),
        _drawing("Age of the bookmark at the end", lines, zone, lag_of, roughly)
        if has_bookmark
        else _drawing("Time since the former success", lines, zone, lambda run: gaps.get(_key(run)), roughly),
    ]
    if any(run.rows_rejected for run in lines):
        drawings.append(_drawing("Rejected records", lines, zone, lambda run: run.rows_rejected, compact))
    return drawings


def _drawing(
    title: str,
    runs: Sequence[StreamRun],
    zone: str,
    value_of: Callable[[StreamRun], float | None],
    text: Callable[[float | None], str],
) -> Drawing:
    points = []
    for run in runs:
        value = None if (found := value_of(run)) is None else max(float(found), 0.0)
        at = moment(run.started_at, zone)[:16]
        points.append(Point(value, run.status, f"run {run.run_id}, {at}: {text(value)}, {run.status}"))
    chart = bar_chart(points)
    return Drawing(title=title, chart=chart, top=text(chart.top))


def _duration(run: StreamRun) -> float | None:
    if run.started_at is None or run.ended_at is None:
        return None
    return (run.ended_at - run.started_at).total_seconds()


def _gaps(runs: Sequence[StreamRun]) -> dict[tuple[int, int], float]:
    """Return the seconds between each success and the one before."""
    ends = [(run, run.ended_at) for run in runs if run.status == "success" and run.ended_at is not None]
    return {_key(run): (ended_at - former).total_seconds() for (_, former), (run, ended_at) in pairwise(ends)}


def _key(run: StreamRun) -> tuple[int, int]:
    return run.run_id, run.attempt


def _names(request: Request) -> tuple[str, str]:
    return request.path_params["pipeline"], request.path_params["stream"]


ROUTES = [
    Route("/pipelines/{pipeline:name}/streams/{stream:name}", _stream),
    Route("/pipelines/{pipeline:name}/streams/{stream:name}/anew", _anew, methods=["GET", "POST"]),
]
