"""Ends streams whose process has died: a token fences the process, then the destination's ledger decides."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from syncblocks.connectors.incremental.bookmarks import values
from syncblocks.connectors.protocols import Destination
from syncblocks.connectors.stream import LedgerKey, LedgerRow
from syncblocks.connectors.struct_helpers import replace

from ...delivery.subscriptions import data_blocks
from ...store import Store
from ...store.model import AttemptPlan, BlockOutcome, ErrorInfo, PipelineRun, StateCopy, StreamOutcome, StreamPlan
from ..stream_blocks import CANCELLED, FAILURE, SUCCESS
from .fencing import fenced_row_of_run, is_completed, was_made

log = logging.getLogger("syncblocks")


def end_lost(
    store: Store,
    run: PipelineRun,
    plan: AttemptPlan,
    streams: Iterable[str],
    destination: Destination,
    *,
    owner: str,
    error: ErrorInfo | None,
    drop: Callable[[], None],
    nonce: str = "",
    goes_on: Callable[[StreamOutcome], bool] = lambda outcome: False,
) -> None:
    """Fence the former writer of some streams, let the ledger decide, drop staging tables, and close the streams.

    Each step may be killed and repeated.

    Args:
        store: the run store.
        run: run of the streams.
        plan: plan of the run's attempt.
        streams: their names.
        destination: has their ledger rows.
        owner: owner in the fencing token.
        error: error of streams that did not succeed; None: they were cancelled.
        drop: drops staging tables.
        nonce: nonce of their claim; empty: the run's process has claimed them.
        goes_on: asked before a stream is closed; True: another process tries it again, and it stays open.

    Raises:
        LedgerUnreadable: the destination cannot be reached; all of them stay open.
    """
    lost = [planned for name in streams for planned in plan.streams if planned.stream == name]
    outcomes = [_outcome(store, run, plan, planned, destination, owner=owner, error=error) for planned in lost]
    drop()
    for outcome in outcomes:
        if not goes_on(outcome):
            store.close_stream(run.id, outcome, nonce=nonce)


def _outcome(
    store: Store,
    run: PipelineRun,
    plan: AttemptPlan,
    planned: StreamPlan,
    destination: Destination,
    *,
    owner: str,
    error: ErrorInfo | None,
) -> StreamOutcome:
    """Fence the former writer of a stream, then return how it ended: success if the ledger has it."""
    stream, last = planned.stream, planned.blocks[-1].block
    if error is not None:
        error = replace(error, stream=stream, block=last)
    key = LedgerKey(pipeline=run.pipeline, stream=stream, destination_table=planned.destination_table)
    row = fenced_row_of_run(destination, key, run, int(planned.config["tries"]), owner=owner)
    is_done = is_completed(row, run)
    announced = store.held(run.id, stream)
    is_change_made = announced is not None and was_made(*announced, row, run, destination)
    if is_done and data_blocks(plan.subscriptions, stream, last):
        log.warning("%s: its output was not kept, callbacks receive None: its process has died", stream)
    state = None
    if destination.has_ledger and (is_done or is_change_made or _has_moved(store, run, row)):
        # The table has this run's columns: the next run does not report its schema changes again.
        state = StateCopy(
            stream=stream,
            destination_table=planned.destination_table,
            source=row.source,
            bookmark=values(row.bookmark),
            rows=row.rows,
            shape=planned.config.get("shape"),
        )
    status = SUCCESS if is_done else CANCELLED if error is None else FAILURE
    return StreamOutcome(
        stream=stream,
        blocks=unknown_blocks(planned, status, None if is_done else error, failed=last),
        state=state,
        is_crash=status == FAILURE,
        is_held_committed=is_change_made,
    )


def unknown_blocks(
    planned: StreamPlan, status: str, error: ErrorInfo | None, *, failed: str
) -> tuple[BlockOutcome, ...]:
    """Return the outcomes of a stream's blocks without figures; `failed` is the block with the error."""
    return tuple(
        BlockOutcome(block=block.block, status=status, error=error if block.block == failed else None)
        for block in planned.blocks
    )


def _has_moved(store: Store, run: PipelineRun, row: LedgerRow) -> bool:
    """Whether the run moved the stream's bookmark: each end of a stream copies the bookmark to the store."""
    copies = {(copy.stream, copy.destination_table): copy.bookmark for copy in store.states(run.pipeline)}
    return values(row.bookmark) != copies.get((row.key.stream, row.key.destination_table))
