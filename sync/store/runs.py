"""Pipeline runs: begin, take over, retry, heartbeat, cancel, finish, and what there is to show of them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import AlreadyRunning, StateError
from .attempts import write_plan
from .model import RUNNING, SUCCESS, UNCLAIMED, AttemptPlan, BlockRun, PipelineRun, Renewal
from .outbox import void_leases
from .owner import Owner
from .room import RUN_WITH_ATTEMPT, Room, decode_error, decode_run, lease_end
from .tables import attempt as attempts
from .tables import block_run as block_runs
from .tables import pipeline_run as runs
from .tables import stream_run as stream_runs

# Asked before every stream.
_MINE = sa.select(runs.c.id).where(
    runs.c.id == sa.bindparam("of_run"), runs.c.owner == sa.bindparam("me"), runs.c.is_active
)


class Runs(Room):
    """A run is active from its beginning until its callbacks were delivered; one active run a pipeline."""

    def begin_run(
        self,
        pipeline: str,
        *,
        execution_date: datetime,
        trigger: str = "0",
        event: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        plan: AttemptPlan | None = None,
    ) -> PipelineRun:
        """Begin a run, owned by this process, in its first attempt.

        Args:
            pipeline: The pipeline's name.
            execution_date: Aware; constant over the run's attempts.
            trigger: Id of the trigger.
            event: What triggered the run, JSON.
            variables: JSON, references in place of secrets.
            plan: What is known already (the callbacks of `pipeline`), so that a run that dies before
                `begin_attempt` is told of, too.

        Raises:
            AlreadyRunning: the pipeline has an active run, alive or dead.
        """
        key = secrets.token_hex(16)
        with self._one_active(pipeline), self._database.write("begin_run") as connection:
            self._refuse_active(connection, pipeline)
            now = self._database.now(connection)
            run_id = connection.execute(
                runs.insert().returning(runs.c.id),
                {
                    "run_key": key,
                    "pipeline": pipeline,
                    "attempt": 1,
                    "is_active": True,
                    "owner": self._owner,
                    "lease_until": lease_end(now),
                    "execution_date": execution_date,
                    "trigger_id": trigger,
                    "event": dict(event or {}),
                    "variables": dict(variables or {}),
                    "last_seq": 0,
                },
            ).scalar_one()
            _begin_attempt(connection, run_id, 1, now)
            if plan is not None:
                write_plan(connection, run_id, 1, plan)
        return self.run(run_id)

    def begin_retry(self, run_id: int, *, plan: AttemptPlan | None = None) -> PipelineRun:
        """Begin the next attempt of a finished run, owned by this process.

        Raises:
            AlreadyRunning: the pipeline has an active run.
            StateError: the pipeline has a later run.
        """
        with self._one_active(self.run(run_id).pipeline), self._database.write("begin_retry") as connection:
            run = self._lock(connection, run_id)
            self._refuse_active(connection, run.pipeline)
            latest = connection.execute(sa.select(sa.func.max(runs.c.id)).where(runs.c.pipeline == run.pipeline))
            if (latest_id := latest.scalar_one()) != run_id:
                raise StateError(
                    f"run {run_id} is not the latest of pipeline {run.pipeline!r}: that is run {latest_id}"
                )
            connection.execute(
                runs.update().where(runs.c.id == run_id),
                {
                    "attempt": run.attempt + 1,
                    "is_active": True,
                    "owner": self._owner,
                    "lease_until": lease_end(run.now),
                    "cancel_requested_at": None,
                },
            )
            _begin_attempt(connection, run_id, run.attempt + 1, run.now)
            if plan is not None:
                write_plan(connection, run_id, run.attempt + 1, plan)
        return self.run(run_id)

    def take_over_run(self, run_id: int) -> PipelineRun:
        """Become the owner of an active run whose process is dead. Idempotent.

        Raises:
            AlreadyRunning: its process is alive.
            StateError: it is finished.
        """
        with self._database.write("take_over") as connection:
            run = self._lock(connection, run_id)
            me = self._owner
            if not run.is_active:
                raise StateError(f"run {run_id} is finished: there is nothing to take over")
            if run.owner != me and self._is_alive(run.owner, run.lease_until, run.now):
                raise AlreadyRunning(run.pipeline, run_id, str(Owner.decode(run.owner)))
            connection.execute(
                runs.update().where(runs.c.id == run_id), {"owner": me, "lease_until": lease_end(run.now)}
            )
            if run.owner != me:
                void_leases(connection, run.pipeline, run.owner, run.now, self)
            self._forget_plans(run_id)
        return self.run(run_id)

    def renew(self, run_id: int) -> Renewal:
        """Heartbeat: extend the lease, and learn whether somebody wants the run cancelled."""
        with self._database.write("renew") as connection:
            now = self._database.now(connection)
            changed = connection.execute(
                runs.update().where(self._is_mine(run_id)).values(lease_until=lease_end(now))
            ).rowcount
            requested = _cancel_requested(connection, run_id)
        return Renewal(is_mine=changed == 1, cancel_requested=requested)

    def is_owner(self, run_id: int) -> bool:
        """Whether this process may still write to the run."""
        with self._database.read() as connection:
            return connection.execute(_MINE, {"of_run": run_id, "me": self._owner}).one_or_none() is not None

    def owner_state(self, run: PipelineRun) -> str:
        """Return "alive" or "dead": at once for a process of this machine, else by its lease."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(runs.c.owner, runs.c.lease_until).where(runs.c.id == run.id)).one()
            return "alive" if self._is_alive(row.owner, row.lease_until, self._database.now(connection)) else "dead"

    def request_cancel(self, run_id: int) -> None:
        """Ask the run's owner, from whatever process, to cancel it. Idempotent.

        Raises:
            StateError: the run is finished.
        """
        with self._database.write("request_cancel") as connection:
            run = self._lock(connection, run_id)
            if not run.is_active:
                raise StateError(f"run {run_id} is finished: there is nothing to cancel")
            if not run.cancel_requested:
                connection.execute(runs.update().where(runs.c.id == run_id), {"cancel_requested_at": run.now})

    def cancel_requested(self, run_id: int) -> bool:
        """Whether somebody wants the run cancelled; cheap."""
        with self._database.read() as connection:
            return _cancel_requested(connection, run_id)

    def finish_run(self, run_id: int) -> None:
        """Set the run inactive, delivered or not. Idempotent.

        Raises:
            LostRun: this process does not own it.
            StateError: its attempt has not ended.
        """
        with self._database.write("finish_run") as connection:
            if self._is_finished_by_me(connection, run_id):
                return
            run = self._lock_mine(connection, run_id)
            if not run.has_ended:
                raise StateError(f"run {run_id} has not ended: end_attempt comes first")
            connection.execute(runs.update().where(runs.c.id == run_id), {"is_active": False})
            # A finished run holds no connections: whatever is left of it may be delivered by anybody.
            connection.execute(
                attempts.update().where(attempts.c.run_id == run_id, attempts.c.attempt == run.attempt),
                {"is_gate_released": True},
            )

    # -- to show -------------------------------------------------------------------------------------------------

    def run(self, run_id: int) -> PipelineRun:
        """Return a run.

        Raises:
            StateError: there is none.
        """
        found = self._runs(runs.c.id == run_id, limit=1)
        if not found:
            raise StateError(f"the run store knows no run {run_id}")
        return found[0]

    def active_run(self, pipeline: str) -> PipelineRun | None:
        """Return the pipeline's run that is not finished, its process alive or dead."""
        return next(iter(self._runs(runs.c.pipeline == pipeline, runs.c.is_active, limit=1)), None)

    def latest_run(self, pipeline: str) -> PipelineRun | None:
        """Return the pipeline's latest run."""
        return next(iter(self._runs(runs.c.pipeline == pipeline, limit=1)), None)

    def runs(self, pipeline: str | None = None, limit: int = 20) -> list[PipelineRun]:
        """Return runs, the latest first."""
        return self._runs(*([] if pipeline is None else [runs.c.pipeline == pipeline]), limit=limit)

    def block_runs(self, run_id: int, attempt: int | None = None) -> list[BlockRun]:
        """Return the block runs of an attempt (None: of all), ended ones in the order of their ending."""
        where = [block_runs.c.run_id == run_id]
        if attempt is not None:
            where.append(block_runs.c.attempt == attempt)
        with self._database.read() as connection:
            rows = connection.execute(sa.select(block_runs).where(*where).order_by(block_runs.c.position)).all()
        found = [decode_block_run(row) for row in rows]
        return sorted(
            found, key=lambda run: (run.attempt, run.ended_at is None, run.ended_at or run.started_at, run.stream)
        )

    def unfinished_streams(self, run_id: int) -> tuple[str, ...]:
        """Return the streams of a run that succeeded in none of its attempts, in run order."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(stream_runs.c.stream, stream_runs.c.status)
                .where(stream_runs.c.run_id == run_id)
                .order_by(stream_runs.c.attempt, stream_runs.c.position)
            ).all()
        succeeded = {row.stream for row in rows if row.status == SUCCESS}
        return tuple(dict.fromkeys(row.stream for row in rows if row.stream not in succeeded))

    def open_streams(self, run_id: int) -> tuple[str, ...]:
        """Return the streams of the latest attempt that are claimed and not closed, in run order."""
        return self._streams(run_id, RUNNING)

    def never_started(self, run_id: int) -> tuple[str, ...]:
        """Return the streams of the latest attempt that were never claimed, in run order."""
        return self._streams(run_id, UNCLAIMED)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _runs(self, *where: sa.ColumnElement[bool], limit: int) -> list[PipelineRun]:
        with self._database.read() as connection:
            rows = connection.execute(RUN_WITH_ATTEMPT.where(*where).order_by(runs.c.id.desc()).limit(limit))
            return [decode_run(row) for row in rows]

    def _streams(self, run_id: int, status: str) -> tuple[str, ...]:
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(stream_runs.c.stream)
                .join(runs, sa.and_(runs.c.id == stream_runs.c.run_id, runs.c.attempt == stream_runs.c.attempt))
                .where(runs.c.id == run_id, stream_runs.c.status == status)
                .order_by(stream_runs.c.position)
            )
            return tuple(rows.scalars())

    def _is_mine(self, run_id: int) -> sa.ColumnElement[bool]:
        return sa.and_(runs.c.id == run_id, runs.c.owner == self._owner, runs.c.is_active)

    def _is_finished_by_me(self, connection: Connection, run_id: int) -> bool:
        row = connection.execute(sa.select(runs.c.owner, runs.c.is_active).where(runs.c.id == run_id)).one_or_none()
        return row is not None and not row.is_active and row.owner == self._owner

    def _refuse_active(self, connection: Connection, pipeline: str) -> None:
        row = connection.execute(
            sa.select(runs.c.id, runs.c.owner).where(runs.c.pipeline == pipeline, runs.c.is_active)
        ).one_or_none()
        if row is not None:
            raise AlreadyRunning(pipeline, row.id, str(Owner.decode(row.owner)))

    def _one_active(self, pipeline: str) -> _OneActive:
        return _OneActive(self, pipeline)


class _OneActive:
    """Turn the unique index's refusal, where two processes begin at the same moment, into AlreadyRunning."""

    def __init__(self, rooms: Runs, pipeline: str) -> None:
        self._rooms = rooms
        self._pipeline = pipeline

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, sa.exc.IntegrityError):
            active = self._rooms.active_run(self._pipeline) or self._rooms.latest_run(self._pipeline)
            if active is not None:
                raise AlreadyRunning(self._pipeline, active.id, str(active.owner)) from error


