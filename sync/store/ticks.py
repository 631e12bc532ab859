"""Ticks: ordered starts of a pipeline. Each tick ends as exactly one run, or is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from ..errors import StateError
from .connection import Row, StoreConnection, value_of
from .statements import insert, update
from .table_names import TICK
from .transactions import Transactions

#: How long a claim by another machine's process is valid; it becomes a run as soon as that process has planned it.
CLAIM_S = 3600.0
#: A claim whose process died is taken again; after this many claims the tick is refused.
MOST_CLAIMS = 3

_TICK = f"SELECT * FROM {TICK} WHERE id = :id"
_LOCKED = f"{_TICK} FOR UPDATE"
_OF_KEY = f"SELECT * FROM {TICK} WHERE pipeline = :pipeline AND kind = :kind AND tick_key = :tick_key"
_OF_RUN = f"SELECT causes FROM {TICK} WHERE run_id = :run_id"
_CARRY_OUT = update(TICK, "state run_id", "id = :id AND state = 'claimed' AND owner = :owner")


class Tick(Struct, frozen=True, kw_only=True):
    """An ordered start, or its outcome."""

    id: int
    pipeline: str
    kind: Literal["callback"]
    #: For kind `callback`: key of the delivery and number of its call.
    tick_key: str
    #: Execution date of its run.
    due_at: datetime
    #: First half of the run's `execution_partition`.
    trigger_id: str
    event: Mapping[str, Any]
    variables: Mapping[str, Any]
    #: Pipelines whose callbacks led to it, the first cause first.
    causes: tuple[str, ...]
    state: Literal["waiting", "claimed", "run", "refused"]
    #: Why it was refused.
    why: str | None
    run_id: int | None


class Ticks:
    """The ticks of a store."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def order(
        self,
        pipeline: str,
        key: str,
        *,
        trigger: str,
        event: Mapping[str, Any],
        variables: Mapping[str, Any],
        causes: Sequence[str],
    ) -> Tick:
        """Write a tick of kind `callback`; if the key already has one, return that."""
        values: dict[str, Any] = {"pipeline": pipeline, "kind": "callback", "tick_key": key}
        with self._transactions.write("order_tick") as connection:
            found = connection.row(_OF_KEY, values)
            if found is None:
                values |= {
                    "due_at": self._transactions.now(connection),
                    "trigger_id": trigger,
                    "event": dict(event),
                    "variables": dict(variables),
                    "causes": list(causes),
                    "state": "waiting",
                    "claims": 0,
                }
                number = connection.value(f"{insert(TICK, values)} RETURNING id", values)
                found = connection.row(_TICK, {"id": number})
            return _decoded(_found(found, 0))

    def tick(self, number: int) -> Tick:
        """Return a tick.

        Raises:
            StateError: there is none.
        """
        with self._transactions.read() as connection:
            return _decoded(_found(connection.row(_TICK, {"id": number}), number))

    def claim(self, number: int) -> Tick | None:
        """Claim a tick for this process; None if it has ended, or a live process has it.

        Raises:
            StateError: there is none.
        """
        with self._transactions.write("claim_tick") as connection:
            row = _found(connection.row(_LOCKED, {"id": number}), number)
            tick = _decoded(row)
            now = self._transactions.now(connection)
            is_free = tick.state == "waiting" or (
                tick.state == "claimed" and not self._transactions.is_alive(row.owner, row.lease_until, now, CLAIM_S)
            )
            if not is_free:
                return None
            if row.claims >= MOST_CLAIMS:
                _set(
                    connection,
                    number,
                    state="refused",
                    why=f"its process died {MOST_CLAIMS} times before the run began",
                )
                return None
            until = now + timedelta(seconds=CLAIM_S)
            claim = {"owner": self._transactions.owner, "lease_until": until, "claims": row.claims + 1}
            _set(connection, number, state="claimed", **claim)
        return tick

    def give_back(self, number: int) -> None:
        """Return a tick to the queue without counting the claim, since its pipeline is running."""
        with self._transactions.write("give_back_tick") as connection:
            row = connection.row(_LOCKED, {"id": number})
            if row is not None and row.state == "claimed" and row.owner == self._transactions.owner:
                _set(connection, number, state="waiting", owner=None, claims=row.claims - 1)

    def refuse(self, number: int, why: str) -> None:
        """End a tick that this process has claimed, without a run."""
        with self._transactions.write("refuse_tick") as connection:
            row = connection.row(_LOCKED, {"id": number})
            if row is not None and row.state == "claimed" and row.owner == self._transactions.owner:
                _set(connection, number, state="refused", why=why)

    def causes_of(self, run_id: int) -> tuple[str, ...]:
        """Return the pipelines whose callbacks led to a run, the first cause first."""
        with self._transactions.read() as connection:
            return tuple(connection.value(_OF_RUN, {"run_id": run_id}) or ())


def carry_out(connection: StoreConnection, number: int, run_id: int, owner: str) -> None:
    """Write into a tick the run that carries it out, in the transaction that begins the run.

    Raises:
        StateError: the process has not claimed the tick.
    """
    if connection.changed(_CARRY_OUT, {"id": number, "state": "run", "run_id": run_id, "owner": owner}) != 1:
        raise StateError(f"tick {number} is not claimed by this process")


def _found(row: Row | None, number: int) -> Row:
    if row is None:
        raise StateError(f"the run store knows no tick {number}")
    return row


def _set(connection: StoreConnection, number: int, **values: Any) -> None:
    connection.run(update(TICK, values, "id = :id"), {"id": number, **values})


def _decoded(row: Row) -> Tick:
    return value_of(Tick, row, causes=tuple(row.causes))
