"""What pages show of many runs at once. Short reads by index; a list of runs continues at the number of a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from .audit_log import Action
from .connection import Row, StoreConnection, value_of
from .model import DATA_EXPORTER, DATA_LOADER, FAILURE, ErrorInfo, decode_error
from .statements import one_of
from .table_names import (
    ACTION,
    ALERT,
    ATTEMPT,
    BLOCK_RUN,
    DELIVERY,
    DELIVERY_TRY,
    EVENT,
    PIPELINE_RUN,
    STATE,
    STREAM_RUN,
    TICK,
)
from .transactions import LEASE_S, Transactions

#: Runs of the strip that shows how a pipeline went.
STRIP_RUNS = 30
#: Most deliveries of a pipeline that are counted.
MOST_COUNTED = 1000
#: Runs that one list looks through for what its filters leave over.
MOST_SEARCHED = 5000
#: Most entries of a kind that lie between the runs of one list.
MOST_BETWEEN = 200
ANY_ID = 2**62
BY_HAND = "by hand"

_EARLIEST = datetime.fromisoformat("0001-01-02T00:00:00+00:00")
_LATEST = datetime.fromisoformat("9999-12-30T00:00:00+00:00")

_OF_RUN = f"JOIN {ATTEMPT} a ON a.run_id = r.id AND a.attempt = r.attempt"
_NAMES = "unnest(CAST(:in_pipeline AS TEXT[])) AS p (value)"
_OF_ATTEMPT = f"FROM {ATTEMPT} a WHERE a.run_id = r.id AND a.attempt = r.attempt"
# Not joined with the attempts: PostgreSQL would read all of them.
_STRIP = f"""SELECT r.pipeline, r.id, r.attempt, (SELECT a.status {_OF_ATTEMPT}) AS status,
    (SELECT a.error {_OF_ATTEMPT}) AS error FROM {_NAMES} JOIN {PIPELINE_RUN} r
    ON r.pipeline = p.value AND r.id > coalesce((SELECT o.id FROM {PIPELINE_RUN} o
        WHERE o.pipeline = p.value ORDER BY o.id DESC LIMIT 1 OFFSET {STRIP_RUNS}), 0)
    ORDER BY r.id DESC"""
_COUNTED = f"""(SELECT count(*) FROM (SELECT 1 FROM {DELIVERY} d WHERE d.pipeline = p.value
    AND {{condition}} LIMIT {MOST_COUNTED}) c)"""
_DELIVERIES_LEFT = f"""SELECT p.value AS pipeline, {_COUNTED.format(condition="d.state = 'dead'")} AS dead,
    {_COUNTED.format(condition="d.is_open = TRUE")} AS open FROM {_NAMES}"""
_ROWS = f"""SELECT run_id, sum(row_count) AS written, count(*) - count(row_count) AS unknown FROM {BLOCK_RUN}
    WHERE {{is_one}} AND block_type = '{DATA_EXPORTER}' GROUP BY run_id"""

_FAILED = f"""SELECT block, stream, error, ended_at FROM {BLOCK_RUN}
    WHERE run_id = :run_id AND attempt = :attempt AND status = 'failure' ORDER BY ended_at, position LIMIT 1"""

# A retry continues a run that another tick has begun, or nobody's.
_KIND = f"(SELECT t.kind FROM {TICK} t WHERE t.run_id = r.id AND t.retries IS NULL)"
_RUNS = f"""SELECT r.*, a.status, a.started_at, a.ended_at, a.error, {_KIND} AS kind FROM (
        SELECT id, attempt, is_active, owner, lease_until, hold_s, execution_date FROM {PIPELINE_RUN}
        WHERE pipeline = :pipeline AND id < :before AND id >= :first ORDER BY id DESC LIMIT {MOST_SEARCHED}
    ) r {_OF_RUN} WHERE {{condition}} ORDER BY r.id DESC LIMIT :most"""
_LAST_SEARCHED = f"""SELECT id FROM {PIPELINE_RUN} WHERE pipeline = :pipeline AND id < :before AND id >= :first
    ORDER BY id DESC LIMIT 1 OFFSET {MOST_SEARCHED - 1}"""
_BEGUN = f"""SELECT r.id, a.started_at FROM {PIPELINE_RUN} r JOIN {ATTEMPT} a ON a.run_id = r.id AND a.attempt = 1
    WHERE r.pipeline = :pipeline AND r.id <= :id ORDER BY r.id DESC LIMIT 1"""
_NEWEST = f"SELECT id FROM {PIPELINE_RUN} WHERE pipeline = :pipeline ORDER BY id DESC LIMIT 1"

_ACTIONS = f"""SELECT * FROM {ACTION} WHERE pipeline = :pipeline AND created_at >= :earliest AND created_at < :now
    ORDER BY id DESC LIMIT {MOST_BETWEEN}"""
_ALERTS = f"""SELECT stream, kind, what, begun_at, ended_at, told, over_told FROM {ALERT} WHERE pipeline = :pipeline
    AND begun_at >= :earliest AND begun_at < :now ORDER BY begun_at DESC LIMIT {MOST_BETWEEN}"""
_TICK_COLUMNS = "id, kind, due_at, state, why, role, skipped_to, skipped_count, run_id, ordered_by, not_before"
# The key of a tick of a schedule is its time.
_NO_RUNS = f"""SELECT {_TICK_COLUMNS} FROM {TICK} WHERE pipeline = :pipeline AND kind = 'schedule'
    AND tick_key >= :first AND tick_key < :last AND state IN ('skipped', 'refused')
    ORDER BY tick_key DESC LIMIT {MOST_BETWEEN}"""
_REFUSED = f"""SELECT {_TICK_COLUMNS} FROM {TICK} WHERE pipeline = :pipeline AND state = 'refused'
    AND kind IN ('api', 'callback', 'retry') AND due_at >= :earliest AND due_at < :now
    ORDER BY id DESC LIMIT {MOST_BETWEEN}"""
_WAITING = f"""SELECT {_TICK_COLUMNS} FROM {TICK} WHERE pipeline = :pipeline AND state IN ('waiting', 'claimed')
    ORDER BY id LIMIT {MOST_BETWEEN}"""
_LAST_TICKS = f"""SELECT {_TICK_COLUMNS} FROM {TICK} WHERE pipeline = :pipeline AND kind = 'schedule'
    ORDER BY tick_key DESC LIMIT :most"""
_CHANGES = f"""SELECT run_id, stream, schema_changes, ended_at, started_at FROM {BLOCK_RUN} WHERE {{is_one}}
    AND schema_changes IS NOT NULL AND schema_changes <> '[]' ORDER BY run_id DESC LIMIT {MOST_BETWEEN}"""

_STREAM_RUNS = f"""SELECT run_id, attempt, status, destination_table FROM {STREAM_RUN}
    WHERE pipeline = :pipeline AND stream = :stream AND run_id < :before
    ORDER BY run_id DESC, attempt DESC LIMIT :most"""
_BLOCKS = f"""SELECT s.run_id, s.attempt, s.status, s.destination_table, b.block_type, b.row_count, b.rows_rejected,
    b.rows_deleted, b.rows_replaced, b.started_at, b.ended_at, b.bookmark_before, b.bookmark_after, b.error
    FROM ({_STREAM_RUNS}) s LEFT JOIN {BLOCK_RUN} b
    ON b.run_id = s.run_id AND b.attempt = s.attempt AND b.stream = :stream
    ORDER BY s.run_id DESC, s.attempt DESC, b.position"""
_STATE = f"""SELECT destination_table, bookmark, row_count, saved_at FROM {STATE}
    WHERE pipeline = :pipeline AND stream = :stream AND is_deleted = FALSE ORDER BY destination_table"""

_DELIVERIES = f"""SELECT d.idempotency_key, d.pipeline, d.run_id, d.seq, d.position, d.callback_block, d.function,
    d.parent, d.stream, d.state, d.attempts, d.not_before, e.status
    FROM {DELIVERY} d JOIN {EVENT} e ON e.run_id = d.run_id AND e.seq = d.seq
    WHERE {{condition}} ORDER BY d.run_id DESC, d.seq, d.position LIMIT :most OFFSET :offset"""
_TRIES = f"""SELECT t.idempotency_key, t.number, t.outcome, t.error AS message, t.ended_at FROM {DELIVERY_TRY} t
    WHERE t.{{is_one}} ORDER BY t.idempotency_key, t.number"""


class Failure(Struct, frozen=True, kw_only=True):
    """The first error of an attempt."""

    run_id: int
    #: None: the attempt failed as a whole.
    stream: str | None = None
    block: str | None = None
    error: ErrorInfo | None = None
    at: datetime | None = None


class Recent(Struct, frozen=True, kw_only=True):
    """How a pipeline went of late."""

    #: Status of each of its last runs, the oldest first.
    statuses: tuple[str, ...] = ()
    #: Number of the latest run; None: there was none.
    run_id: int | None = None
    #: Records that the latest run has written, in all of its attempts; None: not known.
    rows: int | None = None
    #: Deliveries, at most `MOST_COUNTED`.
    dead: int = 0
    open: int = 0
    #: Why the latest run failed; None: it did not.
    failure: Failure | None = None


class RunLine(Struct, frozen=True, kw_only=True):
    """A run in a list."""

    id: int
    attempt: int
    #: success, failure, cancelled, running, `delivering` (only its callbacks are left) or `dead`.
    status: str
    #: Kind of the tick that began it, or `BY_HAND`.
    kind: str
    execution_date: datetime
    #: Of the latest attempt.
    started_at: datetime
    ended_at: datetime | None
    #: Records that it has written, in all of its attempts; None: not known.
    rows: int | None
    error: ErrorInfo | None


class RunFilter(Struct, frozen=True, kw_only=True):
    """Which runs of a pipeline a list shows."""

    #: success, failure, cancelled or running.
    status: str | None = None
    #: Of a tick, or `BY_HAND`.
    kind: str | None = None
    #: Begun at or after the first moment, and before the second.
    since: datetime | None = None
    until: datetime | None = None


class RunLines(Struct, frozen=True):
    """A part of a list of runs, the latest first."""

    runs: tuple[RunLine, ...]
    #: The list continues with the runs of lower numbers; None: this is its end.
    before: int | None


class TickLine(Struct, frozen=True, kw_only=True):
    """A tick in a list."""

    id: int
    kind: str
    due_at: datetime
    state: str
    why: str | None
    #: `missed` or `waits`.
    role: str | None
    #: Of times that were skipped together: the last one, and their number.
    skipped_to: datetime | None
    skipped_count: int | None
    run_id: int | None
    ordered_by: str | None
    not_before: datetime | None


class AlertLine(Struct, frozen=True, kw_only=True):
    """Something that was found to be wrong."""

    #: Empty: the whole pipeline.
    stream: str
    kind: str
    what: str
    begun_at: datetime
    ended_at: datetime | None
    #: Numbers of the addresses that were told, of the beginning and of the end.
    told: tuple[int, ...]
    over_told: tuple[int, ...]


class SchemaChange(Struct, frozen=True):
    """What a run has changed in the table of a stream."""

    run_id: int
    stream: str
    changes: tuple[dict[str, Any], ...]
    at: datetime


class Between(Struct, frozen=True, kw_only=True):
    """What happened to a pipeline in a span of time, beside its runs; each kind the latest first."""

    actions: tuple[Action, ...]
    alerts: tuple[AlertLine, ...]
    #: Skipped and refused.
    ticks: tuple[TickLine, ...]
    changes: tuple[SchemaChange, ...]


class StreamRun(Struct, frozen=True, kw_only=True):
    """What an attempt of a run did with a stream. Unknown figures are None."""

    run_id: int
    attempt: int
    status: str
    destination_table: str
    rows_read: int | None = None
    rows_written: int | None = None
    rows_deleted: int | None = None
    rows_replaced: int | None = None
    rows_rejected: int | None = None
    #: From the begin of its first block run to the end of its last one.
    started_at: datetime | None = None
    ended_at: datetime | None = None
    bookmark_before: Any = None
    bookmark_after: Any = None
    error: ErrorInfo | None = None


class StreamState(Struct, frozen=True, kw_only=True):
    """What a table holds of a stream."""

    destination_table: str
    bookmark: Any
    row_count: int | None
    saved_at: datetime


class DeliveryLine(Struct, frozen=True, kw_only=True):
    """A delivery in a list, with its last call."""

    idempotency_key: str
    pipeline: str
    run_id: int
    callback_block: str
    function: str
    parent: str
    stream: str | None
    #: Of its event.
    status: str
    #: dead, ready or leased.
    state: str
    attempts: int
    not_before: datetime | None
    outcome: str | None
    error: str | None
    tried_at: datetime | None


class Views:
    """Reads of a store for pages."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def recent(self, pipelines: Collection[str]) -> dict[str, Recent]:
        """Return how pipelines went of late."""
        runs: dict[str, list[Row]] = {name: [] for name in pipelines}
        with self._transactions.read() as connection:
            values = {"in_pipeline": list(pipelines)}
            for row in connection.rows(_STRIP, values):
                runs[row.pipeline].append(row)
            left = {row.pipeline: row for row in connection.rows(_DELIVERIES_LEFT, values)}
            latest = {name: found[0] for name, found in runs.items() if found}
            rows = _rows(connection, [run.id for run in latest.values()])
            failed = {
                name: connection.ask(_FAILED, {"run_id": run.id, "attempt": run.attempt})
                for name, run in latest.items()
                if run.status == FAILURE
            }
            failures = {name: _failure(latest[name], answer()) for name, answer in failed.items()}
        return {
            name: Recent(
                statuses=tuple(run.status for run in reversed(found)),
                run_id=latest[name].id if found else None,
                rows=rows.get(latest[name].id) if found else None,
                dead=left[name].dead,
                open=left[name].open,
                failure=failures.get(name),
            )
            for name, found in runs.items()
        }

    def runs(self, pipeline: str, wanted: RunFilter, *, before: int | None = None, most: int = 50) -> RunLines:
        """Return runs of a pipeline, the latest first; `before`: only those with a lower number.

        Of runs among which the filter finds few, only the latest `MOST_SEARCHED` are looked through.
        """
        conditions = ["1 = 1"]
        values: dict[str, Any] = {"pipeline": pipeline, "before": before or ANY_ID, "first": 0}
        if wanted.status is not None:
            conditions.append("a.status = :status")
            values["status"] = wanted.status
        if wanted.kind is not None:
            conditions.append(f"{_KIND} IS NULL" if wanted.kind == BY_HAND else f"{_KIND} = :kind")
            values["kind"] = wanted.kind
        with self._transactions.read() as connection:
            if wanted.since is not None:
                values["first"] = _first_since(connection, pipeline, wanted.since)
            if wanted.until is not None:
                values["before"] = min(values["before"], _first_since(connection, pipeline, wanted.until))
            statement = _RUNS.format(condition=" AND ".join(conditions))
            found = connection.rows(statement, {**values, "most": most + 1})
            searched = None if len(found) > most else connection.value(_LAST_SEARCHED, values)
            now = self._transactions.now(connection)
            rows = _rows(connection, [row.id for row in found[:most]])
        lines = tuple(self._line(row, rows.get(row.id), now) for row in found[:most])
        return RunLines(lines, lines[-1].id if len(found) > most else searched)

    def begun_at(self, pipeline: str, run_id: int) -> datetime | None:
        """Return when a run began, or the last one before it; None: there is none."""
        with self._transactions.read() as connection:
            row = connection.row(_BEGUN, {"pipeline": pipeline, "id": run_id})
        return None if row is None else row.started_at

    def between(
        self, pipeline: str, earliest: datetime | None, latest: datetime | None, run_ids: Collection[int]
    ) -> Between:
        """Return what happened from one moment to another (None: without limit), and what some runs have changed."""
        span = {"earliest": earliest or _EARLIEST, "now": latest or _LATEST}
        keys = {"first": f"{span['earliest']:%Y-%m-%dT%H:%M:%SZ}", "last": f"{span['now']:%Y-%m-%dT%H:%M:%SZ}"}
        values = {"pipeline": pipeline, **span}
        with self._transactions.read() as connection:
            actions = connection.rows(_ACTIONS, values)
            alerts = connection.rows(_ALERTS, values)
            ticks = connection.rows(_NO_RUNS, {"pipeline": pipeline, **keys}) + connection.rows(_REFUSED, values)
            changes = []
            if run_ids:
                is_one, ids = one_of("run_id", run_ids)
                changes = connection.rows(_CHANGES.format(is_one=is_one), ids)
        return Between(
            actions=tuple(value_of(Action, row, details=row.details or {}) for row in actions),
            alerts=tuple(
                value_of(AlertLine, row, told=tuple(row.told), over_told=tuple(row.over_told)) for row in alerts
            ),
            ticks=tuple(value_of(TickLine, row) for row in ticks),
            changes=tuple(
                SchemaChange(row.run_id, row.stream, tuple(row.schema_changes), row.ended_at or row.started_at)
                for row in changes
            ),
        )

    def waiting(self, pipeline: str) -> tuple[TickLine, ...]:
        """Return the ticks of a pipeline that have not ended, the oldest first."""
        with self._transactions.read() as connection:
            return tuple(value_of(TickLine, row) for row in connection.rows(_WAITING, {"pipeline": pipeline}))

    def last_ticks(self, pipelines: Collection[str], most: int) -> dict[str, tuple[TickLine, ...]]:
        """Return the last ticks of schedules, the latest first."""
        with self._transactions.read() as connection:
            asked = {name: connection.ask(_LAST_TICKS, {"pipeline": name, "most": most}) for name in pipelines}
            return {name: tuple(value_of(TickLine, row) for row in answer()) for name, answer in asked.items()}

    def stream_runs(
        self, pipeline: str, stream: str, *, before: int | None = None, most: int = 60
    ) -> tuple[tuple[StreamRun, ...], int | None]:
        """Return what runs did with a stream, the latest first, and where the list continues (see `runs`)."""
        values = {"pipeline": pipeline, "stream": stream, "before": before or ANY_ID, "most": most}
        with self._transactions.read() as connection:
            rows = connection.rows(_BLOCKS, values)
        by_attempt: dict[tuple[int, int], list[Row]] = {}
        for row in rows:
            by_attempt.setdefault((row.run_id, row.attempt), []).append(row)
        found = tuple(_stream_run(blocks) for blocks in by_attempt.values())
        return found, found[-1].run_id if len(found) == most else None

    def stream_states(self, pipeline: str, stream: str) -> tuple[StreamState, ...]:
        """Return what each table holds of a stream."""
        with self._transactions.read() as connection:
            rows = connection.rows(_STATE, {"pipeline": pipeline, "stream": stream})
        return tuple(value_of(StreamState, row) for row in rows)

    def deliveries(
        self, state: str, *, pipeline: str | None = None, most: int = 100, offset: int = 0
    ) -> tuple[DeliveryLine, ...]:
        """Return deliveries that are "dead" or "open", those of the latest run first."""
        conditions = ["d.state = 'dead'" if state == "dead" else "d.is_open = TRUE"]
        values: dict[str, Any] = {"most": most, "offset": offset}
        if pipeline is not None:
            conditions.append("d.pipeline = :pipeline")
            values["pipeline"] = pipeline
        with self._transactions.read() as connection:
            rows = connection.rows(_DELIVERIES.format(condition=" AND ".join(conditions)), values)
            is_one, keys = one_of("idempotency_key", [row.idempotency_key for row in rows])
            tries = connection.rows(_TRIES.format(is_one=is_one), keys) if rows else []
        last = {each.idempotency_key: each for each in tries}
        return tuple(_delivery(row, last.get(row.idempotency_key)) for row in rows)

    def _line(self, row: Row, rows: int | None, now: datetime) -> RunLine:
        is_alive = self._transactions.is_alive(row.owner, row.lease_until, now, row.hold_s or LEASE_S)
        status = row.status
        if row.is_active:
            status = "dead" if not is_alive else status if status == "running" else "delivering"
        row.kind = row.kind or BY_HAND
        return value_of(RunLine, row, status=status, rows=rows, error=decode_error(row.error))


