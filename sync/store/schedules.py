"""Schedules in force: each time of a schedule becomes a tick once, or is skipped with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from ..errors import StateError
from ..schedules import NEWER, TOO_MANY, Look, NewTick, Schedule, Skipped, look, previous_time, skip_all
from .audit_log import note
from .connection import Row, StoreConnection, value_of
from .model import RUNNING
from .owner import Owner
from .servers import encoded, is_paused, live_servers, pause_end
from .statements import insert, one_of, update
from .table_names import ATTEMPT, PIPELINE_RUN, SCHEDULE, TICK
from .transactions import Transactions

CHANGED, FORGOTTEN, RESET = "schedule changed", "schedule forgotten", "schedule reset"

#: A run store that takes longer to answer did not answer in between.
SILENT_S = 10.0

_COLUMNS = "pipeline file schedule looked_at is_paused"
_NEW = f"{insert(SCHEDULE, _COLUMNS)} ON CONFLICT (pipeline) DO NOTHING"
_LOCKED = f"SELECT * FROM {SCHEDULE} WHERE {{is_one}} ORDER BY pipeline FOR UPDATE"
_RUNNING = f"""SELECT r.pipeline, r.owner, r.lease_until FROM {PIPELINE_RUN} r
    JOIN {ATTEMPT} a ON a.run_id = r.id AND a.attempt = r.attempt
    WHERE r.{{is_one}} AND r.is_active = TRUE AND r.hold_s IS NULL AND a.status = '{RUNNING}'"""
_OPEN = "kind = 'schedule' AND (state = 'waiting' OR state = 'claimed')"
_QUEUED = f"SELECT pipeline, state FROM {TICK} WHERE {{is_one}} AND {_OPEN}"
_LAST = f"""SELECT id, state, why, skipped_count FROM {TICK} WHERE pipeline = :pipeline AND kind = 'schedule'
    ORDER BY tick_key DESC LIMIT 1"""
_LENGTHEN = update(TICK, "skipped_to skipped_count", "id = :id")
_WAITING = "pipeline = :pipeline AND kind = 'schedule' AND state = 'waiting'"
_SKIP = update(TICK, "state why", _WAITING)
_OLDEST = f"SELECT id FROM {TICK} WHERE {_WAITING} ORDER BY tick_key LIMIT :number"
# A time that comes again, after the clock was ahead, gets a tick of its own.
_RENAME = f"UPDATE {TICK} SET tick_key = tick_key || ' reset ' || id WHERE pipeline = :pipeline AND due_at > :now"


class Pause(Struct, frozen=True):
    """A schedule that is paused."""

    #: None: until it is resumed.
    until: datetime | None = None
    reason: str | None = None


class KnownSchedule(Struct, frozen=True, kw_only=True):
    """A schedule in force."""

    pipeline: str
    #: The file that said it last.
    file: str
    #: None: the file has none any more.
    schedule: Mapping[str, Any] | None
    #: Each time up to this moment is decided.
    looked_at: datetime
    is_paused: bool
    #: None: until it is resumed.
    paused_until: datetime | None
    pause_reason: str | None
    #: When the last pause ended, or the schedule was changed.
    resumed_at: datetime | None

    def pause_at(self, moment: datetime) -> Pause | None:
        """Return the pause that holds then; perhaps no server has looked since the last one ended."""
        if not self.is_paused or (self.paused_until is not None and self.paused_until <= moment):
            return None
        return Pause(self.paused_until, self.pause_reason)


class Schedules:
    """The row of a schedule is locked while its times are decided: so each is decided once, by one of the servers."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def known(self) -> list[KnownSchedule]:
        """Return all schedules, by name of the pipeline."""
        with self._transactions.read() as connection:
            rows = connection.rows(f"SELECT * FROM {SCHEDULE} ORDER BY pipeline")
        return [value_of(KnownSchedule, row) for row in rows]

    def see(self, found: Mapping[str, tuple[str, Schedule | None]]) -> dict[str, str]:
        """Put the schedules of files in force. A new one counts from now on; what has not changed stays as it is.

        Args:
            found: Pipeline -> its file, and the schedule there.

        Returns:
            Pipelines whose schedule is not in force, since another server that lives reports the former one, and which.
        """
        conflicts: dict[str, str] = {}
        if not found:
            return conflicts
        with self._transactions.write("see_schedules") as connection:
            now = self._transactions.now(connection)
            for name, (file, schedule) in sorted(found.items()):
                if schedule is not None:
                    new = {"pipeline": name, "file": file, "schedule": encoded(schedule)}
                    connection.run(_NEW, new | {"looked_at": now, "is_paused": False})
            rows = self._locked(connection, found)
            changed = [row for row in rows if row.schedule != encoded(found[row.pipeline][1])]
            others = live_servers(self._transactions, connection, now) if changed else []
            for row in changed:
                for other in others:
                    if other.pipelines.get(row.pipeline, {}) == row.schedule:
                        conflicts[row.pipeline] = f"{Owner.decode(other.owner)}, folder {other.folder}"
                        break
                else:
                    self._skip_until(connection, row, now, CHANGED)
                    _set(connection, row.pipeline, schedule=encoded(found[row.pipeline][1]), resumed_at=now)
            for row in rows:
                file = found[row.pipeline][0]
                if row.pipeline not in conflicts and row.file != file:
                    _set(connection, row.pipeline, file=file)
        return conflicts

    def look(
        self,
        schedules: Mapping[str, Schedule],
        *,
        decided_at: datetime | None = None,
        answered_at: datetime | None = None,
    ) -> dict[str, Look]:
        """Decide on the times that have come; make ticks, and record the times that get none.

        Args:
            schedules: Pipeline -> its schedule as the caller knows it. If another one is in force, the caller is out
                of date, and nothing is decided.
            decided_at: the store's time of the caller's last look. `None` if that is unknown.
            answered_at: the store's time of its last answer to the caller. If this transaction is much later, the store
                did not answer in between, for example because another process locked it. `None` if the store has failed
                to answer since `decided_at`.

        Returns:
            Pipeline -> what was decided.
        """
        looks: dict[str, Look] = {}
        with self._transactions.write("look_at_schedules") as connection:
            rows = self._locked(connection, schedules)
            now = self._transactions.now(connection)
            has_answered = answered_at is not None and now - answered_at <= timedelta(seconds=SILENT_S)
            running, waiting = self._busy(connection, schedules, now)
            for row in rows:
                schedule = schedules[row.pipeline]
                if row.schedule != encoded(schedule) or row.looked_at >= now or is_paused(row, now):
                    continue
                looked_at = row.looked_at
                if row.is_paused:
                    looked_at = self._end_pause(connection, row, pause_end(row))
                found = look(
                    schedule,
                    looked_at,
                    now,
                    is_busy=row.pipeline in running,
                    waiting=waiting.get(row.pipeline, 0),
                    silent_since=None if has_answered else decided_at,
                )
                if found.replaces_waiting:
                    values = {"pipeline": row.pipeline, "state": "skipped", "why": NEWER}
                    connection.run(f"{_SKIP} AND role = 'waits'", values)
                if found.displaced:
                    oldest = connection.column(_OLDEST, {"pipeline": row.pipeline, "number": found.displaced})
                    values = {"pipeline": row.pipeline, "state": "skipped", "why": TOO_MANY}
                    connection.run_many(f"{_SKIP} AND id = :id", ({**values, "id": each} for each in oldest))
                for tick in found.ticks:
                    _make(connection, row.pipeline, schedule, tick)
                self._record(connection, row.pipeline, found.skipped)
                if found.ticks or found.skipped:
                    _set(connection, row.pipeline, looked_at=now)
                    looks[row.pipeline] = found
        return looks

    def pause(
        self,
        pipeline: str,
        file: str,
        schedule: Schedule,
        *,
        until: datetime | None = None,
        reason: str | None = None,
        who: str | None = None,
    ) -> None:
        """Let no tick of a schedule start, and make none, until it is resumed or `until` comes.

        `who`: see `actions`.
        """
        self.see({pipeline: (file, schedule)})
        with self._transactions.write("pause_schedule") as connection:
            (row,) = self._locked(connection, [pipeline])
            now = self._transactions.now(connection)
            if row.is_paused and not is_paused(row, now):
                self._end_pause(connection, row, pause_end(row))
            _set(connection, pipeline, is_paused=True, paused_until=until, pause_reason=reason)
            if who is not None:
                end = None if until is None else until.isoformat()
                note(connection, now, pipeline, who=who, what="pause", until=end, reason=reason)

    def resume(self, pipeline: str, *, who: str | None = None) -> bool:
        """End a pause; the times since its beginning are skipped. False: the schedule is not paused.

        `who`: see `actions`.
        """
        with self._transactions.write("resume_schedule") as connection:
            for row in self._locked(connection, [pipeline]):
                now = self._transactions.now(connection)
                if row.is_paused:
                    was_paused = is_paused(row, now)
                    self._end_pause(connection, row, now if was_paused else pause_end(row))
                    if was_paused and who is not None:
                        note(connection, now, pipeline, who=who, what="resume")
                    return was_paused
        return False

    def forget(self, pipeline: str) -> int:
        """Delete a schedule, and skip its ticks that wait; return how many.

        Raises:
            StateError: there is none, or a server that lives takes the pipeline.
        """
        with self._transactions.write("forget_schedule") as connection:
            rows = self._locked(connection, [pipeline])
            for other in live_servers(self._transactions, connection, self._transactions.now(connection)):
                if pipeline in other.pipelines:
                    raise StateError(
                        f"the server of folder {other.folder} ({Owner.decode(other.owner)}) takes pipeline "
                        f"{pipeline!r}: delete its file first, or `schedule` in it"
                    )
            if not rows:
                raise StateError(f"the run store knows no schedule of a pipeline {pipeline!r}")
            connection.run(f"DELETE FROM {SCHEDULE} WHERE pipeline = :pipeline", {"pipeline": pipeline})
            return connection.changed(_SKIP, {"pipeline": pipeline, "state": "skipped", "why": FORGOTTEN})

    def reset(self, pipeline: str) -> int:
        """Let a schedule begin anew at the store's present time; skip its ticks that wait, and return how many.

        Raises:
            StateError: there is none.
        """
        with self._transactions.write("reset_schedule") as connection:
            rows = self._locked(connection, [pipeline])
            if not rows:
                raise StateError(f"the run store knows no schedule of a pipeline {pipeline!r}")
            now = self._transactions.now(connection)
            skipped = connection.changed(_SKIP, {"pipeline": pipeline, "state": "skipped", "why": RESET})
            self._skip_until(connection, rows[0], now, RESET)
            connection.run(f"{_RENAME} AND kind = 'schedule'", {"pipeline": pipeline, "now": now})
            _set(connection, pipeline, looked_at=now, resumed_at=now)
            return skipped

    # -- in a transaction ----------------------------------------------------------------------------------------

    def _locked(self, connection: StoreConnection, pipelines: Collection[str]) -> list[Row]:
        is_one, values = one_of("pipeline", pipelines)
        return connection.rows(_LOCKED.format(is_one=is_one), values)

    def _busy(
        self, connection: StoreConnection, pipelines: Collection[str], now: datetime
    ) -> tuple[set[str], Counter[str]]:
        """Return the pipelines with a run or an open tick of the schedule, and the number of ticks that wait in each.

        A run that only delivers callbacks does not count.
        """
        is_one, values = one_of("pipeline", pipelines)
        runs = connection.rows(_RUNNING.format(is_one=is_one), values)
        queued = connection.rows(_QUEUED.format(is_one=is_one), values)
        alive = {row.pipeline for row in runs if self._transactions.is_alive(row.owner, row.lease_until, now)}
        waiting = Counter(row.pipeline for row in queued if row.state == "waiting")
        return alive | {row.pipeline for row in queued}, waiting

    def _end_pause(self, connection: StoreConnection, row: Row, at: datetime) -> datetime:
        why = f"paused: {row.pause_reason}" if row.pause_reason else "paused"
        _set(connection, row.pipeline, is_paused=False, paused_until=None, pause_reason=None, resumed_at=at)
        return self._skip_until(connection, row, at, why)

    def _skip_until(self, connection: StoreConnection, row: Row, at: datetime, why: str) -> datetime:
        """Skip the times of a schedule that are not decided; return up to when they are now."""
        if row.schedule is not None:
            self._record(connection, row.pipeline, skip_all(Schedule(**row.schedule), row.looked_at, at, why))
        looked_at: datetime = max(row.looked_at, at)
        _set(connection, row.pipeline, looked_at=looked_at)
        return looked_at

    @staticmethod
    def _record(connection: StoreConnection, pipeline: str, stretches: Iterable[Skipped]) -> None:
        """Write times that get no tick; those that follow others with the same reason lengthen their row."""
        for each in stretches:
            last = connection.row(_LAST, {"pipeline": pipeline})
            if last is not None and (last.state, last.why) == ("skipped", each.why) and last.skipped_count:
                count = last.skipped_count + each.count
                connection.run(_LENGTHEN, {"id": last.id, "skipped_to": each.last, "skipped_count": count})
                continue
            row = _row(pipeline, each.first) | {"state": "skipped", "why": each.why}
            _insert(connection, row | {"skipped_to": each.last, "skipped_count": each.count})


def _make(connection: StoreConnection, pipeline: str, schedule: Schedule, tick: NewTick) -> None:
    role = "waits" if tick.waits else "missed" if tick.is_missed else None
    former = previous_time(schedule, tick.due_at)
    interval = {} if former is None else {"interval_start": former, "interval_end": tick.due_at}
    _insert(connection, _row(pipeline, tick.due_at) | {"state": "waiting", "role": role} | interval)


def _row(pipeline: str, at: datetime) -> dict[str, Any]:
    key = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    plain = {"trigger_id": "schedule", "event": {}, "variables": {}, "causes": [], "full_refresh": False, "claims": 0}
    return {"pipeline": pipeline, "kind": "schedule", "tick_key": key, "due_at": at, **plain}


def _insert(connection: StoreConnection, row: dict[str, Any]) -> None:
    connection.run(f"{insert(TICK, row)} ON CONFLICT (pipeline, kind, tick_key) DO NOTHING", row)


def _set(connection: StoreConnection, pipeline: str, **values: Any) -> None:
    connection.run(update(SCHEDULE, values, "pipeline = :pipeline"), {"pipeline": pipeline, **values})
