"""Pipeline runs: begin, retry, takeover, heartbeat, cancel, finish, and lists to show."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from ..errors import AlreadyRunning, NothingToRetry, NotLatest, RunFinished, StateError
from .audit_log import note
from .connection import Conflict, Row, StoreConnection, value_of
from .model import (
    RUNNING,
    SUCCESS,
    UNCLAIMED,
    AttemptPlan,
    BlockRun,
    PipelineRun,
    RunStanding,
    StreamStatus,
    decode_error,
    holder_text,
)
from .outbox import release_gate, void_leases
from .owner import Owner
from .plans import Plans, write_plan
from .statements import insert, one_of, update
from .table_names import ATTEMPT, BLOCK_RUN, PIPELINE_RUN, STREAM_RUN, TICK
from .ticks import OrderedBy, Tick, carry_out, decoded, write_tick
from .transactions import LEASE_S, LockedRun, Transactions, lease_end

#: A run with its latest attempt, as `_decode_run` reads it; a condition on the run `r` follows.
_RUN_WITH_ATTEMPT = f"""SELECT r.*, a.status, a.stop_status, a.started_at, a.ended_at, a.error
    FROM {PIPELINE_RUN} r JOIN {ATTEMPT} a ON a.run_id = r.id AND a.attempt = r.attempt WHERE"""
_IS_MINE = "id = :run_id AND owner = :owner AND is_active = TRUE"
# Executed before every stream.
_MINE = f"SELECT id FROM {PIPELINE_RUN} WHERE {_IS_MINE}"
_OWNER = f"SELECT owner, lease_until, hold_s, is_active FROM {PIPELINE_RUN} WHERE id = :run_id"
_STANDINGS = f"SELECT id, is_active, owner, cancel_requested_at, watched_until FROM {PIPELINE_RUN} WHERE {{is_one}}"
# Waits for nobody: the streams of a run lock its row while they are closed.
_RENEW = f"""UPDATE {PIPELINE_RUN} SET lease_until = :lease_until WHERE id IN (SELECT id FROM {PIPELINE_RUN}
    WHERE {{is_one}} AND owner = :owner AND is_active = TRUE FOR UPDATE SKIP LOCKED) RETURNING id"""
_CANCEL_REQUESTED = f"SELECT cancel_requested_at FROM {PIPELINE_RUN} WHERE id = :run_id"
_ACTIVE = f"SELECT id, owner, hold_s, lease_until FROM {PIPELINE_RUN} WHERE pipeline = :pipeline AND is_active = TRUE"
_TRIGGER = f"SELECT trigger_id FROM {PIPELINE_RUN} WHERE id = :run_id"
_REFUSED_RETRIES = f"""SELECT count(*) AS number FROM {TICK} WHERE pipeline = :pipeline AND kind = 'retry'
    AND retries = :run_id AND state = 'refused'"""
LATEST_RUN = f"SELECT max(id) AS id FROM {PIPELINE_RUN} WHERE pipeline = :pipeline"
_STREAMS = f"""SELECT s.stream FROM {STREAM_RUN} s
    JOIN {PIPELINE_RUN} r ON r.id = s.run_id AND r.attempt = s.attempt
    WHERE r.id = :run_id AND s.status = :status ORDER BY s.position"""
_STATUSES = f"SELECT attempt, stream, status FROM {STREAM_RUN} WHERE run_id = :run_id ORDER BY attempt, position"


#: Keys of the runs that this process has left, and could not tell the store.
_LEFT: set[str] = set()


class Runs:
    """A run is active from its beginning until its callbacks are delivered. A pipeline has one active run."""

    def __init__(self, transactions: Transactions, plans: Plans) -> None:
        self._transactions = transactions
        self._plans = plans

    def begin_run(
        self,
        pipeline: str,
        *,
        execution_date: datetime,
        trigger: str = "0",
        event: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        interval: tuple[datetime, datetime] | None = None,
        tick: int | None = None,
        plan: AttemptPlan | None = None,
        limit_s: float | None = None,
    ) -> PipelineRun:
        """Begin a run, owned by this process, in its first attempt.

        Args:
            pipeline: The pipeline's name.
            execution_date: Aware; constant over the run's attempts.
            trigger: Id of the trigger.
            event: What triggered the run, JSON.
            variables: JSON, references in place of secrets.
            interval: Start and end, aware, of what the run is for.
            tick: The claimed tick that this run carries out.
            plan: What is known already (the callbacks of `pipeline`), so that a run that dies before
                `begin_attempt` is told of, too.
            limit_s: Seconds that its streams may take.

        Raises:
            AlreadyRunning: the pipeline has an active run, alive or dead.
            LostTick: this process has not claimed the tick, or has it no more.
        """
        key = secrets.token_hex(16)
        with self._one_active(pipeline), self._transactions.write("begin_run") as connection:
            refuse_active(connection, pipeline)
            now = self._transactions.now(connection)
            row = {
                "run_key": key,
                "pipeline": pipeline,
                "attempt": 1,
                "is_active": True,
                "owner": self._transactions.owner,
                "lease_until": lease_end(now),
                "execution_date": execution_date,
                "trigger_id": trigger,
                "event": dict(event or {}),
                "variables": dict(variables or {}),
                "interval_start": None if interval is None else interval[0],
                "interval_end": None if interval is None else interval[1],
                "late_at": _late_at(now, limit_s),
                "last_seq": 0,
            }
            run_id = connection.value(f"{insert(PIPELINE_RUN, row)} RETURNING id", row)
            begin_attempt(connection, run_id, 1, now)
            if tick is not None:
                carry_out(connection, tick, run_id, self._transactions.owner)
            if plan is not None:
                write_plan(connection, pipeline, run_id, 1, plan)
        return self.run(run_id)

    def begin_retry(
        self,
        run_id: int,
        *,
        tick: int | None = None,
        plan: AttemptPlan | None = None,
        limit_s: float | None = None,
    ) -> PipelineRun:
        """Begin the next attempt of a finished run, owned by this process; see `begin_run`.

        Raises:
            AlreadyRunning: the pipeline has an active run.
            NotLatest: the pipeline has a later run.
            LostTick: this process has not claimed the tick that the attempt carries out, or has it no more.
        """
        with self._one_active(self.run(run_id).pipeline), self._transactions.write("begin_retry") as connection:
            run = self._transactions.lock(connection, run_id)
            refuse_active(connection, run.pipeline)
            refuse_earlier(connection, run.pipeline, run_id)
            set_run(
                connection,
                run_id,
                attempt=run.attempt + 1,
                is_active=True,
                owner=self._transactions.owner,
                lease_until=lease_end(run.now),
                late_at=_late_at(run.now, limit_s),
                cancel_requested_at=None,
            )
            begin_attempt(connection, run_id, run.attempt + 1, run.now)
            if tick is not None:
                carry_out(connection, tick, run_id, self._transactions.owner)
            if plan is not None:
                write_plan(connection, run.pipeline, run_id, run.attempt + 1, plan)
        return self.run(run_id)

    def order_retry(self, run_id: int, by: OrderedBy) -> Tick:
        """Write a tick that retries a run; if one waits or is claimed already, return that.

        Raises:
            StateError: there is no such run.
            AlreadyRunning: it is active.
            NotLatest: the pipeline has a later run.
            NothingToRetry: it has succeeded.
        """
        with self._transactions.write("order_retry") as connection:
            run = self._transactions.lock(connection, run_id)
            refuse_earlier(connection, run.pipeline, run_id)
            refuse_active(connection, run.pipeline)
            if run.status == SUCCESS:
                raise NothingToRetry(
                    f"run {run_id} of pipeline {run.pipeline!r} has succeeded: nothing is to be retried"
                )
            # One that was refused makes room for another one.
            values = {"pipeline": run.pipeline, "run_id": run_id}
            key = f"{run_id}:{run.attempt}:{connection.value(_REFUSED_RETRIES, values)}"
            trigger = connection.value(_TRIGGER, values)
            more = {"trigger_id": trigger, "causes": [], "retries": run_id}
            return decoded(write_tick(connection, run.now, run.pipeline, "retry", key, by, **more))

    def reclaim_run(self, run_id: int) -> PipelineRun:
        """Become the owner of an active run whose process is dead. Idempotent.

        Raises:
            AlreadyRunning: its process is alive.
            RunFinished: it is finished.
        """
        with self._transactions.write("take_over") as connection:
            run = self._transactions.lock(connection, run_id)
            me = self._transactions.owner
            if not run.is_active:
                raise RunFinished(run_id)
            if run.owner != me and self._is_alive(run, run.now):
                holder = holder_text(Owner.decode(run.owner), run.hold_s, run.lease_until)
                raise AlreadyRunning(run.pipeline, run_id, holder)
            set_run(connection, run_id, owner=me, lease_until=lease_end(run.now), late_at=None, hold_s=None)
            if run.owner != me:
                void_leases(connection, run.pipeline, run.owner, run.now)
            self._plans.forget(run_id)
            _LEFT.discard(run.key)
        return self.run(run_id)

    def leave_run(self, run: PipelineRun) -> None:
        """Be the owner of a run no more that stays open: to the next start it is one of a dead process. Idempotent.

        This process takes it for one even if the store does not answer.
        """
        _LEFT.add(run.key)
        with self._transactions.write("leave") as connection:
            locked = self._transactions.lock(connection, run.id)
            if locked.owner == self._transactions.owner and locked.is_active:
                left = self._transactions.me.departed().encode()
                set_run(connection, run.id, owner=left, lease_until=locked.now)
        _LEFT.discard(run.key)

    def renew(self, run_ids: Collection[int]) -> frozenset[int]:
        """Extend the leases of this process's runs; return of which.

        A run whose row is locked at the moment is passed over, like one that another process has taken over.
        """
        is_one, values = one_of("id", run_ids)
        with self._transactions.write("renew", is_brief=True) as connection:
            lease = {"owner": self._transactions.owner, "lease_until": lease_end(self._transactions.now(connection))}
            return frozenset(connection.column(_RENEW.format(is_one=is_one), {**values, **lease}))

    def standings(self, run_ids: Collection[int]) -> Mapping[int, RunStanding]:
        """Return how runs stand for this process, all in one statement; with the time, if somebody watches one."""
        is_one, values = one_of("id", run_ids)
        with self._transactions.read() as connection:
            rows = connection.rows(_STANDINGS.format(is_one=is_one), values)
            now = self._transactions.now(connection) if any(row.watched_until is not None for row in rows) else None
        return {
            row.id: RunStanding(
                is_mine=row.is_active and row.owner == self._transactions.owner,
                cancel_requested=row.cancel_requested_at is not None,
                is_watched=row.watched_until is not None and now is not None and now < row.watched_until,
            )
            for row in rows
        }

    def is_owner(self, run_id: int) -> bool:
        """Whether this process may still write to the run."""
        with self._transactions.read() as connection:
            return connection.value(_MINE, {"run_id": run_id, "owner": self._transactions.owner}) is not None

    def owner_state(self, run: PipelineRun) -> str:
        """Return "alive" or "dead": at once for a process of this machine, else by its lease."""
        with self._transactions.read() as connection:
            row = connection.row(_OWNER, {"run_id": run.id})
            if row is None:
                raise StateError(f"the run store knows no run {run.id}")
            if run.key in _LEFT and row.owner == self._transactions.owner:
                return "dead"
            return "alive" if self._is_alive(row, self._transactions.now(connection)) else "dead"

    def _is_alive(self, run: LockedRun | Row, now: datetime) -> bool:
        return self._transactions.is_alive(run.owner, run.lease_until, now, run.hold_s or LEASE_S)

    def request_cancel(self, run_id: int, *, who: str | None = None) -> None:
        """Ask the run's owner, from whatever process, to cancel it. Idempotent.

        A mapped run is free for the next start as soon as none of its tasks lives. `who`: see `actions`.

        Raises:
            StateError: the run is finished.
        """
        with self._transactions.write("request_cancel") as connection:
            run = self._transactions.lock(connection, run_id)
            if not run.is_active:
                raise StateError(f"run {run_id} is finished: there is nothing to cancel")
            if who is not None:
                note(connection, run.now, run.pipeline, who=who, what="cancel", run_id=run_id)
            if not run.cancel_requested:
                set_run(connection, run_id, cancel_requested_at=run.now)
                if run.hold_s is not None:  # held no longer than its tasks live, which stop
                    is_busy = self._transactions.has_living_task(connection, run_id, run.attempt, run.now)
                    set_run(connection, run_id, lease_until=lease_end(run.now) if is_busy else run.now)

    def cancel_requested(self, run_id: int) -> bool:
        """Whether a cancel was requested; cheap."""
        with self._transactions.read() as connection:
            return connection.value(_CANCEL_REQUESTED, {"run_id": run_id}) is not None

    def finish_run(self, run_id: int) -> None:
        """Set the run inactive, delivered or not. Idempotent.

        Raises:
            LostRun: this process does not own it.
            StateError: its attempt has not ended.
        """
        with self._transactions.write("finish_run") as connection:
            if self._is_finished_by_me(connection, run_id):
                return
            run = self._transactions.lock_owned(connection, run_id)
            if not run.has_ended:
                raise StateError(f"run {run_id} has not ended: end_attempt comes first")
            set_run(connection, run_id, is_active=False)
            # A finished run holds no connections: any process may deliver its remaining events.
            release_gate(connection, run)

    # -- to show -------------------------------------------------------------------------------------------------

    def run(self, run_id: int) -> PipelineRun:
        """Return a run.

        Raises:
            StateError: there is none.
        """
        found = self._runs("r.id = :run_id", {"run_id": run_id}, limit=1)
        if not found:
            raise StateError(f"the run store knows no run {run_id}")
        return found[0]

    def active_run(self, pipeline: str) -> PipelineRun | None:
        """Return the pipeline's run that is not finished, its process alive or dead."""
        return self._first("r.pipeline = :pipeline AND r.is_active = TRUE", {"pipeline": pipeline})

    def latest_run(self, pipeline: str, trigger: str | None = None) -> PipelineRun | None:
        """Return the pipeline's latest run; `trigger`: of those with this trigger id."""
        if trigger is None:
            return self._first("r.pipeline = :pipeline", {"pipeline": pipeline})
        values = {"pipeline": pipeline, "trigger": trigger}
        return self._first("r.pipeline = :pipeline AND r.trigger_id = :trigger", values)

    def runs(self, pipeline: str | None = None, limit: int = 20, *, before: int | None = None) -> list[PipelineRun]:
        """Return runs, the latest first; `before`: only those with a lower id."""
        if pipeline is None:
            return self._runs("r.id > 0", {}, limit=limit)
        if before is not None:
            values = {"pipeline": pipeline, "before": before}
            return self._runs("r.pipeline = :pipeline AND r.id < :before", values, limit=limit)
        return self._runs("r.pipeline = :pipeline", {"pipeline": pipeline}, limit=limit)

    def block_runs(self, run_id: int, attempt: int | None = None) -> list[BlockRun]:
        """Return the block runs of an attempt (None: of all), ended ones in the order of their ending."""
        of_attempt = "" if attempt is None else "AND attempt = :number"
        with self._transactions.read() as connection:
            rows = connection.rows(
                f"SELECT * FROM {BLOCK_RUN} WHERE run_id = :run_id {of_attempt} ORDER BY position",
                {"run_id": run_id, "number": attempt},
            )
        found = [decode_block_run(row) for row in rows]
        return sorted(
            found, key=lambda run: (run.attempt, run.ended_at is None, run.ended_at or run.started_at, run.stream)
        )

    def block_runs_of(self, run_id: int, attempt: int, streams: Collection[str]) -> list[BlockRun]:
        """Return the block runs of some streams of an attempt, each stream's in pipeline order."""
        is_one, values = one_of("stream", streams)
        where = f"run_id = :run_id AND attempt = :number AND {is_one}"
        values |= {"run_id": run_id, "number": attempt}
        with self._transactions.read() as connection:
            rows = connection.rows(f"SELECT * FROM {BLOCK_RUN} WHERE {where} ORDER BY position", values)
        return [decode_block_run(row) for row in rows]

    def unfinished_streams(self, run_id: int) -> tuple[str, ...]:
        """Return the streams of a run that succeeded in none of its attempts, in run order."""
        with self._transactions.read() as connection:
            rows = connection.rows(_STATUSES, {"run_id": run_id})
        succeeded = {row.stream for row in rows if row.status == SUCCESS}
        return tuple(dict.fromkeys(row.stream for row in rows if row.stream not in succeeded))

    def stream_statuses(self, run_id: int) -> tuple[StreamStatus, ...]:
        """Return how each planned stream stands in each attempt, in run order."""
        with self._transactions.read() as connection:
            rows = connection.rows(_STATUSES, {"run_id": run_id})
        return tuple(StreamStatus(row.attempt, row.stream, row.status) for row in rows)

    def open_streams(self, run_id: int) -> tuple[str, ...]:
        """Return the streams of the latest attempt that are claimed and not closed, in run order."""
        return self._streams(run_id, RUNNING)

    def never_started(self, run_id: int) -> tuple[str, ...]:
        """Return the streams of the latest attempt that were never claimed, in run order."""
        return self._streams(run_id, UNCLAIMED)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _runs(self, where: str, values: Mapping[str, Any], limit: int) -> list[PipelineRun]:
        statement = f"{_RUN_WITH_ATTEMPT} {where} ORDER BY r.id DESC LIMIT :limit"
        with self._transactions.read() as connection:
            return [_decode_run(row) for row in connection.rows(statement, {**values, "limit": limit})]

    def _first(self, where: str, values: Mapping[str, Any]) -> PipelineRun | None:
        return next(iter(self._runs(where, values, limit=1)), None)

    def _streams(self, run_id: int, status: str) -> tuple[str, ...]:
        with self._transactions.read() as connection:
            return tuple(connection.column(_STREAMS, {"run_id": run_id, "status": status}))

    def _is_finished_by_me(self, connection: StoreConnection, run_id: int) -> bool:
        row = connection.row(_OWNER, {"run_id": run_id})
        return row is not None and not row.is_active and row.owner == self._transactions.owner

    @contextmanager
    def _one_active(self, pipeline: str) -> Iterator[None]:
        """Raise AlreadyRunning where two processes begin at the same moment, and the unique index refuses one."""
        try:
            yield
        except Conflict as error:
            active = self.active_run(pipeline) or self.latest_run(pipeline)
            if active is None:
                raise
            raise AlreadyRunning(pipeline, active.id, active.holder) from error


