"""What the rooms of the store share: the database, who this process is, and the run row's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from ..errors import StateError
from .ahead import Ahead, write_and_lease
from .connection import Connection, Row, update
from .counters import BlockRunName, TypeCounter
from .database import Database
from .model import (
    CANCELLED,
    RUNNING,
    AttemptPlan,
    BlockPlan,
    ErrorInfo,
    LostRun,
    PipelineRun,
    RecordedCallback,
    StreamPlan,
    Subscription,
)
from .owner import Owner
from .tables import ATTEMPT, BLOCK_RUN, PIPELINE_RUN, STREAM_RUN, TYPE_COUNTER

#: A run whose process cannot be seen is dead when it has not renewed for so long; renewed every 10 s.
LEASE_S = 30.0

#: (theirs, mine) -> alive, dead, or None: not to be seen from here.
Liveness = Callable[[Owner, Owner], bool | None]

# Without the columns that hold documents: these would be decoded for every stream.
_LOCK_RUN = f"""SELECT id, run_key, pipeline, attempt, is_active, owner, lease_until, cancel_requested_at, last_seq
    FROM {PIPELINE_RUN} WHERE id = :run_id FOR UPDATE"""
_ATTEMPT = f"""SELECT status, stop_status, open_streams, unclaimed_streams, failed_streams, cancelled_streams, error
    FROM {ATTEMPT} WHERE run_id = :run_id AND attempt = :number"""
PLAN = f"SELECT plan FROM {ATTEMPT} WHERE run_id = :run_id AND attempt = :number"
RELEASE_GATE = update(ATTEMPT, "is_gate_released", "run_id = :run_id AND attempt = :number")
_COUNTERS = f"SELECT * FROM {TYPE_COUNTER} WHERE run_id = :run_id AND attempt = :number"
_SAVE_ATTEMPT = update(
    ATTEMPT,
    "status stop_status open_streams unclaimed_streams failed_streams cancelled_streams error ended_at",
    "run_id = :run_id AND attempt = :number",
)
_SAVE_COUNTER = update(
    TYPE_COUNTER,
    "open ended unclaimed undecided_block undecided_stream",
    "run_id = :run_id AND attempt = :number AND block_type = :block_type",
)
_DECIDE = update(BLOCK_RUN, "is_last", "run_id = :run_id AND attempt = :number AND block = :block AND stream = :stream")


@dataclass(slots=True)
class HeldRun:
    """A run's row, locked until the transaction ends, with its attempt's figures. Changed here, written by `save`."""

    id: int
    key: str
    pipeline: str
    attempt: int
    owner: str
    lease_until: datetime
    is_active: bool
    cancel_requested: bool
    last_seq: int
    status: str
    stop_status: str | None
    open_streams: int
    unclaimed_streams: int
    failed_streams: int
    cancelled_streams: int
    error: Any
    now: datetime

    @property
    def has_ended(self) -> bool:
        """Whether the attempt has its final status."""
        return self.status != RUNNING

    @property
    def is_stopping(self) -> bool:
        """Whether no further stream may be claimed."""
        return self.has_ended or self.stop_status is not None


class Room:
    """Base of the store's rooms."""

    def __init__(self, database: Database, me: Owner, liveness: Liveness) -> None:
        """Share one database; `me` is the owner in whose name this store writes."""
        self._database = database
        self._me = me
        self._owner = me.encode()
        self._liveness = liveness
        # An attempt's plan does not change once a stream is claimed, and only its owner changes it before.
        self._plans: dict[tuple[int, int], AttemptPlan] = {}
        #: Of outboxes whose queues are served.
        self._aheads: list[Ahead] = []

    def _write_and_lease(self, name: str) -> AbstractContextManager[Connection]:
        """Open a transaction that may make deliveries due."""
        return write_and_lease(self._database, name, self._aheads)

    def _lock(self, connection: Connection, run_id: int) -> HeldRun:
        """Lock a run's row, then read: what is read before the lock may be out of date by then."""
        run = connection.row(_LOCK_RUN, {"run_id": run_id})
        if run is None:
            raise StateError(f"the run store knows no run {run_id}")
        row = connection.row(_ATTEMPT, {"run_id": run_id, "number": run.attempt})
        assert row is not None  # written with the run
        return HeldRun(
            id=run.id,
            key=run.run_key,
            pipeline=run.pipeline,
            attempt=run.attempt,
            owner=run.owner,
            lease_until=run.lease_until,
            is_active=run.is_active,
            cancel_requested=run.cancel_requested_at is not None,
            last_seq=run.last_seq,
            status=row.status,
            stop_status=row.stop_status,
            open_streams=row.open_streams,
            unclaimed_streams=row.unclaimed_streams,
            failed_streams=row.failed_streams,
            cancelled_streams=row.cancelled_streams,
            error=row.error,
            now=self._database.now(connection),
        )

    def _lock_mine(self, connection: Connection, run_id: int) -> HeldRun:
        """Lock a run's row.

        Raises:
            LostRun: this process does not own it (any more).
        """
        run = self._lock(connection, run_id)
        if run.owner != self._owner:
            raise LostRun(f"run {run_id} was taken over by {Owner.decode(run.owner)}")
        if not run.is_active:
            raise LostRun(f"run {run_id} is finished")
        return run

    def _save(self, connection: Connection, run: HeldRun) -> None:
        """Write the attempt's figures back."""
        connection.run(
            _SAVE_ATTEMPT,
            {
                "run_id": run.id,
                "number": run.attempt,
                "status": run.status,
                "stop_status": run.stop_status,
                "open_streams": run.open_streams,
                "unclaimed_streams": run.unclaimed_streams,
                "failed_streams": run.failed_streams,
                "cancelled_streams": run.cancelled_streams,
                "error": run.error,
                "ended_at": run.now if run.has_ended else None,
            },
        )

    def _counters(self, connection: Connection, run: HeldRun) -> dict[str, TypeCounter]:
        """Read the counters of every block type of the attempt."""
        return {
            row.block_type: TypeCounter(
                open=row.open,
                ended=row.ended,
                unclaimed=row.unclaimed,
                undecided=None if row.undecided_block is None else (row.undecided_block, row.undecided_stream),
            )
            for row in connection.rows(_COUNTERS, {"run_id": run.id, "number": run.attempt})
        }

    def _save_counters(self, connection: Connection, run: HeldRun, values: Mapping[str, TypeCounter]) -> None:
        rows = [
            {
                "run_id": run.id,
                "number": run.attempt,
                "block_type": block_type,
                "open": counter.open,
                "ended": counter.ended,
                "unclaimed": counter.unclaimed,
                "undecided_block": counter.undecided and counter.undecided[0],
                "undecided_stream": counter.undecided and counter.undecided[1],
            }
            for block_type, counter in values.items()
        ]
        connection.run_many(_SAVE_COUNTER, rows)

    def _decide(self, connection: Connection, run: HeldRun, names: Iterable[BlockRunName], is_last: bool) -> None:
        """Write the flag of block runs that ended undecided."""
        rows = [
            {"run_id": run.id, "number": run.attempt, "block": block, "stream": stream, "is_last": is_last}
            for block, stream in names
        ]
        connection.run_many(_DECIDE, rows)

    def _stop(self, connection: Connection, run: HeldRun, values: Mapping[str, TypeCounter], status: str) -> None:
        """No further claims: what ended last so far, with nothing open, stays the last. Idempotent."""
        if run.stop_status is None:
            run.stop_status = status
        self._decide(connection, run, [name for counter in values.values() if (name := counter.stop())], True)

    def _is_alive(self, owner: str, lease_until: datetime, now: datetime) -> bool:
        """Whether an owner lives: by its process where that can be seen, else by its lease."""
        alive = self._liveness(Owner.decode(owner), self._me)
        return lease_until > now if alive is None else alive

    def _plan(self, connection: Connection, run_id: int, number: int) -> AttemptPlan:
        """Return an attempt's plan without its streams; remembered."""
        key = (run_id, number)
        if key not in self._plans:
            plan = connection.value(PLAN, {"run_id": run_id, "number": number})
            self._plans[key] = decode_plan(plan or {})
        return self._plans[key]

    def _forget_plans(self, run_id: int) -> None:
        for key in [key for key in self._plans if key[0] == run_id]:
            self._plans.pop(key, None)


