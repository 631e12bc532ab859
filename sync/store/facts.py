"""What the run store knows of a pipeline that must be known to say whether it is late. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from ..schedules.expect import Expect
from .connection import Row, StoreConnection, value_of
from .model import DATA_EXPORTER, SUCCESS
from .servers import is_ahead, is_paused, pause_end
from .statements import insert, one_of
from .table_names import ATTEMPT, BLOCK_RUN, DELIVERY, EXPECTATION, PIPELINE_RUN, SCHEDULE, STREAM_RUN, TICK
from .transactions import LEASE_S, Transactions

#: A tick that waits after so many failed starts has waited for ten minutes (see `ticks.DELAY_FIRST_S`).
_PATIENT_DELAYS = 6
#: Runs of the first look back; each further look takes four times as many.
_FIRST_RUNS = 4

_ATTEMPT_OF_RUN = f"{PIPELINE_RUN} r JOIN {ATTEMPT} a ON a.run_id = r.id AND a.attempt = r.attempt"
_RUNS = f"""SELECT r.id, r.attempt, r.is_active, r.owner, r.lease_until, r.hold_s, a.status, a.started_at, a.ended_at,
    (SELECT t.kind FROM {TICK} t WHERE t.run_id = r.id AND t.retries IS NULL) AS kind
    FROM {_ATTEMPT_OF_RUN} WHERE r.pipeline = :pipeline AND r.id < :before ORDER BY r.id DESC LIMIT :most"""
_RECENT = f"""SELECT n.status, count(*) AS number FROM (SELECT a.status FROM {_ATTEMPT_OF_RUN}
    WHERE r.pipeline = :pipeline ORDER BY r.id DESC LIMIT :most) n GROUP BY n.status"""
_WHOLE = f"""SELECT a.run_id, a.attempt, a.plan LIKE :missing AS has_missing, EXISTS (SELECT 1 FROM {STREAM_RUN} s
    WHERE s.run_id = a.run_id AND s.attempt = a.attempt) AS has_streams FROM {ATTEMPT} a
    WHERE a.{{is_one}} AND a.plan NOT LIKE :partial ORDER BY a.run_id DESC, a.attempt DESC"""
_PLAN = f"SELECT plan FROM {ATTEMPT} WHERE run_id = :run_id AND attempt = :attempt"
_STREAMS = f"SELECT stream FROM {STREAM_RUN} WHERE run_id = :run_id AND attempt = :attempt ORDER BY position"
_EXPORTED = f"""{STREAM_RUN} s JOIN {BLOCK_RUN} b ON b.run_id = s.run_id AND b.attempt = s.attempt
    AND b.stream = s.stream AND b.block_type = '{DATA_EXPORTER}'"""
_SUCCESSES = f"""SELECT s.stream, s.run_id, b.ended_at, b.row_count FROM {_EXPORTED}
    WHERE s.{{is_one}} AND s.status = '{SUCCESS}' ORDER BY b.ended_at"""
_PLANNED = f"""SELECT s.stream, min(a.started_at) AS started_at FROM {PIPELINE_RUN} r
    JOIN {ATTEMPT} a ON a.run_id = r.id JOIN {STREAM_RUN} s ON s.run_id = a.run_id AND s.attempt = a.attempt
    WHERE r.pipeline = :pipeline AND s.{{is_one}} GROUP BY s.stream"""
_WINDOW = f"""SELECT s.stream, sum(b.row_count) AS known, count(*) - count(b.row_count) AS unknown
    FROM {PIPELINE_RUN} r JOIN {_EXPORTED.replace(" s JOIN", " s ON s.run_id = r.id JOIN", 1)}
    WHERE r.pipeline = :pipeline AND s.status = '{SUCCESS}' AND b.ended_at > :earliest
    AND NOT EXISTS (SELECT 1 FROM {TICK} t WHERE t.run_id = r.id AND t.kind = 'backfill') GROUP BY s.stream"""
_DEAD = f"SELECT count(*) AS number FROM {DELIVERY} WHERE pipeline = :pipeline AND state = 'dead'"
_DUE = f"""SELECT lease_owner, lease_until, count(*) AS number FROM {DELIVERY} WHERE pipeline = :pipeline
    AND is_open = TRUE AND (state = 'leased' OR not_before IS NULL OR not_before <= :now)
    GROUP BY lease_owner, lease_until"""
_WAITING = f"""SELECT why, delays FROM {TICK} WHERE pipeline = :pipeline AND (state = 'waiting' OR state = 'claimed')
    AND due_at <= :now ORDER BY delays DESC, id LIMIT 1"""
_REFUSED = f"""SELECT due_at, why FROM {TICK} WHERE pipeline = :pipeline AND state = 'refused'
    ORDER BY id DESC LIMIT 1"""
_SCHEDULE = (
    f"SELECT is_paused, paused_until, pause_reason, resumed_at, looked_at FROM {SCHEDULE} WHERE pipeline = :pipeline"
)
_SEEN = f"SELECT stream, kind, seen_at FROM {EXPECTATION} WHERE pipeline = :pipeline"
_SEE = f"{insert(EXPECTATION, 'pipeline stream kind seen_at')} ON CONFLICT (pipeline, stream, kind) DO NOTHING"

#: Stream (empty: the whole pipeline) and kind of an expectation or a finding.
Subject = tuple[str, str]


class StreamFacts(Struct, frozen=True, kw_only=True):
    """The last success of a stream, in whatever run but a backfill."""

    #: When it ended; None: there was none.
    succeeded_at: datetime | None = None
    #: Records that it wrote; None: not known.
    rows: int | None = None
    #: Of a stream without success: when a run first planned it.
    planned_at: datetime | None = None


class RunFacts(Struct, frozen=True, kw_only=True):
    """The latest run of a pipeline, with its latest attempt."""

    id: int
    status: str
    is_active: bool
    #: Of an active run.
    is_alive: bool
    lease_until: datetime
    started_at: datetime
    ended_at: datetime | None


class RunRows(Struct, frozen=True):
    """Records of the last successful run of all streams; None: not known."""

    ended_at: datetime
    rows: int | None


class Pause(Struct, frozen=True):
    """A schedule that is paused."""

    #: None: until it is resumed.
    until: datetime | None = None
    reason: str | None = None


class Facts(Struct, frozen=True, kw_only=True):
    """How a pipeline stands."""

    #: The store's time.
    now: datetime
    run: RunFacts | None = None
    #: Streams that the pipeline file selects, as the last run of all streams has planned it; and those of `expects`.
    streams: Mapping[str, StreamFacts] = {}
    #: Those of them that the file selects.
    selected: tuple[str, ...] = ()
    #: What is expected of streams.
    expects: Mapping[str, Expect] = {}
    #: Streams that were synced before and that the source did not offer.
    missing: tuple[str, ...] = ()
    last_rows: RunRows | None = None
    #: Stream (empty: all of them) and a number of seconds -> records of that time until now; None: not known.
    windows: Mapping[tuple[str, int], int | None] = {}
    dead_deliveries: int = 0
    #: Deliveries that are due, and that no living process has.
    due_deliveries: int = 0
    #: Why a tick of the pipeline waits; an empty text: no reason is known; None: none waits.
    waiting: str | None = None
    #: Whether the starts of that tick have failed for ten minutes.
    starts_fail: bool = False
    #: Why the last tick that was refused was so; None: none was, or a run has begun since.
    refused: str | None = None
    #: Up to when the times of the schedule are decided, if this lies ahead: nothing starts until then.
    ahead: datetime | None = None
    pause: Pause | None = None
    #: When the last pause ended, or the schedule was changed: the times of the schedule before it have no run.
    resumed_at: datetime | None = None

    @property
    def is_running(self) -> bool:
        """Whether a run is active, its process alive."""
        return self.run is not None and self.run.is_active and self.run.is_alive


class FactReads:
    """Reads facts, and remembers when an expectation was first seen."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def facts(
        self,
        pipeline: str,
        expect: Expect | None = None,
        expects: Callable[[Iterable[str]], dict[str, Expect]] = lambda _streams: {},
    ) -> Facts:
        """Return how a pipeline stands.

        Args:
            pipeline: Its name.
            expect: What is expected of it.
            expects: Returns what is expected of streams: of those that it is given, and of others.
        """
        names = {"pipeline": pipeline}
        with self._transactions.read() as connection:
            now = self._transactions.now(connection)
            history = _History(connection, pipeline, expects)
            history.read(needs_rows=expect is not None and expect.rows is not None and expect.rows.in_s is None)
            wanted = {"": expect, **history.expects}
            windows = {
                (stream, each.rows.in_s): None
                for stream, each in wanted.items()
                if each is not None and each.rows is not None and each.rows.in_s is not None
            }
            dues = connection.rows(_DUE, {**names, "now": now})
            waiting = connection.row(_WAITING, {**names, "now": now})
            refused = connection.row(_REFUSED, names)
            schedule = connection.row(_SCHEDULE, names)
            pause, resumed_at = _pause(schedule, now)
            latest = history.latest
            if refused is not None and latest is not None and latest.started_at >= refused.due_at:
                refused = None
            return Facts(
                now=now,
                run=None if latest is None else self._run(latest, now),
                streams=history.streams(),
                selected=history.selected,
                expects=history.expects,
                missing=history.missing,
                last_rows=history.last_rows,
                windows=_windows(connection, pipeline, windows, now),
                dead_deliveries=connection.value(_DEAD, names),
                due_deliveries=sum(row.number for row in dues if not self._is_leased(row, now)),
                waiting=None if waiting is None else waiting.why or "",
                starts_fail=waiting is not None and waiting.delays > _PATIENT_DELAYS,
                refused=None if refused is None else refused.why,
                ahead=None if schedule is None or not is_ahead(schedule.looked_at, now) else schedule.looked_at,
                pause=pause,
                resumed_at=resumed_at,
            )

    def recent_statuses(self, pipeline: str, most: int) -> dict[str, int]:
        """Return how many of the newest runs of a pipeline have each status."""
        with self._transactions.read() as connection:
            rows = connection.rows(_RECENT, {"pipeline": pipeline, "most": most})
        return {row.status: row.number for row in rows}

    def see(self, pipeline: str, expected: Collection[Subject]) -> dict[Subject, datetime]:
        """Return when each expectation was first seen; it is now for a new one."""
        if not expected:
            return {}
        names = {"pipeline": pipeline}
        with self._transactions.read() as connection:
            found = connection.rows(_SEEN, names)
        if set(expected) - {(row.stream, row.kind) for row in found}:
            with self._transactions.write("see_expectations") as connection:
                now = self._transactions.now(connection)
                rows = [{**names, "stream": stream, "kind": kind, "seen_at": now} for stream, kind in sorted(expected)]
                connection.run_many(_SEE, rows)
                found = connection.rows(_SEEN, names)
        return {(row.stream, row.kind): row.seen_at for row in found}

    def _run(self, row: Row, now: datetime) -> RunFacts:
        is_alive = self._transactions.is_alive(row.owner, row.lease_until, now, row.hold_s or LEASE_S)
        return value_of(RunFacts, row, is_alive=is_alive)

    def _is_leased(self, row: Row, now: datetime) -> bool:
        return row.lease_owner is not None and self._transactions.is_alive(row.lease_owner, row.lease_until, now)


