"""What a callback is told: recorded kwargs (plain JSON), composed of the rows of run, event and block run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from callbacks.kwargs import STATUSES_WITH_ERROR, PipelineKwargs, build_kwargs

from .model import CANCELLED, DATA_EXPORTER, FAILURE, PIPELINE, RUNNING, SUCCESS, UNCLAIMED
from .tables import attempt as attempts
from .tables import block_run as block_runs
from .tables import event as events
from .tables import pipeline_run as runs
from .tables import stream_run as stream_runs

_RUN = (
    sa.select(
        runs.c.id,
        runs.c.pipeline,
        runs.c.execution_date,
        runs.c.trigger_id,
        runs.c.event,
        runs.c.variables,
        attempts.c.attempt,
        attempts.c.status,
        attempts.c.started_at,
        attempts.c.error,
    )
    .join(attempts, attempts.c.run_id == runs.c.id)
    .where(runs.c.id == sa.bindparam("run_id"), attempts.c.attempt == sa.bindparam("number"))
)
_EVENT = sa.select(events).where(events.c.run_id == sa.bindparam("run_id"), events.c.seq == sa.bindparam("of_seq"))
_STATUS = sa.select(events.c.status).where(
    events.c.run_id == sa.bindparam("run_id"), events.c.seq == sa.bindparam("of_seq")
)
_OF_STREAM = (
    sa.select(block_runs)
    .where(
        block_runs.c.run_id == sa.bindparam("run_id"),
        block_runs.c.attempt == sa.bindparam("number"),
        block_runs.c.stream == sa.bindparam("of_stream"),
    )
    .order_by(block_runs.c.position)
)
_OF_ATTEMPT = (
    sa.select(block_runs)
    .where(block_runs.c.run_id == sa.bindparam("run_id"), block_runs.c.attempt == sa.bindparam("number"))
    .order_by(block_runs.c.ended_at, block_runs.c.stream, block_runs.c.position)
)
_NEVER_STARTED = (
    sa.select(stream_runs.c.stream)
    .where(
        stream_runs.c.run_id == sa.bindparam("run_id"),
        stream_runs.c.attempt == sa.bindparam("number"),
        stream_runs.c.status == UNCLAIMED,
    )
    .order_by(stream_runs.c.position)
)
_STREAM_STATUSES = sa.select(stream_runs.c.status).where(
    stream_runs.c.run_id == sa.bindparam("run_id"), stream_runs.c.attempt == sa.bindparam("number")
)

#: Of a block run that goes on.
_GOES_ON: dict[str, Any] = dict.fromkeys(
    ("rows", "rows_rejected", "bytes", "ended_at", "bookmark_before", "bookmark_after")
)
_GOES_ON["status"] = RUNNING


def delivery_kwargs(connection: Connection, delivery: Row[Any], *, attempts: int) -> dict[str, Any]:
    """Compose the kwargs of one delivery.

    Args:
        connection: The transaction to read in.
        delivery: Its row.
        attempts: Number of this call, from 1.
    """
    ids = {"run_id": delivery.run_id, "number": delivery.attempt}
    run = connection.execute(_RUN, ids).one()
    event = connection.execute(_EVENT, {"run_id": delivery.run_id, "of_seq": delivery.seq}).one()
    told: dict[str, Any] = {
        **_of_run(run),
        "block_uuid": delivery.callback_block,
        "idempotency_key": delivery.idempotency_key,
        "attempts": attempts,
    }
    if event.parent == PIPELINE:
        told["parent_block_uuid"] = PIPELINE
        told["block_runs"] = [_block_run(row) for row in connection.execute(_OF_ATTEMPT, ids)]
        told["never_started"] = list(connection.execute(_NEVER_STARTED, ids).scalars())
        told |= _sums(connection, ids)
        error = run.error
    else:
        rows = connection.execute(_OF_STREAM, {**ids, "of_stream": event.stream}).all()
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
            # It goes on: what its row says once it has ended is not known when this is told, and first heard the same.
            told |= {"index": None, "is_last_block_run": False}
            told["block_run"] |= {**_GOES_ON, "schema_changes": event.details.get("schema_changes", [])}
        # The stream's event tells of whichever block failed.
        culprits = [row for row in rows if row.status == FAILURE and row.error is not None]
        error = carrier.error or (culprits[0].error if culprits else None)
    if event.details is not None and event.details["error"] is not None:
        error = event.details["error"]
    if event.status in STATUSES_WITH_ERROR:
        told["error"] = error or _unknown_error(event)
    return build_kwargs(told)


def event_status(connection: Connection, delivery: Row[Any]) -> str:
    """Return the status that a delivery's event tells of."""
    of_event = {"run_id": delivery.run_id, "of_seq": delivery.seq}
    return str(connection.execute(_STATUS, of_event).scalar_one())


def _sums(connection: Connection, ids: dict[str, Any]) -> dict[str, Any]:
    """Sum up an attempt: rows and bytes as the destination has committed them, streams by their status."""
    rows = connection.execute(_OF_ATTEMPT, ids).all()
    loaded = [row for row in rows if row.block_type == DATA_EXPORTER]
    by_status = Counter(connection.execute(_STREAM_STATUSES, ids).scalars())
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


def run_kwargs(connection: Connection, run_id: int, attempt: int) -> dict[str, Any]:
    """Compose the kwargs that are the same for every block of a run: what a transformer may ask for, and variables."""
    run = connection.execute(_RUN, {"run_id": run_id, "number": attempt}).one()
    told = {
        **_of_run(run),
        "block_uuid": "",
        "parent_block_uuid": PIPELINE,
        "idempotency_key": "",
        "attempts": 0,
        "block_runs": (),
        "never_started": (),
    }
    leave_out = {"block_uuid", "parent_block_uuid", "retry", "idempotency_key"} | PipelineKwargs.__annotations__.keys()
    return {name: value for name, value in build_kwargs(told).items() if name not in leave_out}


def _of_run(run: Any) -> dict[str, Any]:
    return {
        "pipeline_uuid": run.pipeline,
        "execution_date": run.execution_date,
        "trigger": run.trigger_id,
        "event": run.event,
        "variables": run.variables,
        "pipeline_run": {
            "id": run.id,
            "status": run.status,
            "attempt": run.attempt,
            "started_at": run.started_at,
        },
    }


def _block_run(row: Row[Any]) -> dict[str, Any]:
    return {
        "uuid": f"{row.block}:{row.stream}",
        "block": row.block,
        "stream": row.stream,
        "status": row.status,
        "rows": row.row_count,
        "rows_rejected": row.rows_rejected,
        "bytes": row.size_bytes,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "bookmark_before": row.bookmark_before,
        "bookmark_after": row.bookmark_after,
        "schema_changes": row.schema_changes,
    }


def _unknown_error(event: Row[Any]) -> dict[str, Any]:
    message = "the cause was not recorded"
    return {"type": "Error", "message": message, "traceback": "", "stream": event.stream, "block": event.block}
