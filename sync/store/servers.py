"""The servers of a store, and what a server must know at each of its turns."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from syncblocks.connectors.struct_helpers import asdict

from .connection import Row, StoreConnection
from .model import RUNNING
from .owner import Owner
from .statements import insert, update
from .table_names import ATTEMPT, DELIVERY, PIPELINE_RUN, SCHEDULE, SERVER, TICK
from .ticks import Kind, is_free, is_offered
from .transactions import LEASE_S, Transactions, lease_end

if TYPE_CHECKING:
    from ..schedules import Schedule

#: A clock of the store that is behind for less is not worth a word.
BEHIND = timedelta(seconds=5)

# With all columns: the store may have an earlier version.
_SERVERS = f"SELECT * FROM {SERVER}"
_COLUMNS = "owner folder pipelines url version started_at lease_until"
_REPORT = f"""{insert(SERVER, _COLUMNS)} ON CONFLICT (owner) DO UPDATE
    SET folder = :folder, pipelines = :pipelines, url = :url, version = :version, lease_until = :lease_until"""
_RENEW = update(SERVER, "lease_until", "owner = :owner")
_LEAVE = f"DELETE FROM {SERVER} WHERE owner = :owner"
# Without options: an event may be large, and this is read at each turn.
_OPEN_TICKS = f"""SELECT id, pipeline, kind, due_at, state, owner, lease_until, not_before, offered_by, offered_until
    FROM {TICK} WHERE state = 'waiting' OR state = 'claimed' ORDER BY id"""
_ACTIVE = f"SELECT pipeline, owner, lease_until, hold_s FROM {PIPELINE_RUN} WHERE is_active = TRUE"
_LATE = f"""SELECT r.id, r.attempt, r.pipeline, r.owner, r.late_at FROM {PIPELINE_RUN} r
    JOIN {ATTEMPT} a ON a.run_id = r.id AND a.attempt = r.attempt
    WHERE r.is_active = TRUE AND r.late_at < :now AND a.status = '{RUNNING}'"""
_HELD_BACK = f"""SELECT pipeline, looked_at, is_paused, paused_until FROM {SCHEDULE}
    WHERE looked_at > :now OR is_paused = TRUE"""
_DUE = f"""SELECT DISTINCT pipeline, lease_owner, lease_until FROM {DELIVERY}
    WHERE is_open = TRUE AND (state = 'leased' OR not_before IS NULL OR not_before <= :now)"""


class LiveServer(Struct, frozen=True, kw_only=True):
    """A server that lives."""

    #: In words.
    owner: str
    folder: str
    pipelines: frozenset[str]
    #: Address of its pages.
    url: str | None
    #: None: it does not tell.
    version: str | None


class OrderedTick(Struct, frozen=True):
    """What decides when the process of a tick may start."""

    id: int
    pipeline: str
    kind: Kind
    due_at: datetime


class OpenTick(Struct, frozen=True):
    """A tick that has not ended."""

    tick: OrderedTick
    #: Whether a process may be started for it.
    is_startable: bool
    #: Whether a process has claimed it, or a server starts one.
    has_process: bool


class LateRun(Struct, frozen=True, kw_only=True):
    """A run that has not ended although its `run_timeout_s` is over."""

    id: int
    attempt: int
    pipeline: str
    #: Its process.
    owner: Owner
    #: Seconds since then.
    late_s: float


class Standing(Struct, frozen=True, kw_only=True):
    """How ticks, runs and schedules of a store stand, all at one moment."""

    now: datetime
    #: In the order in which they were made.
    ticks: tuple[OpenTick, ...]
    #: Pipelines whose active run is alive: its process, or the hold of a mapped run.
    alive: frozenset[str]
    #: Pipelines whose active run is one of a dead process.
    dead: frozenset[str]
    #: Pipelines whose schedule is paused.
    paused: frozenset[str]
    #: Pipeline -> a moment up to which its times are decided, which the store's clock has not reached.
    ahead: Mapping[str, datetime]


class Servers:
    """Each server has a row; its process or its lease says whether it lives."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def report(
        self,
        folder: str,
        pipelines: Mapping[str, Schedule | None],
        *,
        url: str | None = None,
        version: str | None = None,
    ) -> None:
        """Write which pipelines this server takes, with the schedule of each; forget the servers that are dead."""
        with self._transactions.write("report_server") as connection:
            now = self._transactions.now(connection)
            row: dict[str, Any] = {"owner": self._transactions.owner, "folder": folder, "started_at": now}
            row |= {"url": url, "version": version}
            row["pipelines"] = {name: encoded(schedule) for name, schedule in pipelines.items()}
            connection.run(_REPORT, row | {"lease_until": lease_end(now)})
            for other in connection.rows(_SERVERS):
                if not self._transactions.is_alive(other.owner, other.lease_until, now):
                    connection.run(_LEAVE, {"owner": other.owner})

    def renew(self) -> bool:
        """Extend the lease of this server; False: it must report anew."""
        with self._transactions.write("renew_server") as connection:
            until = lease_end(self._transactions.now(connection))
            return connection.changed(_RENEW, {"owner": self._transactions.owner, "lease_until": until}) == 1

    def leave(self) -> None:
        """Be no server any more. Idempotent."""
        with self._transactions.write("leave_server") as connection:
            connection.run(_LEAVE, {"owner": self._transactions.owner})

    def live(self) -> tuple[LiveServer, ...]:
        """Return the servers that live, of whatever version."""
        with self._transactions.read() as connection:
            if not self._transactions.database.driver.has_table(connection, SERVER):
                return ()
            rows = live_servers(self._transactions, connection, self._transactions.now(connection))
        return tuple(
            LiveServer(
                owner=str(Owner.decode(row.owner)),
                folder=row.folder,
                pipelines=frozenset(row.pipelines),
                url=vars(row).get("url"),
                version=vars(row).get("version"),
            )
            for row in rows
        )

    def is_served(self, pipeline: str) -> bool:
        """Whether a server lives that takes a pipeline."""
        with self._transactions.read() as connection:
            now = self._transactions.now(connection)
            return any(pipeline in each.pipelines for each in live_servers(self._transactions, connection, now))

    def standing(self) -> Standing:
        """Return how everything stands."""
        is_alive = self._transactions.is_alive
        with self._transactions.read() as connection:
            now = self._transactions.now(connection)
            ticks = connection.rows(_OPEN_TICKS)
            runs = connection.rows(_ACTIVE)
            held_back = connection.rows(_HELD_BACK, {"now": now})
        alive = {run.pipeline for run in runs if is_alive(run.owner, run.lease_until, now, run.hold_s or LEASE_S)}
        return Standing(
            now=now,
            ticks=tuple(self._open_tick(row, now) for row in ticks),
            alive=frozenset(alive),
            dead=frozenset({run.pipeline for run in runs} - alive),
            paused=frozenset(row.pipeline for row in held_back if is_paused(row, now)),
            ahead={row.pipeline: row.looked_at for row in held_back if row.looked_at > now},
        )

    def _open_tick(self, row: Row, now: datetime) -> OpenTick:
        may_claim = is_free(self._transactions, row, now)
        has_process = is_offered(self._transactions, row, now) or (row.state == "claimed" and not may_claim)
        tick = OrderedTick(row.id, row.pipeline, row.kind, row.due_at)
        return OpenTick(tick, may_claim and not has_process, has_process)

    def late_runs(self) -> tuple[LateRun, ...]:
        """Return the runs whose streams run although their `run_timeout_s` is over."""
        with self._transactions.read() as connection:
            now = self._transactions.now(connection)
            rows = connection.rows(_LATE, {"now": now})
        return tuple(
            LateRun(
                id=row.id,
                attempt=row.attempt,
                pipeline=row.pipeline,
                owner=Owner.decode(row.owner),
                late_s=(now - row.late_at).total_seconds(),
            )
            for row in rows
        )

    def due_pipelines(self, pipelines: Container[str]) -> frozenset[str]:
        """Return which of some pipelines have a delivery that is due, and that no living process has leased."""
        with self._transactions.read() as connection:
            now = self._transactions.now(connection)
            rows = [row for row in connection.rows(_DUE, {"now": now}) if row.pipeline in pipelines]
        return frozenset(
            row.pipeline
            for row in rows
            if row.lease_owner is None or not self._transactions.lives(row.lease_owner, row.lease_until, now)
        )


def live_servers(transactions: Transactions, connection: StoreConnection, now: datetime) -> list[Row]:
    """Return the rows of the servers that live."""
    return [row for row in connection.rows(_SERVERS) if transactions.is_alive(row.owner, row.lease_until, now)]


def encoded(schedule: Schedule | None) -> dict[str, Any] | None:
    """Return a schedule as the store keeps it; equal for equal schedules."""
    return None if schedule is None else dict(asdict(schedule))


def is_ahead(looked_at: datetime, now: datetime) -> bool:
    """Whether the times of a schedule are decided up to a moment that the store's clock will not reach soon."""
    return looked_at - now > BEHIND


def is_paused(row: Row, now: datetime) -> bool:
    """Whether the schedule of a row is paused at a moment."""
    return row.is_paused and (row.paused_until is None or now < row.paused_until)


def pause_end(row: Row) -> datetime:
    """Return the last moment of a pause that is over by itself; a time at `paused_until` is not skipped."""
    until: datetime = row.paused_until
    return until - timedelta(microseconds=1)
