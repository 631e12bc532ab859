"""One run as a page shows it: what changes while it goes, in short reads of few rows, and what does not.

Of a run with many streams only some are read: those that failed, then those under way, that wait, and that succeeded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from .audit_log import Action
from .connection import Row, StoreConnection, value_of
from .model import (
    DATA_EXPORTER,
    DATA_LOADER,
    RUNNING,
    SUCCESS,
    UNCLAIMED,
    BlockRun,
    DeliveryTry,
    ErrorInfo,
    decode_error,
)
from .owner import Owner
from .runs import LATEST_RUN, decode_block_run
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
)
from .ticks import Tick, decoded
from .transactions import LEASE_S, Transactions

#: Streams that a page shows at first, and when more are asked for; and deliveries for each of these streams.
MOST_STREAMS, MOST_OF_ALL, DELIVERIES = 100, 1_000, 2
#: Characters of the end of a log, and of an output or error of a call.
TAIL, PART = 20_000, 2_000
#: Earlier attempts and actions that a page shows.
MOST_BEFORE = 50

_RUN = f"""SELECT id, pipeline, attempt, is_active, owner, lease_until, hold_s, execution_date, cancel_requested_at
    FROM {PIPELINE_RUN} WHERE id = :run_id"""
_ATTEMPT = f"SELECT status, started_at, ended_at, error FROM {ATTEMPT} WHERE run_id = :run_id AND attempt = :number"
_OF_ATTEMPT = "run_id = :run_id AND attempt = :number"
_COUNTS = f"SELECT status, count(*) AS number FROM {STREAM_RUN} WHERE {_OF_ATTEMPT} GROUP BY status"
_STREAMS = f"""SELECT stream, destination_table, status FROM {STREAM_RUN} WHERE {_OF_ATTEMPT} ORDER BY
    CASE status WHEN 'failure' THEN 0 WHEN 'cancelled' THEN 1 WHEN '{RUNNING}' THEN 2 WHEN '{UNCLAIMED}' THEN 3 ELSE 4
    END, position LIMIT :most"""
_BLOCKS = f"SELECT * FROM {BLOCK_RUN} WHERE {_OF_ATTEMPT} AND {{is_one}} ORDER BY position"
_FIRST_FAILED = f"""SELECT * FROM {BLOCK_RUN} WHERE {_OF_ATTEMPT} AND status = 'failure'
    ORDER BY ended_at, position LIMIT 1"""
_SUMS = f"""SELECT block_type, sum(row_count) AS rows, sum(rows_deleted) AS deleted, sum(rows_rejected) AS rejected
    FROM {BLOCK_RUN} WHERE run_id = :run_id GROUP BY block_type"""
_PROGRESS = f"SELECT progress, written_at FROM {PROGRESS} WHERE run_id = :run_id"
_DELIVERY_COUNTS = f"""SELECT attempt, state, count(*) AS number FROM {DELIVERY} WHERE run_id = :run_id
    GROUP BY attempt, state"""
_DELIVERIES = f"""SELECT d.idempotency_key, d.callback_block, d.function, d.parent, d.block, d.stream, d.state,
    d.attempts, d.not_before, e.status FROM {DELIVERY} d JOIN {EVENT} e ON e.run_id = d.run_id AND e.seq = d.seq
    WHERE d.run_id = :run_id AND d.attempt = :number
    ORDER BY CASE d.state WHEN 'dead' THEN 0 WHEN 'done' THEN 2 ELSE 1 END, d.seq, d.position LIMIT :most"""
_TRIES = f"""SELECT idempotency_key, number, outcome, substr(error, 1, {PART}) AS message,
    substr(output, 1, {PART}) AS output, owner, started_at, ended_at, duration_s
    FROM {DELIVERY_TRY} WHERE {{is_one}} ORDER BY idempotency_key, number"""
# The key of a tick that retries a run begins with the numbers of run and attempt.
_RETRY = f"""SELECT * FROM {TICK} WHERE pipeline = :pipeline AND kind = 'retry' AND tick_key >= :first
    AND tick_key < :after ORDER BY id DESC LIMIT 1"""
_LOG_TAIL = f"""SELECT substr(log, length(log) - {TAIL} + 1) AS log, length(log) > {TAIL} AS is_cut
    FROM {RUN_LOG} WHERE {_OF_ATTEMPT}"""

_DOCUMENTS = f"""SELECT trigger_id, event, variables, interval_start, interval_end FROM {PIPELINE_RUN}
    WHERE id = :run_id"""
_ATTEMPTS = f"""SELECT attempt, status, started_at, ended_at, error FROM {ATTEMPT} WHERE run_id = :run_id
    ORDER BY attempt DESC LIMIT {MOST_BEFORE}"""
_TICKS = f"SELECT * FROM {TICK} WHERE run_id = :run_id ORDER BY id LIMIT {MOST_BEFORE}"
_ACTIONS = f"""SELECT * FROM {ACTION} WHERE pipeline = :pipeline AND run_id = :run_id
    ORDER BY id DESC LIMIT {MOST_BEFORE}"""
_PLANNED = f"""SELECT stream, destination_table, blocks FROM {STREAM_RUN} WHERE {_OF_ATTEMPT}
    ORDER BY position LIMIT :most"""


class StreamLine(Struct, frozen=True, kw_only=True):
    """A stream of an attempt. Unknown figures are None."""

    stream: str
    destination_table: str
    #: waiting; running (nobody tells more), reading, loading or retrying; success, failure or cancelled.
    state: str
    rows: int | None = None
    rows_per_s: float | None = None
    percent: int | None = None
    size_bytes: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    bookmark_before: Any = None
    bookmark_after: Any = None
    rejected: int | None = None
    deleted: int | None = None
    retries: int = 0
    #: Of a stream under way: whole seconds since records were last read or committed.
    still_s: int = 0
    error: str | None = None


class DeliveryView(Struct, frozen=True, kw_only=True):
    """A delivery of an attempt with all of its calls, their outputs and errors cut."""

    key: str
    callback_block: str
    function: str
    parent: str
    #: The block run that carries its event; None: the event is one of `pipeline`.
    block: str | None
    stream: str | None
    #: Of its event.
    status: str
    #: ready, leased, done or dead.
    state: str
    not_before: datetime | None
    tries: tuple[DeliveryTry, ...]


class Figures(Struct, frozen=True, kw_only=True):
    """Records of a run, in all of its attempts; None: not known."""

    read: int | None
    written: int | None
    deleted: int | None
    rejected: int | None


class RunView(Struct, frozen=True, kw_only=True):
    """A run in one of its attempts, as it stands now."""

    id: int
    pipeline: str
    #: The one that is shown, and the latest one.
    attempt: int
    latest_attempt: int
    #: Of the attempt: running, success, failure or cancelled.
    status: str
    is_active: bool
    #: Of an active run.
    is_alive: bool
    #: Other processes run its streams, which tell nothing until each has ended.
    is_remote: bool
    is_cancelling: bool
    owner: Owner
    #: The store's time.
    now: datetime
    execution_date: datetime
    started_at: datetime
    ended_at: datetime | None
    figures: Figures
    #: Status -> number of streams.
    counts: Mapping[str, int]
    streams: tuple[StreamLine, ...]
    #: Of these streams, ended ones in the order of their ending.
    block_runs: tuple[BlockRun, ...]
    #: Of the attempt: those that are dead, then those that are due, then the others; at most `DELIVERIES` a stream.
    deliveries: tuple[DeliveryView, ...]
    #: Attempt -> state -> number of deliveries.
    delivery_counts: Mapping[int, Mapping[str, int]]
    #: Why the attempt failed: the block run that failed first, else the attempt as a whole.
    failure: ErrorInfo | None
    #: When the figures of streams under way were written; None: nobody has told any.
    told_at: datetime | None
    #: The latest run of the pipeline.
    latest_run: int
    #: The last tick that was ordered to retry the latest attempt; it waits, or was refused.
    retry: Tick | None
    #: The end of the attempt's log; None: it has none (yet).
    log: str | None
    is_log_cut: bool

    @property
    def is_over(self) -> bool:
        """Whether nothing changes any more, unless somebody orders it."""
        is_open = any(counts.get("ready", 0) + counts.get("leased", 0) for counts in self.delivery_counts.values())
        return not self.is_active and not is_open and not self.is_retry_due

    @property
    def can_retry(self) -> bool:
        """Whether another attempt may be ordered."""
        is_latest = self.id == self.latest_run and self.attempt == self.latest_attempt
        has_failed = not self.is_active and self.status not in (SUCCESS, RUNNING)
        return is_latest and has_failed and not self.is_retry_due

    @property
    def is_retry_due(self) -> bool:
        """Whether a retry is ordered and has not begun."""
        return self.retry is not None and self.retry.state in ("waiting", "claimed")


class AttemptLine(Struct, frozen=True, kw_only=True):
    """An attempt of a run."""

    attempt: int
    status: str
    started_at: datetime
    ended_at: datetime | None
    error: ErrorInfo | None


class StreamPlan(Struct, frozen=True, kw_only=True):
    """A stream of an attempt's plan."""

    stream: str
    destination_table: str
    blocks: tuple[str, ...]


