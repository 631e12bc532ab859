"""What a model test of the store stands on: three engines, and what must hold after each step and at the end."""

from __future__ import annotations

import random
import sqlite3
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from syncblocks.callbacks.protocols import Delivery, NothingOpen
from syncblocks.sync.store import Store
from syncblocks.sync.store.database import open_database
from syncblocks.sync.store.model import PipelineRun, StreamPlan
from syncblocks.sync.store.owner import Owner
from tests.sync.store.store_helpers import (
    EXPORTER,
    OK,
    AnyCallbacks,
    FixedClock,
    outcome,
)

QUEUES = ("alerts", "finish")
MEMORY = Path("/dev/shm")


class StoreModel(RuleBasedStateMachine):
    """Engine 0 and 1 run on this machine, where a death is seen at once; engine 2 elsewhere, seen by its lease."""

    def __init__(self) -> None:
        super().__init__()
        # In memory where there is such a place: nothing here is about the disk.
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        path = Path(self.folder.name) / "store.db"
        self.clock = FixedClock()
        self.database = open_database(f"sqlite:///{path}", clock=self.clock)
        self.reader = sqlite3.connect(path, isolation_level=None)
        self.reader.row_factory = sqlite3.Row
        self.births = 0
        self.turns = 0
        # Details of steps come out of one seed: drawn one by one they are mostly alike, and hardly anything happens.
        self.chance = random.Random()
        self.dead: set[Owner] = set()
        self.stores = [self._born(place) for place in range(3)]
        self.outboxes = [store.outbox("p", AnyCallbacks(attempts=2)) for store in self.stores]
        #: Engine's idea of which run it has; wrong once another one took it over.
        self.run: list[PipelineRun | None] = [None, None, None]
        self.plans: dict[str, StreamPlan] = {}
        self.leased: dict[tuple[int, str], Delivery] = {}

    def teardown(self) -> None:
        try:
            self._finish_everything()
        finally:
            self.reader.close()
            self.database.close()
            self.folder.cleanup()

    # -- engines -------------------------------------------------------------------------------------------------

    def _born(self, place: int) -> Store:
        self.births += 1
        boot = "elsewhere" if place == 2 else "here"
        owner = Owner(host=boot, boot_id=boot, pid_namespace="1", pid=place + 1, started=self.births)
        return Store(self.database, owner, self._liveness)

    def _liveness(self, theirs: Owner, mine: Owner) -> bool | None:
        return theirs not in self.dead if theirs.boot_id == mine.boot_id else None

    def _die(self, engine: int) -> None:
        self.dead.add(self.stores[engine].owner)
        self.stores[engine] = self._born(engine)
        self.outboxes[engine] = self.stores[engine].outbox("p", AnyCallbacks(attempts=2))
        self.run[engine] = None
        for queue in QUEUES:
            self.leased.pop((engine, queue), None)

    # -- invariants ----------------------------------------------------------------------------------------------

    @invariant()
    def indexes_count_and_at_most_one_is_last(self) -> None:
        for row in self._rows(
            "SELECT run_id, attempt, block_type, count(*) AS number, min(type_index) AS lowest,"
            " max(type_index) AS highest, count(DISTINCT type_index) AS indexes, total(is_last) AS lasts,"
            " max(CASE WHEN is_last THEN type_index END) AS last_index, total(is_last IS NULL) AS undecided"
            " FROM _syncblocks_block_run WHERE status <> 'running' GROUP BY run_id, attempt, block_type"
        ):
            found = dict(row)
            assert found["lowest"] == 0, found
            assert found["highest"] == found["number"] - 1 == found["indexes"] - 1, found
            assert found["lasts"] + found["undecided"] <= 1, found
            has_ended = (
                self._one("attempt", f"run_id = {row['run_id']} AND attempt = {row['attempt']}")["status"] != "running"
            )
            if has_ended:
                assert (found["lasts"], found["last_index"]) == (1, found["number"] - 1), found

    @invariant()
    def each_end_has_one_event(self) -> None:
        wrong = self._rows(
            "SELECT b.block, b.stream, count(e.seq) AS events FROM _syncblocks_block_run AS b"
            " LEFT JOIN _syncblocks_event AS e ON e.run_id = b.run_id AND e.attempt = b.attempt AND e.parent = b.block"
            " AND e.block = b.block AND e.stream = b.stream AND e.status = b.status"
            " GROUP BY b.run_id, b.attempt, b.block, b.stream HAVING count(e.seq) <> (b.status <> 'running')"
        )
        assert [dict(row) for row in wrong] == []
        wrong = self._rows(
            "SELECT a.run_id, a.attempt, a.status, count(e.seq) AS events FROM _syncblocks_attempt AS a"
            " LEFT JOIN _syncblocks_event AS e ON e.run_id = a.run_id AND e.attempt = a.attempt"
            " AND e.parent = 'pipeline' AND e.status = a.status"
            " GROUP BY a.run_id, a.attempt HAVING count(e.seq) <> (a.status <> 'running')"
        )
        assert [dict(row) for row in wrong] == []
        assert self._count("event", "1") * len(QUEUES) == self._count("delivery", "1")

    @invariant()
    def one_delivery_a_queue_is_in_hand(self) -> None:
        for queue in QUEUES:
            assert self._count("delivery", f"state = 'leased' AND callback_block = '{queue}'") <= 1
        assert self._count("delivery", "is_open <> (state IN ('ready', 'leased'))") == 0
        assert self._count("pipeline_run", "is_active") <= 1

    @invariant()
    def tries_that_were_cut_short_use_up_no_attempt(self) -> None:
        assert self._count("delivery", "attempts + min(lost, 9) <> tries") == 0
        assert self._count("delivery", "attempts > 2") == 0

    def _is_held(self, owner: str, lease_until: str, engine: int, lasts: timedelta) -> bool:
        """Whether an owner lives, as this engine can know; a lease of a clock that was ahead proves nothing."""
        alive = self._liveness(Owner.decode(owner), self.stores[engine].owner)
        if alive is False:
            return False
        left = datetime.fromisoformat(lease_until).replace(tzinfo=UTC) - self.clock.now()
        is_within = timedelta() < left < 2 * lasts
        return is_within if alive is None else True

    def _check_order(self, delivery: Delivery) -> None:
        row = self._one("delivery", f"idempotency_key = '{delivery.key}'")
        others = (
            f"is_open AND callback_block = '{row['callback_block']}' AND run_id = {row['run_id']}"
            f" AND attempt = {row['attempt']} AND NOT (coalesce(block, '') = '{row['block'] or ''}'"
            f" AND coalesce(stream, '') = '{row['stream'] or ''}')"
        )
        gate = self._one("attempt", f"run_id = {row['run_id']} AND attempt = {row['attempt']}")["is_gate_released"]
        if row["parent"] == "pipeline":
            assert gate
            assert self._count("delivery", others) == 0
        else:
            flag = delivery.kwargs["is_last_block_run"]
            assert isinstance(flag, bool)
            if flag:
                assert gate
                assert self._count("delivery", f"{others} AND block_type = '{row['block_type']}'") == 0

    # -- the end -------------------------------------------------------------------------------------------------

    def _finish_everything(self) -> None:
        """A last engine recovers what is left: nothing may stay open, and every event is delivered or dead."""
        for engine in range(3):
            self._die(engine)
        self.clock.move(100_000)
        store, outbox = self.stores[0], self.outboxes[0]
        active = store.active_run("p")
        if active is not None:
            run = store.reclaim_run(active.id)
            for name in store.open_streams(run.id):
                store.close_stream(run.id, outcome(self.plans[name], failed_block=EXPORTER))
            store.end_attempt(run.id)
            outbox.release_gate(run.id)
        for queue in QUEUES:
            while isinstance(delivery := outbox.lease(queue), Delivery):
                self._check_order(delivery)
                assert delivery.attempt <= 2
                assert outbox.mark(delivery, OK) == "done"
            assert delivery == NothingOpen()
        if active is not None:
            store.finish_run(active.id)
        self.indexes_count_and_at_most_one_is_last()
        self.each_end_has_one_event()
        assert self._count("attempt", "status = 'running'") == 0
        assert self._count("block_run", "status = 'running' OR is_last IS NULL") == 0
        assert self._count("delivery", "state NOT IN ('done', 'dead')") == 0
        assert self._count("pipeline_run", "is_active") == 0

    def _rows(self, statement: str) -> list[Any]:
        return self.reader.execute(statement).fetchall()

    def _one(self, table: str, where: str) -> Any:
        (row,) = self._rows(f"SELECT * FROM _syncblocks_{table} WHERE {where}")
        return row

    def _count(self, table: str, where: str) -> int:
        return int(self._rows(f"SELECT count(*) FROM _syncblocks_{table} WHERE {where}")[0][0])

    def _dump(self) -> list[str]:
        return [line for line in self.reader.iterdump() if line.startswith("INSERT")]
