"""Events of block runs that are still running: `retry` and `schema_changed`, each with its number.

A commit of the destination makes a change of schema, and no transaction of the store encloses that commit. So the
event is held here before the commit, and released after it. If the process dies in between, the process that ends the
stream asks the ledger whether the commit was made. A held event has no deliveries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .connection import Answer, Row, StoreConnection
from .event_rows import EventRow, write_deliveries, write_events
from .model import DATA_EXPORTER, RUNNING, SCHEMA_CHANGED, STREAM, AttemptPlan, ErrorInfo, LostRun, encode_error
from .plans import Plans
from .statements import update
from .table_names import BLOCK_RUN, EVENT
from .transactions import LATEST, LockedRun, Transactions

_RUNNING = f"""SELECT block, block_type FROM {BLOCK_RUN}
    WHERE {LATEST} AND stream = :stream AND status = '{RUNNING}' ORDER BY position FOR UPDATE"""
_NUMBERED = f"""SELECT * FROM {EVENT}
    WHERE {LATEST} AND stream = :stream AND status = :status AND occurrence IS NOT NULL ORDER BY seq"""
_SAVE_DETAILS = update(EVENT, "details", "run_id = :run_id AND seq = :seq")
_FORGET = f"DELETE FROM {EVENT} WHERE run_id = :run_id AND seq = :seq"


class RunningEvents:
    """Each event has one or two parents: its block and, for the data exporter, the stream."""

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
            locked = self._transactions.ask_lock_owned(connection, run_id)
            rows = _ask_rows(connection, run_id, stream, block, status, {"error": encode_error(error)})
            write_events(connection, locked(), plan, rows())

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
            block: The destination's block.
            changes: See `syncblocks.connectors.stream.Commit`.
            commit: Identifies the commit afterwards; JSON.

        Raises:
            LostRun: this process does not own the run, or the stream is not open (any more).
        """
        plan = self._plans.attempt_plan_of(run_id)
        if not wants(plan, SCHEMA_CHANGED):
            return False
        with self._transactions.write("hold") as connection:
            locked = self._transactions.ask_lock_owned(connection, run_id)
            details = {"error": None, "schema_changes": [dict(change) for change in changes], "commit": dict(commit)}
            rows = _ask_rows(connection, run_id, stream, block, SCHEMA_CHANGED, details)
            write_events(connection, locked(), plan, rows(), is_held=True)
        return True

    def release_held(self, run_id: int, stream: str, *, is_committed: bool) -> None:
        """Write the deliveries of a stream's held events, or delete the events: their commit was not made.

        Raises:
            LostRun: this process does not own the run.
        """
        plan = self._plans.attempt_plan_of(run_id)
        with self._transactions.write_and_lease("let_out") as connection:
            locked = self._transactions.ask_lock_owned(connection, run_id)
            held = ask_held(connection, run_id, stream)
            running = ask_running_blocks(connection, run_id, stream)
            run = locked()
            release_held(connection, run, plan, held(), running, is_committed=is_committed)

    def held(self, run_id: int, stream: str) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]] | None:
        """Return the commit of a stream's held event, and its schema changes; None if nothing is held."""
        with self._transactions.read() as connection:
            for row in ask_held(connection, run_id, stream)():
                return row.details["commit"], row.details["schema_changes"]
        return None


def release_held(
    connection: StoreConnection,
    run: LockedRun,
    plan: AttemptPlan,
    held: Sequence[Row],
    running: Callable[[], Sequence[Row]],
    *,
    is_committed: bool,
) -> None:
    """As `RunningEvents.release_held`, in the caller's transaction, with the rows that it requested."""
    if not is_committed:
        for row in held:
            connection.run(_FORGET, {"run_id": run.id, "seq": row.seq})
        return
    types = {row.block: row.block_type for row in running()} if held else {}
    for row in held:
        details = {name: value for name, value in row.details.items() if name != "commit"}
        connection.run(_SAVE_DETAILS, {"run_id": run.id, "seq": row.seq, "details": details})
        told = EventRow(
            parent=row.parent,
            status=row.status,
            block=row.block,
            block_type=types[row.block],
            stream=row.stream,
            occurrence=row.occurrence,
        )
        write_deliveries(connection, run, plan, [(row.seq, told)])


def ask_running_blocks(connection: StoreConnection, run_id: int, stream: str) -> Callable[[], Sequence[Row]]:
    """Lock the block runs of an open stream; return a function that reads them, in pipeline order.

    Raises:
        LostRun: when they are read: the stream is not open (any more).
    """
    answer = connection.ask(_RUNNING, {"run_id": run_id, "stream": stream})

    def running() -> Sequence[Row]:
        found = answer()
        if not found:
            raise LostRun(f"stream {stream!r} of run {run_id} is not open: it another process closed it")
        return found

    return running


def ask_held(connection: StoreConnection, run_id: int, stream: str) -> Answer:
    """Request the held events of a stream; return a function that reads them."""
    answer = connection.ask(_NUMBERED, {"run_id": run_id, "stream": stream, "status": SCHEMA_CHANGED})
    return lambda: [row for row in answer() if "commit" in row.details]


def _ask_rows(
    connection: StoreConnection, run_id: int, stream: str, block: str, status: str, details: Mapping[str, Any]
) -> Callable[[], list[EventRow]]:
    asked = ask_running_blocks(connection, run_id, stream)
    numbered = connection.ask(_NUMBERED, {"run_id": run_id, "stream": stream, "status": status})
    return lambda: _rows(asked(), numbered(), stream, block, status, details)


def _rows(
    running: Sequence[Row], before: Sequence[Row], stream: str, block: str, status: str, details: Mapping[str, Any]
) -> list[EventRow]:
    by_block = {row.block: row for row in running}
    last = next((row for row in reversed(running) if row.block_type == DATA_EXPORTER), running[-1])
    parents = [row.parent for row in before]
    return [
        EventRow(
            parent=parent,
            status=status,
            block=carrier.block,
            block_type=carrier.block_type,
            stream=stream,
            occurrence=parents.count(parent),
            details=details,
        )
        for parent, carrier in ((block, by_block.get(block, last)), (STREAM, last))
    ]


def wants(plan: AttemptPlan, status: str) -> bool:
    """Whether some function subscribes to a status."""
    return any(subscription.status == status for subscription in plan.subscriptions)
