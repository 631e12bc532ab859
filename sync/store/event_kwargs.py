"""The keyword arguments of a callback (plain JSON), composed from the rows of run, event and block run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from syncblocks.callbacks.kwargs import STATUSES_WITH_ERROR, PipelineKwargs, build_kwargs

from .connection import Answer, Row, StoreConnection
from .model import CANCELLED, DATA_EXPORTER, FAILURE, PIPELINE, RUNNING, SUCCESS, UNCLAIMED
from .plans import decode_plan
from .table_names import ATTEMPT, BLOCK_RUN, EVENT, PIPELINE_RUN, STREAM_RUN

_RUN = f"""SELECT r.id, r.pipeline, r.execution_date, r.trigger_id, r.event, r.variables,
        r.interval_start, r.interval_end,
        a.attempt, a.status, a.started_at, a.error
    FROM {PIPELINE_RUN} r JOIN {ATTEMPT} a ON a.run_id = r.id WHERE r.id = :run_id AND a.attempt = :number"""
_EVENT = f"SELECT * FROM {EVENT} WHERE run_id = :run_id AND seq = :seq"
_OF_STREAM = f"""SELECT * FROM {BLOCK_RUN} WHERE run_id = :run_id AND attempt = :number AND stream = :stream
    ORDER BY position"""
_OF_ATTEMPT = f"""SELECT * FROM {BLOCK_RUN} WHERE run_id = :run_id AND attempt = :number
    ORDER BY ended_at, stream, position"""
_NEVER_STARTED = f"""SELECT stream FROM {STREAM_RUN}
    WHERE run_id = :run_id AND attempt = :number AND status = '{UNCLAIMED}' ORDER BY position"""
_PLAN = f"SELECT plan FROM {ATTEMPT} WHERE run_id = :run_id AND attempt = :number"
_STREAM_STATUSES = f"SELECT status FROM {STREAM_RUN} WHERE run_id = :run_id AND attempt = :number"

#: Values of these keys for a block run that is still running.
_GOES_ON: dict[str, Any] = dict.fromkeys(
    (
        "rows",
        "rows_rejected",
        "rows_deleted",
        "rows_replaced",
        "warnings",
        "bytes",
        "ended_at",
        "bookmark_before",
        "bookmark_after",
    )
)
_GOES_ON["status"] = RUNNING


def ask_event(connection: StoreConnection, delivery: Row) -> Sequence[Answer]:
    """Request the rows that `delivery_kwargs` reads for every delivery."""
    ids = {"run_id": delivery.run_id, "number": delivery.attempt}
    return [
        connection.ask(_RUN, ids),
        connection.ask(_EVENT, {"run_id": delivery.run_id, "seq": delivery.seq}),
        connection.ask(_OF_STREAM, {**ids, "stream": delivery.stream}),
    ]


def delivery_kwargs(
    connection: StoreConnection, delivery: Row, *, attempts: int, asked: Sequence[Answer] = ()
) -> tuple[dict[str, Any], str, str]:
    """Compose the kwargs of one delivery; return them with the status and the parent of its event.

    Args:
        connection: The transaction to read in.
        delivery: Its row.
        attempts: Number of this call, from 1.
        asked: The result of `ask_event` for this delivery, if it was sent with earlier statements.
    """
    ids = {"run_id": delivery.run_id, "number": delivery.attempt}
    # Written before their deliveries.
    (run,), (event,), rows = [answer() for answer in asked or ask_event(connection, delivery)]
    told: dict[str, Any] = {
        **_of_run(run),
        "block_uuid": delivery.callback_block,
        "idempotency_key": delivery.idempotency_key,
        "attempts": attempts,
    }
    if event.parent == PIPELINE:
        told["parent_block_uuid"] = PIPELINE
        told["block_runs"] = [_block_run(row) for row in connection.rows(_OF_ATTEMPT, ids)]
        told["never_started"] = connection.column(_NEVER_STARTED, ids)
        told["missing_streams"] = decode_plan(connection.value(_PLAN, ids) or {}).missing_streams
        told |= _sums(connection, ids)
        error = run.error
    else:
        carrier = next(row for row in rows if row.block == event.block)
        told |= {
            "parent_block_uuid": carrier.block,
            "stream": carrier.stream,
            "destination_table": carrier.destination_table,
            "index": carrier.type_index,
            "is_last_block_run": carrier.is_last,
            "block_run": _block_run(carrier),
        }
        if event.occurrence is not None:
            # The block run is still running. Later deliveries of this event get the same values, even after its end.
            told |= {"index": None, "is_last_block_run": False}
            told["block_run"] |= {**_GOES_ON, "schema_changes": event.details.get("schema_changes", [])}
        # The stream's event has the error of the block that failed.
        culprits = [row for row in rows if row.status == FAILURE and row.error is not None]
        error = carrier.error or (culprits[0].error if culprits else None)
    if event.details is not None and event.details["error"] is not None:
        error = event.details["error"]
    if event.status in STATUSES_WITH_ERROR:
        told["error"] = error or _unknown_error(event)
    return build_kwargs(told), event.status, event.parent


def _sums(connection: StoreConnection, ids: dict[str, Any]) -> dict[str, Any]:
    """Sum up an attempt: rows and bytes committed by the destination, streams by their status."""
    rows = connection.rows(_OF_ATTEMPT, ids)
    loaded = [row for row in rows if row.block_type == DATA_EXPORTER]
    by_status = Counter(connection.column(_STREAM_STATUSES, ids))
    return {
        "totals": {
            "streams": sum(by_status.values()),
            **{status: by_status[status] for status in (SUCCESS, FAILURE, CANCELLED)},
            "rows": sum(row.row_count or 0 for row in loaded),
            "bytes": sum(row.size_bytes or 0 for row in loaded),
        },
        "failed_streams": [
            {"stream": row.stream, "block": row.block, "type": row.error["type"], "message": row.error["message"]}
            for row in rows
            if row.status == FAILURE and row.error is not None
        ],
    }


def run_kwargs(connection: StoreConnection, run_id: int, attempt: int) -> dict[str, Any]:
    """Compose the kwargs that all blocks of a run share: the transformer's, and the variables."""
    run = connection.row(_RUN, {"run_id": run_id, "number": attempt})
    told = {
        **_of_run(run),
        "block_uuid": "",
        "parent_block_uuid": PIPELINE,
        "idempotency_key": "",
        "attempts": 0,
        "block_runs": (),
        "never_started": (),
        "missing_streams": (),
    }
    leave_out = {"block_uuid", "parent_block_uuid", "retry", "idempotency_key"} | PipelineKwargs.__annotations__.keys()
    return {name: value for name, value in build_kwargs(told).items() if name not in leave_out}


def _of_run(run: Any) -> dict[str, Any]:
    return {
        "pipeline_uuid": run.pipeline,
        "execution_date": run.execution_date,
        "trigger": run.trigger_id,
        "event": run.event,
        "interval": None if run.interval_start is None else (run.interval_start, run.interval_end),
        "variables": run.variables,
        "pipeline_run": {
            "id": run.id,
            "status": run.status,
            "attempt": run.attempt,
            "started_at": run.started_at,
        },
    }


def _block_run(row: Row) -> dict[str, Any]:
    return {
        "uuid": f"{row.block}:{row.stream}",
        "block": row.block,
        "stream": row.stream,
        "status": row.status,
        "rows": row.row_count,
        "rows_rejected": row.rows_rejected,
        "rows_deleted": row.rows_deleted,
        "rows_replaced": row.rows_replaced,
        "warnings": row.warnings,
        "bytes": row.size_bytes,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "bookmark_before": row.bookmark_before,
        "bookmark_after": row.bookmark_after,
        "schema_changes": row.schema_changes,
    }


def _unknown_error(event: Row) -> dict[str, Any]:
    message = "the cause was not recorded"
    return {"type": "Error", "message": message, "traceback": "", "stream": event.stream, "block": event.block}