def _rows(connection: StoreConnection, run_ids: Collection[int]) -> dict[int, int | None]:
    """Return the records that runs have written."""
    if not run_ids:
        return {}
    is_one, values = one_of("run_id", run_ids)
    rows = connection.rows(_ROWS.format(is_one=is_one), values)
    return {row.run_id: None if row.unknown and not row.written else int(row.written or 0) for row in rows}


def _failure(run: Row, blocks: Sequence[Row]) -> Failure:
    """Return why a run failed: the error of the block run that failed first, else that of the whole attempt."""
    if not blocks:
        return Failure(run_id=run.id, error=decode_error(run.error))
    first = blocks[0]
    error = decode_error(first.error) or decode_error(run.error)
    # An error says in which block it was raised; all blocks of its stream end with it.
    block = first.block if error is None or error.block is None else error.block
    return Failure(run_id=run.id, stream=first.stream, block=block, error=error, at=first.ended_at)


def _first_since(connection: StoreConnection, pipeline: str, at: datetime) -> int:
    """Return the number of the first run that began at a moment or later; of none: one more than that of the last."""
    low, high = 0, (connection.value(_NEWEST, {"pipeline": pipeline}) or 0) + 1
    while low < high:
        row = connection.row(_BEGUN, {"pipeline": pipeline, "id": (low + high) // 2})
        if row is None or row.started_at < at:
            low = (low + high) // 2 + 1
        else:
            high = row.id
    return high


def _stream_run(blocks: Sequence[Row]) -> StreamRun:
    first = blocks[0]
    begun = [block.started_at for block in blocks if block.started_at is not None]
    ended = [block.ended_at for block in blocks if block.ended_at is not None]
    loader = next((block for block in blocks if block.block_type == DATA_LOADER), None)
    exporter = next((block for block in blocks if block.block_type == DATA_EXPORTER), None)
    rejected = [block.rows_rejected for block in blocks if block.rows_rejected is not None]
    return StreamRun(
        run_id=first.run_id,
        attempt=first.attempt,
        status=first.status,
        destination_table=first.destination_table,
        rows_read=None if loader is None else loader.row_count,
        rows_written=None if exporter is None else exporter.row_count,
        rows_deleted=None if exporter is None else exporter.rows_deleted,
        rows_replaced=None if exporter is None else exporter.rows_replaced,
        rows_rejected=sum(rejected) if rejected else None,
        started_at=min(begun, default=None),
        ended_at=max(ended, default=None) if len(ended) == len(blocks) else None,
        bookmark_before=None if exporter is None else exporter.bookmark_before,
        bookmark_after=None if exporter is None else exporter.bookmark_after,
        error=next((decode_error(block.error) for block in blocks if block.error is not None), None),
    )


def _delivery(row: Row, last: Row | None) -> DeliveryLine:
    return value_of(
        DeliveryLine,
        row,
        outcome=None if last is None else last.outcome,
        error=None if last is None else last.message,
        tried_at=None if last is None else last.ended_at,
    )
