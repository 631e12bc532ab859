"""The close transaction: the only place where block runs end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from syncblocks.connectors.struct_helpers import replace

from ..errors import StateError
from ..failpoints import failpoint
from .attempts import ask_streams, claim_streams, end, set_streams
from .claims import ask_claim, ask_take, check_claim
from .connection import Answer, StoreConnection
from .event_rows import EventRow, write_events
from .last_block_run import ask_counters, save_counters, stop_claims
from .model import (
    CANCELLED,
    CRASHED,
    DATA_EXPORTER,
    FAILURE,
    RECOVERED,
    SCHEMA_CHANGED,
    STREAM,
    SUCCESS,
    AttemptPlan,
    BlockOutcome,
    Closed,
    StreamOutcome,
    encode_error,
)
from .owner import Owner
from .plans import Plans
from .running_events import ask_held, ask_running_blocks, release_held, wants
from .state import ask_version, write_state
from .statements import update
from .table_names import BLOCK_RUN, PIPELINE_RUN, STREAM_RUN
from .transactions import LockedRun, Transactions, save_attempt

# Subqueries, not joins: they search from the newest run backwards, by the index of the stream's runs.
_OF_THIS = f"FROM {PIPELINE_RUN} n WHERE n.id = :run_id"
_FORMER = f"""SELECT s.status FROM {STREAM_RUN} s
    WHERE s.pipeline = (SELECT n.pipeline {_OF_THIS})
    AND s.stream = :stream AND s.status IN ('{SUCCESS}', '{FAILURE}')
    AND s.run_id <= :run_id
    AND (s.run_id < :run_id OR (s.run_id = :run_id AND s.attempt < (SELECT n.attempt {_OF_THIS})))
    ORDER BY s.run_id DESC, s.attempt DESC LIMIT 1"""
_END = update(
    BLOCK_RUN,
    "status type_index is_last row_count size_bytes ended_at bookmark_before bookmark_after "
    "schema_changes error rows_rejected rows_deleted rows_replaced notices warnings lag",
    "run_id = :run_id AND attempt = :number AND block = :block AND stream = :stream",
)


class Closing:
    """Ends streams after success, failure, stop, timeout and crash, once the outcome of their commits is known."""

    def __init__(self, transactions: Transactions, plans: Plans) -> None:
        self._transactions = transactions
        self._plans = plans

    def close_stream(
        self,
        run_id: int,
        outcome: StreamOutcome,
        *,
        claim: Sequence[str] = (),
        nonce: str = "",
        take: str = "",
        worker: Owner | None = None,
    ) -> Closed:
        """End all block runs of a stream, and write everything that follows, in one transaction.

        Args:
            run_id: The run.
            outcome: How the stream ended.
            claim: Streams to start next, claimed as by `claim` unless the run is stopping.
            nonce: Nonce of the claim, if a worker closes the stream.
            take: Next stream of the worker, with the same nonce, as by `take_claim`, unless the run is stopping.
            worker: The process that takes `take`.

        Raises:
            LostRun: this process does not own the run, or the stream is not open, or has another nonce.
            StateError: the outcome does not have exactly the stream's blocks.
        """
        with self._transactions.write_and_lease("close") as connection:
            # One round trip: everything that the close reads is requested together with the lock.
            locked = self._transactions.ask_lock_owned(connection, run_id)
            running_blocks = ask_running_blocks(connection, run_id, outcome.stream)
            claimed_by = ask_claim(connection, run_id, outcome.stream) if nonce else None
            counted = ask_counters(connection, run_id)
            claimed = ask_streams(connection, run_id, claim) if claim else list
            versioned = ask_version(connection, outcome.state, run_id=run_id) if outcome.state else lambda: None
            likely = self._plans.known(run_id)
            held = _ask(likely, SCHEMA_CHANGED, lambda: ask_held(connection, run_id, outcome.stream))
            former = _ask(likely, RECOVERED, lambda: _ask_former(connection, run_id, outcome.stream))
            run = locked()
            failpoint("store.close.locked")
            running = running_blocks()
            if claimed_by is not None:
                check_claim(claimed_by, run_id, outcome.stream, nonce)
            blocks = _match(run, running, outcome)
            plan = self._plans.without_streams(connection, run_id, run.attempt)
            if wants(plan, SCHEMA_CHANGED):
                release_held(connection, run, plan, held(), lambda: running, is_committed=outcome.is_held_committed)
            _count_stream(run, outcome, allow_failure=plan.allow_blocks_to_fail)
            counters = counted()
            if run.cancel_requested and run.stop_status is None:
                run.stop_status = CANCELLED
            if run.stop_status is not None:
                stop_claims(connection, run, counters, run.stop_status)
            ends = []
            for row, block in zip(running, blocks, strict=True):
                index, is_last = counters[row.block_type].end((row.block, outcome.stream))
                ends.append(_figures(run, outcome.stream, block) | {"type_index": index, "is_last": is_last})
            connection.run_many(_END, ends)
            failpoint("store.close.block_runs")
            set_streams(connection, run, [outcome.stream], outcome.status)
            has_claimed = bool(claim) and run.stop_status is None
            if has_claimed:
                claim_streams(connection, run, counters, claimed())
                failpoint("store.close.claimed")
            taken: Answer = list
            if take and worker is not None and run.stop_status is None:
                taken = ask_take(connection, run_id, run.attempt, [take], nonce, worker, run.now)
            save_counters(connection, run, counters)
            failpoint("store.close.counters")
            if outcome.state is not None:
                write_state(connection, run.pipeline, outcome.state, versioned(), run_id=run.id, now=run.now)
            events = _events(running, blocks, outcome)
            if outcome.is_crash:
                events = _beside(events, FAILURE, CRASHED)
            elif outcome.status == SUCCESS and wants(plan, RECOVERED) and [row.status for row in former()] == [FAILURE]:
                events = _beside(events, SUCCESS, RECOVERED)
            can_claim = run.unclaimed_streams > 0 and run.stop_status is None
            if run.open_streams == 0 and not can_claim:
                end(connection, run, plan, events=events, is_crash=outcome.is_crash)
            else:
                write_events(connection, run, plan, events)
            failpoint("store.close.events")
            save_attempt(connection, run)
        # Already returned by the commit; no extra round trip.
        return Closed(
            run_ended=run.has_ended,
            status=run.status,
            is_stopping=run.is_stopping,
            has_claimed=has_claimed,
            has_taken=bool(taken()),
        )


def _ask_former(connection: StoreConnection, run_id: int, stream: str) -> Answer:
    """Request the stream's latest end before this attempt; cancellations do not count."""
    return connection.ask(_FORMER, {"run_id": run_id, "stream": stream})


