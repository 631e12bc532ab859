"""What the run store knows of a pipeline that must be known to say whether it is late. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from ..schedules.expect import Expect
from .connection import Row, StoreConnection, value_of
from .model import DATA_EXPORTER, SUCCESS
from .schedules import Pause
from .servers import is_ahead, is_paused, pause_end
from .statements import insert, one_of
from .table_names import ATTEMPT, BLOCK_RUN, DELIVERY, EXPECTATION, PIPELINE_RUN, SCHEDULE, STREAM_RUN, TICK
from .transactions import LEASE_S, Transactions

#: A tick that waits after so many failed starts has waited for ten minutes (see `ticks.DELAY_FIRST_S`).
_PATIENT_DELAYS = 6
#: Runs of a pipeline in the first look behind its latest run; each further look takes four times as many.
_FIRST_RUNS = 4
#: After so many of its runs each stream without a success is looked up by itself.
_MOST_RUNS = 20
#: Pipelines of one read.
_AT_ONCE = 100

_ATTEMPT_OF_RUN = f"{PIPELINE_RUN} r JOIN {ATTEMPT} a ON a.run_id = r.id AND a.attempt = r.attempt"
_RUN_COLUMNS = f"""r.pipeline, r.id, r.attempt, r.is_active, r.owner, r.lease_until, r.hold_s,
    a.status, a.started_at, a.ended_at,
    (SELECT t.kind FROM {TICK} t WHERE t.run_id = r.id AND t.retries IS NULL) AS kind"""
_LATEST = f"""SELECT {_RUN_COLUMNS} FROM (
        SELECT (SELECT max(n.id) FROM {PIPELINE_RUN} n WHERE n.pipeline = p.value) AS id
        FROM unnest(CAST(:in_pipeline AS TEXT[])) AS p (value)
    ) l JOIN {PIPELINE_RUN} r ON r.id = l.id JOIN {ATTEMPT} a ON a.run_id = r.id AND a.attempt = r.attempt"""
_RUNS = f"""SELECT {_RUN_COLUMNS} FROM {_ATTEMPT_OF_RUN} WHERE r.pipeline = :pipeline AND r.id < :before
    ORDER BY r.id DESC LIMIT :most"""
_RECENT = f"""SELECT r.pipeline, a.status, count(*) AS number FROM unnest(CAST(:in_pipeline AS TEXT[])) AS p (value)
    JOIN {PIPELINE_RUN} r ON r.pipeline = p.value AND r.id > coalesce((SELECT o.id FROM {PIPELINE_RUN} o
        WHERE o.pipeline = p.value ORDER BY o.id DESC LIMIT 1 OFFSET :most), 0)
    JOIN {ATTEMPT} a ON a.run_id = r.id AND a.attempt = r.attempt GROUP BY r.pipeline, a.status"""
_WHOLE = f"""SELECT a.run_id, a.attempt, a.plan LIKE :missing AS has_missing, EXISTS (SELECT 1 FROM {STREAM_RUN} s
    WHERE s.run_id = a.run_id AND s.attempt = a.attempt) AS has_streams FROM {ATTEMPT} a
    WHERE a.{{is_one}} AND a.plan NOT LIKE :partial ORDER BY a.run_id DESC, a.attempt DESC"""
_PLAN = f"SELECT plan FROM {ATTEMPT} WHERE run_id = :run_id AND attempt = :attempt"
_STREAMS = f"SELECT run_id, attempt, stream FROM {STREAM_RUN} WHERE {{is_one}} ORDER BY position"
_EXPORTED = f"""{STREAM_RUN} s JOIN {BLOCK_RUN} b ON b.run_id = s.run_id AND b.attempt = s.attempt
    AND b.stream = s.stream AND b.block_type = '{DATA_EXPORTER}'"""
_SUCCESSES = f"""SELECT s.stream, s.run_id, b.ended_at, b.row_count FROM {_EXPORTED}
    WHERE s.{{is_one}} AND s.status = '{SUCCESS}' ORDER BY b.ended_at"""
# By the index of the stream's runs.
_OF_STREAM = "s.pipeline = :pipeline AND s.stream = :stream"
_LAST_SUCCESS = f"""SELECT b.ended_at, b.row_count FROM {_EXPORTED} WHERE {_OF_STREAM} AND s.status = '{SUCCESS}'
    AND NOT EXISTS (SELECT 1 FROM {TICK} t WHERE t.run_id = s.run_id AND t.kind = 'backfill')
    ORDER BY s.run_id DESC, s.attempt DESC LIMIT 1"""
_PLANNED = f"""SELECT a.started_at FROM {STREAM_RUN} s JOIN {ATTEMPT} a ON a.run_id = s.run_id AND a.attempt = s.attempt
    WHERE {_OF_STREAM} ORDER BY s.run_id, s.attempt LIMIT 1"""
# Runs of a pipeline end in their order: none before the last one that ended before the window has a part in it.
_RUNS_IN_WINDOW = f"""SELECT r.id FROM {PIPELINE_RUN} r WHERE r.pipeline = :pipeline AND r.id > coalesce((
        SELECT o.id FROM {PIPELINE_RUN} o JOIN {ATTEMPT} a ON a.run_id = o.id AND a.attempt = o.attempt
        WHERE o.pipeline = :pipeline AND a.ended_at <= :earliest ORDER BY o.id DESC LIMIT 1), 0)
    AND NOT EXISTS (SELECT 1 FROM {TICK} t WHERE t.run_id = r.id AND t.kind = 'backfill')"""
_WINDOW = f"""SELECT s.stream, sum(b.row_count) AS known, count(*) - count(b.row_count) AS unknown FROM {_EXPORTED}
    WHERE s.{{is_one}} AND s.status = '{SUCCESS}' AND b.ended_at > :earliest GROUP BY s.stream"""
_DEAD = f"SELECT pipeline, count(*) AS number FROM {DELIVERY} WHERE {{is_one}} AND state = 'dead' GROUP BY pipeline"
_DUE = f"""SELECT pipeline, lease_owner, lease_until, count(*) AS number FROM {DELIVERY} WHERE {{is_one}}
    AND is_open = TRUE AND (state = 'leased' OR not_before IS NULL OR not_before <= :now)
    GROUP BY pipeline, lease_owner, lease_until"""
_WAITING = f"""SELECT pipeline, why, delays FROM {TICK} WHERE {{is_one}} AND (state = 'waiting' OR state = 'claimed')
    AND due_at <= :now ORDER BY delays, id DESC"""
_REFUSED = f"""SELECT pipeline, due_at, why FROM {TICK} WHERE id IN (
    SELECT max(id) FROM {TICK} WHERE {{is_one}} AND state = 'refused' GROUP BY pipeline)"""
_SCHEDULE = f"""SELECT pipeline, is_paused, paused_until, pause_reason, resumed_at, looked_at FROM {SCHEDULE}
    WHERE {{is_one}}"""
_SEEN = f"SELECT pipeline, stream, kind, seen_at FROM {EXPECTATION} WHERE {{is_one}}"
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


class Asked(Struct, frozen=True, kw_only=True):
    """A pipeline of which facts are asked."""

    pipeline: str
    #: What is expected of it.
    expect: Expect | None = None
    #: Returns what is expected of streams: of those that it is given, and of others.
    expects: Callable[[Iterable[str]], dict[str, Expect]] = lambda _streams: {}


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
        """Return how a pipeline stands; see `Asked`."""
        return self.facts_of([Asked(pipeline=pipeline, expect=expect, expects=expects)])[pipeline]

    def facts_of(self, asked: Sequence[Asked]) -> dict[str, Facts]:
        """Return how pipelines stand: a few statements for many of them."""
        found: dict[str, Facts] = {}
        for begin in range(0, len(asked), _AT_ONCE):
            with self._transactions.read() as connection:
                found |= self._facts(connection, asked[begin : begin + _AT_ONCE])
        return found

    def _facts(self, connection: StoreConnection, asked: Sequence[Asked]) -> dict[str, Facts]:
        now = self._transactions.now(connection)
        is_one, values = one_of("pipeline", [each.pipeline for each in asked])
        statements = (_DEAD, _DUE, _WAITING, _REFUSED, _SCHEDULE)
        answers = [connection.ask(each.format(is_one=is_one), {**values, "now": now}) for each in statements]
        histories = _histories(connection, asked)
        dead, dues, waiting, refused, schedules = (answer() for answer in answers)
        due = Counter[str]()
        for row in dues:
            due[row.pipeline] += 0 if self._is_leased(row, now) else row.number
        dead_of = {row.pipeline: row.number for row in dead}
        waiting_of, refused_of, schedule_of = ({r.pipeline: r for r in rows} for rows in (waiting, refused, schedules))
        return {
            each.pipeline: self._of_one(
                *(connection, now, each, histories[each.pipeline], schedule_of.get(each.pipeline)),
                waiting=waiting_of.get(each.pipeline),
                refused=refused_of.get(each.pipeline),
                dead_deliveries=dead_of.get(each.pipeline, 0),
                due_deliveries=due[each.pipeline],
            )
            for each in asked
        }

    def _of_one(
        self,
        connection: StoreConnection,
        now: datetime,
        asked: Asked,
        history: _History,
        schedule: Row | None,
        *,
        waiting: Row | None,
        refused: Row | None,
        **counts: int,
    ) -> Facts:
        pause, resumed_at = _pause(schedule, now)
        latest = history.latest
        if refused is not None and latest is not None and latest.started_at >= refused.due_at:
            refused = None
        return Facts(
            now=now,
            run=None if latest is None else self._run(latest, now),
            streams=history.streams(connection),
            selected=history.selected,
            expects=history.expects,
            missing=history.missing,
            last_rows=history.last_rows,
            windows=_windows(connection, asked.pipeline, {"": asked.expect, **history.expects}, now),
            waiting=None if waiting is None else waiting.why or "",
            starts_fail=waiting is not None and waiting.delays > _PATIENT_DELAYS,
            refused=None if refused is None else refused.why,
            ahead=None if schedule is None or not is_ahead(schedule.looked_at, now) else schedule.looked_at,
            pause=pause,
            resumed_at=resumed_at,
            **counts,
        )

    def recent_statuses(self, pipelines: Sequence[str], most: int) -> dict[str, dict[str, int]]:
        """Return how many of the newest runs of each pipeline have each status."""
        found: dict[str, dict[str, int]] = {name: {} for name in pipelines}
        for begin in range(0, len(pipelines), _AT_ONCE):
            with self._transactions.read() as connection:
                values = {"in_pipeline": list(pipelines[begin : begin + _AT_ONCE]), "most": most}
                for row in connection.rows(_RECENT, values):
                    found[row.pipeline][row.status] = row.number
        return found

    def see(self, pipeline: str, expected: Collection[Subject]) -> dict[Subject, datetime]:
        """Return when each expectation was first seen; it is now for a new one."""
        return self.see_all({pipeline: expected})[pipeline]

    def see_all(self, expected: Mapping[str, Collection[Subject]]) -> dict[str, dict[Subject, datetime]]:
        """Do the same for the expectations of pipelines."""
        wanted = {(name, *subject) for name, subjects in expected.items() for subject in subjects}
        found: dict[str, dict[Subject, datetime]] = {name: {} for name in expected}
        if not wanted:
            return found
        is_one, values = one_of("pipeline", [name for name, subjects in expected.items() if subjects])
        with self._transactions.read() as connection:
            rows = connection.rows(_SEEN.format(is_one=is_one), values)
        if new := wanted - {(row.pipeline, row.stream, row.kind) for row in rows}:
            with self._transactions.write("see_expectations") as connection:
                now = self._transactions.now(connection)
                names = ("pipeline", "stream", "kind", "seen_at")
                connection.run_many(_SEE, [dict(zip(names, (*each, now), strict=True)) for each in sorted(new)])
                rows = connection.rows(_SEEN.format(is_one=is_one), values)
        for row in rows:
            found[row.pipeline][row.stream, row.kind] = row.seen_at
        return found

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
    """What the runs of a pipeline tell, the latest first, as far back as there is something to find."""

    def __init__(self, asked: Asked) -> None:
        self.pipeline = asked.pipeline
        self._expects = asked.expects
        self._needs_rows = asked.expect is not None and asked.expect.rows is not None and asked.expect.rows.in_s is None
        self._number = 0
        self.successes: dict[str, StreamFacts] = {}
        self.has_plan = self.has_missing = False
        self.latest: Row | None = None
        #: The oldest run of the last look; None: there was none.
        self.before: int | None = None
        self.selected: tuple[str, ...] = ()
        self.expects: dict[str, Expect] = asked.expects(())
        self.missing: tuple[str, ...] = ()
        self.last_rows: RunRows | None = None

    @property
    def is_complete(self) -> bool:
        if not self.has_plan or (self._needs_rows and self.last_rows is None):
            return False
        return self._number > _MOST_RUNS or all(name in self.successes for name in self._wanted())

    def take(self, run: Row) -> None:
        self.latest = self.latest or run
        self.before = run.id
        self._number += 1

    def select(self, streams: Sequence[str]) -> None:
        self.selected = tuple(streams)
        self.expects = self._expects(self.selected)

    def streams(self, connection: StoreConnection) -> dict[str, StreamFacts]:
        asked = {}
        for name in self._wanted():
            if name not in self.successes:
                values = {"pipeline": self.pipeline, "stream": name}
                asked[name] = [connection.ask(each, values) for each in (_LAST_SUCCESS, _PLANNED)]
        for name, answers in asked.items():
            successes, planned = (answer() for answer in answers)
            facts = [StreamFacts(succeeded_at=row.ended_at, rows=row.row_count) for row in successes]
            facts += [StreamFacts(planned_at=row.started_at) for row in planned]
            self.successes[name] = next(iter(facts), StreamFacts())
        return {name: self.successes[name] for name in self._wanted()}

    def _wanted(self) -> Iterable[str]:
        return dict.fromkeys((*self.selected, *self.expects))


def _histories(connection: StoreConnection, asked: Iterable[Asked]) -> dict[str, _History]:
    histories = {each.pipeline: _History(each) for each in asked}
    most = _FIRST_RUNS
    runs = connection.rows(_LATEST, {"in_pipeline": list(histories)})
    while runs:
        for run in runs:
            histories[run.pipeline].take(run)
        if forward := {run.id: run for run in runs if run.kind != "backfill"}:
            _read_runs(connection, histories, forward)
        answers = []
        for each in histories.values():
            if each.before is not None and not each.is_complete:
                values = {"pipeline": each.pipeline, "before": each.before, "most": most}
                answers.append(connection.ask(_RUNS, values))
            each.before = None
        runs = [run for answer in answers for run in answer()]
        most *= 4
    return histories


def _read_runs(connection: StoreConnection, histories: Mapping[str, _History], runs: Mapping[int, Row]) -> None:
    is_one, values = one_of("run_id", list(runs))
    patterns = {"partial": '%"is_partial":true%', "missing": '%"missing_streams":[%'}
    whole = connection.rows(_WHOLE.format(is_one=is_one), {**values, **patterns})
    plans: dict[int, int] = {}
    for row in whole:
        history = histories[runs[row.run_id].pipeline]
        if not history.has_missing and (row.has_streams or row.has_missing):
            history.has_missing = True
            if row.has_missing:
                plan = connection.value(_PLAN, {"run_id": row.run_id, "attempt": row.attempt})
                history.missing = tuple(plan["extra"].get("missing_streams", ()))
        if not history.has_plan and row.has_streams:
            history.has_plan = True
            plans[row.run_id] = row.attempt
    selected: dict[int, list[str]] = {number: [] for number in plans}
    if plans:
        is_planned, numbers = one_of("run_id", list(plans))
        for row in connection.rows(_STREAMS.format(is_one=is_planned), numbers):
            if row.attempt == plans[row.run_id]:
                selected[row.run_id].append(row.stream)
    for number, names in selected.items():
        histories[runs[number].pipeline].select(names)
    rows: dict[int, list[int | None]] = {}
    successes: dict[str, dict[str, StreamFacts]] = {}
    for row in connection.rows(_SUCCESSES.format(is_one=is_one), values):
        rows.setdefault(row.run_id, []).append(row.row_count)
        of_pipeline = successes.setdefault(runs[row.run_id].pipeline, {})
        of_pipeline[row.stream] = StreamFacts(succeeded_at=row.ended_at, rows=row.row_count)
    for name, found in successes.items():
        histories[name].successes = found | histories[name].successes
    for row in whole:
        run = runs[row.run_id]
        history = histories[run.pipeline]
        if history.last_rows is None and row.has_streams and run.status == SUCCESS and run.ended_at is not None:
            history.last_rows = RunRows(run.ended_at, _total(rows.get(run.id, [])))


def _total(numbers: Iterable[int | None]) -> int | None:
    """Return the sum; None if one of the numbers is not known."""
    known = list(numbers)
    return None if None in known else sum(each for each in known if each is not None)


def _windows(
    connection: StoreConnection, pipeline: str, expects: Mapping[str, Expect | None], now: datetime
) -> dict[tuple[str, int], int | None]:
    found: dict[tuple[str, int], int | None] = {}
    by_length: dict[int, list[Any]] = {}
    for stream, expect in expects.items():
        if expect is None or expect.rows is None or (in_s := expect.rows.in_s) is None:
            continue
        if in_s not in by_length:
            values = {"pipeline": pipeline, "earliest": now - timedelta(seconds=in_s)}
            is_one, numbers = one_of("run_id", connection.column(_RUNS_IN_WINDOW, values))
            by_length[in_s] = connection.rows(_WINDOW.format(is_one=is_one), {**values, **numbers})
        rows = [row for row in by_length[in_s] if stream in ("", row.stream)]
        found[stream, in_s] = _total(None if row.unknown else int(row.known or 0) for row in rows)
    return found
