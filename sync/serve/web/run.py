"""The page of a run: why it failed, then what it moved, whom it told, and what was planned; live while it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from ...store.model import CANCELLED, RUNNING, SUCCESS, BlockRun
from ...store.run_views import MOST_OF_ALL, MOST_STREAMS, DeliveryView, RunAbout, RunView
from ...store.ticks import Tick
from .live import Live
from .pages import Problem, orders_of, page, query_number, render, rendered
from .pipelines import zone_of
from .sessions import WHO, served_by
from .stream import bookmark_values
from .words import json_text

#: The largest number of a run.
_MOST_RUN = 2**31 - 1
#: A stream under way that has moved no record for so long is said to stand still.
STILL_S = 10

_STATUSES = ("failure", "cancelled", "running", "unclaimed", "success")


class Told(Struct, frozen=True):
    """A block run that has ended, and its callbacks; None: those of `pipeline`, or of a block run that is not shown."""

    block_run: BlockRun | None
    deliveries: tuple[DeliveryView, ...]


@page
def _run(request: Request) -> Response:
    most = MOST_OF_ALL if "all" in request.query_params else MOST_STREAMS
    run = _found(request, most)
    about = served_by(request).store.run_views.about(run, most=most)
    is_live = not run.is_over and most == MOST_STREAMS and run.attempt == run.latest_attempt
    return render(request, "run.html", **_shown(request, run), about=about, is_live=is_live, began=_began(about))


@page
def _events(request: Request) -> Response:
    if request.method == "HEAD":
        return Response()
    live: Live = request.app.state.live
    run = _found(request)
    return live.respond(request, run.id, lambda now: rendered(request, "run_live.html", **_shown(request, now)))


@page
def _log(request: Request) -> Response:
    run = _found(request)
    log = served_by(request).store.run_log(run.id, run.attempt)
    if log is None:
        raise Problem(404, f"Attempt {run.attempt} of run {run.id} has no log.", "It is written at the attempt's end.")
    return PlainTextResponse(log.encode("utf-8", "replace"))


@page
def _cancel(request: Request) -> Response:
    run = _found(request)
    orders_of(request).cancel(run.id, who=WHO)
    return _back(run)


@page
def _retry(request: Request) -> Response:
    run = _found(request)
    orders_of(request).retry(run.id, who=WHO)
    return _back(run)


@page
def _deliver(request: Request) -> Response:
    run = _found(request)
    orders_of(request).deliver(run.pipeline, request.path_params["key"], who=WHO)
    return _back(run)


def _back(run: RunView) -> Response:
    return RedirectResponse(f"/runs/{run.id}", status_code=303)


def _found(request: Request, most: int = MOST_STREAMS) -> RunView:
    """Return the run that the path names, in the attempt that the query names (default: the latest)."""
    run_id: int = request.path_params["run_id"]
    attempt = query_number(request, "attempt")
    store = served_by(request).store
    run = store.run_views.view(run_id, attempt, most=most) if run_id <= _MOST_RUN else None
    if run is not None:
        return run
    if attempt is not None and run_id <= _MOST_RUN and store.run_views.view(run_id) is not None:
        raise Problem(404, f"Run {run_id} has no attempt {attempt}.", f"Open /runs/{run_id} for the latest one.")
    newest = store.runs(limit=1)
    if newest and run_id <= newest[0].id:
        way = "Runs past the limits of `history` in the pipeline file are removed, and those that `runs prune` takes."
        raise Problem(404, f"Run {run_id} is not kept any more.", way)
    raise Problem(404, f"There is no run {run_id} yet.", "Open a pipeline to see its runs.")


def _shown(request: Request, run: RunView) -> dict[str, Any]:
    """Return what the live part of the page shows."""
    files = served_by(request).files
    head = files.heads.get(run.pipeline)
    blocks = [Told(block, _of(run.deliveries, block)) for block in run.block_runs if block.ended_at is not None]
    among = {each.key for told in blocks for each in told.deliveries}
    others = tuple(each for each in run.deliveries if each.key not in among)
    notes = [
        (block.stream, block.schema_changes, block.notices)
        for block in run.block_runs
        if block.schema_changes or block.notices
    ]
    return {
        "run": run,
        "zone": zone_of(head),
        "is_served": run.pipeline in files.usable,
        "state": _word(run),
        "next_step": _next_step(run, is_served=run.pipeline in files.usable),
        "counts": [(run.counts[each], each) for each in _STATUSES if each in run.counts],
        "unclaimed": "waiting" if run.ended_at is None else "never started",
        "blocks": blocks,
        "others": Told(None, others) if others else None,
        "notes": list({each[0]: each for each in reversed(notes)}.values())[::-1],
        "output": _output(request, run),
        "bookmark_values": _bookmark,
        "still_s": STILL_S,
        "most": MOST_OF_ALL,
    }


def _bookmark(bookmark: Any) -> str:
    return bookmark_values(bookmark) if bookmark is None or isinstance(bookmark, Mapping) else json_text(bookmark)


def _of(deliveries: Sequence[DeliveryView], block: BlockRun) -> tuple[DeliveryView, ...]:
    return tuple(each for each in deliveries if (each.block, each.stream) == (block.block, block.stream))


def _word(run: RunView) -> str:
    """Say in one word how an attempt stands."""
    if run.attempt != run.latest_attempt or not run.is_active:
        return run.status
    if not run.is_alive:
        return "dead"
    if run.status != RUNNING:
        return "delivering"
    return "cancelling" if run.is_cancelling else run.status


def _next_step(run: RunView, *, is_served: bool) -> str:
    """Say what comes next where something is wrong; empty: nothing is, or it goes its way."""
    dead = sum(counts.get("dead", 0) for counts in run.delivery_counts.values())
    if run.attempt != run.latest_attempt:
        return f"Attempt {run.latest_attempt} came later."
    if run.is_active and not run.is_alive:
        way = "A server that takes the pipeline ends the run" if is_served else "`syncblocks recover FILE` ends the run"
        return f"Its process is gone. {way}; what was committed stays."
    if run.is_active:
        return ""
    if run.is_retry_due:
        return "A retry is ordered and begins as soon as the pipeline is free."
    if run.retry is not None:
        return f"The retry was {run.retry.state}: {run.retry.why or 'no reason is known'}."
    if run.status not in (SUCCESS, RUNNING):
        if run.id != run.latest_run:
            return f"Run {run.latest_run} came later; only the latest run of a pipeline is retried."
        cause = "" if run.status == CANCELLED else "Mend the cause, then retry. "
        way = "Retry" if is_served else "`syncblocks runs retry FILE`"
        return f"{cause}{way} runs the streams that did not succeed or never started."
    return "Mend the callback, then deliver again." if dead else ""


def _began(about: RunAbout) -> Tick | None:
    """Return the tick that began the run; None: somebody has started it by hand."""
    return next((tick for tick in about.ticks if tick.retries is None), None)


def _output(request: Request, run: RunView) -> Path | None:
    """Return the file with the output of the attempt's process, where this machine has one."""
    served = served_by(request)
    if run.log is not None or (run.is_active and run.is_alive):
        return None
    about = served.store.run_views.about(run)
    ticks = [tick for tick in about.ticks if (tick.retries is None) == (run.attempt == 1)]
    path = served.output_of(ticks[-1].id) if ticks else None
    return path if path is not None and path.exists() else None


ROUTES = [
    Route("/runs/{run_id:number}", _run),
    Route("/runs/{run_id:number}/events", _events),
    Route("/runs/{run_id:number}/log", _log),
    Route("/runs/{run_id:number}/cancel", _cancel, methods=["POST"]),
    Route("/runs/{run_id:number}/retry", _retry, methods=["POST"]),
    Route("/runs/{run_id:number}/deliveries/{key:name}/again", _deliver, methods=["POST"]),
]