def lease_end(now: datetime) -> datetime:
    """Return until when a run stays its owner's without a further heartbeat."""
    return now + timedelta(seconds=LEASE_S)


def final_status(run: HeldRun, error: ErrorInfo | None = None) -> str:
    """Return the status of an attempt that has nothing open any more."""
    statuses = {"failure": run.failed_streams > 0 or error is not None, CANCELLED: run.cancelled_streams > 0}
    if run.unclaimed_streams:  # never started: by a stop, or by an engine that gave up without one
        statuses[run.stop_status or CANCELLED] = True
    return next((status for status in ("failure", CANCELLED) if statuses[status]), "success")


def encode_plan(plan: AttemptPlan) -> dict[str, Any]:
    """Return the JSON form of a plan, without its streams (they have rows of their own)."""
    # The same function may be subscribed twice, through a block and a word that stands for it: called once.
    return {
        "subscriptions": [asdict(subscription) for subscription in dict.fromkeys(plan.subscriptions)],
        "callbacks": [asdict(spec) for spec in plan.callbacks],
        "allow_blocks_to_fail": plan.allow_blocks_to_fail,
        "extra": dict(plan.extra),
    }


def decode_plan(plan: Mapping[str, Any], streams: tuple[StreamPlan, ...] = ()) -> AttemptPlan:
    """Read what `encode_plan` wrote."""
    return AttemptPlan(
        streams=streams,
        subscriptions=tuple(
            Subscription(**{**row, "streams": None if row["streams"] is None else tuple(row["streams"])})
            for row in plan.get("subscriptions", ())
        ),
        # Nothing else of a block is read, whatever stands there.
        callbacks=tuple(
            RecordedCallback(block=row["block"], digest=row.get("digest")) for row in plan.get("callbacks", ())
        ),
        allow_blocks_to_fail=plan.get("allow_blocks_to_fail", False),
        extra=plan.get("extra", {}),
    )


