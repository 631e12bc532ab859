"""Deliveries as users see and change them: lists, counts, history, retry and replay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from syncblocks.callbacks.plain_text import plain_text
from syncblocks.callbacks.protocols import Callbacks, Delivery, Outcome

from ..errors import StateError
from .audit_log import note
from .connection import Answer, Row, StoreConnection, Values, value_of
from .event_kwargs import delivery_kwargs
from .model import PIPELINE, DeliveryRecord, DeliveryTry, HistoryEntry
from .plans import Plans
from .statements import insert, one_of, update
from .table_names import DELIVERY, DELIVERY_TRY, EVENT
from .transactions import Transactions

_DELIVERY = f"SELECT * FROM {DELIVERY} WHERE idempotency_key = :idempotency_key"
_OPEN = f"FROM {DELIVERY} WHERE pipeline = :pipeline AND is_open = TRUE"
_COUNT_CALL = update(DELIVERY, "tries", "idempotency_key = :idempotency_key")
_LATEST = "ORDER BY t.started_at DESC, t.idempotency_key, t.number DESC LIMIT :limit"
#: The latest calls of a pipeline, by index. They are limited before the join, which PostgreSQL may begin elsewhere.
_PAGE = f"(SELECT * FROM {DELIVERY_TRY} t WHERE t.pipeline = :pipeline {_LATEST})"
_LEFT = f"SELECT idempotency_key FROM {DELIVERY} WHERE pipeline = :pipeline AND"
#: State of a delivery that is not done -> the statement that finds such deliveries by a partial index.
_BY_STATE = {
    "dead": f"{_LEFT} state = 'dead'",
    **{state: f"{_LEFT} is_open = TRUE AND state = '{state}'" for state in ("ready", "leased")},
}
# `error` of a try is plain text: see `codecs`.
_WRITE_TRY = insert(
    DELIVERY_TRY,
    "idempotency_key number pipeline outcome error output owner started_at ended_at duration_s",
).replace(":error", ":message")
_TRY = "t.number, t.outcome, t.error AS message, t.output, t.owner, t.started_at, t.ended_at, t.duration_s"


class Deliveries:
    """Deliveries of one pipeline, over all of its runs."""

    def __init__(
        self, transactions: Transactions, plans: Plans, pipeline: str, callbacks: Callbacks | None = None
    ) -> None:
        self._transactions = transactions
        self._plans = plans
        self._pipeline = pipeline
        self._callbacks = callbacks

    def open_blocks(self) -> tuple[str, ...]:
        """Return the callback blocks with open deliveries, of all runs."""
        with self._transactions.read() as connection:
            statement = f"SELECT DISTINCT callback_block {_OPEN} ORDER BY callback_block"
            return tuple(connection.column(statement, {"pipeline": self._pipeline}))

    def open_runs(self) -> tuple[int, ...]:
        """Return the runs with open deliveries."""
        with self._transactions.read() as connection:
            return tuple(
                connection.column(f"SELECT DISTINCT run_id {_OPEN} ORDER BY run_id", {"pipeline": self._pipeline})
            )

    def counts(self, run_ids: Iterable[int] | None = None) -> dict[str, int]:
        """Return the numbers of deliveries "due" (now or later), "done" and "dead", of given runs or of all."""
        where, values = self._where(run_id=run_ids)
        with self._transactions.read() as connection:
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
        """Return the paths of spooled data that open deliveries need."""
        with self._transactions.read() as connection:
            statement = f"SELECT DISTINCT data {_OPEN} AND data IS NOT NULL"
            return frozenset(connection.column(statement, {"pipeline": self._pipeline}))

    def records(
        self,
        *,
        run_id: int | None = None,
        keys: Sequence[str] | None = None,
        states: Iterable[str] | None = None,
        limit: int = 100,
    ) -> list[DeliveryRecord]:
        """Return deliveries with their tries, the latest run first, in queue order within it.

        Args:
            run_id: Only of this run.
            keys: Only these.
            states: Only those that are "dead", "ready" or "leased".
            limit: Most deliveries.
        """
        where, values = self._where(run_id=run_id, idempotency_key=keys)
        if states is not None:
            where += f" AND d.idempotency_key IN ({' UNION ALL '.join(_BY_STATE[state] for state in states)})"
        with self._transactions.read() as connection:
            return _records(connection, where, values, limit)

    def retry(self, *, key: str | None = None, run_id: int | None = None, who: str | None = None) -> int:
        """Make dead deliveries due again, with all of their attempts; return how many.

        Args:
            key: Idempotency key of one.
            run_id: All dead ones of a run. Neither: all of the pipeline.
            who: See `actions`.
        """
        where, values = self._where(idempotency_key=key, run_id=run_id)
        due = {"state": "ready", "is_open": True, "attempts": 0, "lost": 0, "not_before": None}
        with self._transactions.write("retry_deliveries") as connection:
            number = connection.changed(
                update(f"{DELIVERY} AS d", due, f"{where} AND d.state = 'dead'"), {**values, **due}
            )
            if number and who is not None:
                if key is not None:
                    run_id = self.of_key(connection, key).run_id
                now = self._transactions.now(connection)
                note(connection, now, self._pipeline, who=who, what="deliver", run_id=run_id, key=key)
            return number

    def find(self, start: str) -> DeliveryRecord:
        """Return the delivery whose idempotency key begins with a prefix.

        Raises:
            StateError: no key or several keys do.
        """
        with self._transactions.read() as connection:
            where, values = self._where()
            # The index finds the range up to `g`, which follows the digits that keys are made of.
            is_near = "d.idempotency_key >= :start AND d.idempotency_key < :after"
            begins = f"{where} AND {is_near} AND substr(d.idempotency_key, 1, :length) = :start"
            prefix = {"length": len(start), "start": start, "after": f"{start}g"}
            found = _records(connection, begins, {**values, **prefix}, 2)
        if len(found) != 1:
            what = "no delivery has" if not found else "several deliveries have"
            raise StateError(f"{what} a key that begins with {start!r}; `syncblocks callbacks history` shows the keys")
        return found[0]

    def states(self, keys: Sequence[str]) -> list[str]:
        """Return the states of deliveries: ready, leased, done or dead."""
        is_one, values = one_of("idempotency_key", keys)
        with self._transactions.read() as connection:
            return connection.column(f"SELECT state FROM {DELIVERY} WHERE {is_one}", values)

    def history(self, *, run_id: int | None = None, key: str | None = None, limit: int = 100) -> list[HistoryEntry]:
        """Return the calls and their outcomes, the latest first."""
        where, values = self._where(run_id=run_id, idempotency_key=key)
        is_page = run_id is None and key is None
        with self._transactions.read() as connection:
            return _history(connection, where, values, limit, tries=_PAGE if is_page else DELIVERY_TRY)

    def recorded(self, key: str) -> Delivery:
        """Return a delivery in any state, as a call would get it now; lease nothing."""
        with self._transactions.read() as connection:
            row = self.of_key(connection, key)
            return self.compose(connection, row, attempt=max(1, row.attempts))

    def begin_replay(self, key: str) -> tuple[Delivery, int]:
        """Count a call outside the queue for a done or dead delivery; return the delivery and the call's number.

        Raises:
            StateError: it is due, or being delivered: a replay could then overtake it.
        """
        with self._transactions.write("begin_replay") as connection:
            row = self.of_key(connection, key, is_locked=True)
            if row.is_open:
                raise StateError(
                    f"delivery {key[:12]} is still due: `syncblocks run` or `syncblocks callbacks retry` delivers it"
                )
            connection.run(_COUNT_CALL, {"idempotency_key": key, "tries": row.tries + 1})
            return self.compose(connection, row, attempt=max(1, row.attempts)), row.tries + 1

    def end_replay(self, key: str, number: int, outcome: Outcome) -> None:
        """Record the outcome of a replay; the delivery keeps its state."""
        with self._transactions.write("end_replay") as connection:
            now = self._transactions.now(connection)
            began = now - timedelta(seconds=outcome.duration_s)
            write_try(
                connection, self._pipeline, key, number, "replayed", outcome, self._transactions.owner, began, now
            )

    # -- in the transaction of the outbox -------------------------------------------------------------------------

    def of_key(self, connection: StoreConnection, key: str, *, is_locked: bool = False) -> Row:
        """Return a delivery's row.

        Raises:
            StateError: there is none.
        """
        return self.ask_of_key(connection, key, is_locked=is_locked)()

    def ask_of_key(self, connection: StoreConnection, key: str, *, is_locked: bool = False) -> Callable[[], Row]:
        """Send the statement of `of_key`; return a function that reads its answer."""
        answer = connection.ask(_DELIVERY + (" FOR UPDATE" if is_locked else ""), {"idempotency_key": key})

        def row() -> Row:
            for found in answer():
                return found
            raise StateError(f"the run store knows no delivery {key}")

        return row

    def compose(self, connection: StoreConnection, row: Row, *, attempt: int, asked: Sequence[Answer] = ()) -> Delivery:
        """Compose a delivery for the dispatcher: the event from the store, the call from the pipeline file.

        `asked` comes from `ask_event`, if that was sent before.

        Raises:
            StateError: this outbox knows no pipeline file.
        """
        if self._callbacks is None:
            raise StateError(
                f"the run store does not know what callback block {row.callback_block!r} of {self._pipeline!r} calls: "
                "its pipeline file is needed"
            )
        kwargs, status, parent = delivery_kwargs(connection, row, attempts=attempt, asked=asked)
        delivery = Delivery(
            key=row.idempotency_key,
            callback_block=row.callback_block,
            function=row.function,
            attempt=attempt,
            kwargs=kwargs,
            status=status,
            parent=parent,
            data=row.data,
            label=PIPELINE if row.block is None else f"{row.block}:{row.stream}",
        )
        plan = self._plans.without_streams(connection, row.run_id, row.attempt)
        digests = {callback.block: callback.digest for callback in plan.callbacks}
        return self._callbacks.complete(delivery, digests.get(row.callback_block))

    # -- helpers -------------------------------------------------------------------------------------------------

    def _where(self, **wanted: Any) -> tuple[str, dict[str, Any]]:
        """Return the condition on a delivery `d`, by column: a value, one of a list of values, or None for any."""
        conditions, values = ["d.pipeline = :pipeline"], {"pipeline": self._pipeline}
        for column, value in wanted.items():
            if value is None:
                continue
            is_one, named = one_of(column, [value] if isinstance(value, str | int) else list(value))
            conditions.append(f"d.{is_one}")
            values |= named
        return " AND ".join(conditions), values


def write_try(
    connection: StoreConnection,
    pipeline: str,
    key: str,
    number: int,
    kind: str,
    outcome: Outcome | None,
    owner: str,
    started_at: datetime,
    ended_at: datetime,
) -> None:
    """Write the row of one call."""
    row = {
        "idempotency_key": key,
        "number": number,
        "pipeline": pipeline,
        "outcome": kind,
        "message": None if outcome is None or outcome.error is None else plain_text(outcome.error),
        "output": "" if outcome is None else plain_text(outcome.output),
        "owner": owner,
        "started_at": started_at,
        "ended_at": ended_at,
        "duration_s": None if outcome is None else outcome.duration_s,
    }
    connection.run(_WRITE_TRY, row)


def _records(connection: StoreConnection, where: str, values: Values, limit: int) -> list[DeliveryRecord]:
    """Read deliveries `d` with their tries, the latest run first."""
    rows = connection.rows(
        f"""SELECT d.*, e.status FROM {DELIVERY} d JOIN {EVENT} e ON e.run_id = d.run_id AND e.seq = d.seq
        WHERE {where} ORDER BY d.run_id DESC, d.seq, d.position LIMIT :limit""",
        {**values, "limit": limit},
    )
    calls: dict[str, list[DeliveryTry]] = defaultdict(list)
    is_one, values = one_of("idempotency_key", [row.idempotency_key for row in rows])
    statement = f"SELECT t.idempotency_key, {_TRY} FROM {DELIVERY_TRY} t WHERE t.{is_one}"
    for row in connection.rows(f"{statement} ORDER BY t.idempotency_key, t.number", values):
        calls[row.idempotency_key].append(_call(row))
    return [
        value_of(DeliveryRecord, row, key=row.idempotency_key, tries=tuple(calls[row.idempotency_key])) for row in rows
    ]


def _history(connection: StoreConnection, where: str, values: Values, limit: int, *, tries: str) -> list[HistoryEntry]:
    """Read calls with their deliveries `d`, the latest first."""
    rows = connection.rows(
        f"""SELECT {_TRY}, e.status,
            d.idempotency_key, d.run_id, d.attempt, d.callback_block, d.function, d.parent, d.stream
        FROM {tries} t JOIN {DELIVERY} d ON d.idempotency_key = t.idempotency_key
        JOIN {EVENT} e ON e.run_id = d.run_id AND e.seq = d.seq
        WHERE {where} {_LATEST}""",
        {**values, "limit": limit},
    )
    return [value_of(HistoryEntry, row, key=row.idempotency_key, call=_call(row)) for row in rows]


def _call(row: Row) -> DeliveryTry:
    return value_of(DeliveryTry, row, error=row.message)
