"""A day of many schedules over the real store and the real turns of servers; made up are time and processes."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.schedules import Schedule, due
from syncblocks.sync.serve import ServedFile, Server
from syncblocks.sync.store import Store
from syncblocks.sync.store.owner import Owner, current_owner
from tests.sync.serve.decided_times import wrong_times
from tests.sync.serve.serve_helpers import MovedClock, Noted

ZONES = ("Europe/Berlin", "Australia/Lord_Howe", "UTC")
CRONS = (
    *(
        "{m} * * * *",
        "{m} {h} * * *",
        "*/30 * * * *",
        "{m} */2 * * *",
        "30 2 * * *",
        "{m} 1-3 * * *",
        "{m} 2,3 * * sun",
    ),
    *("@hourly", "@daily", "{m} {h} * * mon-fri", "{m} {h} 1-28 * *", "{m}-59/7 2 * * *"),
)
SPANS_S = (1800, 3600, 5400, 7 * 3600)


def schedules(count: int, seed: int) -> dict[str, Schedule]:
    """Return schedules of all kinds; each twentieth is due every minute."""
    chance = random.Random(seed)
    found = {}
    for number in range(count):
        policies: dict[str, Any] = {
            "missed": chance.choice(["latest", "all", "skip"]),
            "overlap": chance.choice(["skip", "wait"]),
        }
        text = "* * * * *" if number % 20 == 7 else CRONS[number % len(CRONS)]
        cron = text.format(m=chance.randrange(60), h=chance.randrange(24))
        zone = ZONES[number // len(CRONS) % len(ZONES)]
        found[f"p{number:05}"] = (
            Schedule(every_s=SPANS_S[number % len(SPANS_S)], **policies)
            if number % 10 == 3
            else Schedule(cron=cron, timezone=zone, **policies)
        )
    return found


class Given:
    """Stands for the files of a folder: so many would take longer to write and to read than the day."""

    def __init__(self, found: dict[str, Schedule]) -> None:
        self.usable = {name: ServedFile(Path(f"/p/{name}.yaml"), name, each) for name, each in found.items()}
        self.broken: dict[Path, str] = {}
        self.heads: dict[str, Any] = {}
        self._is_new = True

    def look(self) -> bool:
        was_new, self._is_new = self._is_new, False
        return was_new

    def is_settled(self, _file: ServedFile) -> bool:
        return True

    def is_awaited(self, _path: Path) -> bool:
        return False


class Carried(Noted):
    """Processes that end a tick a while after they were started, or die."""

    def __init__(self, day: Day) -> None:
        super().__init__()
        self._day = day
        self._ends: list[tuple[datetime, int, int]] = []
        self._files: dict[int, ServedFile] = {}

    def run(self, file: ServedFile, tick: int) -> None:
        self.running.add(file.pipeline)
        self._files[tick] = file
        after_s = self._day.chance.choice([1, 5, 20, 20, 60, 300, 4000])
        heapq.heappush(self._ends, (self._day.clock.now() + timedelta(seconds=after_s), len(self.started), tick))
        self.started.append(tick)

    def reap(self) -> dict[int, tuple[ServedFile, int]]:
        ended = {}
        while self._ends and self._ends[0][0] <= self._day.clock.now():
            tick = heapq.heappop(self._ends)[-1]
            file = self._files[tick]
            self.running.discard(file.pipeline)
            ended[tick] = (file, self._day.carry_out(tick))
        return ended


class Day:
    """Servers over one store, of which none may look for a while."""

    def __init__(self, url: str, start: datetime, count: int, *, seed: int = 1, servers: int = 2) -> None:
        self.url = url
        self.clock = MovedClock()
        self.clock.time = start
        self.chance = random.Random(seed)
        self.schedules = schedules(count, seed)
        self.ended = 0
        self._servers = servers

    @contextmanager
    def _store(self, pid: int) -> Iterator[Store]:
        def lives(theirs: Owner, _mine: Owner) -> bool:
            return True

        owner = replace(current_owner(), pid=pid)
        with Store.open(self.url, clock=self.clock, owner=owner, liveness=lives) as store:
            if not self.url.startswith("sqlite"):  # its own time counts there
                driver = store._transactions.database.driver
                driver.ask_now = lambda _connection: self.clock.now  # type: ignore[method-assign]
            yield store

    def carry_out(self, tick: int) -> int:
        """End a tick as a process of it does: by a run, or without one; return the exit code."""
        end = self.chance.random()
        if end < 0.05:  # died before it claimed the tick
            return 1
        if self._child.claim_tick(tick) is None:
            return 0
        if end < 0.1:
            self._child.give_back_tick(tick, "the destination is down")
            return 1
        self.ended += 1
        if end < 0.7:
            self._child.refuse_tick(tick, "a shorter end than a run")
            return 2
        found = self._child.tick(tick)
        run = self._child.begin_run(found.pipeline, execution_date=found.due_at, tick=tick)
        self._child.end_attempt(run.id)
        self._child.finish_run(run.id)
        return 0

    def run(self, hours: float = 24.0) -> list[str]:
        """Let the time pass, and return what is wrong."""
        with ExitStack() as stack:
            stores = [stack.enter_context(self._store(pid)) for pid in range(1, self._servers + 1)]
            self._child = stack.enter_context(self._store(99))
            servers = [
                Server(
                    store,
                    Path("/p"),
                    Given(self.schedules),  # type: ignore[arg-type]
                    Carried(self),
                    max_runs=len(self.schedules),
                    clock=self.clock,
                    say=lambda text, level: None,
                )
                for store in stores
            ]
            for server in servers:
                server.turn()
            first = {each.pipeline: each.looked_at for each in stores[0].schedules.known()}
            end = self.clock.now() + timedelta(hours=hours)
            while self.clock.now() < end:
                # Mostly a turn a minute of some server; now and then nobody looks for a while.
                self.clock.move(self.chance.choice([1, 20, 30, 59]) if self.chance.random() < 0.995 else 4000)
                for server in self.chance.sample(servers, self.chance.randint(1, len(servers))):
                    server.turn()
            for server in servers:
                server.turn()
            now = self.clock.now()
            times = {name: due(each, first[name], now) for name, each in self.schedules.items()}
            self.count = sum(map(len, times.values()))
            return wrong_times(self.url, times)
