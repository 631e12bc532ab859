"""Servers over one run store of which one is killed in each round, and what must hold of each time of a schedule."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from syncblocks.sync.schedules import Schedule, due
from syncblocks.sync.store import Store
from tests.sync.store.store_helpers import query
from tests.zygote import Process, Zygote

FILE = """\
pipeline: {name}
store: {url}
schedule: {{every: {every}, overlap: {overlap}, missed: {missed}}}
source: {{connector: csv, config: {{path: data}}}}
destination: {{connector: sqlite, config: {{path: {name}.db}}}}
streams: [{{stream: rows, write_disposition: append}}]
"""
#: Name -> `overlap` and `missed`.
PIPELINES = {"skips": ("skip", "latest"), "waits": ("wait", "latest"), "all": ("skip", "all")}
#: The times of a schedule that replaces another one: none of them comes during a test.
NEVER = "366d"

#: Where a server, and where each process that it starts, is killed; empty: nowhere.
SERVER_FAULTS = ("", "", "store.look_at_schedules.inside:2:kill", "store.look_at_schedules.after:2:kill")
SERVER_FAULTS += ("store.offer_tick.after:2:kill",)
CHILD_FAULTS = (*[""] * 8, "store.claim_tick.after:1:kill", "store.begin_run.before:1:kill")
CHILD_FAULTS += ("store.begin_run.inside:1:kill", "store.begin_run.after:1:kill")


@dataclass
class Rounds:
    """A folder of pipelines, and servers that are killed over it."""

    zygote: Zygote
    folder: Path
    url: str
    #: Of the schedules: a span, and its seconds.
    every_s: int
    seed: int
    pipelines: tuple[str, ...] = tuple(PIPELINES)
    servers: list[Process] = field(default_factory=list)
    #: What was killed, and how often.
    kills: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        (self.folder / "data").mkdir()
        (self.folder / "data" / "rows.csv").write_text("id\n1\n")
        Store.open(self.url).close()

    def write(self, every: str) -> None:
        """Write the files, with a schedule."""
        for name in self.pipelines:
            overlap, missed = PIPELINES[name]
            text = FILE.format(name=name, url=self.url, every=every, overlap=overlap, missed=missed)
            draft = self.folder / f".{name}"
            draft.write_text(text)
            draft.rename(self.folder / f"{name}.yaml")

    def start(self, *, is_sound: bool = False) -> None:
        """Start a server, with faults that are chosen at random."""
        at, child = ("", "") if is_sound else (self._random.choice(SERVER_FAULTS), self._random.choice(CHILD_FAULTS))
        self.kills["servers whose processes are killed"] += child != ""
        environment = {"SYNCBLOCKS_FAILPOINT": child}
        command = ["serve", "--port", "0", "--max-runs", "2"]
        self.servers.append(self.zygote.start(self.folder, command, failpoint=at, environment=environment))

    def run(self, number: int, rounds: int, round_s: float) -> None:
        """Let so many servers live for some rounds; one of them is killed in each."""
        self.write(f"{self.every_s}s")
        for place in range(number):
            self.start(is_sound=place == 0)
        self.until(lambda: len(self.looked_at()) == len(self.pipelines), "the schedules are in force")
        self.first = self.looked_at()
        for _ in range(rounds):
            end = time.monotonic() + round_s * self._random.uniform(0.5, 1.5)
            self.until(lambda end=end: time.monotonic() >= end, "the round is over")  # type: ignore[misc]
            victim = self._random.choice(self.servers)
            victim.kill()
            self.kills["by hand"] += 1
            self.servers.remove(victim)
            self.start()
        self._end(number)

    def until(self, is_so: Callable[[], bool], what: str, deadline_s: float = 180) -> None:
        """Wait; servers that have killed themselves are started again."""
        deadline = time.monotonic() + deadline_s
        while not is_so():
            assert time.monotonic() < deadline, f"never: {what}\n{self.logs()}"
            for server in [each for each in self.servers if each.has_ended()]:
                assert server.code == -9, server.log()
                self.kills["at a failpoint"] += 1
                self.servers.remove(server)
                self.start()
            time.sleep(0.05)

    def logs(self) -> str:
        """Return the last lines of each server."""
        return "\n".join(server.log()[-3000:] for server in self.servers)

    def looked_at(self) -> dict[str, datetime]:
        """Pipeline -> up to when its times are decided."""
        with Store.open(self.url) as store:
            return {each.pipeline: each.looked_at for each in store.schedules.known()}

    def _end(self, number: int) -> None:
        """Let sound servers do what is left, with schedules that are due no more."""
        for server in self.servers:
            server.kill()
        self.servers.clear()
        for _ in range(number):
            self.start(is_sound=True)
        self.write(NEVER)

        def is_replaced() -> bool:
            with Store.open(self.url) as store:
                return all(each.schedule and each.schedule["every_s"] > 86_400 for each in store.schedules.known())

        self.until(is_replaced, "the schedules are replaced")
        self.last = self.looked_at()
        self.until(self.is_done, "nothing is left")
        for server in self.servers:
            server.signal(15)
        for server in self.servers:
            assert server.wait() == 0, server.log()

    def is_done(self) -> bool:
        """Whether no tick is open and no run goes."""
        open_ticks = "SELECT count(*) FROM _syncblocks_tick WHERE state IN ('waiting', 'claimed')"
        active = "SELECT count(*) FROM _syncblocks_pipeline_run WHERE is_active = TRUE"
        return [query(self.url, text) for text in (open_ticks, active)] == [[(0,)], [(0,)]]

    def violations(self) -> list[str]:
        """Return what does not hold; empty: each time is a tick once or was skipped, and each tick has one run."""
        found = [text for name in self.pipelines for text in self._of_times(name)]
        for what, statement in {
            "two ticks of one run": "SELECT run_id FROM _syncblocks_tick WHERE run_id IS NOT NULL GROUP BY run_id "
            "HAVING count(*) > 1",
            "a run without a tick": "SELECT r.id FROM _syncblocks_pipeline_run r WHERE NOT EXISTS "
            "(SELECT 1 FROM _syncblocks_tick t WHERE t.run_id = r.id)",
            "a tick without an end": "SELECT id FROM _syncblocks_tick WHERE (state = 'run') <> (run_id IS NOT NULL) "
            "OR state NOT IN ('run', 'skipped', 'refused') OR (state <> 'run' AND coalesce(why, '') = '')",
            "a tick refused for another reason": "SELECT id, why FROM _syncblocks_tick WHERE state = 'refused' "
            "AND why NOT LIKE 'its process died % times before the run began'",
            "a run that did not end": "SELECT id FROM _syncblocks_pipeline_run WHERE is_active = TRUE",
        }.items():
            found += [f"{what}: {row}" for row in query(self.url, statement)]
        for name in self.pipelines:
            done = query(
                self.url,
                "SELECT count(*) FROM _syncblocks_pipeline_run r JOIN _syncblocks_attempt a ON a.run_id = r.id "
                f"WHERE r.pipeline = '{name}' AND a.status = 'success'",
            )
            is_made = done != [(0,)]
            written = query(f"sqlite:///{self.folder}/{name}.db", "SELECT count(*) FROM rows") if is_made else done
            found += [] if done == written else [f"{name}: {done} successes, {written} records"]
        return found

    def _of_times(self, name: str) -> list[str]:
        times = due(Schedule(every_s=self.every_s), self.first[name], self.last[name])
        columns = "due_at, skipped_to, skipped_count"
        rows = query(
            self.url, f"SELECT {columns} FROM _syncblocks_tick WHERE pipeline = '{name}' AND kind = 'schedule'"
        )
        told: Counter[datetime] = Counter()
        found = []
        for due_at, skipped_to, count in rows:
            first, last = _time(due_at), _time(skipped_to or due_at)
            inside = [each for each in times if first <= each <= last]
            if len(inside) != (count or 1):
                found.append(f"{name}: {first} to {last} are {len(inside)} times, not {count or 1}")
            told.update(inside)
        return found + [f"{name}: {each} was decided {told[each]} times" for each in times if told[each] != 1]

    def figures(self) -> str:
        """Return what has happened, for a note."""
        states = query(
            self.url, "SELECT state, count(*), sum(coalesce(skipped_count, 1)) FROM _syncblocks_tick GROUP BY state"
        )
        statuses = query(self.url, "SELECT status, count(*) FROM _syncblocks_attempt GROUP BY status")
        return f"kills {dict(self.kills)}; ticks (state, rows, times) {sorted(states)}; runs {sorted(statuses)}"


def _time(value: str | datetime) -> datetime:
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
