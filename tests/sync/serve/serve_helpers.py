"""A folder, its run store, and servers over it whose processes are only noted."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.serve import PipelineFiles, ServedFile, Server
from syncblocks.sync.store import Store
from syncblocks.sync.store.owner import Owner, current_owner
from syncblocks.sync.store.ticks import Tick
from tests.sync.store.store_helpers import FixedClock, query

PIPELINE = {"source": {"connector": "csv"}, "destination": {"connector": "sqlite"}, "streams": [{"stream": "*"}]}


class MovedClock(FixedClock):
    """Its monotonic time moves with the wall time."""

    #: Seconds by which the next question for the time moves it, such as a question of a store that answers late.
    moves_at_next_now = 0.0

    def now(self) -> datetime:
        seconds, self.moves_at_next_now = self.moves_at_next_now, 0.0
        self.move(seconds)
        return super().now()

    def monotonic(self) -> float:
        return self.time.timestamp()


class Noted:
    """Notes which processes a server starts; a test says what becomes of them."""

    def __init__(self, logs: Path = Path("/logs")) -> None:
        self.logs = logs
        self.started: list[int] = []
        self.recovered: list[str] = []
        self.running: set[str] = set()
        self.recovering: set[str] = set()
        self.pruning: list[str] = []
        self.prune_ends: list[tuple[str, int]] = []
        self.signals: list[tuple[int, str]] = []
        self.ended: dict[int, tuple[ServedFile, int]] = {}

    def run(self, file: ServedFile, tick: int) -> None:
        self.started.append(tick)

    def recover(self, file: ServedFile) -> None:
        self.recovered.append(file.pipeline)

    @property
    def is_pruning(self) -> bool:
        return bool(self.prune_ends)

    def prune_runs(self, file: ServedFile) -> None:
        self.pruning.append(file.pipeline)

    def pruned(self) -> tuple[str, int] | None:
        return self.prune_ends.pop() if self.prune_ends else None

    def reap(self) -> dict[int, tuple[ServedFile, int]]:
        ended, self.ended = self.ended, {}
        return ended

    def signal(self, owner: Owner, number: signal.Signals) -> bool:
        self.signals.append((owner.pid, number.name))
        return True

    def log_of(self, tick: int) -> Path:
        return self.logs / f"{tick}.log"


class Place:
    """A folder of pipeline files, and its store, in SQLite or at `url`."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.url = url or f"sqlite:///{folder}/.syncblocks/store.db"
        self.clock = MovedClock()
        #: Owners whose process is dead.
        self.dead: set[int] = set()
        self.said: list[str] = []

    def write(
        self,
        name: str = "crm",
        cron: str | None = "* * * * *",
        file: str = "",
        keys: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Write a pipeline file: `keys` beside `schedule`, `more` in it; without a schedule, `more` of the file."""
        document: dict[str, Any] = {"pipeline": name, "store": self.url, **PIPELINE, **(keys or {})}
        document |= more if cron is None else {"schedule": {"cron": cron, **more}}
        (self.folder / (file or f"{name}.yaml")).write_text(yaml.safe_dump(document))

    def store(self, pid: int = 1) -> Store:
        """Open the store as a process of that number."""

        def lives(theirs: Owner, _mine: Owner) -> bool:
            return theirs.pid not in self.dead

        owner = replace(current_owner(), pid=pid)
        return Store.open(self.url, clock=self.clock, owner=owner, liveness=lives)

    def server(self, store: Store, noted: Noted, *, max_runs: int = 10, is_settled: bool = True) -> Server:
        """Make a server, which has read the files if `is_settled`."""
        files = PipelineFiles(self.folder, self.url, self.clock)
        server = Server(
            store,
            self.folder,
            files,
            noted,
            max_runs=max_runs,
            clock=self.clock,
            say=lambda text, level: self.said.append(text),
        )
        if is_settled:
            self.settle(server)
        return server

    def settle(self, *servers: Server) -> None:
        """Let servers find what has changed in the folder, and read it when it has settled."""
        for _ in range(2):
            for server in servers:
                server.turn()
            self.clock.move(2)
        for server in servers:
            server.turn()

    def minutes(self, number: int, *servers: Server) -> None:
        """Let minutes pass; the servers look each ten seconds."""
        for _ in range(6 * number):
            self.clock.move(10)
            for server in servers:
                server.turn()

    def ticks(self) -> list[tuple[Any, ...]]:
        """Return minute, state, reason and number of times of each schedule tick."""
        statement = "SELECT substr(tick_key, 15, 2), state, why, skipped_count FROM _syncblocks_tick"
        return query(self.url, f"{statement} WHERE kind = 'schedule' ORDER BY tick_key")


def begin(store: Store, tick: int) -> int:
    """Claim a tick and begin its run, as its process does; return the run."""
    claimed = store.claim_tick(tick)
    assert isinstance(claimed, Tick)
    return store.begin_run(claimed.pipeline, execution_date=claimed.due_at, tick=tick).id


def end(store: Store, run: int) -> None:
    """End a run that has no streams."""
    store.end_attempt(run)
    store.finish_run(run)
