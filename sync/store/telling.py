"""What callbacks are told while a block run goes on: `retry` and `schema_changed`, each with its number.

A change of schema is made by a commit of the destination, which no transaction of the store encloses. So it is held
here before that commit and let out after it; should the process die in between, whoever settles the stream asks the
ledger whether the commit was made. While it is held, nobody has a delivery of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .attempts import Attempts
from .base import HeldRun, encode_error
from .connection import Connection, update
from .events import EventRow, write_deliveries, write_events
from .model import DATA_EXPORTER, RUNNING, SCHEMA_CHANGED, STREAM, AttemptPlan, ErrorInfo, LostRun
from .tables import BLOCK_RUN, EVENT, PIPELINE_RUN

RUNNING_BLOCKS = f"""SELECT block, block_type FROM {BLOCK_RUN}
    WHERE run_id = :run_id AND attempt = :number AND stream = :stream AND status = '{RUNNING}'
    ORDER BY position FOR UPDATE"""
_ATTEMPT = f"SELECT attempt FROM {PIPELINE_RUN} WHERE id = :run_id"
_NUMBERED = f"""SELECT * FROM {EVENT}
    WHERE run_id = :run_id AND attempt = :number AND stream = :stream AND status = :status AND occurrence IS NOT NULL
    ORDER BY seq"""
_SAVE_DETAILS = update(EVENT, "details", "run_id = :run_id AND seq = :seq")
_FORGET = f"DELETE FROM {EVENT} WHERE run_id = :run_id AND seq = :seq"


class Telling(Attempts):
    """Every event is heard by functions of its block and of the stream (there carried by the data exporter)."""

    def tell(self, run_id: int, stream: str, block: str, status: str, *, error: ErrorInfo | None = None) -> None:
        """Tell of something that has happened to a block run that goes on, such as `retry`.

        Raises:
            LostRun: this process does not own the run, or the stream is not open (any more).
        """
        plan = self.attempt_plan_of(run_id)
        if not wants(plan, status):
            return
        with self._write_and_lease("tell") as connection:
            run = self._lock_mine(connection, run_id)
            rows = self._rows(connection, run, stream, block, status, {"error": encode_error(error)})
            write_events(connection, run, plan, rows)

    def hold(
        self,
        run_id: int,
        stream: str,
        block: str,
        changes: Sequence[Mapping[str, Any]],
        commit: Mapping[str, Any],
    ) -> bool:
        """Keep a schema change that a commit is about to make; return whether anybody wants to hear of it.

        Args:
            run_id: The run.
            stream: Its stream.
            block: Of the destination.
            changes: See `syncblocks.connectors.stream.Commit`.
            commit: By what the commit will be known again; JSON.

        Raises:
            LostRun: this process does not own the run, or the stream is not open (any more).
        """
        plan = self.attempt_plan_of(run_id)
        if not wants(plan, SCHEMA_CHANGED):
            return False
        with self._database.write("hold") as connection:
            run = self._lock_mine(connection, run_id)
            details = {"error": None, "schema_changes": [dict(change) for change in changes], "commit": dict(commit)}
            rows = self._rows(connection, run, stream, block, SCHEMA_CHANGED, details)
            write_events(connection, run, plan, rows, is_held=True)
        return True

    def let_out(self, run_id: int, stream: str, *, is_true: bool) -> None:
        """Tell of what is held of a stream, or forget it: its commit was not made.

        Raises:
            LostRun: this process does not own the run.
        """
        plan = self.attempt_plan_of(run_id)
        with self._write_and_lease("let_out") as connection:
            run = self._lock_mine(connection, run_id)
            self._let_out(connection, run, plan, stream, is_true=is_true)

    def held(self, run_id: int, stream: str) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]] | None:
        """Return what is held of a stream: the commit, and its schema changes; None: nothing."""
        with self._database.read() as connection:
            number = connection.value(_ATTEMPT, {"run_id": run_id})
            for row in _held(connection, run_id, number, stream):
                return row.details["commit"], row.details["schema_changes"]
        return None

    def attempt_plan_of(self, run_id: int) -> AttemptPlan:
        """Return the plan of the latest attempt, without its streams."""
        with self._database.read() as connection:
            number = connection.value(_ATTEMPT, {"run_id": run_id})
            return self._plan(connection, run_id, number)

    def _let_out(self, connection: Connection, run: HeldRun, plan: AttemptPlan, stream: str, *, is_true: bool) -> None:
        held = _held(connection, run.id, run.attempt, stream)
        if not is_true:
            for row in held:
                connection.run(_FORGET, {"run_id": run.id, "seq": row.seq})
            return
        types = {row.block: row.block_type for row in self._running(connection, run, stream)} if held else {}
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

    def _running(self, connection: Connection, run: HeldRun, stream: str) -> Sequence[Any]:
        running = connection.rows(RUNNING_BLOCKS, {"run_id": run.id, "number": run.attempt, "stream": stream})
        if not running:
            raise LostRun(f"stream {stream!r} of run {run.id} is not open: it was closed by somebody else")
        return running

    def _rows(
        self, connection: Connection, run: HeldRun, stream: str, block: str, status: str, details: Mapping[str, Any]
    ) -> list[EventRow]:
        running = self._running(connection, run, stream)
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
    """Whether some function is for a status."""
    return any(subscription.status == status for subscription in plan.subscriptions)


def _held(connection: Connection, run_id: int, number: int, stream: str) -> list[Any]:
    like = {"run_id": run_id, "number": number, "stream": stream, "status": SCHEMA_CHANGED}
    return [row for row in connection.rows(_NUMBERED, like) if "commit" in row.details]