def _begin_attempt(connection: Connection, run_id: int, number: int, now: datetime) -> None:
    connection.execute(
        attempts.insert(),
        {
            "run_id": run_id,
            "attempt": number,
            "status": RUNNING,
            "open_streams": 0,
            "unclaimed_streams": 0,
            "failed_streams": 0,
            "cancelled_streams": 0,
            "is_gate_released": False,
            "started_at": now,
        },
    )


def _cancel_requested(connection: Connection, run_id: int) -> bool:
    return connection.execute(sa.select(runs.c.cancel_requested_at).where(runs.c.id == run_id)).scalar() is not None


def decode_block_run(row: sa.Row[Any]) -> BlockRun:
    """Read a block run."""
    return BlockRun(
        run_id=row.run_id,
        attempt=row.attempt,
        block=row.block,
        block_type=row.block_type,
        stream=row.stream,
        destination_table=row.destination_table,
        status=row.status,
        index=row.type_index,
        is_last_block_run=row.is_last,
        rows=row.row_count,
        size_bytes=row.size_bytes,
        started_at=row.started_at,
        ended_at=row.ended_at,
        bookmark_before=row.bookmark_before,
        bookmark_after=row.bookmark_after,
        schema_changes=tuple(row.schema_changes or ()),
        error=decode_error(row.error),
        rows_rejected=row.rows_rejected,
    )
