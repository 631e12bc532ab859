"""The outbox of a pipeline: which delivery is next in a callback block's queue, and what became of it."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from callbacks.dispatcher import Delivery, Outcome

from ..errors import StateError
from ..failpoints import failpoint
from .ahead import Ahead, Hand
from .model import PIPELINE, AttemptPlan, CallbackSpec, DeliveryRecord, HistoryEntry
from .queue import DUE, IN_QUEUE, WAITING, history, records
from .recorded import delivery_kwargs, event_status
from .room import Room
from .tables import attempt as attempts
from .tables import delivery as deliveries
from .tables import delivery_try as tries

#: Backoff before a further attempt: full jitter below a bound that doubles from the first to the last of these.
BACKOFF_FIRST_S, BACKOFF_LAST_S = 1.0, 300.0
#: A lease whose owner died uses up no attempt, up to so many of a delivery: then the callback is what kills it.
LOST_LIMIT = 10
#: Beyond the callback's own timeout, until a lease of an owner that cannot be seen is void.
LEASE_GRACE_S = 30.0
#: When to look again for what this process cannot know the time of: a claim, a gate, another process.
LOOK_AGAIN_S = 1.0

LEASED_LOCKED = IN_QUEUE.with_for_update()

_SET = deliveries.update().where(deliveries.c.idempotency_key == sa.bindparam("at_key"))


class Outbox:
    """Deliveries of one pipeline, over all of its runs. Thread-safe; one queue a callback block."""

    def __init__(self, rooms: Room, pipeline: str, *, is_served: bool = False) -> None:
        """Share a store.

        Args:
            rooms: The store.
            pipeline: Whose deliveries.
            is_served: Its queues are served until `close`: what the store makes due meanwhile is leased to them ahead.
        """
        self._rooms = rooms
        self._database = rooms._database
        self._pipeline = pipeline
        self._me = rooms._me.encode()
        # Tells this outbox's leases from those of another one in the same process.
        self._token = secrets.token_hex(8)
        self._ahead = Ahead(self._lease_ahead)
        if is_served:
            rooms._aheads.append(self._ahead)

    def close(self) -> None:
        """Give back what was leased ahead and is not called any more; idempotent."""
        if self._ahead not in self._rooms._aheads:
            return
        self._rooms._aheads.remove(self._ahead)
        for _, hand in self._ahead.hands():
            with hand.lock:
                hand.is_waiting = False
                if hand.ahead is not None:
                    with self._database.write("give_back") as connection:
                        _give_back(connection, hand.ahead.key, self._token)
                    hand.ahead = None

    # -- the dispatcher's side -----------------------------------------------------------------------------------

    def lease(self, callback_block: str) -> Delivery | float | None:
        """Lease the next due delivery of a queue; its attempt is counted before the call.

        Returns:
            The delivery; or seconds until one may become due; or None: nothing open in this queue.
        """
        hand = self._ahead.hand(callback_block)
        with hand.lock:
            found = hand.take() or self._lease(callback_block, hand)
            hand.is_waiting = not isinstance(found, Delivery)
            return found

    def _lease(self, callback_block: str, hand: Hand) -> Delivery | float | None:
        queue = self._queue(callback_block)
        with self._database.read() as connection:
            now = self._database.now(connection)
            is_leased = self._leased(connection, queue) != []
            if not is_leased and connection.execute(DUE, {**queue, "now": now}).first() is None:
                return self._wait_s(connection, queue, now)
        with self._database.write("lease") as connection:
            self._database.lock_name(connection, self._queue_name(callback_block))
            now = self._database.now(connection)
            # Locked: a recovery that voids the leases of a dead process may be at these very rows.
            for held in connection.execute(LEASED_LOCKED, {**queue, "in_state": "leased"}).all():
                if self._is_held(held, now):
                    return LOOK_AGAIN_S
                is_mine = held.lease_owner == self._me
                if held.lease_token == self._token and held.idempotency_key != hand.called:
                    _give_back(connection, held.idempotency_key, self._token)
                    continue
                void(connection, held, now, is_lost=not is_mine, attempts=self._spec(connection, held).attempts)
            delivery = self._lease_due(connection, queue, now)
            found = self._wait_s(connection, queue, now) if delivery is None else delivery
        hand.called = None if delivery is None else delivery.key
        return found

    def _lease_due(self, connection: Connection, queue: dict[str, str], now: datetime) -> Delivery | None:
        """Lease the next due delivery of a queue in which none is leased."""
        row = connection.execute(DUE, {**queue, "now": now}).first()
        if row is None:
            return None
        spec = self._spec(connection, row)
        connection.execute(
            _SET,
            {
                "at_key": row.idempotency_key,
                "state": "leased",
                "attempts": row.attempts + 1,
                "tries": row.tries + 1,
                "not_before": None,
                "lease_owner": self._me,
                "lease_token": self._token,
                "leased_at": now,
                "lease_until": now + timedelta(seconds=spec.timeout_s + LEASE_GRACE_S),
            },
        )
        return _delivery(connection, row, spec, attempt=row.attempts + 1)

    def _lease_ahead(self, connection: Connection, callback_block: str) -> Delivery | None:
        """See `Ahead`: in the transaction that made it due."""
        queue = self._queue(callback_block)
        if not self._database.try_lock_name(connection, self._queue_name(callback_block)):
            return None
        if self._leased(connection, queue):
            return None
        delivery = self._lease_due(connection, queue, self._database.now(connection))
        failpoint("store.lease.ahead")
        return delivery

    def mark(self, delivery: Delivery, outcome: Outcome) -> str:
        """Record how a leased delivery went; return "done", "retry" or "dead".

        A lease that was void by then changes nothing: whoever has it now marks it.
        """
        verdict = self._mark(delivery, outcome)
        self._ahead.hand(delivery.callback_block).called = None
        return verdict

    def _mark(self, delivery: Delivery, outcome: Outcome) -> str:
        with self._database.write("mark") as connection:
            row = connection.execute(
                sa.select(deliveries).where(deliveries.c.idempotency_key == delivery.key).with_for_update()
            ).one()
            if row.state != "leased" or row.lease_token != self._token:
                return {"done": "done", "dead": "dead"}.get(row.state, "retry")
            now = self._database.now(connection)
            if not outcome.ok and outcome.kind == "interrupted":
                return void(connection, row, now, is_lost=True, attempts=delivery.attempts, outcome=outcome)
            _record_try(connection, row, now, outcome.kind, outcome)
            failed = "dead" if row.attempts >= delivery.attempts else "retry"
            verdict = "done" if outcome.ok else failed
            delay = timedelta(seconds=backoff_s(row.attempts)) if verdict == "retry" else None
            _release(connection, row, verdict, attempts=row.attempts, not_before=None if delay is None else now + delay)
            return verdict

    # -- the engine's side ---------------------------------------------------------------------------------------

    def release_gate(self, run_id: int) -> None:
        """Let the last events of the run's attempt be delivered: every connection is closed. Idempotent.

        Raises:
            LostRun: this process does not own the run.
        """
        with self._rooms._write_and_lease("release_gate") as connection:
            run = self._rooms._lock_mine(connection, run_id)
            connection.execute(
                attempts.update().where(attempts.c.run_id == run_id, attempts.c.attempt == run.attempt),
                {"is_gate_released": True},
            )

    def open_blocks(self) -> tuple[str, ...]:
        """Return the callback blocks that have something to deliver, of whatever run."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(deliveries.c.callback_block)
                .where(deliveries.c.pipeline == self._pipeline, deliveries.c.is_open)
                .distinct()
                .order_by(deliveries.c.callback_block)
            )
            return tuple(rows.scalars())

    def counts(self, run_ids: Iterable[int] | None = None) -> dict[str, int]:
        """Return how many deliveries are "due" (or will be), "done" and "dead"; of given runs, or of all."""
        where = [deliveries.c.pipeline == self._pipeline]
        if run_ids is not None:
            where.append(deliveries.c.run_id.in_(list(run_ids)))
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(deliveries.c.state, sa.func.count().label("number"))
                .where(*where)
                .group_by(deliveries.c.state)
            ).all()
        by_state = {row.state: row.number for row in rows}
        return {
            "due": by_state.get("ready", 0) + by_state.get("leased", 0),
            "done": by_state.get("done", 0),
            "dead": by_state.get("dead", 0),
        }

    def open_data(self) -> frozenset[str]:
        """Return the paths of spooled data that some delivery may still need."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(deliveries.c.data)
                .where(deliveries.c.pipeline == self._pipeline, deliveries.c.is_open, deliveries.c.data.is_not(None))
                .distinct()
            )
            return frozenset(rows.scalars())

    # -- the command line's side ---------------------------------------------------------------------------------

    def deliveries(
        self, *, run_id: int | None = None, states: Iterable[str] | None = None, limit: int = 100
    ) -> list[DeliveryRecord]:
        """Return deliveries with their tries, the latest run first, in queue order within it."""
        where = [deliveries.c.pipeline == self._pipeline]
        if run_id is not None:
            where.append(deliveries.c.run_id == run_id)
        if states is not None:
            where.append(deliveries.c.state.in_(list(states)))
        with self._database.read() as connection:
            return records(connection, where, limit)

    def dead(self, run_id: int | None = None) -> list[DeliveryRecord]:
        """Return the deliveries that were given up."""
        return self.deliveries(run_id=run_id, states=["dead"], limit=10_000)

    def retry(self, *, key: str | None = None, run_id: int | None = None) -> int:
        """Make dead deliveries due again, with all of their attempts; return how many.

        Args:
            key: Idempotency key of one.
            run_id: All dead ones of a run. Neither: all of the pipeline.
        """
        where = [deliveries.c.pipeline == self._pipeline, deliveries.c.state == "dead"]
        if key is not None:
            where.append(deliveries.c.idempotency_key == key)
        if run_id is not None:
            where.append(deliveries.c.run_id == run_id)
        with self._database.write("retry_deliveries") as connection:
            return connection.execute(
                deliveries.update().where(*where),
                {"state": "ready", "is_open": True, "attempts": 0, "lost": 0, "not_before": None},
            ).rowcount

    def find(self, start: str) -> DeliveryRecord:
        """Return the delivery whose idempotency key begins so.

        Raises:
            StateError: none does, or several do.
        """
        with self._database.read() as connection:
            key = deliveries.c.idempotency_key
            where = [deliveries.c.pipeline == self._pipeline, key.startswith(start, autoescape=True)]
            found = records(connection, where, 2)
        if len(found) != 1:
            what = "no delivery has" if not found else "several deliveries have"
            raise StateError(f"{what} a key that begins with {start!r}; `syncblocks callbacks history` shows the keys")
        return found[0]

    def states(self, keys: Sequence[str]) -> list[str]:
        """Return the states of deliveries: ready, leased, done or dead."""
        found: list[str] = []
        with self._database.read() as connection:
            for start in range(0, len(keys), 500):
                of_keys = deliveries.c.idempotency_key.in_(keys[start : start + 500])
                found += connection.execute(sa.select(deliveries.c.state).where(of_keys)).scalars()
        return found

    def history(self, *, run_id: int | None = None, key: str | None = None, limit: int = 100) -> list[HistoryEntry]:
        """Return what became of each call, the latest first."""
        where = [deliveries.c.pipeline == self._pipeline]
        if run_id is not None:
            where.append(deliveries.c.run_id == run_id)
        if key is not None:
            where.append(deliveries.c.idempotency_key == key)
        with self._database.read() as connection:
            return history(connection, where, limit)

    def recorded(self, key: str) -> Delivery:
        """Return a delivery as it would be made now, of whatever state; leases nothing."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(deliveries).where(deliveries.c.idempotency_key == key)).one()
            return _delivery(connection, row, self._spec(connection, row), attempt=max(1, row.attempts))

    def begin_replay(self, key: str) -> tuple[Delivery, int]:
        """Count a call beside the queue of a delivery that is done or dead; return it, and the call's number.

        Raises:
            StateError: it is due, or being delivered: a replay could then overtake it.
        """
        with self._database.write("begin_replay") as connection:
            of_key = deliveries.c.idempotency_key == key
            row = connection.execute(sa.select(deliveries).where(of_key).with_for_update()).one()
            if row.is_open:
                raise StateError(
                    f"delivery {key[:12]} is still due: `syncblocks run` or `syncblocks callbacks retry` delivers it"
                )
            connection.execute(deliveries.update().where(of_key), {"tries": row.tries + 1})
            delivery = _delivery(connection, row, self._spec(connection, row), attempt=max(1, row.attempts))
            return delivery, row.tries + 1

    def end_replay(self, key: str, number: int, outcome: Outcome) -> None:
        """Record how a replay went; the delivery stays what it is."""
        with self._database.write("end_replay") as connection:
            now = self._database.now(connection)
            connection.execute(
                tries.insert(),
                _try(key, number, "replayed", outcome, self._me, now - timedelta(seconds=outcome.duration_s), now),
            )

    # -- helpers -------------------------------------------------------------------------------------------------

    def _queue(self, callback_block: str) -> dict[str, str]:
        return {"pipeline": self._pipeline, "callback_block": callback_block}

    def _queue_name(self, callback_block: str) -> str:
        return f"syncblocks queue {self._pipeline}/{callback_block}"

    def _leased(self, connection: Connection, queue: dict[str, str]) -> list[Row[Any]]:
        return list(connection.execute(IN_QUEUE, {**queue, "in_state": "leased"}).all())

    def _is_held(self, row: Row[Any], now: datetime) -> bool:
        """Whether a lease still stands. One of this outbox does not: its queue asks for the next one."""
        if row.lease_owner == self._me and row.lease_token == self._token:
            return False
        return row.lease_until > now and self._rooms._is_alive(row.lease_owner, row.lease_until, now)

    def _wait_s(self, connection: Connection, queue: dict[str, str], now: datetime) -> float | None:
        row = connection.execute(WAITING, queue).one()
        if not row.number:
            return None
        if row.earliest is None or row.number > row.backing_off:
            return LOOK_AGAIN_S
        return max(0.0, float((row.earliest - now).total_seconds()))

    def _spec(self, connection: Connection, row: Row[Any]) -> CallbackSpec:
        plan: AttemptPlan = self._rooms._plan(connection, row.run_id, row.attempt)
        found = next((spec for spec in plan.callbacks if spec.block == row.callback_block), None)
        if found is None:
            raise StateError(f"run {row.run_id} has no callback block {row.callback_block!r} in its plan")
        return found


