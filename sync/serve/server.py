"""The turns of a server: read files, decide on times that have come, start processes. All that must last is in rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from signal import Signals
from typing import Protocol

from ..clock import Clock
from ..errors import StateError, StoreUnreachable
from ..schedules import TOO_MANY, Look, next_times
from ..store import Store
from ..store.owner import Owner
from ..store.schedules import SILENT_S
from ..store.servers import OpenTick, OrderedTick, Standing, is_ahead
from .files import PipelineFiles, ServedFile, Taken
from .late_runs import LateRuns
from .old_runs import OldRuns
from .versions import own_version

#: Seconds between two looks at the folder, at due deliveries, between two signs of life, and two looks for late runs.
FILES_S, DELIVERIES_S, HEARTBEAT_S, LATE_S = 2.0, 5.0, 10.0, 10.0
#: A server whose last complete turn is older starts nothing.
LIVES_S = 30.0
#: A process has so long to claim its tick before another one is started.
CLAIM_S = 30.0
#: `recover` is started again after so long, doubling.
RECOVER_FIRST_S, RECOVER_LAST_S = 10.0, 300.0
#: Exit codes of processes that a signal has stopped are larger.
_SIGNAL = 128
#: Of the output of a process so much of its end is read, whatever it has printed.
_READ_BYTES = 100_000
#: Most characters of an error of a process.
_MOST_ERROR = 500

#: Parts of what a database reports about a full disk.
_FULL = ("disk is full", "No space left on device")

_START = datetime(1970, 1, 1, tzinfo=UTC)


class Processes(Protocol):
    """What starts processes: `Children`, or a test's."""

    @property
    def running(self) -> Set[str]:
        """Pipelines of the processes of ticks."""

    @property
    def recovering(self) -> Set[str]:
        """Pipelines of the processes of `recover`."""

    def run(self, file: ServedFile, tick: int) -> None:
        """Start the process of a tick."""

    def recover(self, file: ServedFile) -> None:
        """Start `recover`."""

    @property
    def is_pruning(self) -> bool:
        """Whether a process removes old runs."""

    def prune_runs(self, file: ServedFile) -> None:
        """Start a process that removes old runs of a pipeline."""

    def pruned(self) -> tuple[str, int] | None:
        """Return pipeline and exit code of the process that has removed old runs, once it has ended."""

    def reap(self) -> dict[int, tuple[ServedFile, int]]:
        """Forget the processes that have ended; return the ticks among them with their exit codes."""

    def log_of(self, tick: int) -> Path:
        """Return the file with the output of a tick's process."""

    def signal(self, owner: Owner, number: Signals) -> bool:
        """Send a signal to a process that this machine may have; False: it is not visible from here."""


