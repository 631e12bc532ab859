"""How the streams of a run ended, from the run store."""

from __future__ import annotations

from collections.abc import Sequence

from syncblocks.connectors.errors import RetriableError

from ...store import Store
from ...store.model import FAILURE, RUNNING, SUCCESS, UNCLAIMED, BlockRun
from ..results import StreamResult


def recorded_results(store: Store, run_id: int) -> tuple[StreamResult, ...]:
    """Return each started stream, in run order: its success, else its latest end."""
    found: dict[str, StreamResult] = {}
    blocks: dict[tuple[int, str], list[BlockRun]] = {}
    for block in store.block_runs(run_id):
        blocks.setdefault((block.attempt, block.stream), []).append(block)
    for attempt, stream, status in store.stream_statuses(run_id):
        if status == UNCLAIMED or (stream in found and found[stream].status == SUCCESS):
            continue
        found[stream] = recorded_result(blocks[attempt, stream], None if status == RUNNING else status)
    return tuple(found.values())


def recorded_result(blocks: Sequence[BlockRun], status: str | None) -> StreamResult:
    """Return a stream's result from the block runs of one attempt."""
    by_type = {block.block_type: block for block in blocks}
    first, last = by_type["data_loader"], by_type["data_exporter"]
    error = next((block.error for block in blocks if block.status == FAILURE and block.error is not None), None)
    return StreamResult(
        stream=last.stream,
        destination_table=last.destination_table,
        status=status,
        records=last.rows,
        records_rejected=last.rows_rejected,
        records_deleted=last.rows_deleted,
        records_replaced=last.rows_replaced,
        warnings=last.warnings,
        size_bytes=first.size_bytes,
        duration_s=None if last.ended_at is None else (last.ended_at - last.started_at).total_seconds(),
        bookmark=last.bookmark_after,
        error=None if error is None else error.message,
        is_retriable=error is not None and error.type == RetriableError.__name__,
    )
