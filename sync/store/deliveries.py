"""Deliveries as they are shown and changed by hand: lists, counts, histories, retries and replays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from callbacks.delivery import Delivery, Outcome

from ..errors import StateError
from .model import PIPELINE, AttemptPlan, CallbackSpec, DeliveryRecord, HistoryEntry
from .queue import history, records
from .recorded import delivery_kwargs, event_status
from .room import Room
from .tables import delivery as deliveries
from .tables import delivery_try as tries


class Deliveries:
    """Deliveries of one pipeline, over all of its runs."""

    def __init__(self, rooms: Room, pipeline: str) -> None:
        self._rooms = rooms
        self._database = rooms._database
        self._pipeline = pipeline
        self._me = rooms._owner

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
            return as_delivery(connection, row, self._spec(connection, row), attempt=max(1, row.attempts))

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
            delivery = as_delivery(connection, row, self._spec(connection, row), attempt=max(1, row.attempts))
            return delivery, row.tries + 1

    def end_replay(self, key: str, number: int, outcome: Outcome) -> None:
        """Record how a replay went; the delivery stays what it is."""
        with self._database.write("end_replay") as connection:
            now = self._database.now(connection)
            connection.execute(
                tries.insert(),
                as_try(key, number, "replayed", outcome, self._me, now - timedelta(seconds=outcome.duration_s), now),
            )

    def _spec(self, connection: Connection, row: Row[Any]) -> CallbackSpec:
        plan: AttemptPlan = self._rooms._plan(connection, row.run_id, row.attempt)
        found = next((spec for spec in plan.callbacks if spec.block == row.callback_block), None)
        if found is None:
            raise StateError(f"run {row.run_id} has no callback block {row.callback_block!r} in its plan")
        return found


def as_delivery(connection: Connection, row: Row[Any], spec: CallbackSpec, *, attempt: int) -> Delivery:
    """Compose what the dispatcher calls."""
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


def as_try(
    key: str, number: int, kind: str, outcome: Outcome | None, owner: str, started_at: datetime, ended_at: datetime
) -> dict[str, Any]:
    """Return the row of one call."""
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
