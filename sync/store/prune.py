"""Runs that are past the limits of a pipeline's history, and their removal with everything that the store has of them.

Other processes may run the pipeline meanwhile. A run that ended is changed by nobody but who retries or replays its
deliveries, so rows of deliveries go first, and the run's row goes last. What a killed process leaves is a run that has
fewer rows; the next prune removes the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from .connection import Row, StoreConnection
from .model import FAILURE, SUCCESS
from .runs import LATEST_RUN
from .statements import one_of
from .table_names import (
    ACTION,
    ATTEMPT,
    BLOCK_RUN,
    DELIVERY,
    DELIVERY_TRY,
    EVENT,
    PIPELINE_RUN,
    PROGRESS,
    RUN_LOG,
    STREAM_RUN,
    TICK,
    TYPE_COUNTER,
)
from .transactions import Transactions

#: Most rows that one transaction removes: it is short, since SQLite has one writer at a time.
MOST_ROWS = 1_000
#: A log has up to 1 MB: it counts as so many rows.
LOG_ROWS = 100
#: Runs that one look reads.
LOOK_RUNS = 100
#: Dead deliveries hold their run for so long after its end.
DEAD_HOLD = timedelta(days=365)
#: An order that comes again finds its tick for so long.
ORDER_HOLD = timedelta(days=7)

_BEGUN = f"(SELECT a.started_at FROM {ATTEMPT} a WHERE a.run_id = r.id AND a.attempt = 1)"
# The oldest of the newest runs that are kept.
_OLDEST_KEPT = f"""SELECT r.id, {_BEGUN} AS started_at
    FROM {PIPELINE_RUN} r WHERE r.pipeline = :pipeline ORDER BY r.id DESC LIMIT 1 OFFSET :offset"""
_ENDED = f"(SELECT a.ended_at FROM {ATTEMPT} a WHERE a.run_id = r.id AND a.attempt = r.attempt)"
_LOOK = f"""SELECT r.id, r.run_key, {_ENDED} AS ended_at FROM {PIPELINE_RUN} r
    WHERE r.pipeline = :pipeline AND r.id > :after AND r.id < :newest ORDER BY r.id LIMIT :most"""
_TICKS_OF = f"SELECT id FROM {TICK} WHERE {{is_one}}"

# Subqueries that search from the newest run backwards, by the index of the stream's runs: see `close`.
_NEWEST_OF_STREAM = f"""(SELECT n.run_id FROM {STREAM_RUN} n
    WHERE n.pipeline = r.pipeline AND n.stream = s.stream AND n.status IN ({{statuses}})
    ORDER BY n.run_id DESC, n.attempt DESC LIMIT 1)"""
_NEWEST_SUCCESS = _NEWEST_OF_STREAM.format(statuses=f"'{SUCCESS}'")
_NEWEST_END = _NEWEST_OF_STREAM.format(statuses=f"'{SUCCESS}', '{FAILURE}'")
_NEWEST_SCHEDULED = f"""(SELECT n.id FROM {TICK} n WHERE n.pipeline = t.pipeline AND n.kind = 'schedule'
    AND {{condition}} ORDER BY n.tick_key DESC LIMIT 1)"""
# The key of a tick of a callback begins with that of its delivery: delivered again, it finds the tick.
_ORDERED_BY = f"SELECT 1 FROM {DELIVERY} d WHERE d.idempotency_key = substr(t.tick_key, 1, 32) AND d.state <> 'done'"
#: Runs that stay whatever the limits. Parameters: ended_at (of `DEAD_HOLD`), due_at (of `ORDER_HOLD`).
_HELD = f"""SELECT r.id FROM {PIPELINE_RUN} r WHERE {{is_one}} AND (r.is_active = TRUE
    OR EXISTS (SELECT 1 FROM {DELIVERY} d WHERE d.run_id = r.id
        AND (d.is_open = TRUE OR (d.state = 'dead' AND {_ENDED} > :ended_at)))
    OR EXISTS (SELECT 1 FROM {TICK} t WHERE t.run_id = r.id AND (t.state IN ('waiting', 'claimed')
        OR (t.kind IN ('api', 'callback') AND t.due_at > :due_at)
        OR t.id = {_NEWEST_SCHEDULED.format(condition="n.run_id IS NOT NULL")}
        OR (t.kind = 'callback' AND {_ENDED} > :ended_at AND EXISTS ({_ORDERED_BY}))))
    OR EXISTS (SELECT 1 FROM {STREAM_RUN} s WHERE s.run_id = r.id AND s.status IN ('{SUCCESS}', '{FAILURE}')
        AND (s.run_id = {_NEWEST_SUCCESS} OR s.run_id = {_NEWEST_END})))"""
# A run that another prune has at the moment is left to it.
_LOCK = f"SELECT id FROM {PIPELINE_RUN} WHERE id = :run_id AND is_active = FALSE FOR UPDATE SKIP LOCKED"

#: Ended ticks that became no run. Parameters: due_at (of the limits), earliest (of `ORDER_HOLD`).
_WITHOUT_RUN = f"""SELECT t.id FROM {TICK} t WHERE t.pipeline = :pipeline AND t.state IN ('refused', 'skipped')
    AND t.run_id IS NULL AND t.due_at < :due_at AND (t.kind IN ('schedule', 'backfill') OR t.due_at < :earliest)
    AND t.id <> coalesce({_NEWEST_SCHEDULED.format(condition="n.tick_key IS NOT NULL")}, 0) LIMIT {MOST_ROWS}"""
_DELETE_ACTIONS = f"""DELETE FROM {ACTION} WHERE id IN (SELECT id FROM {ACTION}
    WHERE pipeline = :pipeline AND created_at < :earliest ORDER BY id LIMIT {MOST_ROWS})"""
_DELETE_TICKS = f"DELETE FROM {TICK} WHERE {{is_one}}"


def _part(table: str, key: str) -> str:
    """Return the statement that deletes at most :most of a run's rows of a table."""
    return f"""DELETE FROM {table} WHERE run_id = :run_id AND ({key}) IN (
        SELECT {key} FROM {table} WHERE run_id = :run_id LIMIT :most)"""


