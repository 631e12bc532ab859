"""The order of a callback block's queue, as statements.

Deliveries are taken in the order in which block runs ended, functions in firing order. Passed over are: one that waits
for its retry; one whose flag is not certain yet; one behind the gate. Two wait for others instead: the event with
is_last_block_run True for all others of its block type, the one of `pipeline` for all others of its attempt.
"""

from __future__ import annotations

from collections import defaultdict

from .connection import Connection, Row, Values, one_of
from .model import PIPELINE, DeliveryRecord, DeliveryTry, HistoryEntry
from .tables import ATTEMPT, BLOCK_RUN, DELIVERY, DELIVERY_TRY, EVENT

#: Names in one condition; databases limit how many values a statement has.
KEYS_AT_ONCE = 500

_IN_QUEUE = "pipeline = :pipeline AND {0}.callback_block = :callback_block AND {0}.is_open = TRUE"
_OTHERS = f"""SELECT 1 FROM {DELIVERY} o WHERE o.{_IN_QUEUE.format("o")}
    AND o.run_id = d.run_id AND o.attempt = d.attempt"""
# The last block run may have two events here, its own and the stream's: they do not wait for each other.
_OTHERS_OF_TYPE = f"""{_OTHERS} AND o.block_type = d.block_type
    AND (o.block <> d.block OR o.stream <> d.stream OR o.is_numbered = TRUE)"""
_OTHERS_OF_ATTEMPT = f"{_OTHERS} AND o.parent <> '{PIPELINE}'"

# Looked up row by row, in queue order, until one is due. Joined instead, PostgreSQL without statistics of a new table
# joins the whole backlog before it takes the first.
_IS_RELEASED = f"(SELECT a.is_gate_released FROM {ATTEMPT} a WHERE a.run_id = d.run_id AND a.attempt = d.attempt)"
_IS_LAST = f"""(SELECT b.is_last FROM {BLOCK_RUN} b
    WHERE b.run_id = d.run_id AND b.attempt = d.attempt AND b.block = d.block AND b.stream = d.stream)"""

_IN_ORDER = "ORDER BY d.run_id, d.seq, d.position"

#: The next due delivery of a queue: pipeline, callback_block, now.
DUE = f"""SELECT d.* FROM {DELIVERY} d WHERE d.{_IN_QUEUE.format("d")} AND d.state = 'ready'
    AND (d.not_before IS NULL OR d.not_before <= :now)
    AND (d.is_gated = FALSE OR {_IS_RELEASED} = TRUE)
    AND CASE
        WHEN d.is_numbered = TRUE THEN TRUE
        WHEN d.parent = '{PIPELINE}' THEN NOT EXISTS ({_OTHERS_OF_ATTEMPT})
        WHEN {_IS_LAST} = TRUE THEN {_IS_RELEASED} = TRUE AND NOT EXISTS ({_OTHERS_OF_TYPE})
        ELSE {_IS_LAST} = FALSE
    END
    {_IN_ORDER} LIMIT 1"""

#: Open deliveries of a queue in one state.
IN_QUEUE = f"SELECT d.* FROM {DELIVERY} d WHERE d.{_IN_QUEUE.format('d')} AND d.state = :state {_IN_ORDER}"

#: How many are open, how many of them wait for a retry, and until when the first of these.
WAITING = f"""SELECT count(*) AS number, count(d.not_before) AS backing_off, min(d.not_before) AS earliest
    FROM {DELIVERY} d WHERE d.{_IN_QUEUE.format("d")}"""

#: A call, as `_call` reads it; its `error` is a text, unlike that of a run.
_TRY = "t.number, t.outcome, t.error AS message, t.output, t.owner, t.started_at, t.ended_at, t.duration_s"


def records(connection: Connection, where: str, values: Values, limit: int) -> list[DeliveryRecord]:
    """Read deliveries `d` with their tries, the latest run first."""
    rows = connection.rows(
        f"""SELECT d.*, e.status FROM {DELIVERY} d JOIN {EVENT} e ON e.run_id = d.run_id AND e.seq = d.seq
        WHERE {where} ORDER BY d.run_id DESC, d.seq, d.position LIMIT :limit""",
        {**values, "limit": limit},
    )
    calls: dict[str, list[DeliveryTry]] = defaultdict(list)
    keys = [row.idempotency_key for row in rows]
    for start in range(0, len(keys), KEYS_AT_ONCE):
        is_one, values = one_of("idempotency_key", keys[start : start + KEYS_AT_ONCE])
        statement = f"SELECT t.idempotency_key, {_TRY} FROM {DELIVERY_TRY} t WHERE t.{is_one}"
        for row in connection.rows(f"{statement} ORDER BY t.idempotency_key, t.number", values):
            calls[row.idempotency_key].append(_call(row))
    return [
        DeliveryRecord(
            key=row.idempotency_key,
            pipeline=row.pipeline,
            run_id=row.run_id,
            attempt=row.attempt,
            callback_block=row.callback_block,
            function=row.function,
            parent=row.parent,
            block=row.block,
            stream=row.stream,
            status=row.status,
            state=row.state,
            attempts=row.attempts,
            not_before=row.not_before,
            data=row.data,
            tries=tuple(calls[row.idempotency_key]),
        )
        for row in rows
    ]


def history(connection: Connection, where: str, values: Values, limit: int) -> list[HistoryEntry]:
    """Read calls with their deliveries `d`, the latest first."""
    rows = connection.rows(
        f"""SELECT {_TRY}, e.status,
            d.idempotency_key, d.run_id, d.attempt, d.callback_block, d.function, d.parent, d.stream
        FROM {DELIVERY_TRY} t JOIN {DELIVERY} d ON d.idempotency_key = t.idempotency_key
        JOIN {EVENT} e ON e.run_id = d.run_id AND e.seq = d.seq
        WHERE {where} ORDER BY t.started_at DESC, t.idempotency_key, t.number DESC LIMIT :limit""",
        {**values, "limit": limit},
    )
    return [
        HistoryEntry(
            key=row.idempotency_key,
            run_id=row.run_id,
            attempt=row.attempt,
            callback_block=row.callback_block,
            function=row.function,
            parent=row.parent,
            stream=row.stream,
            status=row.status,
            call=_call(row),
        )
        for row in rows
    ]


def _call(row: Row) -> DeliveryTry:
    return DeliveryTry(
        number=row.number,
        outcome=row.outcome,
        error=row.message,
        output=row.output,
        owner=row.owner,
        started_at=row.started_at,
        ended_at=row.ended_at,
        duration_s=row.duration_s,
    )