class RunAbout(Struct, frozen=True, kw_only=True):
    """What of a run does not change while it goes."""

    trigger: str
    event: Mapping[str, Any]
    variables: Mapping[str, Any]
    interval: tuple[datetime, datetime] | None
    #: The latest first.
    attempts: tuple[AttemptLine, ...]
    #: The first one has begun the run, unless it is a retry; the others have retried it.
    ticks: tuple[Tick, ...]
    #: The latest first.
    actions: tuple[Action, ...]
    #: Of the attempt that is shown.
    planned: tuple[StreamPlan, ...]


class RunViews:
    """Reads of one run."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def view(self, run_id: int, attempt: int | None = None, *, most: int = MOST_STREAMS) -> RunView | None:
        """Return a run as it stands; None: there is no such run, or no such attempt.

        Args:
            run_id: The run.
            attempt: None: the latest one.
            most: Streams that are read.
        """
        with self._transactions.read() as connection:
            run = connection.row(_RUN, {"run_id": run_id})
            if run is None:
                return None
            of_attempt = {"run_id": run_id, "number": attempt or run.attempt}
            head = connection.row(_ATTEMPT, of_attempt)
            if head is None:
                return None
            progress = connection.row(_PROGRESS, {"run_id": run_id})
            told = _told(progress, of_attempt["number"])
            streams = connection.rows(_STREAMS, {**of_attempt, "most": most})
            is_one, names = one_of("stream", [row.stream for row in streams])
            blocks = [
                decode_block_run(row)
                for row in (connection.rows(_BLOCKS.format(is_one=is_one), {**of_attempt, **names}) if streams else ())
            ]
            by_stream: dict[str, list[BlockRun]] = {}
            for block in blocks:
                by_stream.setdefault(block.stream, []).append(block)
            lines = [_stream_line(row, by_stream.get(row.stream, ()), told.get(row.stream)) for row in streams]
            going = [told[row.stream] for row in streams if row.status == RUNNING and row.stream in told]
            failed = connection.row(_FIRST_FAILED, of_attempt)
            failure = decode_error(failed.error) if failed is not None else None
            log = connection.row(_LOG_TAIL, of_attempt) if head.ended_at is not None else None
            key = f"{run_id}:{run.attempt}"
            retry = connection.row(_RETRY, {"pipeline": run.pipeline, "first": f"{key}:", "after": f"{key};"})
            now = self._transactions.now(connection)
            is_alive = self._transactions.is_alive(run.owner, run.lease_until, now, run.hold_s or LEASE_S)
            return value_of(
                RunView,
                run,
                attempt=of_attempt["number"],
                latest_attempt=run.attempt,
                status=head.status,
                is_alive=run.is_active and is_alive,
                is_remote=run.hold_s is not None or (progress is not None and bool(progress.progress.get("is_remote"))),
                is_cancelling=run.cancel_requested_at is not None and head.ended_at is None,
                owner=Owner.decode(run.owner),
                now=now,
                started_at=head.started_at,
                ended_at=head.ended_at,
                figures=_figures(connection.rows(_SUMS, {"run_id": run_id}), going),
                counts={row.status: row.number for row in connection.rows(_COUNTS, of_attempt)},
                streams=tuple(lines),
                block_runs=tuple(sorted(blocks, key=_by_end)),
                deliveries=_deliveries(connection, of_attempt, DELIVERIES * most),
                delivery_counts=_delivery_counts(connection.rows(_DELIVERY_COUNTS, {"run_id": run_id})),
                failure=failure or decode_error(head.error),
                told_at=None if progress is None else progress.written_at,
                latest_run=connection.value(LATEST_RUN, {"pipeline": run.pipeline}),
                retry=None if retry is None else decoded(retry),
                log=None if log is None else log.log,
                is_log_cut=log is not None and bool(log.is_cut),
            )

    def about(self, run: RunView, *, most: int = MOST_STREAMS) -> RunAbout:
        """Return what of a run does not change; the plan is that of the attempt that is shown."""
        values = {"run_id": run.id, "number": run.attempt, "pipeline": run.pipeline}
        with self._transactions.read() as connection:
            row = connection.row(_DOCUMENTS, values)
            documents = row if row is not None else Row(trigger_id="", event={}, variables={}, interval_start=None)
            attempts = connection.rows(_ATTEMPTS, values)
            ticks, actions = connection.rows(_TICKS, values), connection.rows(_ACTIONS, values)
            planned = connection.rows(_PLANNED, {**values, "most": most})
        start = documents.interval_start
        return RunAbout(
            trigger=documents.trigger_id,
            event=documents.event,
            variables=documents.variables,
            interval=None if start is None else (start, documents.interval_end),
            attempts=tuple(value_of(AttemptLine, row, error=decode_error(row.error)) for row in attempts),
            ticks=tuple(decoded(row) for row in ticks),
            actions=tuple(value_of(Action, row, details=row.details or {}) for row in actions),
            planned=tuple(value_of(StreamPlan, row, blocks=tuple(block for block, _ in row.blocks)) for row in planned),
        )


def _told(progress: Row | None, attempt: int) -> dict[str, Mapping[str, Any]]:
    """Return what the run's process has told of its streams, by name; nothing, if it has told of another attempt."""
    if progress is None or progress.progress.get("attempt") != attempt:
        return {}
    return {each["stream"]: each for each in progress.progress["streams"]}