def backoff_s(attempt: int) -> float:
    """Return the pause after a failed attempt, counted from 1. Source: "full jitter"."""
    return random.uniform(0.0, min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 30)))


def void(
    connection: Connection,
    row: Row[Any],
    now: datetime,
    *,
    is_lost: bool,
    attempts: int,
    outcome: Outcome | None = None,
) -> str:
    """End a lease that nobody marked; lost (its process died) it uses up no attempt, up to a limit."""
    lost = row.lost + 1 if is_lost else row.lost
    is_counted = not is_lost or lost >= LOST_LIMIT
    counted = row.attempts if is_counted else row.attempts - 1
    _record_try(connection, row, now, "lost" if outcome is None else outcome.kind, outcome)
    verdict = "dead" if counted >= attempts else "retry"
    _release(connection, row, verdict, attempts=counted, lost=lost)
    return verdict


def _give_back(connection: Connection, key: str, token: str) -> None:
    """End a lease that led to no call: as if it had not been."""
    connection.execute(
        deliveries.update()
        .where(deliveries.c.idempotency_key == key, deliveries.c.state == "leased", deliveries.c.lease_token == token)
        .values(
            state="ready",
            attempts=deliveries.c.attempts - 1,
            tries=deliveries.c.tries - 1,
            lease_owner=None,
            lease_token=None,
            lease_until=None,
        )
    )


