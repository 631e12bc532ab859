"""Base of the run store: transactions, process identity, and the lock on the run's row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from ..errors import StateError
from .connection import StoreConnection
from .database import Database
from .model import RUNNING, LostRun
from .owner import Liveness, Owner
from .prefetch import Prefetch
from .statements import update
from .table_names import ATTEMPT, PIPELINE_RUN, STREAM_RUN

#: How long a run stays its owner's without a heartbeat, where its process is not visible; renewed every 10 s.
LEASE_S = 30.0

# Without the columns that hold documents: these would be decoded for every stream.
_RUN_FIELDS = ("id", "pipeline", "attempt", "is_active", "owner", "lease_until", "hold_s", "last_seq")
_LOCK_RUN = f"""SELECT {", ".join(_RUN_FIELDS)}, run_key, cancel_requested_at FROM {PIPELINE_RUN}
    WHERE id = :run_id FOR UPDATE"""
#: Of an attempt: the columns that every close changes.
_FIGURES = (
    "status",
    "stop_status",
    "open_streams",
    "unclaimed_streams",
    "failed_streams",
    "cancelled_streams",
    "error",
)
#: Condition on a run's latest attempt, for statements that are sent with the lock: its number is not known yet.
LATEST = f"run_id = :run_id AND attempt = (SELECT l.attempt FROM {PIPELINE_RUN} l WHERE l.id = :run_id)"
_ATTEMPT = f"SELECT {', '.join(_FIGURES)} FROM {ATTEMPT} WHERE {LATEST}"
_TAKEN = f"""SELECT worker, lease_until FROM {STREAM_RUN}
    WHERE run_id = :run_id AND attempt = :number AND status = '{RUNNING}' AND worker IS NOT NULL"""
_SAVE_ATTEMPT = update(ATTEMPT, (*_FIGURES, "ended_at"), "run_id = :run_id AND attempt = :number")


class LockedRun(Struct):
    """A run's row, locked until the transaction ends, and its latest attempt's figures.

    The transaction changes the figures here; `save_attempt` writes them.
    """

    id: int
    key: str
    pipeline: str
    attempt: int
    owner: str
    lease_until: datetime
    #: Of a mapped run; None: a process owns it.
    hold_s: int | None
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


class Transactions:
    """Every part of the store receives one: it opens transactions, and locks runs in the name of its process."""

    def __init__(self, database: Database, me: Owner, liveness: Liveness) -> None:
        """Use a database; `me` is the owner in whose name this store writes."""
        self.database = database
        self.me = me
        #: `me` as the store keeps it.
        self.owner = me.encode()
        self._liveness = liveness
        #: Of the outboxes whose queues are served.
        self.prefetches: list[Prefetch] = []
        self.read = database.read
        self.write = database.write
        self.now = database.now

    @contextmanager
    def write_and_lease(self, name: str) -> Iterator[StoreConnection]:
        """Open a transaction that may make deliveries due: at its end it leases them to waiting queues."""
        with ExitStack() as stack:
            leases = [stack.enter_context(prefetch.around()) for prefetch in self.prefetches]
            connection = stack.enter_context(self.write(name))
            yield connection
            for lease in leases:
                lease(connection)

    def lock(self, connection: StoreConnection, run_id: int) -> LockedRun:
        """Lock a run's row, then read: what is read before the lock may be out of date by then.

        Raises:
            StateError: the store has no such run.
        """
        return self.ask_lock(connection, run_id)()

    def lock_owned(self, connection: StoreConnection, run_id: int) -> LockedRun:
        """Lock a run's row.

        Raises:
            LostRun: this process does not own the run (any more).
        """
        return self.ask_lock_owned(connection, run_id)()

    def ask_lock(self, connection: StoreConnection, run_id: int) -> Callable[[], LockedRun]:
        """Send what `lock` executes; return what waits for it. What is asked in between comes with the same answer."""
        values = {"run_id": run_id}
        runs, attempts = connection.ask(_LOCK_RUN, values), connection.ask(_ATTEMPT, values)
        now = self.database.driver.ask_now(connection)

        def locked() -> LockedRun:
            for run in runs():
                attempt = next(iter(attempts()), None)
                if attempt is None:  # written with the run
                    raise StateError(
                        f"run store {self.database.url}: run {run_id} was torn; `recover` ends what is left"
                    )
                connection.now = now()
                return LockedRun(
                    key=run.run_key,
                    cancel_requested=run.cancel_requested_at is not None,
                    now=connection.now,
                    **{name: getattr(run, name) for name in _RUN_FIELDS},
                    **vars(attempt),
                )
            raise StateError(f"the run store knows no run {run_id}")

        return locked

    def ask_lock_owned(self, connection: StoreConnection, run_id: int) -> Callable[[], LockedRun]:
        """Send what `lock_owned` executes; see `ask_lock`."""
        locked = self.ask_lock(connection, run_id)

        def owned() -> LockedRun:
            run = locked()
            if run.owner != self.owner:
                raise LostRun(f"run {run_id} was taken over by {Owner.decode(run.owner)}")
            if not run.is_active:
                raise LostRun(f"run {run_id} is finished")
            return run

        return owned

    def is_alive(self, owner: str, lease_until: datetime, now: datetime, lasts_s: float = LEASE_S) -> bool:
        """Whether an owner is alive: decided by its process if that is visible, otherwise by its lease.

        A lease with twice its time left, or more, is of a clock that was ahead: an owner that lives has renewed it.
        """
        alive = self._liveness(Owner.decode(owner), self.me)
        return now < lease_until < now + timedelta(seconds=2 * lasts_s) if alive is None else alive

    def lives(self, worker: str, lease_until: datetime, now: datetime) -> bool:
        """Whether whoever has taken a stream lives: a process that is visible and frozen does, and its lease ends."""
        return lease_until > now and self.is_alive(worker, lease_until, now)

    def has_living_task(self, connection: StoreConnection, run_id: int, attempt: int, now: datetime) -> bool:
        """Whether the process lives that has taken an open stream of an attempt."""
        taken = connection.rows(_TAKEN, {"run_id": run_id, "number": attempt})
        return any(self.lives(row.worker, row.lease_until, now) for row in taken)


def lease_end(now: datetime) -> datetime:
    """Return until when a lease lasts that is renewed now."""
    return now + timedelta(seconds=LEASE_S)


def save_attempt(connection: StoreConnection, run: LockedRun) -> None:
    """Write the figures of a locked run's attempt."""
    connection.run(
        _SAVE_ATTEMPT,
        {
            "run_id": run.id,
            "number": run.attempt,
            **{name: getattr(run, name) for name in _FIGURES},
            "ended_at": run.now if run.has_ended else None,
        },
    )
