"""Mapped runs: no process owns them. Each task of an orchestrator claims its own stream, and closes it.

All tasks write in the name of the run's made-up owner. The lease of the run is the hold: as long as it lasts, no start
recovers the run, and each other start is refused. A task that lives renews it. `finish` takes the run over.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Literal

from ..errors import AlreadyRunning, RunFinished, StateError
from ..failpoints import failpoint
from .attempts import ask_streams, claim_streams, set_claims, stop
from .claims import ask_take
from .connection import Conflict, StoreConnection
from .last_block_run import ask_counters, save_counters
from .model import CANCELLED, RUNNING, UNCLAIMED, AttemptPlan
from .outbox import release_gate, void_leases
from .owner import Owner
from .plans import Plans, write_plan
from .runs import begin_attempt, refuse_active, refuse_earlier, set_run
from .statements import one_of
from .table_names import PIPELINE_RUN, STREAM_RUN
from .transactions import LATEST, LEASE_S, LockedRun, Transactions, lease_end, save_attempt

#: How a claim went: `busy`: the attempt has as many open streams as it may, or one of the same chain; `stopping`: it
#: takes no more; `gone`: the stream is not there to claim, look again how it stands.
Claimed = Literal["claimed", "busy", "stopping", "gone"]

_STATUSES = f"SELECT stream, status FROM {STREAM_RUN} WHERE {LATEST} AND {{is_one}}"
# Waits for nobody: the streams of a run lock its row while they are claimed and closed.
_RENEW = f"""UPDATE {PIPELINE_RUN} SET lease_until = :lease_until WHERE id IN (SELECT id FROM {PIPELINE_RUN}
    WHERE id = :run_id AND owner = :owner AND is_active = TRUE FOR UPDATE SKIP LOCKED)"""
_TAKE_DEAD = f"""UPDATE {STREAM_RUN} SET claim = :nonce, worker = :worker, lease_until = :lease_until
    WHERE run_id = :run_id AND attempt = :number AND stream = :stream AND status = '{RUNNING}' AND claim = :former
    RETURNING stream"""
_HOLD = f"SELECT attempt, hold_s, cancel_requested_at FROM {PIPELINE_RUN} WHERE id = :run_id"


class MappedRunWrites:
    """Writes of `open`, the tasks and `finish` of a mapped run, except the close."""

    def __init__(self, transactions: Transactions, plans: Plans) -> None:
        self._transactions = transactions
        self._plans = plans

    def hold_run(self, run_id: int, hold_s: int) -> None:
        """Give this process's run, which is planned, to tasks that will claim its streams.

        Args:
            run_id: The run.
            hold_s: Seconds that it is held after the last sign of life of a task.

        Raises:
            LostRun: this process does not own the run.
        """
        with self._transactions.write("hold_run") as connection:
            run = self._transactions.lock_owned(connection, run_id)
            self._give(connection, run, hold_s)

    def renew_hold(self, run_id: int) -> None:
        """Hold the run from now on, in the name of its tasks; passed over while its row is locked.

        A run that is to be cancelled is held only while a task of it lives.
        """
        with self._transactions.write("renew_hold", is_brief=True) as connection:
            row = connection.row(_HOLD, {"run_id": run_id})
            if row is not None and row.hold_s is not None:
                now, seconds = self._transactions.now(connection), float(row.hold_s)
                if row.cancel_requested_at is not None:
                    is_busy = self._transactions.has_living_task(connection, run_id, row.attempt, now)
                    seconds = LEASE_S if is_busy else 0.0
                values = {"run_id": run_id, "owner": self._transactions.owner}
                connection.run(_RENEW, values | {"lease_until": now + timedelta(seconds=seconds)})

    def claim_own(
        self,
        run_id: int,
        attempt: int,
        stream: str,
        nonce: str,
        worker: Owner,
        *,
        most: int | None = None,
        beside: Collection[str] = (),
    ) -> Claimed:
        """Claim a stream for the task that runs it, which has taken it with that.

        Args:
            run_id: The run.
            attempt: Its attempt, as the task has seen it.
            stream: The stream's name.
            nonce: Under which the task closes it.
            worker: The task's process, whose lease begins.
            most: Open streams that the attempt may have, with this one; None: any number.
            beside: Streams that must not be open meanwhile.

        Raises:
            LostRun: the run is not held by the owner of this store (any more).
        """
        with self._transactions.write_and_lease("claim_own") as connection:
            values = {"run_id": run_id}
            locked = self._transactions.ask_lock_owned(connection, run_id)
            counted = ask_counters(connection, run_id)
            is_one, names = one_of("stream", {stream, *beside})
            asked = connection.ask(_STATUSES.format(is_one=is_one), values | names)
            run = locked()
            failpoint("store.claim_own.locked")
            statuses = {row.stream: row.status for row in asked()}
            if run.attempt != attempt or statuses.get(stream) != UNCLAIMED:
                return "gone"
            if run.is_stopping:
                return "stopping"
            counters = counted()
            if run.cancel_requested:
                stop(connection, run, counters, CANCELLED)
                return "stopping"
            if most is not None and run.open_streams >= most:
                return "busy"
            if any(statuses.get(other) == RUNNING for other in beside):
                return "busy"
            self._claim(connection, run, stream, nonce, worker)
        return "claimed"

    def begin_held_attempt(
        self, run_id: int, former: int, plan: AttemptPlan, nonce: str, worker: Owner, *, hold_s: int
    ) -> bool:
        """Begin the next attempt, over the one stream of its plan, and claim it for the task that tries it again.

        The run is held and its attempt has ended, or it is finished.

        Args:
            run_id: The run.
            former: The attempt that has ended, as the task has seen it.
            plan: Of the next one.
            nonce: Under which the task closes the stream.
            worker: The task's process.
            hold_s: Seconds that a finished run is held from now on.

        Returns:
            False if the attempt is open, or another one has begun meanwhile: look again.

        Raises:
            AlreadyRunning: the pipeline has another active run, or a process has taken this one over.
            StateError: the run was cancelled.
            NotLatest: the pipeline has a later run.
        """
        try:
            with self._transactions.write_and_lease("begin_retry") as connection:
                run = self._transactions.lock(connection, run_id)
                if run.attempt != former or not run.has_ended:
                    return False
                if run.is_active:
                    self._end_former(connection, run)
                else:
                    self._take_up(connection, run, hold_s)
                set_run(connection, run_id, attempt=run.attempt + 1)
                begin_attempt(connection, run_id, run.attempt + 1, run.now)
                write_plan(connection, run.pipeline, run_id, run.attempt + 1, plan)
                self._plans.forget(run_id)
                begun = self._transactions.lock(connection, run_id)
                self._claim(connection, begun, plan.streams[0].stream, nonce, worker)
        except Conflict:  # a start has begun another run at the same moment
            return False
        return True

    def take_dead(self, run_id: int, attempt: int, stream: str, nonce: str, former: str, worker: Owner) -> bool:
        """Take an open stream whose task is dead, to close it by the ledger; False: it is not there to take any more.

        Raises:
            LostRun: the run is not held by the owner of this store (any more).
        """
        with self._transactions.write("take_dead") as connection:
            run = self._transactions.lock_owned(connection, run_id)  # waits for a close under way
            values = {"run_id": run_id, "number": attempt, "stream": stream, "nonce": nonce, "former": former}
            values |= {"worker": worker.encode(), "lease_until": lease_end(run.now)}
            return connection.value(_TAKE_DEAD, values) is not None

    def take_held_run(self, run_id: int) -> bool:
        """Become the owner of a mapped run of which no task lives; return False while one does. Idempotent.

        Raises:
            AlreadyRunning: another process has taken it over.
            RunFinished: it is finished.
        """
        with self._transactions.write("take_over") as connection:
            run = self._transactions.lock(connection, run_id)
            me = self._transactions.owner
            if not run.is_active:
                raise RunFinished(run_id)
            if run.owner == me:
                return True
            if run.hold_s is None:
                raise AlreadyRunning(run.pipeline, run_id, str(Owner.decode(run.owner)))
            if self._transactions.has_living_task(connection, run_id, run.attempt, run.now):
                return False
            set_run(connection, run_id, owner=me, lease_until=lease_end(run.now), hold_s=None)
            void_leases(connection, run.pipeline, run.owner, run.now)
            self._plans.forget(run_id)
        return True

    @staticmethod
    def _end_former(connection: StoreConnection, run: LockedRun) -> None:
        if run.hold_s is None:
            refuse_active(connection, run.pipeline)
        if run.cancel_requested:
            raise StateError(f"run {run.id} was cancelled: its streams are not tried again")
        # No task of it runs: its connections are closed, and `finish` calls the callbacks.
        release_gate(connection, run)

    def _take_up(self, connection: StoreConnection, run: LockedRun, hold_s: int) -> None:
        refuse_active(connection, run.pipeline)
        refuse_earlier(connection, run.pipeline, run.id)
        set_run(connection, run.id, is_active=True, cancel_requested_at=None)
        self._give(connection, run, hold_s)

    @staticmethod
    def _give(connection: StoreConnection, run: LockedRun, hold_s: int) -> None:
        owner = Owner.of_held_run().encode()
        until = run.now + timedelta(seconds=hold_s)
        set_run(connection, run.id, owner=owner, hold_s=hold_s, lease_until=until, late_at=None)

    def _claim(self, connection: StoreConnection, run: LockedRun, stream: str, nonce: str, worker: Owner) -> None:
        counters, rows = ask_counters(connection, run.id)(), ask_streams(connection, run.id, [stream])()
        claim_streams(connection, run, counters, rows)
        set_claims(connection, run, [stream], nonce)
        ask_take(connection, run.id, run.attempt, [stream], nonce, worker, run.now)()
        save_counters(connection, run, counters)
        save_attempt(connection, run)
        if run.hold_s is not None:
            set_run(connection, run.id, lease_until=run.now + timedelta(seconds=run.hold_s))


__all__ = ["Claimed", "MappedRunWrites"]