class Server:
    """Any number of servers may share a store: rows decide which of them does what."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        files: PipelineFiles,
        processes: Processes,
        *,
        max_runs: int,
        clock: Clock,
        say: Callable[[str, str], None],
        url: str | None = None,
    ) -> None:
        """Use an opened store; `say` gets a text and its level, "info" or "warning"; `url`: where pages answer."""
        self._store = store
        self._folder = folder
        self._files = files
        self._processes = processes
        self._max_runs = max_runs
        self._clock = clock
        self._say = say
        self._url = url
        self._told: dict[str, str] = {}
        self._next_at = dict.fromkeys(("files", "deliveries", "heartbeat", "late"), 0.0)
        #: Pipeline -> when its schedule is due next, by the store's clock.
        self._due_at: dict[str, datetime] = {}
        self._now = _START
        #: The store's time of the last turn that has decided on all times up to it; at first the time of the start.
        self._decided_at = clock.now()
        #: True if the store has failed to answer since then.
        self._was_silent = False
        #: Whether the store and the log have what the files say.
        self._is_told = True
        #: Pipeline -> its file, whose schedule the store has.
        self._in_force: dict[str, ServedFile] = {}
        self._due_deliveries: frozenset[str] = frozenset()
        #: Pipeline -> why its last times were skipped.
        self._skips: dict[str, str] = {}
        #: Pipeline -> how often `recover` was started in vain, and when it may be started again.
        self._recoveries: dict[str, tuple[int, float]] = {}
        self._late_runs = LateRuns(processes.signal, clock, say)
        self._old_runs = OldRuns(store, clock)
        #: What the files said when the last turn ended, for other threads; None: no turn has come to its end.
        self.taken: Taken | None = None
        #: Monotonic time of the end of the last complete turn.
        self.turned_at = -math.inf
        #: Why the last turn has failed, without names and addresses. `None` if it has not.
        self._failure: str | None = None

    def turn(self) -> None:
        """Do what is to be done now. A store that does not answer is told once, and asked again at the next turn."""
        try:
            self._turn()
        except StoreUnreachable as error:
            self._was_silent = True
            self._next_at["heartbeat"] = 0.0  # the next turn must write, because reading works on a full disk
            self._tell("store", f"{error}; nothing starts until it answers")
            is_full = any(words in str(error) for words in _FULL)
            self._failure = "the run store is full" if is_full else "the run store does not answer"
        else:
            self._failure = None
            self._tell("store", None)

    def why_not_ready(self) -> str | None:
        """Return why this server starts nothing, or `None` if it does. Thread-safe, and public."""
        if self._failure is not None:
            return self._failure
        late_s = self._clock.monotonic() - self.turned_at
        if late_s <= LIVES_S:
            return None
        is_first = math.isinf(late_s)
        return "the first turn has not ended" if is_first else f"no turn has ended for {late_s:.0f} s"

    def leave(self) -> None:
        """Tell the other servers that this one starts nothing any more; else its lease tells them."""
        with suppress(StoreUnreachable):
            self._store.leave_server()

    def _turn(self) -> None:
        asked_at = self._clock.monotonic()
        if self._is_time("files", FILES_S):
            asked_at = self._read_files()
        if self._is_time("heartbeat", HEARTBEAT_S) and not self._store.renew_server():
            self._report()
        for tick, (file, code) in self._processes.reap().items():
            self._tell_end(tick, file, code)
        if self._is_time("late", LATE_S):
            self._late_runs.end(self._store.late_runs())
        standing = self._store.standing()
        self._was_silent |= self._is_late(asked_at)
        asked_at = self._clock.monotonic()
        has_new = self._look(standing)
        self._decided_at = standing.now
        if has_new:
            standing = self._store.standing()
        self._recover(standing)
        self._start(standing)
        self._prune()
        self._was_silent = self._is_late(asked_at)
        self.taken = Taken(self._files.heads, self._files.broken)
        self.turned_at = self._clock.monotonic()

    def _is_late(self, asked_at: float) -> bool:
        """Return true if the store has answered so late after a monotonic time that it did not answer in between."""
        return self._clock.monotonic() - asked_at > SILENT_S

    # -- files ---------------------------------------------------------------------------------------------------

    def _read_files(self) -> float:
        """Read the files that have changed; return the monotonic time at which only the store was left to ask."""
        try:
            is_changed = self._files.look()
        except OSError as error:
            self._tell("folder", f"{self._folder} cannot be read: {error.strerror or error}")
            return self._clock.monotonic()
        asked_at = self._clock.monotonic()
        self._tell("folder", None)
        usable = self._files.usable
        self._is_told &= not is_changed
        if not self._is_told:
            self._report()
        new = {name: file for name, file in usable.items() if self._in_force.get(name) != file}
        conflicts = self._store.schedules.see({name: (str(file.path), file.schedule) for name, file in new.items()})
        in_force = self._in_force | {name: file for name, file in new.items() if name not in conflicts}
        self._in_force = {name: file for name, file in in_force.items() if usable.get(name) == file}
        self._due_at = {
            name: _START if name in new else self._due_at[name]
            for name, file in self._in_force.items()
            if file.schedule is not None
        }
        if not self._is_told:
            self._tell_files()
            self._is_told = True
        for name in new:
            other = conflicts.get(name)
            said = f"{name}: another server reports another schedule of it, which counts until it has this one: {other}"
            self._tell(f"conflict {name}", said if other else None)
        return asked_at

    def _report(self) -> None:
        schedules = {name: file.schedule for name, file in self._files.usable.items()}
        self._store.report_server(str(self._folder), schedules, url=self._url, version=own_version())

    def _tell_files(self) -> None:
        usable, broken = self._files.usable, self._files.broken
        problems = {f"file {path}": f"{text}; nothing of it starts" for path, text in broken.items()}
        for known in self._store.schedules.known():
            path = Path(known.file)
            is_ours = path.parent == self._folder and path not in broken and not self._files.is_awaited(path)
            if known.pipeline not in usable and known.schedule is not None and is_ours:
                way = f"`syncblocks schedule forget {known.pipeline}` if this is meant"
                problems[f"file {known.file}"] = f"{known.pipeline}: its file {known.file} is gone; {way}"
        for key in [each for each in self._told if each.startswith("file ") and each not in problems]:
            self._tell(key, None)
        for key, text in problems.items():
            self._tell(key, text)
        for name, file in usable.items():
            if self._told.get(f"takes {name}") != str(file.path):
                self._told[f"takes {name}"] = str(file.path)
                self._say(f"{name}: {file.path.name}, {_when(file)}", "info")
        for key in [each for each in self._told if each.startswith("takes ") and each[6:] not in usable]:
            del self._told[key]

    # -- schedules -----------------------------------------------------------------------------------------------

    def _look(self, standing: Standing) -> bool:
        """Make the ticks that are due; return whether there are new ones."""
        now = standing.now
        if now < self._now:  # the store's clock was set back
            self._due_at = dict.fromkeys(self._due_at, _START)
        self._now = now
        behind = {name: at for name, at in standing.ahead.items() if name in self._files.usable}
        is_behind = any(is_ahead(at, now) for at in behind.values())
        names = ", ".join(sorted(behind))
        self._tell(
            "clock",
            f"the run store's clock is behind the newest tick of {names}: nothing of these starts. "
            "Set the clock right; if it is right now, `syncblocks schedule reset FILE` lets the schedule begin anew"
            if is_behind
            else None,
        )
        due = {name: self._in_force[name].schedule for name, at in self._due_at.items() if at <= now}
        schedules = {name: schedule for name, schedule in due.items() if schedule is not None}
        if not schedules:
            return False
        looks = self._store.schedules.look(
            schedules, decided_at=self._decided_at, answered_at=None if self._was_silent else now
        )
        for name, schedule in schedules.items():
            self._due_at[name] = next(iter(next_times(schedule, now, 1)), datetime.max.replace(tzinfo=UTC))
        for name, found in looks.items():
            self._tell_look(name, found)
        return any(found.ticks for found in looks.values())

    def _tell_look(self, name: str, found: Look) -> None:
        """Say which times were skipped, but not again while nothing else happens: a short schedule skips many."""
        for each in found.skipped:
            if self._skips.get(name) != each.why:
                last = f" to {each.last:%Y-%m-%d %H:%M:%SZ}" if each.count > 1 else ""
                text = f"{each.first:%Y-%m-%d %H:%M:%SZ}{last} skipped ({each.count}): {each.why}"
                self._say(f"{name}: {text}", "info")
            self._skips[name] = each.why
        if found.displaced:
            self._say(f"{name}: the oldest waiting ticks skipped ({found.displaced}): {TOO_MANY}", "info")
        if found.ticks:
            self._skips.pop(name, None)

    # -- processes -----------------------------------------------------------------------------------------------

    def _start(self, standing: Standing) -> None:
        begun = {each.tick.pipeline for each in standing.ticks if each.has_process}
        going = standing.alive | self._processes.running | begun
        blocked = going | (standing.dead & self._processes.recovering) | standing.ahead.keys()
        free = self._max_runs - len(going & self._files.usable.keys())
        for tick in _in_order(standing):
            file = self._files.usable.get(tick.pipeline)
            if file is None or tick.pipeline in blocked or free <= 0 or not self._files.is_settled(file):
                continue
            if not self._store.offer_tick(tick.id, CLAIM_S):
                continue
            self._say(f"{tick.pipeline}: tick {tick.id} of {tick.due_at:%Y-%m-%d %H:%M:%SZ} starts", "info")
            try:
                self._processes.run(file, tick.id)
            except OSError as error:
                why = f"no process can be started: {error.strerror or error}"
                self._store.fail_start(tick.id, why)
                self._say(f"{tick.pipeline}: {why}", "warning")
            blocked |= {tick.pipeline}
            free -= 1

    def _tell_end(self, number: int, file: ServedFile, code: int) -> None:
        try:
            tick = self._store.tick(number)
        except StoreUnreachable:
            raise
        except StateError:  # pruned
            return
        log = self._processes.log_of(number)
        output = f"its output: {log}"
        if tick.state == "run":
            self._say(f"{file.pipeline}: tick {number}, run {tick.run_id} ended with exit code {code}", "info")
        elif tick.state in ("waiting", "claimed"):
            why = f"exit code {code}{_last_error(log)}"
            is_stopped = code > _SIGNAL  # it gave the claim back
            if code == 0 or is_stopped or not self._store.fail_start(number, why):
                why = tick.why or ("another run goes" if code == 0 else why)
            self._say(f"{file.pipeline}: tick {number} waits: {why}; {output}", "warning")
        else:
            self._say(f"{file.pipeline}: tick {number} was {tick.state}: {tick.why}; {output}", "warning")

    def _recover(self, standing: Standing) -> None:
        """Start `recover` for what is dead, and for deliveries that are due while no run goes that delivers them."""
        usable = self._files.usable
        going = standing.alive | self._processes.running
        if self._is_time("deliveries", DELIVERIES_S):
            idle = usable.keys() - going
            self._due_deliveries = self._store.due_pipelines(idle) if idle else frozenset()
            needed = standing.dead | self._due_deliveries | self._processes.recovering
            self._recoveries = {name: each for name, each in self._recoveries.items() if name in needed}
        now = self._clock.monotonic()
        for name in sorted((standing.dead | self._due_deliveries) & usable.keys()):
            times, next_at = self._recoveries.get(name, (0, 0.0))
            if name in going | self._processes.recovering or now < next_at or not self._files.is_settled(usable[name]):
                continue
            why = "the process of its run is dead" if name in standing.dead else "callbacks are due"
            self._say(f"{name}: {why}: recover starts", "info")
            try:
                self._processes.recover(usable[name])
            except OSError as error:
                self._say(f"{name}: no process can be started: {error.strerror or error}", "warning")
            wait_s = min(RECOVER_LAST_S, RECOVER_FIRST_S * 2.0 ** min(times, 30))
            self._recoveries[name] = (times + 1, now + wait_s)

    def _prune(self) -> None:
        """Start the removal of old runs, of one pipeline at a time."""
        if (ended := self._processes.pruned()) is not None and ended[1] != 0:
            self._say(f"{ended[0]}: old runs stay: `runs prune` ended with exit code {ended[1]}", "warning")
        name = None if self._processes.is_pruning else self._old_runs.find(self._files.heads)
        if name is None or not self._files.is_settled(file := self._files.usable[name]):
            return
        self._say(f"{name}: runs are past its history: runs prune starts", "info")
        try:
            self._processes.prune_runs(file)
        except OSError as error:
            self._say(f"{name}: no process can be started: {error.strerror or error}", "warning")

    # -- helpers -------------------------------------------------------------------------------------------------

    def _is_time(self, what: str, every_s: float) -> bool:
        now = self._clock.monotonic()
        if now < self._next_at[what]:
            return False
        self._next_at[what] = now + every_s
        return True

    def _tell(self, key: str, text: str | None) -> None:
        """Say a text once, until it changes; None: what it was about is over."""
        if text is None:
            self._told.pop(key, None)
        elif self._told.get(key) != text:
            self._told[key] = text
            self._say(text, "warning")


def _in_order(standing: Standing) -> list[OrderedTick]:
    """Return the ticks that may start: those of schedules by their time, then the others as they were ordered.

    Of a schedule only the oldest tick may start, also while it waits.
    """
    first: dict[str, OpenTick] = {}
    others: list[OrderedTick] = []
    for each in standing.ticks:
        tick = each.tick
        if tick.kind == "schedule":
            former = first.get(tick.pipeline)
            if former is None or tick.due_at < former.tick.due_at:
                first[tick.pipeline] = each
        elif each.is_startable:
            others.append(tick)
    due = [each.tick for name, each in first.items() if each.is_startable and name not in standing.paused]
    return [*sorted(due, key=lambda tick: (tick.due_at, tick.id)), *others]


def _when(file: ServedFile) -> str:
    if file.schedule is None:
        return "no schedule"
    if file.schedule.cron is not None:
        return f"{file.schedule.cron}, {file.schedule.timezone}"
    return f"every {file.schedule.every_s} s"


def _last_error(log: Path) -> str:
    """Return `: ` and the last error in the output of a process; empty: there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _READ_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    found = next((line for line in reversed(lines) if line.startswith("error")), "")
    return f": {found[:_MOST_ERROR]}{'...' if len(found) > _MOST_ERROR else ''}" if found else ""
