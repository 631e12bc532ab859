"""Attempts of a run: the plan, claims, stops, and the end of those that end without a last close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..errors import StateError
from ..failpoints import failpoint
from .base import (
    PLAN,
    STREAMS_OF_ATTEMPT,
    HeldRun,
    Room,
    decode_plan,
    decode_stream,
    encode_error,
    encode_plan,
    final_status,
)
from .connection import Connection, insert, one_of, update
from .counters import TypeCounter
from .events import EventRow, write_events
from .model import CANCELLED, CRASHED, PIPELINE, RUNNING, UNCLAIMED, AttemptPlan, ErrorInfo, PipelineRun
from .tables import ATTEMPT, BLOCK_RUN, STREAM_RUN, TYPE_COUNTER

_HAS_BEGUN = f"SELECT block FROM {BLOCK_RUN} WHERE run_id = :run_id AND attempt = :number LIMIT 1"
_START = insert(
    BLOCK_RUN,
    "run_id attempt block stream block_type position destination_table status started_at",
)
_SET_STREAM = update(STREAM_RUN, "status", "run_id = :run_id AND attempt = :number AND stream = :stream")
_PLAN_STREAM = insert(STREAM_RUN, "run_id attempt stream position destination_table status blocks config")
_PLAN_TYPE = insert(TYPE_COUNTER, "run_id attempt block_type open ended unclaimed")
_SAVE_PLAN = update(ATTEMPT, "plan unclaimed_streams", "run_id = :run_id AND attempt = :number")


class Attempts(Room):
    """Only the coordinator claims; whoever writes in the owner's name closes."""

    def begin_attempt(self, run_id: int, plan: AttemptPlan) -> None:
        """Record the plan of the run's latest attempt; may be repeated until the first claim.

        Raises:
            LostRun: this process does not own the run.
            StateError: streams were claimed already, or the attempt has ended.
        """
        with self._database.write("begin_attempt") as connection:
            run = self._lock_mine(connection, run_id)
            if run.has_ended:
                raise StateError(f"attempt {run.attempt} of run {run_id} has ended")
            if connection.value(_HAS_BEGUN, {"run_id": run_id, "number": run.attempt}) is not None:
                raise StateError(f"attempt {run.attempt} of run {run_id} has begun: its plan stands")
            write_plan(connection, run_id, run.attempt, plan)
            self._forget_plans(run_id)

    def attempt_plan(self, run_id: int, attempt: int) -> AttemptPlan | None:
        """Return the plan of an attempt; None if it ended before it had one."""
        with self._database.read() as connection:
            encoded = connection.value(PLAN, {"run_id": run_id, "number": attempt})
            if encoded is None:
                return None
            rows = connection.rows(STREAMS_OF_ATTEMPT, {"run_id": run_id, "number": attempt})
            return decode_plan(encoded, tuple(decode_stream(row) for row in rows))

    def claim(self, run_id: int, streams: Iterable[str]) -> bool:
        """Claim streams that run together; all of their block runs start here.

        Returns:
            False if the run is stopping or shall be cancelled: nothing was claimed.

        Raises:
            LostRun: this process does not own the run.
            StateError: a stream is not planned, or was claimed before.
        """
        with self._write_and_lease("claim") as connection:
            run = self._lock_mine(connection, run_id)
            failpoint("store.claim.locked")
            values = self._counters(connection, run)
            if run.is_stopping or self._stop_if_cancelled(connection, run, values):
                return False
            self._claim(connection, run, values, streams)
            self._save_counters(connection, run, values)
            self._save(connection, run)
        return True

    def request_stop(self, run_id: int, status: str = CANCELLED) -> None:
        """No further claims; what ended last so far, with nothing of its type open, is the last. Idempotent.

        Args:
            run_id: The run.
            status: What the run becomes if streams thereby never start and none failed.

        Raises:
            LostRun: this process does not own the run.
        """
        with self._database.write("stop") as connection:
            run = self._lock_mine(connection, run_id)
            if not run.has_ended:
                self._stop_and_save(connection, run, status)

    def end_attempt(self, run_id: int, *, error: ErrorInfo | None = None, is_crash: bool = False) -> PipelineRun:
        """End an attempt that has nothing open and got no last close; tell `pipeline`. Idempotent.

        Args:
            run_id: The run.
            error: Why the run as a whole failed (before its first stream, or its process died).
            is_crash: Its process died: `crashed` is told beside `failure`.

        Raises:
            LostRun: this process does not own the run.
            StateError: streams are still open.
        """
        with self._database.write("end_attempt") as connection:
            run = self._lock_mine(connection, run_id)
            if not run.has_ended:
                if run.open_streams:
                    raise StateError(f"run {run_id} still has {run.open_streams} open streams: close them first")
                if run.unclaimed_streams:
                    self._stop_and_save(connection, run, run.stop_status or CANCELLED)
                self._end(connection, run, error, is_crash=is_crash)
                self._save(connection, run)
        return self.run(run_id)

    def run(self, run_id: int) -> PipelineRun:
        """See `Runs.run`."""
        raise NotImplementedError

    # -- shared with the close -----------------------------------------------------------------------------------

    def _claim(
        self, connection: Connection, run: HeldRun, values: Mapping[str, TypeCounter], streams: Iterable[str]
    ) -> None:
        """Claim streams of a run that is not stopping; the caller saves run and counters."""
        names = list(dict.fromkeys(streams))
        is_one, values_of = one_of("stream", names)
        rows = connection.rows(
            f"SELECT * FROM {STREAM_RUN} WHERE run_id = :run_id AND attempt = :number AND {is_one} ORDER BY position",
            {"run_id": run.id, "number": run.attempt, **values_of},
        )
        if unknown := set(names) - {row.stream for row in rows if row.status == UNCLAIMED}:
            raise StateError(f"run {run.id} cannot claim {sorted(unknown)}: claimed before, or not planned")
        started = [
            {
                "run_id": run.id,
                "attempt": run.attempt,
                "block": block,
                "stream": row.stream,
                "block_type": block_type,
                "position": position,
                "destination_table": row.destination_table,
                "status": RUNNING,
                "started_at": run.now,
            }
            for row in rows
            for position, (block, block_type) in enumerate(row.blocks)
        ]
        types = Counter(str(block["block_type"]) for block in started)
        not_last = [name for kind, number in types.items() if (name := values[kind].claim(number))]
        run.unclaimed_streams -= len(rows)
        run.open_streams += len(rows)
        self._decide(connection, run, not_last, False)
        set_streams(connection, run, names, RUNNING)
        connection.run_many(_START, started)

    def _stop_if_cancelled(self, connection: Connection, run: HeldRun, values: Mapping[str, TypeCounter]) -> bool:
        """Do what a cancel request asks for at the first chance; tell whether there is one."""
        if not run.cancel_requested:
            return False
        self._stop(connection, run, values, CANCELLED)
        self._save(connection, run)
        self._save_counters(connection, run, values)
        return True

    def _stop_and_save(self, connection: Connection, run: HeldRun, status: str) -> None:
        values = self._counters(connection, run)
        self._stop(connection, run, values, status)
        self._save(connection, run)
        self._save_counters(connection, run, values)

    def _end(
        self,
        connection: Connection,
        run: HeldRun,
        error: ErrorInfo | None = None,
        events: Sequence[EventRow] = (),
        *,
        is_crash: bool = False,
    ) -> None:
        """Give the attempt its final status; write its last events, the one of `pipeline` behind all others."""
        run.status = final_status(run, error)
        if run.error is None:
            run.error = encode_error(error)
        # Behind the gate: callbacks of the last events may open what the run still holds open.
        last = [replace(event, is_gated=True) for event in events]
        last.append(EventRow(parent=PIPELINE, status=run.status, is_gated=True))
        if is_crash:
            last.append(EventRow(parent=PIPELINE, status=CRASHED, is_gated=True))
        write_events(connection, run, self._plan(connection, run.id, run.attempt), last)


def write_plan(connection: Connection, run_id: int, number: int, plan: AttemptPlan) -> None:
    """Write an attempt's plan in place of what was there, and its counters."""
    for table in (STREAM_RUN, TYPE_COUNTER):
        connection.run(
            f"DELETE FROM {table} WHERE run_id = :run_id AND attempt = :number", {"run_id": run_id, "number": number}
        )
    streams = [
        {
            "run_id": run_id,
            "attempt": number,
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
        {"run_id": run_id, "number": number, "plan": encode_plan(plan), "unclaimed_streams": len(streams)},
    )


def set_streams(connection: Connection, run: HeldRun, streams: Iterable[str], status: str) -> None:
    """Set the status of streams."""
    rows = [{"run_id": run.id, "number": run.attempt, "stream": stream, "status": status} for stream in streams]
    connection.run_many(_SET_STREAM, rows)
