"""Writes events and their deliveries, in the transaction of the change that causes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from .connection import Row, StoreConnection
from .model import PIPELINE, AttemptPlan, Subscription
from .statements import insert, update
from .table_names import DELIVERY, EVENT, PIPELINE_RUN
from .transactions import LockedRun

_SAVE_SEQ = update(PIPELINE_RUN, "last_seq", "id = :run_id")
_EVENT = insert(
    EVENT,
    "run_id seq attempt parent block stream status occurrence details created_at",
)
_DELIVERY = insert(
    DELIVERY,
    "idempotency_key pipeline callback_block function run_id seq position attempt parent block stream "
    "block_type is_numbered is_gated data state is_open attempts tries lost",
)


class EventRow(Struct, frozen=True, kw_only=True):
    """An event about to be written."""

    #: A block_uuid, "stream" or "pipeline".
    parent: str
    status: str
    #: The event's block run: block, type, stream. None for `pipeline`.
    block: str | None = None
    block_type: str | None = None
    stream: str | None = None
    data: str | None = None
    is_gated: bool = False
    #: For an event of a running block run: its number among equal events, from 0. None: the block run has ended.
    occurrence: int | None = None
    #: Facts that are not in the block run's row.
    details: Mapping[str, Any] | None = None


def write_events(
    connection: StoreConnection, run: LockedRun, plan: AttemptPlan, rows: Sequence[EventRow], *, is_held: bool = False
) -> None:
    """Write the events that a function subscribes to. Deliveries of a held event are written later."""
    wanted = [row for row in rows if any(_is_for(subscription, row) for subscription in plan.subscriptions)]
    if not wanted:
        return
    numbered = list(enumerate(wanted, start=run.last_seq + 1))
    run.last_seq += len(wanted)
    connection.run_many(
        _EVENT,
        [
            {
                "run_id": run.id,
                "seq": seq,
                "attempt": run.attempt,
                "parent": row.parent,
                "block": row.block,
                "stream": row.stream,
                "status": row.status,
                "occurrence": row.occurrence,
                "details": None if row.details is None else dict(row.details),
                "created_at": run.now,
            }
            for seq, row in numbered
        ],
    )
    connection.run(_SAVE_SEQ, {"run_id": run.id, "last_seq": run.last_seq})
    if not is_held:
        write_deliveries(connection, run, plan, numbered)


def write_deliveries(
    connection: StoreConnection, run: LockedRun, plan: AttemptPlan, numbered: Sequence[tuple[int, EventRow]]
) -> None:
    """Write the deliveries of events, given with their seq: one for each function, in firing order."""
    rows = [
        {
            "idempotency_key": idempotency_key(run, row, subscription),
            "pipeline": run.pipeline,
            "callback_block": subscription.callback_block,
            "function": subscription.function,
            "run_id": run.id,
            "seq": seq,
            "position": position,
            "attempt": run.attempt,
            "parent": row.parent,
            "block": row.block,
            "stream": row.stream,
            "block_type": row.block_type,
            "is_numbered": row.occurrence is not None,
            "is_gated": row.is_gated,
            "data": row.data if subscription.needs_data else None,
            "state": "ready",
            "is_open": True,
            "attempts": 0,
            "tries": 0,
            "lost": 0,
        }
        for seq, row in numbered
        for position, subscription in enumerate(one for one in plan.subscriptions if _is_for(one, row))
    ]
    connection.run_many(_DELIVERY, rows)
    for row in rows:
        connection.written.setdefault(str(row["callback_block"]), Row(**row))


def idempotency_key(run: LockedRun, row: EventRow, subscription: Subscription) -> str:
    """Return the key of this event for this function; every delivery of it has the same key."""
    parts = [
        run.key,
        run.attempt,
        row.parent,
        row.block,
        row.stream,
        row.status,
        row.occurrence or 0,
        subscription.callback_block,
        subscription.function,
    ]
    return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()[:32]


def _is_for(subscription: Subscription, row: EventRow) -> bool:
    if (subscription.parent, subscription.status) != (row.parent, row.status):
        return False
    return row.parent == PIPELINE or subscription.takes(str(row.stream))