def decode_stream(row: Row) -> StreamPlan:
    """Read a stream's plan."""
    return StreamPlan(
        stream=row.stream,
        destination_table=row.destination_table,
        blocks=tuple(BlockPlan(block, block_type) for block, block_type in row.blocks),
        config=row.config,
    )


def decode_error(value: Mapping[str, Any] | None) -> ErrorInfo | None:
    """Read an error."""
    return None if value is None else ErrorInfo(**value)


def encode_error(error: ErrorInfo | None) -> dict[str, Any] | None:
    """Return an error as JSON."""
    return None if error is None else asdict(error)


def decode_run(row: Row) -> PipelineRun:
    """Read a run joined with its latest attempt."""
    return PipelineRun(
        id=row.id,
        key=row.run_key,
        pipeline=row.pipeline,
        attempt=row.attempt,
        status=row.status,
        stopping=row.stop_status is not None or row.status != RUNNING,
        execution_date=row.execution_date,
        trigger=row.trigger_id,
        event=row.event,
        variables=row.variables,
        owner=Owner.decode(row.owner),
        started_at=row.started_at,
        ended_at=row.ended_at,
        is_active=row.is_active,
        error=decode_error(row.error),
        cancel_requested=row.cancel_requested_at is not None,
    )


#: A run with its latest attempt, as `decode_run` reads it; a condition on the run `r` follows.
RUN_WITH_ATTEMPT = f"""SELECT r.*, a.status, a.stop_status, a.started_at, a.ended_at, a.error
    FROM {PIPELINE_RUN} r JOIN {ATTEMPT} a ON a.run_id = r.id AND a.attempt = r.attempt WHERE"""

STREAMS_OF_ATTEMPT = f"SELECT * FROM {STREAM_RUN} WHERE run_id = :run_id AND attempt = :number ORDER BY position"
