"""Remains of earlier runs: the run of a dead process, unfinished ranges, bookmarks of dropped tables."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Sequence

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.errors import ConnectorError, RetriableError
from syncblocks.connectors.protocols import Destination
from syncblocks.connectors.stream import LedgerRow

from ...errors import AlreadyRunning, RunFinished, SyncError
from ...plan.plan import Connectors, Plan
from ...store import Store
from ...store.model import PipelineRun, StreamPlan
from ..errors import process_died
from ..progress import Progress
from .fencing import fenced_row, owner_text, stream_token
from .lost_stream import end_lost

log = logging.getLogger("syncblocks")

#: State of the process of a run that is still open.
_DIED, _LEFT = "the process of this run died", "the process of this run left it"


def recover(store: Store, pipeline: str, destination: Destination, progress: Progress) -> PipelineRun | None:
    """End and return the run that a dead process of this pipeline left; None if there is none.

    The destination's ledger decides each stream that had started: success if that attempt completed it, else failure.
    Each step may be killed and repeated.

    Raises:
        AlreadyRunning: the run's process is alive.
        LedgerUnreadable: the destination cannot be reached; the run stays open.
    """
    for wrong in store.mend(pipeline):
        progress.message(f"run store {store.url} was torn: {wrong}", level="warning")
    run = store.active_run(pipeline)
    if run is None:
        return None
    if store.owner_state(run) == "alive":
        raise AlreadyRunning(pipeline, run.id, run.holder)
    try:
        former, run = run, store.reclaim_run(run.id)
    except RunFinished:  # the last COMMIT of the dead process arrived late
        return None
    try:
        return _end(store, run, destination, progress, former=former)
    except BaseException:
        leave(store, run)
        raise


def leave(store: Store, run: PipelineRun) -> None:
    """Leave an open run to the next start, even while this process lives."""
    try:
        store.leave_run(run)
    except SyncError as error:
        log.debug("run %s: that this process has left it is known to this process only", run.id, exc_info=error)


def _end(
    store: Store, run: PipelineRun, destination: Destination, progress: Progress, *, former: PipelineRun
) -> PipelineRun:
    was_held = former.hold_s is not None
    left = "was a mapped run whose tasks did not come" if was_held else f"was left by {former.left_by}"
    progress.message(f"run {run.id} {left}; recovering it", level="warning")
    has_died = was_held or not former.owner.has_departed
    close_left_streams(store, run, destination, has_died=has_died)
    why = (
        "the tasks of this mapped run did not end it" if was_held else f"{_DIED if has_died else _LEFT} before it ended"
    )
    error = None if was_held and run.cancel_requested else process_died(why)
    run = store.end_attempt(run.id, error=error, is_crash=error is not None)
    destination.close()
    store.outbox(run.pipeline).release_gate(run.id)
    return run


def close_left_streams(
    store: Store, run: PipelineRun, destination: Destination, *, is_crash: bool = True, has_died: bool = True
) -> None:
    """Close this run's streams of dead processes, as the ledger decides.

    Args:
        store: the run store.
        run: the run of this process.
        destination: has the ledger.
        is_crash: False: no process has died; the run was cancelled.
        has_died: False: the process has abandoned the run, and may live.

    Raises:
        LedgerUnreadable: the destination cannot be reached; open streams stay open.
    """
    plan = store.attempt_plan(run.id, run.attempt)
    if plan is None:
        return
    what = _DIED if has_died else _LEFT
    error = process_died(f"{what} while this stream was running; uncommitted records are read again")
    end_lost(
        store,
        run,
        plan,
        store.open_streams(run.id),
        destination,
        owner=f"recovery of run {run.id}",
        error=error if is_crash else None,
        drop=lambda: drop_staging(destination, run, plan.streams),
    )


def drop_staging(destination: Destination, run: PipelineRun, streams: Sequence[StreamPlan]) -> None:
    """Drop a dead process's staging tables; the ledger has decided, so a failed drop stops no later run."""
    tokens = [
        stream_token(run, planned.stream, number)
        for planned in streams
        for number in range(1, int(planned.config["tries"]) + 1)
    ]
    try:
        destination.drop_staging(tokens)
    except RetriableError:
        raise
    except ConnectorError as error:
        log.warning("the staging tables of the dead process stay: %s", error)


def clear_leftovers(connectors: Connectors, run: PipelineRun, plan: Plan, *, is_partial: bool, is_fresh: bool) -> None:
    """Drop ranges that this run does not resume, and bookmarks of tables that no longer exist.

    Args:
        connectors: the pipeline's connectors; the destination has ranges and bookmarks.
        run: the run that begins.
        plan: its plan.
        is_partial: streams outside the plan may resume their ranges in a later run.
        is_fresh: no stream resumes its ranges.

    Raises:
        LedgerUnreadable: a ledger row cannot be read.
        ConnectorError: a ledger row cannot be written.
    """
    _drop_ranges(connectors.destination_can, run, plan, is_partial=is_partial, is_fresh=is_fresh)
    _forget_dropped_tables(connectors.destination, run, plan)


def _drop_ranges(can: Capabilities, run: PipelineRun, plan: Plan, *, is_partial: bool, is_fresh: bool) -> None:
    if can.loads_ranges is None:
        return
    planned = {stream.key: stream.reading.loaders > 1 and not is_fresh for stream in plan.streams}
    can.loads_ranges.drop_ranges(run.pipeline, lambda key: planned.get(key, is_partial))


def _forget_dropped_tables(destination: Destination, run: PipelineRun, plan: Plan) -> None:
    """Make every stream of a dropped table start over, even a stream that is not in this run or fails in it.

    The first stream creates the table again. A later stream would find the table and continue from the old table's
    bookmark.
    """
    gone = {}
    for planned in plan.streams:
        others = [row for row in planned.table.ledger if row.key != planned.key]
        if planned.table.schema is None and planned.table.is_described and others:
            gone.update({row.key: row for row in planned.table.ledger})
    forget_bookmarks(destination, gone.values(), owner_text(run))


def forget_bookmarks(destination: Destination, rows: Iterable[LedgerRow], owner: str) -> None:
    """Delete bookmarks; a row that another process has written meanwhile keeps its own."""
    for row in rows:
        if row.bookmark is None:
            continue

        def is_unchanged(now: LedgerRow, planned: LedgerRow = row) -> bool:
            return (now.bookmark, now.committed_at) == (planned.bookmark, planned.committed_at)

        if is_unchanged(fenced_row(destination, row.key, owner, secrets.token_hex(16), is_unchanged)):
            destination.set_bookmark(row.key, None)