def refuse_active(connection: StoreConnection, pipeline: str) -> None:
    """Raise `AlreadyRunning` if the pipeline has an active run, alive or dead."""
    row = connection.row(_ACTIVE, {"pipeline": pipeline})
    if row is not None:
        raise AlreadyRunning(pipeline, row.id, holder_text(Owner.decode(row.owner), row.hold_s, row.lease_until))


def refuse_earlier(connection: StoreConnection, pipeline: str, run_id: int) -> None:
    """Raise `NotLatest` if the pipeline has a later run."""
    latest = connection.value(LATEST_RUN, {"pipeline": pipeline})
    if latest != run_id:
        raise NotLatest(pipeline, run_id, latest)


def begin_attempt(connection: StoreConnection, run_id: int, number: int, now: datetime) -> None:
    """Write an attempt that has no plan yet."""
    row = {
        "run_id": run_id,
        "attempt": number,
        "status": RUNNING,
        "open_streams": 0,
        "unclaimed_streams": 0,
        "failed_streams": 0,
        "cancelled_streams": 0,
        "is_gate_released": False,
        "started_at": now,
    }
    connection.run(insert(ATTEMPT, row), row)


def _late_at(now: datetime, limit_s: float | None) -> datetime | None:
    return None if limit_s is None else now + timedelta(seconds=limit_s)


def set_run(connection: StoreConnection, run_id: int, **values: Any) -> None:
    """Set columns of a run."""
    connection.run(update(PIPELINE_RUN, values, "id = :run_id"), {"run_id": run_id, **values})


def _decode_run(row: Row) -> PipelineRun:
    return value_of(
        PipelineRun,
        row,
        key=row.run_key,
        stopping=row.stop_status is not None or row.status != RUNNING,
        trigger=row.trigger_id,
        interval=None if row.interval_start is None else (row.interval_start, row.interval_end),
        owner=Owner.decode(row.owner),
        error=decode_error(row.error),
        cancel_requested=row.cancel_requested_at is not None,
    )


def decode_block_run(row: Row) -> BlockRun:
    """Return a block run from its row."""
    return value_of(
        BlockRun,
        row,
        index=row.type_index,
        is_last_block_run=row.is_last,
        rows=row.row_count,
        schema_changes=tuple(row.schema_changes or ()),
        notices=tuple(row.notices or ()),
        error=decode_error(row.error),
    )
