"""The outbox of a pipeline: leases the next delivery of a callback block's queue, and records its outcome."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from syncblocks.callbacks.protocols import Callbacks, Delivery, LeaseResult, NotDue, NothingOpen, Outcome

from ..failpoints import failpoint
from .connection import Answer, Row, StoreConnection
from .deliveries import Deliveries, write_try
from .delivery_backoff import BACKOFF_LAST_S, backoff_s
from .event_kwargs import ask_event
from .plans import Plans
from .prefetch import Prefetch, PrefetchSlot
from .queue_sql import DUE, LEASED, LOOK, RIPEN, RIPEN_STRAYED
from .statements import update
from .table_names import ATTEMPT, DELIVERY
from .transactions import LockedRun, Transactions

#: A delivery may lose this many leases without using up an attempt; after that its callback itself kills the owner.
LOST_LIMIT = 10
#: After more lost leases than this a delivery waits until the streams of a run have ended.
LOST_BEFORE_WORK = 1
_ANY = 2**31 - 1
#: A lease lasts this much longer than the callback's timeout, if its owner is not visible.
LEASE_GRACE_S = 30.0
#: When to look again if no time is known: the queue waits for a claim, a gate or another process.
LOOK_AGAIN_S = 1.0
_LONGEST = timedelta(seconds=BACKOFF_LAST_S)

_LEASED_LOCKED = f"{LEASED} FOR UPDATE"
_LEASE = update(
    DELIVERY,
    "state attempts tries not_before lease_owner lease_token leased_at lease_until",
    "idempotency_key = :idempotency_key",
)
_RELEASE = update(
    DELIVERY,
    "state is_open attempts lost not_before lease_owner lease_token lease_until",
    "idempotency_key = :idempotency_key",
)
_GIVE_BACK = f"""UPDATE {DELIVERY} SET state = 'ready', attempts = attempts - 1, tries = tries - 1,
        lease_owner = NULL, lease_token = NULL, lease_until = NULL
    WHERE idempotency_key = :idempotency_key AND state = 'leased' AND lease_token = :lease_token"""
_RELEASE_GATE = update(ATTEMPT, "is_gate_released", "run_id = :run_id AND attempt = :number")
_LEASED_BY = f"""SELECT * FROM {DELIVERY}
    WHERE pipeline = :pipeline AND is_open = TRUE AND lease_owner = :lease_owner FOR UPDATE"""


class StoreOutbox:
    """Queues of one pipeline's deliveries, over all of its runs. One queue for each callback block. Thread-safe."""

    def __init__(
        self,
        transactions: Transactions,
        plans: Plans,
        pipeline: str,
        callbacks: Callbacks | None = None,
        *,
        is_served: bool = False,
    ) -> None:
        """See `Store.outbox`."""
        self._transactions = transactions
        self._pipeline = pipeline
        #: Whether to skip a delivery that was cut short repeatedly: its callback may end this process too.
        self.holds_lost = False
        #: Retries that become due later are held; None: none are.
        self._last_retry: datetime | None = None
        #: Lists, counts, retries and replays deliveries.
        self.deliveries = Deliveries(transactions, plans, pipeline, callbacks)
        # Distinguishes this outbox's leases from those of another outbox in the same process.
        self._token = secrets.token_hex(8)
        self._prefetch = Prefetch(self._lease_for)
        if is_served:
            transactions.prefetches.append(self._prefetch)

    def close(self) -> None:
        """Give back prefetched deliveries, and prefetch no more. Idempotent."""
        if self._prefetch not in self._transactions.prefetches:
            return
        self._transactions.prefetches.remove(self._prefetch)
        for _, slot in self._prefetch.slots():
            with slot.lock:
                slot.is_waiting = False
                if slot.delivery is not None:
                    with self._transactions.write("give_back") as connection:
                        _give_back(connection, slot.delivery.key, self._token)
                    slot.delivery = None

    def hold_retries(self) -> None:
        """Give each delivery one try at most from now on: what fails is not repeated until this is called again."""
        with self._transactions.read() as connection:
            self._last_retry = self._transactions.now(connection)

    # -- the dispatcher's side -----------------------------------------------------------------------------------

    def lease(self, callback_block: str) -> LeaseResult:
        """Lease the next due delivery of a queue; its attempt is counted before the call.

        Returns:
            The delivery; or `NotDue`, if the queue has open deliveries; or `NothingOpen`.
        """
        slot = self._prefetch.slot(callback_block)
        with slot.lock:
            if (prefetched := slot.take()) is not None:
                return prefetched
        # Without the lock: meanwhile a transaction may prefetch a delivery that it makes due.
        idle = self._look(callback_block)
        with slot.lock:
            if (prefetched := slot.take()) is not None:
                return prefetched
            found = self._lease(callback_block, slot) if idle is None else idle
            slot.is_waiting = not isinstance(found, Delivery)
            return found

    def _look(self, callback_block: str) -> NotDue | NothingOpen | None:
        """Return None if something may be due, and a lease must be tried."""
        with self._transactions.read() as connection:
            row = self._ask_look(connection, self._queue(callback_block))()
            if row.is_leased or row.is_ready:
                return None
            now = None if row.earliest is None else self._retry_time(self._transactions.now(connection))
            is_ripe = now is not None and not now < row.earliest <= now + _LONGEST
            return None if is_ripe else _idle(row, now)

    def _lease(self, callback_block: str, slot: PrefetchSlot) -> LeaseResult:
        queue = self._queue(callback_block)
        with self._transactions.write("lease") as connection:
            self._transactions.database.driver.lock_name(connection, self._queue_name(callback_block))
            time = self._transactions.database.driver.ask_now(connection)
            # Locked: a takeover may void the same leases at the same time.
            leased = connection.ask(_LEASED_LOCKED, queue)
            now = time()
            for held in leased():
                if self._is_held(held, now):
                    return NotDue(LOOK_AGAIN_S)
                is_mine = held.lease_owner == self._transactions.owner
                if held.lease_token == self._token and held.idempotency_key != slot.called:
                    _give_back(connection, held.idempotency_key, self._token)
                    continue
                void(connection, held, now, is_lost=not is_mine)
            delivery = self._lease_due(connection, queue, now)
            if delivery is None and connection.changed(RIPEN_STRAYED, {**queue, "earliest": now + _LONGEST}):
                delivery = self._lease_due(connection, queue, now)
            idle_now = self._retry_time(now)
            found = _idle(self._ask_look(connection, queue)(), idle_now) if delivery is None else delivery
        slot.called = None if delivery is None else delivery.key
        return found

    def _lease_due(
        self,
        connection: StoreConnection,
        queue: dict[str, str],
        now: datetime,
        due: Answer | None = None,
        told: tuple[Row, Sequence[Answer]] | None = None,
    ) -> Delivery | None:
        """Lease the next due delivery of a queue in which none is leased.

        What was asked already: `due`; `told`, a delivery that may be the next one, with what `ask_event` asks of it.
        """
        while True:
            rows = (due or connection.ask(DUE, self._due(queue, now)))()
            due = None
            if any(row.not_before is not None for row in rows):
                connection.run(RIPEN, {**queue, "now": self._retry_time(now)})
                continue
            if not rows:
                return None
            (row,) = rows
            is_told = told is not None and (row.run_id, row.seq) == (told[0].run_id, told[0].seq)
            asked, told = (told[1] if told is not None and is_told else ()), None  # each answer can be read only once
            delivery = self.deliveries.compose(connection, row, attempt=row.attempts + 1, asked=asked)
            if delivery.missing is not None or row.attempts < delivery.attempts:
                break
            # Its last calls were lost, or the pipeline file now allows fewer attempts.
            _release(connection, row, "dead", attempts=row.attempts)
        connection.run(
            _LEASE,
            {
                "idempotency_key": row.idempotency_key,
                "state": "leased",
                "attempts": row.attempts + 1,
                "tries": row.tries + 1,
                "not_before": None,
                "lease_owner": self._transactions.owner,
                "lease_token": self._token,
                "leased_at": now,
                "lease_until": now + timedelta(seconds=delivery.timeout_s + LEASE_GRACE_S),
            },
        )
        return delivery

    def _lease_for(self, connection: StoreConnection, callback_block: str) -> Delivery | None:
        """Lease in the transaction that made the delivery due; see `Prefetch`."""
        queue = self._queue(callback_block)
        now = connection.now or self._transactions.now(connection)
        is_mine = self._transactions.database.driver.ask_try_lock_name(connection, self._queue_name(callback_block))
        leased, due = connection.ask(LEASED, queue), connection.ask(DUE, self._due(queue, now))
        # In most cases it is the delivery that this transaction has written.
        written = connection.written.get(callback_block)
        told = None if written is None else (written, ask_event(connection, written))
        if not is_mine() or leased():
            return None
        delivery = self._lease_due(connection, queue, now, due, told)
        failpoint("store.lease.ahead")
        return delivery

    def mark(self, delivery: Delivery, outcome: Outcome) -> str:
        """Record how a leased delivery went; return "done", "retry" or "dead".

        A void lease changes nothing: the new holder of the delivery marks it.
        """
        verdict = self._mark(delivery, outcome)
        self._prefetch.slot(delivery.callback_block).called = None
        return verdict

    def _mark(self, delivery: Delivery, outcome: Outcome) -> str:
        with self._transactions.write("mark") as connection:
            found = self.deliveries.ask_of_key(connection, delivery.key, is_locked=True)
            time = self._transactions.database.driver.ask_now(connection)
            row, now = found(), time()
            if row.state != "leased" or row.lease_token != self._token:
                return {"done": "done", "dead": "dead"}.get(row.state, "retry")
            if not outcome.ok and outcome.kind == "interrupted":
                return void(connection, row, now, is_lost=True, attempts=delivery.attempts, outcome=outcome)
            _record_try(connection, row, now, outcome.kind, outcome)
            # A missing function does not return: no retry.
            is_given_up = row.attempts >= delivery.attempts or outcome.kind == "missing"
            failed = "dead" if is_given_up else "retry"
            verdict = "done" if outcome.ok else failed
            delay = timedelta(seconds=backoff_s(row.attempts)) if verdict == "retry" else None
            _release(connection, row, verdict, attempts=row.attempts, not_before=None if delay is None else now + delay)
            return verdict

    # -- the engine's side ---------------------------------------------------------------------------------------

    def release_gate(self, run_id: int) -> None:
        """Open the gate: the last events of the attempt may be delivered, since every connection is closed. Idempotent.

        Raises:
            LostRun: this process does not own the run.
        """
        with self._transactions.write_and_lease("release_gate") as connection:
            release_gate(connection, self._transactions.lock_owned(connection, run_id))

    # -- helpers -------------------------------------------------------------------------------------------------

    def _queue(self, callback_block: str) -> dict[str, str]:
        return {"pipeline": self._pipeline, "callback_block": callback_block}

    @property
    def _most_lost(self) -> int:
        return LOST_BEFORE_WORK if self.holds_lost else _ANY

    def _due(self, queue: dict[str, str], now: datetime) -> dict[str, Any]:
        return {**queue, "now": self._retry_time(now), "most_lost": self._most_lost}

    def _retry_time(self, now: datetime) -> datetime:
        """Return up to which time retries are due."""
        return now if self._last_retry is None else min(now, self._last_retry)

    def _queue_name(self, callback_block: str) -> str:
        return f"syncblocks queue {self._pipeline}/{callback_block}"

    def _is_held(self, row: Row, now: datetime) -> bool:
        """Whether a lease is valid. A lease of this outbox is void: its queue already asks for the next delivery."""
        if row.lease_owner == self._transactions.owner and row.lease_token == self._token:
            return False
        lasts_s = (row.lease_until - row.leased_at).total_seconds()
        return row.lease_until > now and self._transactions.is_alive(row.lease_owner, row.lease_until, now, lasts_s)

    def _ask_look(self, connection: StoreConnection, queue: dict[str, str]) -> Callable[[], Row]:
        answer = connection.ask(LOOK, {**queue, "most_lost": self._most_lost})
        return lambda: answer()[0]


