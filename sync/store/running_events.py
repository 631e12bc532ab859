"""Events of block runs that are still running: `retry` and `schema_changed`, each with its number.

A commit of the destination makes a change of schema, and no transaction of the store encloses that commit. So the
event is held here before the commit, and released after it. If the process dies in between, whoever ends the stream
asks the ledger whether the commit was made. A held event has no deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .connection import Connection
from .event_rows import EventRow, write_deliveries, write_events
from .model import DATA_EXPORTER, RUNNING, SCHEMA_CHANGED, STREAM, AttemptPlan, ErrorInfo, LostRun, encode_error
from .plans import Plans
from .statements import update
from .table_names import BLOCK_RUN, EVENT, PIPELINE_RUN
from .transactions import LockedRun, Transactions

_RUNNING = f"""SELECT block, block_type FROM {BLOCK_RUN}
    WHERE run_id = :run_id AND attempt = :number AND stream = :stream AND status = '{RUNNING}'
    ORDER BY position FOR UPDATE"""
_ATTEMPT = f"SELECT attempt FROM {PIPELINE_RUN} WHERE id = :run_id"
_NUMBERED = f"""SELECT * FROM {EVENT}
    WHERE run_id = :run_id AND attempt = :number AND stream = :stream AND status = :status AND occurrence IS NOT NULL
    ORDER BY seq"""
_SAVE_DETAILS = update(EVENT, "details", "run_id = :run_id AND seq = :seq")
_FORGET = f"DELETE FROM {EVENT} WHERE run_id = :run_id AND seq = :seq"


class RunningEvents:
    """Each event has two parents: its block, and the stream, where the data exporter carries it."""

    def __init__(self, transactions: Transactions, plans: Plans) -> None:
        self._transactions = transactions
        self._plans = plans

    def tell(self, run_id: int, stream: str, block: str, status: str, *, error: ErrorInfo | None = None) -> None:
        """Write an event of a running block run, such as `retry`.

        Raises:
            LostRun: this process does not own the run, or the stream is not open (any more).
        """
        plan = self._plans.attempt_plan_of(run_id)
        if not wants(plan, status):
            return
        with self._transactions.write_and_lease("tell") as connection:
            run = self._transactions.lock_owned(connection, run_id)
            rows = _rows(connection, run, stream, block, status, {"error": encode_error(error)})
            write_events(connection, run, plan, rows)

    def hold(
        self,
        run_id: int,
        stream: str,
        block: str,
        changes: Sequence[Mapping[str, Any]],
        commit: Mapping[str, Any],
    ) -> bool:
        """Hold the event of a schema change that a commit is about to make; return whether a function subscribes to it.

        Args:
            run_id: The run.
            stream: Its stream.
            block: Of the destination.
            changes: See `syncblocks.connectors.stream.Commit`.
            commit: Identifies the commit afterwards; JSON.

        Raises:
            LostRun: this process does not own the run, or the stream is not open (any more).
        """
        plan = self._plans.attempt_plan_of(run_id)
        if not wants(plan, SCHEMA_CHANGED):
            return False
        with self._transactions.write("hold") as connection:
            run = self._transactions.lock_owned(connection, run_id)
            details = {"error": None, "schema_changes": [dict(change) for change in changes], "commit": dict(commit)}
            rows = _rows(connection, run, stream, block, SCHEMA_CHANGED, details)
            write_events(connection, run, plan, rows, is_held=True)
        return True

    def release_held(self, run_id: int, stream: str, *, is_committed: bool) -> None:
        """Write the deliveries of a stream's held events, or delete the events: their commit was not made.

        Raises:
            LostRun: this process does not own the run.
        """
        plan = self._plans.attempt_plan_of(run_id)
        with self._transactions.write_and_lease("let_out") as connection:
            run = self._transactions.lock_owned(connection, run_id)
            release_held(connection, run, plan, stream, is_committed=is_committed)

    def held(self, run_id: int, stream: str) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]] | None:
        """Return the commit of a stream's held event, and its schema changes; None if nothing is held."""
        with self._transactions.read() as connection:
            number = connection.value(_ATTEMPT, {"run_id": run_id})
            for row in _held(connection, run_id, number, stream):
                return row.details["commit"], row.details["schema_changes"]
        return None


def release_held(connection: Connection, run: LockedRun, plan: AttemptPlan, stream: str, *, is_committed: bool) -> None:
    """Do what `RunningEvents.release_held` does, in the caller's transaction."""
    held = _held(connection, run.id, run.attempt, stream)
    if not is_committed:
        for row in held:
            connection.run(_FORGET, {"run_id": run.id, "seq": row.seq})
        return
    types = {row.block: row.block_type for row in running_blocks(connection, run, stream)} if held else {}
    for row in held:
        details = {name: value for name, value in row.details.items() if name != "commit"}
        connection.run(_SAVE_DETAILS, {"run_id": run.id, "seq": row.seq, "details": details})
        told = EventRow(
            parent=row.parent,
            status=row.status,
            block=row.block,
            block_type=types[row.block],
            stream=stream,
            occurrence=row.occurrence,
        )
        write_deliveries(connection, run, plan, [(row.seq, told)])


def running_blocks(connection: Connection, run: LockedRun, stream: str) -> Sequence[Any]:
    """Lock the block runs of an open stream, in pipeline order.

    Raises:
        LostRun: the stream is not open (any more).
    """
    running = connection.rows(_RUNNING, {"run_id": run.id, "number": run.attempt, "stream": stream})
    if not running:
        raise LostRun(f"stream {stream!r} of run {run.id} is not open: it was closed by somebody else")
    return running


def _rows(
    connection: Connection, run: LockedRun, stream: str, block: str, status: str, details: Mapping[str, Any]
) -> list[EventRow]:
    running = running_blocks(connection, run, stream)
    by_block = {row.block: row for row in running}
    last = next((row for row in reversed(running) if row.block_type == DATA_EXPORTER), running[-1])
    like = {"run_id": run.id, "number": run.attempt, "stream": stream, "status": status}
    before = [row.parent for row in connection.rows(_NUMBERED, like)]
    return [
        EventRow(
            parent=parent,
            status=status,
            block=carrier.block,
            block_type=carrier.block_type,
            stream=stream,
            occurrence=before.count(parent),
            details=details,
        )
        for parent, carrier in ((block, by_block.get(block, last)), (STREAM, last))
    ]


def wants(plan: AttemptPlan, status: str) -> bool:
    """Whether some function subscribes to a status."""
    return any(subscription.status == status for subscription in plan.subscriptions)


def _held(connection: Connection, run_id: int, number: int, stream: str) -> list[Any]:
    like = {"run_id": run_id, "number": number, "stream": stream, "status": SCHEMA_CHANGED}
    return [row for row in connection.rows(_NUMBERED, like) if "commit" in row.details]
