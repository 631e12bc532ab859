"""Attempts of a run: begin, claim streams, stop, and end without a last close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from syncblocks.connectors.struct_helpers import replace

from ..errors import StateError
from ..failpoints import failpoint
from .connection import Row, StoreConnection
from .event_rows import EventRow, write_events
from .last_block_run import TypeCounter, ask_counters, decide, save_counters, stop_claims
from .model import (
    CANCELLED,
    CRASHED,
    FAILURE,
    PIPELINE,
    RUNNING,
    SUCCESS,
    UNCLAIMED,
    AttemptPlan,
    ErrorInfo,
    encode_error,
)
from .plans import Plans, write_plan
from .statements import insert, one_of, update
from .table_names import BLOCK_RUN, STREAM_RUN
from .transactions import LATEST, LockedRun, Transactions, save_attempt

_HAS_BEGUN = f"SELECT block FROM {BLOCK_RUN} WHERE run_id = :run_id AND attempt = :number LIMIT 1"
_START = insert(
    BLOCK_RUN,
    "run_id attempt block stream block_type position destination_table status started_at",
)
_SET_STREAM = update(STREAM_RUN, "status", "run_id = :run_id AND attempt = :number AND stream = :stream")
_SET_CLAIM = update(STREAM_RUN, "claim", "run_id = :run_id AND attempt = :number AND stream = :stream")


class Attempts:
    """Only the coordinator claims streams, or in a mapped run each task its own (`held`); both close them."""

    def __init__(self, transactions: Transactions, plans: Plans) -> None:
        self._transactions = transactions
        self._plans = plans

    def begin_attempt(self, run_id: int, plan: AttemptPlan) -> None:
        """Record the plan of the run's latest attempt; may be repeated until the first claim.

        Raises:
            LostRun: this process does not own the run.
            StateError: streams were claimed already, or the attempt has ended.
        """
        with self._transactions.write("begin_attempt") as connection:
            run = self._transactions.lock_owned(connection, run_id)
            if run.has_ended:
                raise StateError(f"attempt {run.attempt} of run {run_id} has ended")
            if connection.value(_HAS_BEGUN, {"run_id": run_id, "number": run.attempt}) is not None:
                raise StateError(f"attempt {run.attempt} of run {run_id} has begun: its plan cannot change")
            write_plan(connection, run.pipeline, run_id, run.attempt, plan)
            self._plans.forget(run_id)

    def claim(self, run_id: int, streams: Iterable[str], *, nonce: str = "") -> bool:
        """Claim streams that run together; all of their block runs start here.

        Args:
            run_id: The run.
            streams: Their names.
            nonce: Under which another process takes and closes them, see `claims`; empty: this process runs them.

        Returns:
            False if the run is stopping, or a cancel was requested: then nothing is claimed.

        Raises:
            LostRun: this process does not own the run.
            StateError: a stream is not planned, or was claimed before.
        """
        with self._transactions.write_and_lease("claim") as connection:
            locked = self._transactions.ask_lock_owned(connection, run_id)
            counted, claimed = ask_counters(connection, run_id), ask_streams(connection, run_id, streams)
            run = locked()
            failpoint("store.claim.locked")
            counters = counted()
            if run.is_stopping:
                return False
            if run.cancel_requested:
                stop(connection, run, counters, CANCELLED)
                return False
            rows = claimed()
            claim_streams(connection, run, counters, rows)
            if nonce:
                set_claims(connection, run, [row.stream for row in rows], nonce)
            save_counters(connection, run, counters)
            save_attempt(connection, run)
        return True

    def request_stop(self, run_id: int, status: str = CANCELLED) -> None:
        """Forbid further claims; a block type with nothing open thereby has its last block run. Idempotent.

        Args:
            run_id: The run.
            status: The run's status if streams therefore never start, and no stream failed.

        Raises:
            LostRun: this process does not own the run.
        """
        with self._transactions.write("stop") as connection:
            locked = self._transactions.ask_lock_owned(connection, run_id)
            counted = ask_counters(connection, run_id)
            run = locked()
            if not run.has_ended:
                stop(connection, run, counted(), status)

    def end_attempt(self, run_id: int, *, error: ErrorInfo | None = None, is_crash: bool = False) -> None:
        """End an attempt that has nothing open and had no last close; write the event of `pipeline`. Idempotent.

        Args:
            run_id: The run.
            error: Why the run as a whole failed (before its first stream, or its process died).
            is_crash: The run's process died: there is an event `crashed` beside `failure`.

        Raises:
            LostRun: this process does not own the run.
            StateError: streams are still open.
        """
        with self._transactions.write("end_attempt") as connection:
            locked = self._transactions.ask_lock_owned(connection, run_id)
            counted = ask_counters(connection, run_id)
            run = locked()
            if not run.has_ended:
                if run.open_streams:
                    raise StateError(f"run {run_id} still has {run.open_streams} open streams: close them first")
                if run.unclaimed_streams:
                    stop(connection, run, counted(), run.stop_status or CANCELLED)
                plan = self._plans.without_streams(connection, run_id, run.attempt)
                end(connection, run, plan, error, is_crash=is_crash)
                save_attempt(connection, run)


def ask_streams(connection: StoreConnection, run_id: int, streams: Iterable[str]) -> Callable[[], list[Row]]:
    """Ask for the rows of streams that are to be claimed; return what reads them, for `claim_streams`.

    Raises:
        StateError: when they are read: a stream is not planned, or was claimed before.
    """
    names = list(dict.fromkeys(streams))
    is_one, values = one_of("stream", names)
    answer = connection.ask(
        f"SELECT * FROM {STREAM_RUN} WHERE {LATEST} AND {is_one} ORDER BY position", {"run_id": run_id, **values}
    )

    def rows() -> list[Row]:
        found = answer()
        if unknown := set(names) - {row.stream for row in found if row.status == UNCLAIMED}:
            raise StateError(f"run {run_id} cannot claim {sorted(unknown)}: claimed before, or not planned")
        return found

    return rows


def claim_streams(
    connection: StoreConnection, run: LockedRun, counters: Mapping[str, TypeCounter], rows: Sequence[Row]
) -> None:
    """Claim streams of a run that is not stopping; the caller saves attempt and counters."""
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
    not_last = [name for kind, number in types.items() if (name := counters[kind].claim(number))]
    run.unclaimed_streams -= len(rows)
    run.open_streams += len(rows)
    decide(connection, run, not_last, is_last=False)
    set_streams(connection, run, [row.stream for row in rows], RUNNING)
    connection.run_many(_START, started)


def set_streams(connection: StoreConnection, run: LockedRun, streams: Iterable[str], status: str) -> None:
    """Set the status of streams."""
    rows = [{"run_id": run.id, "number": run.attempt, "stream": stream, "status": status} for stream in streams]
    connection.run_many(_SET_STREAM, rows)


def set_claims(connection: StoreConnection, run: LockedRun, streams: Iterable[str], nonce: str) -> None:
    """Set the nonce under which other processes take and close streams."""
    rows = [{"run_id": run.id, "number": run.attempt, "stream": stream, "claim": nonce} for stream in streams]
    connection.run_many(_SET_CLAIM, rows)


def end(
    connection: StoreConnection,
    run: LockedRun,
    plan: AttemptPlan,
    error: ErrorInfo | None = None,
    events: Sequence[EventRow] = (),
    *,
    is_crash: bool = False,
) -> None:
    """Give the attempt its final status, and write its last events, `pipeline` at the end; the caller saves it."""
    run.status = _final_status(run, error)
    if run.error is None:
        run.error = encode_error(error)
    # Behind the gate: callbacks of the last events may open what the run still holds open.
    last = [replace(event, is_gated=True) for event in events]
    last.append(EventRow(parent=PIPELINE, status=run.status, is_gated=True))
    if is_crash:
        last.append(EventRow(parent=PIPELINE, status=CRASHED, is_gated=True))
    write_events(connection, run, plan, last)


def stop(connection: StoreConnection, run: LockedRun, counters: Mapping[str, TypeCounter], status: str) -> None:
    """Forbid further claims, and save it."""
    stop_claims(connection, run, counters, status)
    save_attempt(connection, run)
    save_counters(connection, run, counters)


def _final_status(run: LockedRun, error: ErrorInfo | None) -> str:
    """Return the status of an attempt that has nothing open any more."""
    statuses = {FAILURE: run.failed_streams > 0 or error is not None, CANCELLED: run.cancelled_streams > 0}
    if run.unclaimed_streams:  # never started: by a stop, or by an engine that gave up without one
        statuses[run.stop_status or CANCELLED] = True
    return next((status for status in (FAILURE, CANCELLED) if statuses[status]), SUCCESS)