_DELIVERIES = (
    f"""DELETE FROM {DELIVERY_TRY} WHERE (idempotency_key, number) IN (SELECT t.idempotency_key, t.number
        FROM {DELIVERY} d JOIN {DELIVERY_TRY} t ON t.idempotency_key = d.idempotency_key
        WHERE d.run_id = :run_id LIMIT :most)""",
    # Looked at again under the row's lock: `callbacks retry` makes a dead delivery due.
    f"{_part(DELIVERY, 'idempotency_key')} AND is_open = FALSE",
)
_HAS_DELIVERY = f"SELECT 1 FROM {DELIVERY} WHERE run_id = :run_id LIMIT 1"
_LOGS = _part(RUN_LOG, "attempt")
_OTHERS = (
    _part(EVENT, "seq"),
    _part(BLOCK_RUN, "attempt, block, stream"),
    _part(TYPE_COUNTER, "attempt, block_type"),
    _part(STREAM_RUN, "attempt, stream"),
    _LOGS,
    _part(PROGRESS, "run_id"),
)
_LAST = (
    f"DELETE FROM {TICK} WHERE run_id = :run_id",
    f"DELETE FROM {ATTEMPT} WHERE run_id = :run_id",
    f"DELETE FROM {PIPELINE_RUN} WHERE id = :run_id",
)


#: What became of a run: `more`: it has further rows, which the next transaction deletes.
_Outcome = Literal["gone", "more", "held"]


class PastRun(Struct, frozen=True):
    """A run that goes."""

    id: int
    key: str


class Past(Struct, frozen=True):
    """A look at runs past the limits, the oldest first."""

    #: Those that go.
    runs: tuple[PastRun, ...]
    #: Numbers of their ticks.
    ticks: tuple[int, ...]
    #: How many others stay although they are past the limits.
    held: int
    #: The run from which the next look goes on; None: there are no more.
    last: int | None


