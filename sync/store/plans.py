"""The plan of an attempt: how the store writes it, reads it and remembers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from syncblocks.connectors.struct_helpers import asdict

from .connection import Row, StoreConnection
from .model import UNCLAIMED, AttemptPlan, BlockPlan, RecordedCallback, StreamPlan, Subscription
from .statements import insert, update
from .table_names import ATTEMPT, PIPELINE_RUN, STREAM_RUN, TYPE_COUNTER
from .transactions import Transactions

_PLAN = f"SELECT plan FROM {ATTEMPT} WHERE run_id = :run_id AND attempt = :number"
_STREAMS = f"SELECT * FROM {STREAM_RUN} WHERE run_id = :run_id AND attempt = :number ORDER BY position"
_LATEST = f"SELECT attempt FROM {PIPELINE_RUN} WHERE id = :run_id"
_PLAN_STREAM = insert(STREAM_RUN, "run_id attempt pipeline stream position destination_table status blocks config")
_PLAN_TYPE = insert(TYPE_COUNTER, "run_id attempt block_type open ended unclaimed")
_SAVE_PLAN = update(ATTEMPT, "plan unclaimed_streams", "run_id = :run_id AND attempt = :number")


class Plans:
    """Plans of attempts. A plan does not change once a stream is claimed; before, only its owner changes it."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._known: dict[tuple[int, int], AttemptPlan] = {}

    def attempt_plan(self, run_id: int, attempt: int) -> AttemptPlan | None:
        """Return the plan of an attempt, or None if the attempt ended before it had one."""
        with self._transactions.read() as connection:
            encoded = connection.value(_PLAN, {"run_id": run_id, "number": attempt})
            if encoded is None:
                return None
            rows = connection.rows(_STREAMS, {"run_id": run_id, "number": attempt})
            return decode_plan(encoded, tuple(_decode_stream(row) for row in rows))

    def present_plan(self, run_id: int, attempt: int) -> AttemptPlan:
        """Return an attempt's plan as it stands, without its streams; of any run, so it is not remembered."""
        with self._transactions.read() as connection:
            return decode_plan(connection.value(_PLAN, {"run_id": run_id, "number": attempt}) or {})

    def attempt_plan_of(self, run_id: int) -> AttemptPlan:
        """Return the plan of the latest attempt, without its streams; of a run that this process works on."""
        with self._transactions.read() as connection:
            number = connection.value(_LATEST, {"run_id": run_id})
            return self.without_streams(connection, run_id, number)

    def without_streams(self, connection: StoreConnection, run_id: int, number: int) -> AttemptPlan:
        """Return an attempt's plan without its streams; read once, then remembered."""
        key = (run_id, number)
        if key not in self._known:
            encoded = connection.value(_PLAN, {"run_id": run_id, "number": number})
            self._known[key] = decode_plan(encoded or {})
        return self._known[key]

    def known(self, run_id: int) -> AttemptPlan | None:
        """Return the plan of the latest attempt that is remembered; a later one may have begun since."""
        numbers = [number for known_id, number in list(self._known) if known_id == run_id]
        return self._known.get((run_id, max(numbers))) if numbers else None

    def forget(self, run_id: int) -> None:
        """Read the plans of a run anew: this process writes one, or has just taken the run over."""
        for key in [key for key in self._known if key[0] == run_id]:
            self._known.pop(key, None)


def write_plan(connection: StoreConnection, pipeline: str, run_id: int, number: int, plan: AttemptPlan) -> None:
    """Replace an attempt's plan, its streams and its counters."""
    for table in (STREAM_RUN, TYPE_COUNTER):
        connection.run(
            f"DELETE FROM {table} WHERE run_id = :run_id AND attempt = :number", {"run_id": run_id, "number": number}
        )
    streams = [
        {
            "run_id": run_id,
            "attempt": number,
            "pipeline": pipeline,
            "stream": stream.stream,
            "position": position,
            "destination_table": stream.destination_table,
            "status": UNCLAIMED,
            "blocks": [[block.block, block.block_type] for block in stream.blocks],
            "config": dict(stream.config),
        }
        for position, stream in enumerate(plan.streams)
    ]
    connection.run_many(_PLAN_STREAM, streams)
    types = Counter(block.block_type for stream in plan.streams for block in stream.blocks)
    connection.run_many(
        _PLAN_TYPE,
        [
            {"run_id": run_id, "attempt": number, "block_type": kind, "open": 0, "ended": 0, "unclaimed": unclaimed}
            for kind, unclaimed in types.items()
        ],
    )
    connection.run(
        _SAVE_PLAN,
        {"run_id": run_id, "number": number, "plan": _encode_plan(plan), "unclaimed_streams": len(streams)},
    )


def _encode_plan(plan: AttemptPlan) -> dict[str, Any]:
    """Return the JSON form of a plan, without its streams (they have rows of their own)."""
    # A function may be subscribed twice, by the name of a block and by a word for that block: it is called once.
    return {
        "subscriptions": [asdict(subscription) for subscription in dict.fromkeys(plan.subscriptions)],
        "callbacks": [asdict(spec) for spec in plan.callbacks],
        "allow_blocks_to_fail": plan.allow_blocks_to_fail,
        "extra": dict(plan.extra),
    }


def decode_plan(plan: Mapping[str, Any], streams: tuple[StreamPlan, ...] = ()) -> AttemptPlan:
    """Read the JSON form of a plan, of this version or an earlier one."""
    return AttemptPlan(
        streams=streams,
        subscriptions=tuple(
            Subscription(**{**row, "streams": None if row["streams"] is None else tuple(row["streams"])})
            for row in plan.get("subscriptions", ())
        ),
        # Earlier versions recorded more of a callback block: it is never read.
        callbacks=tuple(
            RecordedCallback(block=row["block"], digest=row.get("digest")) for row in plan.get("callbacks", ())
        ),
        allow_blocks_to_fail=plan.get("allow_blocks_to_fail", False),
        extra=plan.get("extra", {}),
    )


def _decode_stream(row: Row) -> StreamPlan:
    return StreamPlan(
        stream=row.stream,
        destination_table=row.destination_table,
        blocks=tuple(BlockPlan(block, block_type) for block, block_type in row.blocks),
        config=row.config,
    )
