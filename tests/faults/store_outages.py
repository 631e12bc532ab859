"""Outages of a run store on the virtual clock of `simulated_day`, and an oracle for the outcome of each time."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from syncblocks.sync.schedules import MOST_MISSED, NEWER, TOO_MANY, Schedule, due
from syncblocks.sync.schedules.looks import NO_STORE, STILL_GOES
from syncblocks.sync.serve import ServedFile, Server
from syncblocks.sync.store.schedules import CHANGED
from tests.sync.serve.decided_times import read_time, wrong_times
from tests.sync.serve.serve_helpers import MovedClock, Noted, begin, end
from tests.sync.serve.simulated_day import Day, Given
from tests.sync.store.store_helpers import query

Missed = Literal["latest", "all", "skip"]
START = datetime(2027, 3, 27, 23, 40, 7, tzinfo=UTC)
NEVER = Schedule(cron="0 0 29 2 *")
#: A table without which no turn succeeds.
TABLE = "_syncblocks_tick"


class Hanging(MovedClock):
    """A clock that jumps when the store is asked for its time, because the store answers late."""

    def __init__(self) -> None:
        super().__init__()
        #: Number of questions before the jump, and its seconds.
        self.jump: tuple[int, float] | None = None

    def now(self) -> datetime:
        if self.jump is not None:
            before, seconds = self.jump
            self.jump = (before - 1, seconds) if before else None
            self.moves_at_next_now = 0.0 if before else seconds
        return super().now()


class Went(Struct):
    """A run of a pipeline."""

    due_at: datetime
    ended_at: datetime | None = None


class Running(Noted):
    """Processes that begin their runs at once and end them later. While the store is down, the processes wait."""

    def __init__(self, day: Outage) -> None:
        super().__init__()
        self._day = day
        self._ends: list[tuple[datetime, int, int, ServedFile]] = []

    def run(self, file: ServedFile, tick: int) -> None:
        day = self._day
        self.running.add(file.pipeline)
        run = begin(day._child, tick)
        day.runs.setdefault(file.pipeline, {})[run] = Went(day._child.tick(tick).due_at)
        after = timedelta(seconds=day.chance.choice([1, 4, 10, 40, 90]))
        heapq.heappush(self._ends, (day.clock.time + after, run, tick, file))

    def reap(self) -> dict[int, tuple[ServedFile, int]]:
        ended = {}
        while not self._day.is_down and self._ends and self._ends[0][0] <= self._day.clock.time:
            _, run, tick, file = heapq.heappop(self._ends)
            end(self._day._child, run)
            self._day.runs[file.pipeline][run].ended_at = self._day.clock.time
            self.running.discard(file.pipeline)
            ended[tick] = (file, 0)
        return ended


class Outage(Day):
    """Servers during an outage of their run store. Runs are open."""

    def __init__(self, url: str, missed: Missed, seed: int) -> None:
        self.chance = random.Random(f"{missed} {seed}")
        self.hangs = seed % 2 == 1
        # Other servers would look in the middle of a jump of the clock.
        super().__init__(url, START, 0, servers=1 if self.hangs else self.chance.randint(1, 2))
        self.chance = random.Random(f"{missed} {seed}")
        self.clock = Hanging()
        self.clock.time = START
        self.missed = missed
        self.schedules = {f"p{number}": each for number, each in enumerate(self._schedules())}
        self.is_down = False
        #: Pipeline -> run -> its tick and end.
        self.runs: dict[str, dict[int, Went]] = {}
        #: First and last moment without an answer, and those of the turns before and after.
        self.core = self.wide = (START, START)

    def _schedules(self) -> Iterator[Schedule]:
        for number, span_s in enumerate((12, 15, 20, 60, 60, 300)):
            policies: dict[str, Any] = {"missed": self.missed, "overlap": "skip" if number % 2 else "wait"}
            is_cron = span_s == 60
            yield Schedule(cron="* * * * *", **policies) if is_cron else Schedule(every_s=span_s, **policies)

    def run(self, hours: float = 0.1) -> list[str]:
        """Let an outage pass, and return what is wrong."""
        with ExitStack() as stack:
            stores = [stack.enter_context(self._store(pid)) for pid in range(1, self._servers + 1)]
            self._child = stack.enter_context(self._store(99))
            self._files = [Given(self.schedules) for _ in stores]
            self._all = [
                Server(
                    *(store, Path("/p"), files, Running(self)),  # type: ignore[arg-type]
                    max_runs=len(self.schedules),
                    clock=self.clock,
                    say=lambda text, level: None,
                )
                for store, files in zip(stores, self._files, strict=True)
            ]
            self._turn()
            first = {each.pipeline: each.looked_at for each in stores[0].schedules.known()}
            self._pass(3600 * hours)
            self._fail(self.chance.choice([11, 30, 75, 90, 160, 600, 1800]) + self.chance.random())
            self._pass(3600 * hours)
            last = self._end()
        times = {name: due(each, first[name], last) for name, each in self.schedules.items()}
        return wrong_times(self.url, times) + [text for name in times for text in self._violations(name, times[name])]

    def _turn(self) -> None:
        for server in self._all:
            server.turn()

    def _pass(self, seconds: float) -> None:
        end = self.clock.time + timedelta(seconds=seconds)
        while self.clock.time < end:
            self.clock.move(self.chance.choice([1, 3, 8]))
            self._turn()

    def _fail(self, seconds: float) -> None:
        before = begun = self.clock.time
        if self.hangs:
            self.clock.jump = (self.chance.randrange(4), seconds)
            while self.clock.jump is not None:
                self.clock.move(1)
                before, begun = begun, self.clock.time
                self._turn()
        else:
            self.clock.move(1)
            begun = self.clock.time
            query(self.url, f"ALTER TABLE {TABLE} RENAME TO away")
            self.is_down = True
            while (self.clock.time - begun).total_seconds() < seconds:
                self._turn()
                self.clock.move(self.chance.choice([1, 10, 40]))
            query(self.url, f"ALTER TABLE away RENAME TO {TABLE}")
            self.is_down = False
        self.core = (begun, self.clock.time)
        self.clock.move(1)
        self._turn()
        self.wide = (before, self.clock.time)

    def _end(self) -> datetime:
        """Replace the schedules, let the waiting ticks run, and return the time of the replacement."""
        for files in self._files:
            files.__init__(dict.fromkeys(self.schedules, NEVER))  # type: ignore[misc]
        open_ticks = f"SELECT count(*) FROM {TABLE} WHERE state IN ('waiting', 'claimed')"
        self._passed_at = self.clock.time
        self.clock.move(2)
        self._turn()
        last = self.clock.time
        for _ in range(2000):
            self.clock.move(20)
            self._turn()
            if query(self.url, open_ticks) == [(0,)]:
                break
        return last

    def _violations(self, name: str, times: list[datetime]) -> Iterator[str]:
        """Yield the times of a pipeline that are not a run and were not skipped for the true reason."""
        became: dict[datetime, str] = {}
        columns = "due_at, skipped_to, state, why, run_id"
        rows = query(self.url, f"SELECT {columns} FROM {TABLE} WHERE pipeline = '{name}' ORDER BY due_at")
        for due_at, skipped_to, state, why, _ in rows:
            first, last = read_time(due_at), read_time(skipped_to or due_at)
            for at in times[bisect_right(times, first - timedelta(microseconds=1)) : bisect_right(times, last)]:
                became[at] = why if state == "skipped" else state
        wrong = {at for at in times if not self._is_true(name, at, times, became)}
        yield from (f"{name}, {self.schedules[name]}: {at} became {became[at]!r}" for at in sorted(wrong))
        runs = [run for *_, run in rows if run is not None]
        if runs != sorted(runs):
            yield f"{name}: the oldest time did not run first"

    def _is_true(self, name: str, at: datetime, times: list[datetime], became: dict[datetime, str]) -> bool:
        is_in, may_be_in = self.core[0] < at <= self.core[1], self.wide[0] < at <= self.wide[1]
        is_newest = not any(at < each <= self.core[1] for each in times)
        later = [each for each in times if at < each]
        match became[at]:
            case "run":
                return not is_in or self.missed == "all" or (self.missed == "latest" and is_newest)
            case why if why == NO_STORE:
                return may_be_in and self.missed != "all"
            case why if why == STILL_GOES:
                is_overlap = not is_in or (self.missed == "latest" and is_newest)
                return is_overlap and self.schedules[name].overlap == "skip" and self._goes(name, at)
            case why if why == NEWER:
                is_overlap = not is_in or (self.missed == "latest" and is_newest)
                newer = next((each for each in later if became[each] != NO_STORE), None)
                is_replaced = newer is not None and became[newer] in ("run", NEWER, TOO_MANY)
                return is_overlap and self.schedules[name].overlap == "wait" and is_replaced
            case why if why == TOO_MANY:
                most = [each for each in later if each <= self.wide[1] and became[each] in ("run", TOO_MANY)]
                return self.missed == "all" and len(most) >= MOST_MISSED
            case why if why == CHANGED:
                return at > self._passed_at
        return False

    def _goes(self, name: str, at: datetime) -> bool:
        """Return true if an earlier tick had not come to the end of its run then."""
        runs = self.runs.get(name, {}).values()
        return any(run.due_at < at and (run.ended_at is None or run.ended_at >= at) for run in runs)