class Pruning:
    """Removes old runs of a pipeline."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def past_runs(
        self, pipeline: str, *, keep: timedelta | None, keep_runs: int | None, after: int = 0, most: int = LOOK_RUNS
    ) -> Past:
        """Return runs past the limits that nothing holds.

        Args:
            pipeline: Whose runs.
            keep: How long a run is kept after its end.
            keep_runs: How many of the newest are kept.
            after: The run after which the look begins.
            most: Runs that the look reads.
        """
        with self._transactions.read() as connection:
            values = {"pipeline": pipeline, "after": after, "most": most}
            newest = connection.value(LATEST_RUN, values) or 0
            oldest = _oldest_kept(connection, pipeline, keep_runs)
            since = None if keep is None else self._transactions.now(connection) - keep
            found = []
            for row in connection.rows(_LOOK, {**values, "newest": newest}):
                is_old = since is not None and row.ended_at is not None and row.ended_at < since
                if not is_old and (oldest is None or row.id >= oldest.id):
                    break  # runs end in their order: none behind it is past a limit
                found.append(PastRun(row.id, row.run_key))
            held = self._held(connection, [run.id for run in found])
            runs = tuple(run for run in found if run.id not in held)
            is_one, ids = one_of("run_id", [run.id for run in runs])
            return Past(
                runs=runs,
                ticks=tuple(connection.column(_TICKS_OF.format(is_one=is_one), ids)) if runs else (),
                held=len(held),
                last=found[-1].id if len(found) == most else None,
            )

    def remove_runs(self, runs: Sequence[PastRun]) -> int:
        """Remove runs, in transactions of few rows; return how many are gone. One that is held by now stays."""
        removed, waiting = 0, [run.id for run in runs]
        while waiting:
            with self._transactions.write("prune") as connection:
                left = MOST_ROWS
                while waiting and left > 0:
                    deleted, outcome = self._remove(connection, waiting[0], left)
                    left -= deleted
                    removed += outcome == "gone"
                    if outcome != "more":
                        waiting.pop(0)
        return removed

    def ticks_without_run(self, pipeline: str, *, keep: timedelta | None, keep_runs: int | None) -> tuple[int, ...]:
        """Return ended ticks that became no run and are older than the runs that the limits keep; not all at once."""
        with self._transactions.read() as connection:
            now = self._transactions.now(connection)
            since = _since(connection, pipeline, now, keep, keep_runs)
            if since is None:
                return ()
            times = {"due_at": since, "earliest": now - ORDER_HOLD}
            return tuple(connection.column(_WITHOUT_RUN, {"pipeline": pipeline, **times}))

    def remove_ticks(self, ticks: Sequence[int]) -> None:
        """Remove ticks that have ended."""
        is_one, values = one_of("id", ticks)
        with self._transactions.write("prune_ticks") as connection:
            connection.run(_DELETE_TICKS.format(is_one=is_one), values)

    def remove_actions(self, pipeline: str, *, keep: timedelta | None, keep_runs: int | None) -> bool:
        """Remove actions that are older than the runs that the limits keep; return whether there may be more."""
        with self._transactions.write("prune_actions") as connection:
            since = _since(connection, pipeline, self._transactions.now(connection), keep, keep_runs)
            if since is None:
                return False
            return connection.changed(_DELETE_ACTIONS, {"pipeline": pipeline, "earliest": since}) == MOST_ROWS

    def _held(self, connection: StoreConnection, ids: Sequence[int]) -> frozenset[int]:
        if not ids:
            return frozenset()
        now: datetime = self._transactions.now(connection)
        is_one, values = one_of("id", ids)
        times = {"ended_at": now - DEAD_HOLD, "due_at": now - ORDER_HOLD}
        return frozenset(connection.column(_HELD.format(is_one=f"r.{is_one}"), {**values, **times}))

    def _remove(self, connection: StoreConnection, run_id: int, most: int) -> tuple[int, _Outcome]:
        """Delete at most so many of a run's rows; return how many, and what became of the run."""
        values = {"run_id": run_id}
        if connection.row(_LOCK, values) is None or self._held(connection, [run_id]):
            return 0, "held"
        left = most
        for part in (*_DELIVERIES, *_OTHERS):
            if part is _OTHERS[0] and connection.row(_HAS_DELIVERY, values) is not None:
                return most - left, "held"
            weight = LOG_ROWS if part is _LOGS else 1
            some = max(1, left // weight)
            number = connection.changed(part, {**values, "most": some})
            left -= number * weight
            if number == some:
                return most - left, "more"
        for statement in _LAST:
            left -= connection.changed(statement, values)
        return most - left, "gone"


def _since(
    connection: StoreConnection, pipeline: str, now: datetime, keep: timedelta | None, keep_runs: int | None
) -> datetime | None:
    """Return the time from which on the limits keep runs; None: they keep all."""
    oldest = _oldest_kept(connection, pipeline, keep_runs)
    limits = [] if keep is None else [now - keep]
    if oldest is not None and oldest.started_at is not None:
        limits.append(oldest.started_at)
    return max(limits, default=None)


def _oldest_kept(connection: StoreConnection, pipeline: str, keep_runs: int | None) -> Row | None:
    """Return the oldest run that `keep_runs` keeps; None: it keeps all."""
    if keep_runs is None:
        return None
    return connection.row(_OLDEST_KEPT, {"pipeline": pipeline, "offset": keep_runs - 1})


__all__ = ["Past", "PastRun", "Pruning"]
