"""What the store has, as JSON: the command line prints it, and a server answers it. Times stay times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from syncblocks.connectors.struct_helpers import asdict

from .model import BlockRun, PipelineRun
from .ticks import Tick

if TYPE_CHECKING:
    from .store import Store

#: Most deliveries of a run that are listed.
MOST_DELIVERIES = 10_000


def words_of(bookmark: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a bookmark without the hashes of records, which only the engine reads."""
    return None if bookmark is None else {key: value for key, value in bookmark.items() if key != "_boundary"}


def change_in_words(change: Mapping[str, Any]) -> str:
    """Say a change of a stream's schema, as a block run keeps it, in words."""
    column, before, after = (change.get(key) for key in ("column", "before", "after"))
    match change["change"]:
        case "keys":
            return f"keys changed from ({before}) to ({after})"
        case "nullable":
            return f"column {column!r} may be NULL"
        case "dropped":
            return f"column {column!r} dropped ({before})"
        case "added" | "left out" as what:
            return f"column {column!r} {what} ({after})"
    return f"column {column!r} changed from {before} to {after}"


def warnings_in_words(warnings: Mapping[str, int]) -> str:
    """Return the numbers of WARN and ERROR lines in words."""
    counts = {level: warnings.get(level.lower(), 0) for level in ("WARN", "ERROR")}
    lines = [f"{count:,} {level} line{'s' if count > 1 else ''}" for level, count in counts.items() if count]
    return " and ".join(lines)


def duration_s(run: PipelineRun) -> float | None:
    """Return how long the latest attempt took; None: it has not ended."""
    return None if run.ended_at is None else (run.ended_at - run.started_at).total_seconds()


def run_document(run: PipelineRun) -> dict[str, Any]:
    """Return a run."""
    return {
        "run_id": run.id,
        "pipeline": run.pipeline,
        "attempt": run.attempt,
        "status": run.status,
        "is_active": run.is_active,
        "execution_date": run.execution_date,
        "trigger": run.trigger,
        "event": dict(run.event),
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "duration_s": duration_s(run),
        "owner": str(run.owner),
        "error": None if run.error is None else asdict(run.error),
    }


def listed_run(store: Store, run: PipelineRun) -> dict[str, Any]:
    """Return a run, and whether its owner lives; None: it has ended."""
    return {**run_document(run), "owner_state": store.owner_state(run) if run.is_active else None}


def whole_run(store: Store, run: PipelineRun) -> dict[str, Any]:
    """Return a run with its block runs and deliveries, and with what it has left out."""
    return {
        **listed_run(store, run),
        "block_runs": [block_run_document(each) for each in store.block_runs(run.id)],
        "never_started": list(store.never_started(run.id)),
        "missing_streams": list(store.present_plan(run.id, run.attempt).missing_streams),
        "deliveries": delivery_documents(store, run),
    }


def block_run_document(block_run: BlockRun) -> dict[str, Any]:
    """Return a block run."""
    return {
        **asdict(block_run),
        "uuid": block_run.uuid,
        "bookmark_before": words_of(block_run.bookmark_before),
        "bookmark_after": words_of(block_run.bookmark_after),
    }


def delivery_documents(store: Store, run: PipelineRun) -> list[dict[str, Any]]:
    """Return the deliveries of a run, with their calls."""
    found = store.outbox(run.pipeline).deliveries.records(run_id=run.id, limit=MOST_DELIVERIES)
    return [asdict(delivery) for delivery in found]


def tick_document(tick: Tick) -> dict[str, Any]:
    """Return a tick without its variables."""
    options, interval = tick.options, tick.options.interval
    return {
        "tick_id": tick.id,
        "pipeline": tick.pipeline,
        "kind": tick.kind,
        "state": tick.state,
        "why": tick.why,
        "due_at": tick.due_at,
        "not_before": tick.not_before,
        "ordered_by": tick.ordered_by,
        "retries": tick.retries,
        "event": dict(options.event),
        "streams": None if options.streams is None else list(options.streams),
        "full_refresh": options.full_refresh,
        "execution_date": options.execution_date,
        "interval_start": None if interval is None else interval[0],
        "interval_end": None if interval is None else interval[1],
        "run_id": tick.run_id,
    }