def _stream_line(row: Row, blocks: Sequence[BlockRun], told: Mapping[str, Any] | None) -> StreamLine:
    begun = min((block.started_at for block in blocks), default=None)
    about = {"stream": row.stream, "destination_table": row.destination_table, "started_at": begun}
    retries = 0 if told is None else told["retries"]
    if row.status == UNCLAIMED:
        return StreamLine(**about, state="waiting")
    if row.status == RUNNING:
        if told is None or told["state"] == "ended":
            return StreamLine(**about, state=RUNNING)
        return StreamLine(
            **about,
            state=told["state"],
            rows=told["records"],
            rows_per_s=told["records_per_s"],
            percent=told["percent"],
            size_bytes=told["size_bytes"],
            bookmark_before=told["bookmark_before"],
            bookmark_after=told["bookmark_after"],
            rejected=told["rejected"],
            retries=retries,
            still_s=0 if told["records"] is None else told["still_s"],
            error=told["error"],
        )
    last = next((block for block in blocks if block.block_type == DATA_EXPORTER), None)
    ended = max((block.ended_at for block in blocks if block.ended_at is not None), default=None)
    rejected = [block.rows_rejected for block in blocks if block.rows_rejected is not None]
    span_s = None if ended is None or begun is None else (ended - begun).total_seconds()
    rows = None if last is None else last.rows
    error = next((block.error for block in blocks if block.error is not None), None)
    return StreamLine(
        **about,
        state=row.status,
        rows=rows,
        rows_per_s=rows / span_s if rows is not None and span_s else None,
        size_bytes=None if last is None else last.size_bytes,
        ended_at=ended,
        bookmark_before=None if last is None else last.bookmark_before,
        bookmark_after=None if last is None else last.bookmark_after,
        rejected=sum(rejected) if rejected else None,
        deleted=None if last is None else last.rows_deleted,
        retries=retries,
        error=None if error is None else error.message,
    )


