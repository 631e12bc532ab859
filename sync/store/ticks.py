"""Ticks: ordered starts of a pipeline. Each tick ends as exactly one run, or is skipped or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from ..errors import StateError
from .audit_log import note
from .connection import Row, StoreConnection, value_of
from .model import LostRun
from .statements import insert, update
from .table_names import TICK
from .transactions import Transactions, lease_end

#: A claim whose process died is taken again so many times; after that the tick is refused.
MOST_TAKEN_AGAIN = 3
#: How long a tick waits whose start has failed: from the first value it doubles up to the last.
DELAY_FIRST_S, DELAY_LAST_S = 10.0, 300.0
#: A server leaves a tick to another one at most so long, whatever is written there.
_MOST_OFFERED_S = 600.0

Kind = Literal["schedule", "api", "callback", "backfill", "retry"]

_TICK = f"SELECT * FROM {TICK} WHERE id = :id"
_LOCKED = f"{_TICK} FOR UPDATE"
_OF_KEY = f"SELECT * FROM {TICK} WHERE pipeline = :pipeline AND kind = :kind AND tick_key = :tick_key"
# A retry continues a run that another tick may have begun.
_OF_RUN = f"SELECT causes, full_refresh FROM {TICK} WHERE run_id = :run_id AND retries IS NULL"
_FORMER = f"""SELECT due_at FROM {TICK} WHERE pipeline = :pipeline AND kind = 'schedule' AND tick_key < :tick_key
    AND run_id IS NOT NULL ORDER BY tick_key DESC LIMIT 1"""
_OPEN = f"""SELECT * FROM {TICK} WHERE pipeline = :pipeline AND kind = :kind AND state IN ('waiting', 'claimed')
    ORDER BY id"""
_NUMBER_WAITING = f"""SELECT count(*) AS number FROM {TICK} WHERE pipeline = :pipeline AND state = 'waiting'
    AND kind <> 'schedule'"""
_IS_MINE = "id = :id AND state = 'claimed' AND owner = :owner"
_CARRY_OUT = update(TICK, "state run_id", _IS_MINE)
_RENEW = update(TICK, "lease_until", _IS_MINE)


class LostTick(LostRun):
    """The run of a tick does not begin, since another process has the tick by now."""


class OtherOrder(StateError):
    """The key of an order has a tick already, which was ordered with other options."""


class TooManyTicks(StateError):
    """As many ticks of a pipeline wait as may wait."""


class OrderedBy(Struct, frozen=True, kw_only=True):
    """Who orders a tick through a server."""

    who: str
    #: see `actions`.
    what: str = "run"
    stream: str | None = None
    #: Of the whole order, to tell whether it comes again; None: it does not.
    order_hash: str | None = None


class TickOptions(Struct, frozen=True, kw_only=True):
    """What the run of a tick is to do."""

    event: Mapping[str, Any] = {}
    variables: Mapping[str, Any] = {}
    #: Globs; None: all selected streams.
    streams: tuple[str, ...] | None = None
    full_refresh: bool = False
    #: Aware; None: the tick's own time.
    execution_date: datetime | None = None
    #: Start and end, aware, of what the run is for.
    interval: tuple[datetime, datetime] | None = None


_NO_OPTIONS = TickOptions()


class Tick(Struct, frozen=True, kw_only=True):
    """An ordered start, or its outcome."""

    id: int
    pipeline: str
    kind: Kind
    #: Unique among the ticks of a pipeline and kind. For kind `callback`: key of the delivery and number of its call.
    tick_key: str
    #: Its time: when it was ordered, or is due by a schedule.
    due_at: datetime
    #: First half of the run's `execution_partition`.
    trigger_id: str
    options: TickOptions
    #: Pipelines whose callbacks led to it, the first cause first.
    causes: tuple[str, ...]
    state: Literal["waiting", "claimed", "run", "skipped", "refused"]
    #: Why it was skipped or refused, or last given back.
    why: str | None
    #: Nobody may claim it earlier.
    not_before: datetime | None
    run_id: int | None
    #: Who has ordered it through a server.
    ordered_by: str | None
    #: Of kind `retry`: the run whose next attempt it is.
    retries: int | None


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
        causes: Sequence[str],
        kind: Kind = "callback",
        due_at: datetime | None = None,
        options: TickOptions = _NO_OPTIONS,
        by: OrderedBy | None = None,
        most_waiting: int | None = None,
    ) -> Tick:
        """Write a tick; if its key already has one, return that.

        Args:
            pipeline: What it starts.
            key: Unique among the ticks of the pipeline and kind.
            trigger: First half of the run's `execution_partition`.
            causes: Pipelines whose callbacks led to it, the first cause first.
            kind: Its kind.
            due_at: Its time, aware; None: now.
            options: What its run is to do.
            by: Who orders it through a server.
            most_waiting: How many ticks of the pipeline, but for those of its schedule, may wait.

        Raises:
            OtherOrder: the key has a tick, of another `order_hash`.
            TooManyTicks: more may not wait.
        """
        with self._transactions.write("order_tick") as connection:
            found = connection.row(_OF_KEY, {"pipeline": pipeline, "kind": kind, "tick_key": key})
            if found is None and most_waiting is not None and _number_waiting(connection, pipeline) >= most_waiting:
                raise TooManyTicks(f"{most_waiting} ticks of pipeline {pipeline!r} wait: order again later")
            row = found or write_tick(
                connection,
                due_at or self._transactions.now(connection),
                *(pipeline, kind, key, by),
                trigger_id=trigger,
                event=dict(options.event),
                variables=dict(options.variables),
                streams=options.streams,
                full_refresh=options.full_refresh,
                execution_date=options.execution_date,
                interval_start=None if options.interval is None else options.interval[0],
                interval_end=None if options.interval is None else options.interval[1],
                causes=list(causes),
            )
            if row.order_hash != (None if by is None else by.order_hash):
                raise OtherOrder(f"this key was used for another order of pipeline {pipeline!r}: take a new key")
            return decoded(row)

    def tick(self, number: int) -> Tick:
        """Return a tick.

        Raises:
            StateError: there is none.
        """
        with self._transactions.read() as connection:
            return decoded(_found(connection.row(_TICK, {"id": number}), number))

    def startable(self, pipeline: str, kind: Kind) -> tuple[Tick, ...]:
        """Return the ticks that a process may claim now, the oldest first."""
        with self._transactions.read() as connection:
            rows = connection.rows(_OPEN, {"pipeline": pipeline, "kind": kind})
            now = self._transactions.now(connection)
            return tuple(decoded(row) for row in rows if is_free(self._transactions, row, now))

    def offer(self, number: int, wait_s: float) -> bool:
        """Let no other server start a process for a tick meanwhile; give a schedule tick the start of its interval.

        The interval begins at the time of the last earlier schedule tick that became a run.

        Returns:
            False if the tick has ended, waits, is claimed, or another server starts its process.
        """
        with self._transactions.write("offer_tick") as connection:
            row = _found(connection.row(_LOCKED, {"id": number}), number)
            now = self._transactions.now(connection)
            if not is_free(self._transactions, row, now) or is_offered(self._transactions, row, now):
                return False
            offer: dict[str, Any] = {"offered_until": now + timedelta(seconds=wait_s)}
            offer["offered_by"] = self._transactions.owner
            if row.kind == "schedule":
                former = connection.value(_FORMER, {"pipeline": row.pipeline, "tick_key": row.tick_key})
                offer["interval_start"] = row.interval_start if former is None else former
            _set(connection, number, **offer)
            return True

    def claim(self, number: int) -> Tick | None:
        """Claim a tick for this process, which renews the claim until its run begins.

        Returns:
            None if the tick has ended, waits, or a live process has it.

        Raises:
            StateError: there is none.
        """
        with self._transactions.write("claim_tick") as connection:
            row = _found(connection.row(_LOCKED, {"id": number}), number)
            now = self._transactions.now(connection)
            if not is_free(self._transactions, row, now):
                return None
            if row.claims > MOST_TAKEN_AGAIN:
                _set(
                    connection, number, state="refused", why=f"its process died {row.claims} times before the run began"
                )
                return None
            claim = {"owner": self._transactions.owner, "lease_until": lease_end(now), "claims": row.claims + 1}
            claim["offered_until"] = None
            _set(connection, number, state="claimed", **claim)
            return decoded(row)

    def renew(self, number: int) -> bool:
        """Extend the claim of this process; False: the tick is not claimed by it any more."""
        with self._transactions.write("renew_tick") as connection:
            lease = {"owner": self._transactions.owner, "lease_until": lease_end(self._transactions.now(connection))}
            return connection.changed(_RENEW, {"id": number, **lease}) == 1

    def give_back(self, number: int, why: str | None = None) -> None:
        """Let a tick wait that this process has claimed, without counting the claim; else do nothing.

        `why`: what kept the run from beginning; nobody claims the tick for a while then.
        """
        with self._transactions.write("give_back_tick") as connection:
            row = self._mine(connection, number)
            if row is None:
                return
            back: dict[str, Any] = {"state": "waiting", "owner": None, "claims": row.claims - 1}
            if why is not None:
                back |= _delayed(row, why, self._transactions.now(connection))
            _set(connection, number, **back)

    def fail_start(self, number: int, why: str) -> bool:
        """Let a tick wait whose process ended before it claimed the tick.

        Returns:
            False if the tick has ended, waits already, is claimed, or its process is not one that this server started.
        """
        with self._transactions.write("fail_start") as connection:
            row = connection.row(_LOCKED, {"id": number})
            now = self._transactions.now(connection)
            if row is None or row.offered_by != self._transactions.owner or row.state != "waiting":
                return False
            if not is_free(self._transactions, row, now):
                return False
            _set(connection, number, offered_until=None, **_delayed(row, why, now))
            return True

    def refuse(self, number: int, why: str) -> None:
        """End a tick that this process has claimed, without a run; else do nothing."""
        with self._transactions.write("refuse_tick") as connection:
            if self._mine(connection, number) is not None:
                _set(connection, number, state="refused", why=why)

    def causes_of(self, run_id: int) -> tuple[str, ...]:
        """Return the pipelines whose callbacks led to a run, the first cause first."""
        with self._transactions.read() as connection:
            return tuple(connection.value(_OF_RUN, {"run_id": run_id}) or ())

    def replaces_tables(self, run_id: int) -> bool:
        """Whether a run was begun by a tick with `full_refresh`."""
        with self._transactions.read() as connection:
            row = connection.row(_OF_RUN, {"run_id": run_id})
            return row is not None and row.full_refresh

    def _mine(self, connection: StoreConnection, number: int) -> Row | None:
        """Lock a tick, and return its row if this process has claimed it."""
        row = connection.row(_LOCKED, {"id": number})
        is_mine = row is not None and row.state == "claimed" and row.owner == self._transactions.owner
        return row if is_mine else None


def is_free(transactions: Transactions, row: Row, now: datetime) -> bool:
    """Whether a process may claim a tick."""
    if row.state == "waiting":
        # A tick that waits for longer than the longest delay has its time from a clock that was ahead.
        return row.not_before is None or not now < row.not_before <= now + timedelta(seconds=DELAY_LAST_S)
    return row.state == "claimed" and not transactions.is_alive(row.owner, row.lease_until, now)


def _delayed(row: Row, why: str, now: datetime) -> dict[str, Any]:
    """Return what a tick has that waits because of a reason, longer each time."""
    delay = timedelta(seconds=min(DELAY_LAST_S, DELAY_FIRST_S * 2.0 ** min(row.delays, 30)))
    return {"why": why, "delays": row.delays + 1, "not_before": now + delay}


def is_offered(transactions: Transactions, row: Row, now: datetime) -> bool:
    """Whether a server that lives starts a process for a tick right now."""
    until = row.offered_until
    is_valid = until is not None and now < until <= now + timedelta(seconds=_MOST_OFFERED_S)
    return is_valid and transactions.is_alive(row.offered_by, until, now, _MOST_OFFERED_S)


def write_tick(
    connection: StoreConnection,
    due_at: datetime,
    pipeline: str,
    kind: Kind,
    key: str,
    by: OrderedBy | None,
    **values: Any,
) -> Row:
    """Write a tick and who has ordered it; if another process has written it meanwhile, return that."""
    row = {"pipeline": pipeline, "kind": kind, "tick_key": key, "due_at": due_at, "state": "waiting", "claims": 0}
    row |= {"ordered_by": None if by is None else by.who, "order_hash": None if by is None else by.order_hash}
    row |= {"event": {}, "variables": {}, "full_refresh": False, **values}
    number = connection.value(
        f"{insert(TICK, row)} ON CONFLICT (pipeline, kind, tick_key) DO NOTHING RETURNING id", row
    )
    if number is not None and by is not None:
        retried = values.get("retries")
        note(connection, due_at, pipeline, who=by.who, what=by.what, run_id=retried, stream=by.stream, tick=number)
    found = connection.row(_OF_KEY, {"pipeline": pipeline, "kind": kind, "tick_key": key})
    return _found(found, number or 0)


def carry_out(connection: StoreConnection, number: int, run_id: int, owner: str) -> None:
    """Write into a tick the run that carries it out, in the transaction that begins the run.

    Raises:
        LostTick: the process has not claimed the tick, or has it no more.
    """
    if connection.changed(_CARRY_OUT, {"id": number, "state": "run", "run_id": run_id, "owner": owner}) != 1:
        raise LostTick(f"tick {number} is not this process's: another one has taken it over")


def _number_waiting(connection: StoreConnection, pipeline: str) -> int:
    number: int = connection.value(_NUMBER_WAITING, {"pipeline": pipeline})
    return number


def _found(row: Row | None, number: int) -> Row:
    if row is None:
        raise StateError(f"the run store knows no tick {number}")
    return row


def _set(connection: StoreConnection, number: int, **values: Any) -> None:
    connection.run(update(TICK, values, "id = :id"), {"id": number, **values})


def decoded(row: Row) -> Tick:
    options = value_of(
        TickOptions,
        row,
        streams=None if row.streams is None else tuple(row.streams),
        interval=None if row.interval_start is None else (row.interval_start, row.interval_end),
    )
    return value_of(Tick, row, options=options, causes=tuple(row.causes))