def void_leases(connection: Connection, pipeline: str, owner: str, now: datetime, rooms: Room) -> None:
    """End every lease of an owner that was found dead."""
    rows = connection.execute(
        sa.select(deliveries)
        .where(deliveries.c.pipeline == pipeline, deliveries.c.is_open, deliveries.c.lease_owner == owner)
        .with_for_update()
    ).all()
    for row in rows:
        plan = rooms._plan(connection, row.run_id, row.attempt)
        limits = {spec.block: spec.attempts for spec in plan.callbacks}
        void(connection, row, now, is_lost=True, attempts=limits.get(row.callback_block, 1))


def _release(
    connection: Connection,
    row: Row[Any],
    verdict: str,
    *,
    attempts: int,
    lost: int | None = None,
    not_before: datetime | None = None,
) -> None:
    state = "ready" if verdict == "retry" else verdict
    connection.execute(
        _SET,
        {
            "at_key": row.idempotency_key,
            "state": state,
            "is_open": state == "ready",
            "attempts": attempts,
            "lost": row.lost if lost is None else lost,
            "not_before": not_before,
            "lease_owner": None,
            "lease_token": None,
            "lease_until": None,
        },
    )


def _delivery(connection: Connection, row: Row[Any], spec: CallbackSpec, *, attempt: int) -> Delivery:
    return Delivery(
        key=row.idempotency_key,
        callback_block=row.callback_block,
        function=row.function,
        file=spec.file,
        attempt=attempt,
        attempts=spec.attempts,
        timeout_s=spec.timeout_s,
        kwargs=delivery_kwargs(connection, row, attempts=attempt),
        status=event_status(connection, row),
        when=spec.when,
        hook=spec.hook,
        data=row.data,
        label=PIPELINE if row.block is None else f"{row.block}:{row.stream}",
    )


def _record_try(connection: Connection, row: Row[Any], now: datetime, kind: str, outcome: Outcome | None) -> None:
    connection.execute(
        tries.insert(), _try(row.idempotency_key, row.tries, kind, outcome, row.lease_owner, row.leased_at, now)
    )


def _try(
    key: str, number: int, kind: str, outcome: Outcome | None, owner: str, started_at: datetime, ended_at: datetime
) -> dict[str, Any]:
    return {
        "idempotency_key": key,
        "number": number,
        "outcome": kind,
        "error": None if outcome is None or outcome.error is None else _plain(outcome.error),
        "output": "" if outcome is None else _plain(outcome.output),
        "owner": owner,
        "started_at": started_at,
        "ended_at": ended_at,
        "duration_s": None if outcome is None else outcome.duration_s,
    }


def _plain(text: str) -> str:
    """Escape what no database takes as text."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