def _idle(row: Row, now: datetime | None) -> NotDue | NothingOpen:
    """Return why a queue has nothing to lease, from the row of `LOOK`; `now` is given if a retry has a time."""
    if row.has_others:
        return NotDue(LOOK_AGAIN_S)
    if row.earliest is None or now is None:
        return NothingOpen()
    return NotDue(max(0.0, float((row.earliest - now).total_seconds())))


def void(
    connection: StoreConnection,
    row: Row,
    now: datetime,
    *,
    is_lost: bool,
    attempts: int | None = None,
    outcome: Outcome | None = None,
) -> str:
    """End a lease that was not marked. Lost leases (their process died) use up no attempt, up to a limit.

    `attempts` is the delivery's limit; if None, its next lease decides whether the delivery is dead.
    """
    lost = row.lost + 1 if is_lost else row.lost
    is_counted = not is_lost or lost >= LOST_LIMIT
    counted = row.attempts if is_counted else row.attempts - 1
    _record_try(connection, row, now, "lost" if outcome is None else outcome.kind, outcome)
    verdict = "dead" if attempts is not None and counted >= attempts else "retry"
    _release(connection, row, verdict, attempts=counted, lost=lost)
    return verdict


def _give_back(connection: StoreConnection, key: str, token: str) -> None:
    """Undo a lease that led to no call."""
    connection.run(_GIVE_BACK, {"idempotency_key": key, "lease_token": token})


def release_gate(connection: StoreConnection, run: LockedRun) -> None:
    """Let the last events of the run's attempt be delivered."""
    connection.run(_RELEASE_GATE, {"run_id": run.id, "number": run.attempt, "is_gate_released": True})


def void_leases(connection: StoreConnection, pipeline: str, owner: str, now: datetime) -> None:
    """End every lease of an owner that was found dead."""
    for row in connection.rows(_LEASED_BY, {"pipeline": pipeline, "lease_owner": owner}):
        void(connection, row, now, is_lost=True)


def _release(
    connection: StoreConnection,
    row: Row,
    verdict: str,
    *,
    attempts: int,
    lost: int | None = None,
    not_before: datetime | None = None,
) -> None:
    state = "ready" if verdict == "retry" else verdict
    connection.run(
        _RELEASE,
        {
            "idempotency_key": row.idempotency_key,
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


def _record_try(connection: StoreConnection, row: Row, now: datetime, kind: str, outcome: Outcome | None) -> None:
    write_try(
        connection, row.pipeline, row.idempotency_key, row.tries, kind, outcome, row.lease_owner, row.leased_at, now
    )
