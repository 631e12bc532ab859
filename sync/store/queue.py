"""The order of a callback block's queue, as statements.

Deliveries are taken in the order in which block runs ended, functions in firing order. Passed over are: one that waits
for its retry; one whose flag is not certain yet; one behind the gate. Two wait for others instead: the event with
is_last_block_run True for all others of its block type, the one of `pipeline` for all others of its attempt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from .model import PIPELINE, DeliveryRecord, DeliveryTry, HistoryEntry
from .tables import UtcTime
from .tables import attempt as attempts
from .tables import block_run as block_runs
from .tables import delivery as deliveries
from .tables import delivery_try as tries
from .tables import event as events

_other = deliveries.alias("other")


def _in_queue(table: Any) -> sa.ColumnElement[bool]:
    return sa.and_(
        table.c.pipeline == sa.bindparam("pipeline"),
        table.c.callback_block == sa.bindparam("callback_block"),
        table.c.is_open,
    )


_waits_for = sa.and_(
    _in_queue(_other),
    _other.c.run_id == deliveries.c.run_id,
    _other.c.attempt == deliveries.c.attempt,
)
_others_of_type = sa.exists().where(
    _waits_for,
    _other.c.block_type == deliveries.c.block_type,
    # The last block run may have two events here, its own and the stream's: they do not wait for each other.
    sa.or_(_other.c.block != deliveries.c.block, _other.c.stream != deliveries.c.stream, _other.c.is_numbered),
)
_others_of_attempt = sa.exists().where(_waits_for, _other.c.parent != PIPELINE)

# Looked up row by row, in queue order, until one is due. Joined instead, PostgreSQL without statistics of a new table
# joins the whole backlog before it takes the first.
_is_released = (
    sa.select(attempts.c.is_gate_released)
    .where(attempts.c.run_id == deliveries.c.run_id, attempts.c.attempt == deliveries.c.attempt)
    .scalar_subquery()
)
_is_last = (
    sa.select(block_runs.c.is_last)
    .where(
        block_runs.c.run_id == deliveries.c.run_id,
        block_runs.c.attempt == deliveries.c.attempt,
        block_runs.c.block == deliveries.c.block,
        block_runs.c.stream == deliveries.c.stream,
    )
    .scalar_subquery()
)

#: The next due delivery of a queue: pipeline, callback_block, now.
DUE = (
    sa.select(deliveries)
    .where(
        _in_queue(deliveries),
        deliveries.c.state == "ready",
        sa.or_(deliveries.c.not_before.is_(None), deliveries.c.not_before <= sa.bindparam("now", type_=UtcTime())),
        sa.or_(sa.not_(deliveries.c.is_gated), _is_released),
        sa.case(
            (deliveries.c.is_numbered, sa.true()),
            (deliveries.c.parent == PIPELINE, sa.not_(_others_of_attempt)),
            else_=sa.case(
                (sa.true(), sa.and_(_is_released, sa.not_(_others_of_type))),
                (sa.false(), sa.true()),
                value=_is_last,
                else_=sa.false(),
            ),
        ),
    )
    .order_by(deliveries.c.run_id, deliveries.c.seq, deliveries.c.position)
    .limit(1)
)

#: Open deliveries of a queue in one state.
IN_QUEUE = (
    sa.select(deliveries)
    .where(_in_queue(deliveries), deliveries.c.state == sa.bindparam("in_state"))
    .order_by(deliveries.c.run_id, deliveries.c.seq, deliveries.c.position)
)

#: How many are open, how many of them wait for a retry, and until when the first of these.
WAITING = sa.select(
    sa.func.count().label("number"),
    sa.func.count(deliveries.c.not_before).label("backing_off"),
    sa.func.min(deliveries.c.not_before, type_=UtcTime()).label("earliest"),
).where(_in_queue(deliveries))


def records(connection: Connection, where: Sequence[sa.ColumnElement[bool]], limit: int) -> list[DeliveryRecord]:
    """Read deliveries with their tries, the latest run first."""
    rows = connection.execute(
        sa.select(deliveries, events.c.status)
        .join(events, sa.and_(events.c.run_id == deliveries.c.run_id, events.c.seq == deliveries.c.seq))
        .where(*where)
        .order_by(deliveries.c.run_id.desc(), deliveries.c.seq, deliveries.c.position)
        .limit(limit)
    ).all()
    calls: dict[str, list[DeliveryTry]] = defaultdict(list)
    keys = [row.idempotency_key for row in rows]
    for start in range(0, len(keys), 500):
        for row in connection.execute(
            sa.select(tries)
            .where(tries.c.idempotency_key.in_(keys[start : start + 500]))
            .order_by(tries.c.idempotency_key, tries.c.number)
        ):
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


def history(connection: Connection, where: Sequence[sa.ColumnElement[bool]], limit: int) -> list[HistoryEntry]:
    """Read calls with their deliveries, the latest first."""
    rows = connection.execute(
        sa.select(
            tries,
            *(deliveries.c[name] for name in ("run_id", "attempt", "callback_block", "function", "parent", "stream")),
            events.c.status,
        )
        .join(deliveries, deliveries.c.idempotency_key == tries.c.idempotency_key)
        .join(events, sa.and_(events.c.run_id == deliveries.c.run_id, events.c.seq == deliveries.c.seq))
        .where(*where)
        .order_by(tries.c.started_at.desc(), tries.c.idempotency_key, tries.c.number.desc())
        .limit(limit)
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


def _call(row: Row[Any]) -> DeliveryTry:
    return DeliveryTry(
        number=row.number,
        outcome=row.outcome,
        error=row.error,
        output=row.output,
        owner=row.owner,
        started_at=row.started_at,
        ended_at=row.ended_at,
        duration_s=row.duration_s,
    )
