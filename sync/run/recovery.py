"""What a dead process left behind: its run is settled with the destination and ended, before any new work."""

from __future__ import annotations

from syncblocks.connectors.incremental.bookmarks import values
from syncblocks.connectors.protocols import Destination
from syncblocks.connectors.stream import LedgerKey, LedgerRow

from ..errors import AlreadyRunning
from ..store import Store
from ..store.model import AttemptPlan, BlockOutcome, ErrorInfo, PipelineRun, StateCopy, StreamOutcome
from .block_runs import FAILURE, SUCCESS
from .progress import Progress
from .takeover import fenced_row, is_completed, stream_token, was_made


def recover(store: Store, pipeline: str, destination: Destination, progress: Progress) -> PipelineRun | None:
    """End the pipeline's run of a dead process, if there is one; return it.

    Each stream that had started is decided by the destination's ledger: completed by that very attempt -> success,
    else failure. Every step may itself be killed and repeated.

    Raises:
        AlreadyRunning: the run's process is alive.
        LedgerUnreadable: the destination cannot be asked; the run stays open.
    """
    run = store.active_run(pipeline)
    if run is None:
        return None
    if store.owner_state(run) == "alive":
        raise AlreadyRunning(pipeline, run.id, str(run.owner))
    run = store.take_over_run(run.id)
    progress.message(f"run {run.id} was left by a dead process ({run.owner.host}); recovering it", level="warning")
    plan = store.attempt_plan(run.id, run.attempt)
    if plan is not None:
        for stream in store.open_streams(run.id):
            settle(store, run, plan, stream, destination)
        destination.drop_staging(_tokens(run, plan))
    error = ErrorInfo(
        type="ProcessDied", message="the process of this run died before it ended", traceback="", stream="", block=""
    )
    run = store.end_attempt(run.id, error=error, is_crash=True)
    destination.close()
    store.outbox(pipeline).release_gate(run.id)
    return run


def _tokens(run: PipelineRun, plan: AttemptPlan) -> list[str]:
    return [
        stream_token(run, planned.stream, number)
        for planned in plan.streams
        for number in range(1, int(planned.config["tries"]) + 1)
    ]


def settle(store: Store, run: PipelineRun, plan: AttemptPlan, stream: str, destination: Destination) -> None:
    """Close one stream of a run whose process is dead, by what the destination's ledger says."""
    planned = next(planned for planned in plan.streams if planned.stream == stream)
    key = LedgerKey(pipeline=run.pipeline, stream=stream, destination_table=planned.destination_table)
    row = fenced_row(destination, key, f"recovery of run {run.id}")
    is_done = is_completed(row, run)
    held = store.held(run.id, stream)
    is_held_committed = held is not None and was_made(*held, row, run, destination)
    last = planned.blocks[-1].block
    error = ErrorInfo(
        type="ProcessDied",
        message="the process died while this stream was running; what it had not committed is as if never sent",
        traceback="",
        stream=stream,
        block=last,
    )
    blocks = tuple(
        BlockOutcome(
            block=block.block,
            status=SUCCESS if is_done else FAILURE,
            rows=None,
            size_bytes=None,
            bookmark_before=None,
            bookmark_after=None,
            schema_changes=(),
            error=None if is_done or block.block != last else error,
            data=None,
        )
        for block in planned.blocks
    )
    state = None
    if destination.has_ledger and (is_done or is_held_committed or _has_moved(store, run, row)):
        # It was written in the shape of that run: what had changed at its source is not to be told of again.
        state = StateCopy(
            stream=stream,
            destination_table=planned.destination_table,
            source=row.source,
            bookmark=values(row.bookmark),
            rows=row.rows,
            shape=planned.config.get("shape"),
        )
    outcome = StreamOutcome(
        stream=stream, blocks=blocks, state=state, is_crash=not is_done, is_held_committed=is_held_committed
    )
    store.close_stream(run.id, outcome)


def _has_moved(store: Store, run: PipelineRun, row: LedgerRow) -> bool:
    """Whether the run has committed anything that could be read on from: every end of a stream copies its bookmark."""
    copies = {(copy.stream, copy.destination_table): copy.bookmark for copy in store.states(run.pipeline)}
    return values(row.bookmark) != copies.get((row.key.stream, row.key.destination_table))