def _pause(row: Row | None, now: datetime) -> tuple[Pause | None, datetime | None]:
    """Return the pause of a schedule, and when the last one ended: perhaps no server has looked since `until` came."""
    if row is None or not row.is_paused:
        return None, None if row is None else row.resumed_at
    if is_paused(row, now):
        return Pause(row.paused_until, row.pause_reason), row.resumed_at
    return None, pause_end(row)


class _History:
    """Reads the runs of a pipeline, the latest first, as far back as there is something to find."""

    def __init__(
        self, connection: StoreConnection, pipeline: str, expects: Callable[[Iterable[str]], dict[str, Expect]]
    ) -> None:
        self._connection = connection
        self._pipeline = pipeline
        self._expects = expects
        self._successes: dict[str, StreamFacts] = {}
        self._has_plan = self._has_missing = False
        self.latest: Row | None = None
        self.selected: tuple[str, ...] = ()
        self.expects: dict[str, Expect] = expects(())
        self.missing: tuple[str, ...] = ()
        self.last_rows: RunRows | None = None

    def read(self, *, needs_rows: bool) -> None:
        before, most = 2**62, _FIRST_RUNS
        while True:
            values = {"pipeline": self._pipeline, "before": before, "most": most}
            runs = self._connection.rows(_RUNS, values)
            if not runs:
                return
            self.latest = self.latest or runs[0]
            forward = {run.id: run for run in runs if run.kind != "backfill"}
            if forward:
                self._read_runs(forward)
            is_complete = self._has_plan and all(name in self._successes for name in self._wanted())
            if is_complete and not (needs_rows and self.last_rows is None):
                return
            before, most = runs[-1].id, most * 4

    def streams(self) -> dict[str, StreamFacts]:
        found = dict(self._successes)
        if never := [name for name in self._wanted() if name not in found]:
            is_one, values = one_of("stream", never)
            rows = self._connection.rows(_PLANNED.format(is_one=is_one), {"pipeline": self._pipeline, **values})
            planned = {row.stream: row.started_at for row in rows}
            found |= {name: StreamFacts(planned_at=planned.get(name)) for name in never}
        return {name: found[name] for name in self._wanted()}

    def _wanted(self) -> Iterable[str]:
        return dict.fromkeys((*self.selected, *self.expects))

    def _read_runs(self, runs: Mapping[int, Row]) -> None:
        is_one, values = one_of("run_id", list(runs))
        patterns = {"partial": '%"is_partial":true%', "missing": '%"missing_streams":[%'}
        whole = self._connection.rows(_WHOLE.format(is_one=is_one), {**values, **patterns})
        for row in whole:
            key = {"run_id": row.run_id, "attempt": row.attempt}
            if not self._has_missing and (row.has_streams or row.has_missing):
                self._has_missing = True
                if row.has_missing:
                    self.missing = tuple(self._connection.value(_PLAN, key)["extra"].get("missing_streams", ()))
            if not self._has_plan and row.has_streams:
                self._has_plan = True
                self.selected = tuple(self._connection.column(_STREAMS, key))
                self.expects = self._expects(self.selected)
        rows: dict[int, list[int | None]] = {}
        successes: dict[str, StreamFacts] = {}
        for row in self._connection.rows(_SUCCESSES.format(is_one=is_one), values):
            rows.setdefault(row.run_id, []).append(row.row_count)
            successes[row.stream] = StreamFacts(succeeded_at=row.ended_at, rows=row.row_count)
        self._successes = successes | self._successes
        for number in [] if self.last_rows else dict.fromkeys(row.run_id for row in whole if row.has_streams):
            run = runs[number]
            if run.status == SUCCESS and run.ended_at is not None:
                self.last_rows = RunRows(run.ended_at, _total(rows.get(number, [])))
                break


def _total(numbers: Iterable[int | None]) -> int | None:
    """Return the sum; None if one of the numbers is not known."""
    known = list(numbers)
    return None if None in known else sum(each for each in known if each is not None)


def _windows(
    connection: StoreConnection, pipeline: str, wanted: Iterable[tuple[str, int]], now: datetime
) -> dict[tuple[str, int], int | None]:
    found: dict[tuple[str, int], int | None] = {}
    by_length: dict[int, list[Any]] = {}
    for stream, in_s in wanted:
        if in_s not in by_length:
            values = {"pipeline": pipeline, "earliest": now - timedelta(seconds=in_s)}
            by_length[in_s] = connection.rows(_WINDOW, values)
        rows = [row for row in by_length[in_s] if stream in ("", row.stream)]
        found[stream, in_s] = _total(None if row.unknown else int(row.known or 0) for row in rows)
    return found