def _figures(sums: Sequence[Row], going: Sequence[Mapping[str, Any]]) -> Figures:
    """Return the sums of block runs that have ended, and of what is told of streams under way."""
    by_type = {row.block_type: row for row in sums}

    def total(block_type: str | None, column: str, told: str = "") -> int | None:
        rows = [row for kind, row in by_type.items() if block_type in (None, kind)]
        known = [int(value) for row in rows if (value := getattr(row, column)) is not None]
        known += [each[told] or 0 for each in going if told]
        return sum(known) if known else None

    return Figures(
        read=total(DATA_LOADER, "rows", "records"),
        written=total(DATA_EXPORTER, "rows", "committed"),
        deleted=total(DATA_EXPORTER, "deleted"),
        rejected=total(None, "rejected", "rejected"),
    )


def _by_end(block: BlockRun) -> tuple[Any, ...]:
    return block.ended_at is None, block.ended_at or block.started_at, block.index or 0, block.stream


def _deliveries(connection: StoreConnection, of_attempt: Mapping[str, Any], most: int) -> tuple[DeliveryView, ...]:
    rows = connection.rows(_DELIVERIES, {**of_attempt, "most": most})
    if not rows:
        return ()
    is_one, keys = one_of("idempotency_key", [row.idempotency_key for row in rows])
    tries: dict[str, list[DeliveryTry]] = {}
    for row in connection.rows(_TRIES.format(is_one=is_one), keys):
        tries.setdefault(row.idempotency_key, []).append(value_of(DeliveryTry, row, error=row.message))
    return tuple(
        value_of(DeliveryView, row, key=row.idempotency_key, tries=tuple(tries.get(row.idempotency_key, ())))
        for row in rows
    )


def _delivery_counts(rows: Sequence[Row]) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row.attempt, {})[row.state] = row.number
    return found
