"""Deliveries as they are shown and changed by hand: lists, counts, histories, retries and replays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from syncblocks.callbacks.delivery import Callbacks, Delivery, Outcome

from ..errors import StateError
from .base import Room
from .connection import Connection, Row, insert, one_of, update
from .model import PIPELINE, AttemptPlan, DeliveryRecord, HistoryEntry
from .queue import KEYS_AT_ONCE, history, records
from .recorded import delivery_kwargs, event_of
from .tables import DELIVERY, DELIVERY_TRY

DELIVERY_OF_KEY = f"SELECT * FROM {DELIVERY} WHERE idempotency_key = :idempotency_key"
_OPEN = f"FROM {DELIVERY} WHERE pipeline = :pipeline AND is_open = TRUE"
_COUNT_CALL = update(DELIVERY, "tries", "idempotency_key = :idempotency_key")
# Unlike that of a run, the error of a call is a text: a value named `error` would be JSON.
WRITE_TRY = insert(
    DELIVERY_TRY,
    "idempotency_key number outcome error output owner started_at ended_at duration_s",
).replace(":error", ":message")


class Deliveries:
    """Deliveries of one pipeline, over all of its runs."""

    def __init__(self, rooms: Room, pipeline: str, callbacks: Callbacks | None = None) -> None:
        self._rooms = rooms
        self._callbacks = callbacks
        self._database = rooms._database
        self._pipeline = pipeline
        self._me = rooms._owner

    def open_blocks(self) -> tuple[str, ...]:
        """Return the callback blocks that have something to deliver, of whatever run."""
        with self._database.read() as connection:
            statement = f"SELECT DISTINCT callback_block {_OPEN} ORDER BY callback_block"
            return tuple(connection.column(statement, {"pipeline": self._pipeline}))

    def counts(self, run_ids: Iterable[int] | None = None) -> dict[str, int]:
        """Return how many deliveries are "due" (or will be), "done" and "dead"; of given runs, or of all."""
        where, values = self._where(run_id=run_ids)
        with self._database.read() as connection:
            rows = connection.rows(
                f"SELECT d.state, count(*) AS number FROM {DELIVERY} d WHERE {where} GROUP BY d.state", values
            )
        by_state = {row.state: row.number for row in rows}
        return {
            "due": by_state.get("ready", 0) + by_state.get("leased", 0),
            "done": by_state.get("done", 0),
            "dead": by_state.get("dead", 0),
        }

    def open_data(self) -> frozenset[str]:
        """Return the paths of spooled data that some delivery may still need."""
        with self._database.read() as connection:
            statement = f"SELECT DISTINCT data {_OPEN} AND data IS NOT NULL"
            return frozenset(connection.column(statement, {"pipeline": self._pipeline}))

    def deliveries(
        self, *, run_id: int | None = None, states: Iterable[str] | None = None, limit: int = 100
    ) -> list[DeliveryRecord]:
        """Return deliveries with their tries, the latest run first, in queue order within it."""
        where, values = self._where(run_id=run_id, state=states)
        with self._database.read() as connection:
            return records(connection, where, values, limit)

    def dead(self, run_id: int | None = None) -> list[DeliveryRecord]:
        """Return the deliveries that were given up."""
        return self.deliveries(run_id=run_id, states=["dead"], limit=10_000)

    def retry(self, *, key: str | None = None, run_id: int | None = None) -> int:
        """Make dead deliveries due again, with all of their attempts; return how many.

        Args:
            key: Idempotency key of one.
            run_id: All dead ones of a run. Neither: all of the pipeline.
        """
        where, values = self._where(idempotency_key=key, run_id=run_id, state=["dead"])
        due = {"state": "ready", "is_open": True, "attempts": 0, "lost": 0, "not_before": None}
        with self._database.write("retry_deliveries") as connection:
            return connection.run(update(f"{DELIVERY} AS d", due, where), {**values, **due})

    def find(self, start: str) -> DeliveryRecord:
        """Return the delivery whose idempotency key begins so.

        Raises:
            StateError: none does, or several do.
        """
        with self._database.read() as connection:
            where, values = self._where()
            begins = f"{where} AND substr(d.idempotency_key, 1, :length) = :start"
            found = records(connection, begins, {**values, "length": len(start), "start": start}, 2)
        if len(found) != 1:
            what = "no delivery has" if not found else "several deliveries have"
            raise StateError(f"{what} a key that begins with {start!r}; `syncblocks callbacks history` shows the keys")
        return found[0]

    def states(self, keys: Sequence[str]) -> list[str]:
        """Return the states of deliveries: ready, leased, done or dead."""
        found: list[str] = []
        with self._database.read() as connection:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                is_one, values = one_of("idempotency_key", keys[start : start + KEYS_AT_ONCE])
                found += connection.column(f"SELECT state FROM {DELIVERY} WHERE {is_one}", values)
        return found

    def history(self, *, run_id: int | None = None, key: str | None = None, limit: int = 100) -> list[HistoryEntry]:
        """Return what became of each call, the latest first."""
        where, values = self._where(run_id=run_id, idempotency_key=key)
        with self._database.read() as connection:
            return history(connection, where, values, limit)

    def recorded(self, key: str) -> Delivery:
        """Return a delivery as it would be made now, of whatever state; leases nothing."""
        with self._database.read() as connection:
            row = self._of_key(connection, key)
            return self._delivery(connection, row, attempt=max(1, row.attempts))

    def begin_replay(self, key: str) -> tuple[Delivery, int]:
        """Count a call beside the queue of a delivery that is done or dead; return it, and the call's number.

        Raises:
            StateError: it is due, or being delivered: a replay could then overtake it.
        """
        with self._database.write("begin_replay") as connection:
            row = self._of_key(connection, key, is_locked=True)
            if row.is_open:
                raise StateError(
                    f"delivery {key[:12]} is still due: `syncblocks run` or `syncblocks callbacks retry` delivers it"
                )
            connection.run(_COUNT_CALL, {"idempotency_key": key, "tries": row.tries + 1})
            return self._delivery(connection, row, attempt=max(1, row.attempts)), row.tries + 1

    def end_replay(self, key: str, number: int, outcome: Outcome) -> None:
        """Record how a replay went; the delivery stays what it is."""
        with self._database.write("end_replay") as connection:
            now = self._database.now(connection)
            connection.run(
                WRITE_TRY,
                as_try(key, number, "replayed", outcome, self._me, now - timedelta(seconds=outcome.duration_s), now),
            )

    def _of_key(self, connection: Connection, key: str, *, is_locked: bool = False) -> Row:
        lock = " FOR UPDATE" if is_locked else ""
        row = connection.row(DELIVERY_OF_KEY + lock, {"idempotency_key": key})
        if row is None:
            raise StateError(f"the run store knows no delivery {key}")
        return row

    def _where(self, **wanted: Any) -> tuple[str, dict[str, Any]]:
        """Return the condition on a delivery `d` of the pipeline, by column; None: any value, a list: one of these."""
        conditions, values = ["d.pipeline = :pipeline"], {"pipeline": self._pipeline}
        for column, value in wanted.items():
            if value is None:
                continue
            is_one, named = one_of(column, [value] if isinstance(value, str | int) else list(value))
            conditions.append(f"d.{is_one}")
            values |= named
        return " AND ".join(conditions), values

    def _delivery(self, connection: Connection, row: Row, *, attempt: int) -> Delivery:
        """Compose what the dispatcher calls: the event as the store has it, and what the pipeline file says of it.

        Raises:
            StateError: this outbox knows no pipeline file.
        """
        if self._callbacks is None:
            raise StateError(
                f"the run store does not say what callback block {row.callback_block!r} of {self._pipeline!r} calls: "
                "its pipeline file is needed"
            )
        event = event_of(connection, row)
        delivery = Delivery(
            key=row.idempotency_key,
            callback_block=row.callback_block,
            function=row.function,
            attempt=attempt,
            kwargs=delivery_kwargs(connection, row, attempts=attempt),
            status=event.status,
            parent=event.parent,
            data=row.data,
            label=PIPELINE if row.block is None else f"{row.block}:{row.stream}",
        )
        plan: AttemptPlan = self._rooms._plan(connection, row.run_id, row.attempt)
        digests = {callback.block: callback.digest for callback in plan.callbacks}
        return self._callbacks.complete(delivery, digests.get(row.callback_block))


def as_try(
    key: str, number: int, kind: str, outcome: Outcome | None, owner: str, started_at: datetime, ended_at: datetime
) -> dict[str, Any]:
    """Return the row of one call."""
    return {
        "idempotency_key": key,
        "number": number,
        "outcome": kind,
        "message": None if outcome is None or outcome.error is None else _plain(outcome.error),
        "output": "" if outcome is None else _plain(outcome.output),
        "owner": owner,
        "started_at": started_at,
        "ended_at": ended_at,
        "duration_s": None if outcome is None else outcome.duration_s,
    }


def _plain(text: str) -> str:
    """Escape what no database takes as text."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