def _ask(plan: AttemptPlan | None, status: str, ask: Callable[[], Answer]) -> Answer:
    """Request the rows that only some plans need: now if the cached plan needs them, else when they are read."""
    early = ask() if plan is None or wants(plan, status) else None
    return lambda: (early or ask())()


def _count_stream(run: LockedRun, outcome: StreamOutcome, *, allow_failure: bool) -> None:
    run.open_streams -= 1
    if outcome.status == FAILURE:
        run.failed_streams += 1
        if run.error is None:
            errors = [block.error for block in outcome.blocks if block.error is not None]
            run.error = encode_error(errors[0] if errors else None)
    elif outcome.status == CANCELLED:
        run.cancelled_streams += 1
    # A timeout cancels one stream, and stops the run as a failure does.
    if outcome.status in (FAILURE, CANCELLED) and not allow_failure and run.stop_status is None:
        run.stop_status = outcome.status


def _beside(events: Sequence[EventRow], of: str, status: str) -> list[EventRow]:
    """After each event of one status, add an event of another status for the same block run."""
    told = []
    for event in events:
        told.append(event)
        if event.status == of:
            told.append(replace(event, status=status, data=None))
    return told


def _match(run: LockedRun, running: Sequence[Any], outcome: StreamOutcome) -> list[BlockOutcome]:
    """Return the outcomes in the order of the pipeline's blocks."""
    by_block = {block.block: block for block in outcome.blocks}
    wanted = [row.block for row in running]
    if len(by_block) != len(outcome.blocks) or set(by_block) != set(wanted):
        given = [block.block for block in outcome.blocks]
        raise StateError(f"stream {outcome.stream!r} of run {run.id} has the blocks {wanted}, its outcome {given}")
    for block in outcome.blocks:
        if block.status not in (SUCCESS, FAILURE, CANCELLED):
            raise StateError(f"a block run cannot end as {block.status!r}")
    return [by_block[block] for block in wanted]


def _figures(run: LockedRun, stream: str, block: BlockOutcome) -> dict[str, Any]:
    return {
        "run_id": run.id,
        "number": run.attempt,
        "block": block.block,
        "stream": stream,
        "status": block.status,
        "row_count": block.rows,
        "size_bytes": block.size_bytes,
        "ended_at": run.now,
        "bookmark_before": block.bookmark_before,
        "bookmark_after": block.bookmark_after,
        "schema_changes": [dict(change) for change in block.schema_changes],
        "error": encode_error(block.error),
        "rows_rejected": block.rows_rejected,
        "rows_deleted": block.rows_deleted,
        "rows_replaced": block.rows_replaced,
        "notices": list(block.notices) or None,
        "warnings": None if block.warnings is None else dict(block.warnings),
        "lag": None if block.lag is None else dict(block.lag),
    }


def _events(running: Sequence[Any], blocks: Sequence[BlockOutcome], outcome: StreamOutcome) -> list[EventRow]:
    """Return an event for each block run in pipeline order, then the stream's, with the data exporter's block run."""
    rows = [
        EventRow(
            parent=row.block,
            status=block.status,
            block=row.block,
            block_type=row.block_type,
            stream=outcome.stream,
            data=block.data if block.status == SUCCESS else None,
        )
        for row, block in zip(running, blocks, strict=True)
    ]
    carrier = next((row for row in reversed(rows) if row.block_type == DATA_EXPORTER), rows[-1])
    stream = EventRow(
        parent=STREAM,
        status=outcome.status,
        block=carrier.block,
        block_type=carrier.block_type,
        stream=outcome.stream,
        data=carrier.data if outcome.status == SUCCESS else None,
    )
    return [*rows, stream]
