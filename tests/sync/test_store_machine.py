"""A model test: random histories of three engines over the real store, with a clock of their own.

Claims, closes, stops, crashes, takeovers, zombies and deliveries in any order; after each step the store is read by
plain SQL, and at the end whatever is left is recovered and delivered.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from callbacks.dispatcher import Delivery
from sync.errors import AlreadyRunning, StateError
from sync.store import LostRun, Store
from sync.store.database import open_database
from sync.store.model import AttemptPlan, PipelineRun, StreamPlan
from sync.store.owner import Owner
from tests.sync.store_helpers import (
    DATE,
    EXPORTER,
    LOADER,
    OK,
    RAISED,
    FixedClock,
    attempt_plan,
    deliver_all,
    outcome,
    stream_plan,
)

QUEUES = ("alerts", "finish")
ENGINES = st.integers(min_value=0, max_value=2)
#: Set higher at night.
EXAMPLES = int(os.environ.get("SYNCBLOCKS_TEST_MODEL_EXAMPLES", "60"))


class StoreMachine(RuleBasedStateMachine):
    """Engine 0 and 1 run on this machine, where a death is seen at once; engine 2 elsewhere, seen by its lease."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "store.db"
        self.clock = FixedClock()
        self.database = open_database(f"sqlite:///{path}", clock=self.clock)
        self.reader = sqlite3.connect(path, isolation_level=None)
        self.reader.row_factory = sqlite3.Row
        self.births = 0
        self.dead: set[Owner] = set()
        self.stores = [self._born(place) for place in range(3)]
        self.outboxes = [store.outbox("p") for store in self.stores]
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
        self.outboxes[engine] = self.stores[engine].outbox("p")
        self.run[engine] = None
        for queue in QUEUES:
            self.leased.pop((engine, queue), None)

    def _plan(self, streams: list[tuple[str, ...]], is_lenient: bool) -> AttemptPlan:
        plans = [stream_plan(f"s{number}", *blocks) for number, blocks in enumerate(streams)]
        self.plans = {plan.stream: plan for plan in plans}
        parents = (LOADER, "clean", "mask", EXPORTER, "stream", "pipeline")
        return attempt_plan(plans, parents, allow_blocks_to_fail=is_lenient, callback_blocks=QUEUES, attempts=2)

    def _owned(self, engine: int) -> PipelineRun | None:
        """The run that this engine believes to own; a run that it has lost must refuse it."""
        run = self.run[engine]
        if run is None:
            return None
        if not self.stores[engine].is_owner(run.id):
            # F14: a zombie. Every write has to be refused, and must change nothing.
            before = self._dump()
            for write in (
                lambda: self.stores[engine].claim(run.id, ["s0"]),
                lambda: self.stores[engine].close_stream(run.id, outcome(stream_plan("s0"))),
                lambda: self.stores[engine].request_stop(run.id),
                lambda: self.stores[engine].end_attempt(run.id),
                lambda: self.outboxes[engine].release_gate(run.id),
            ):
                try:
                    write()
                except LostRun:
                    continue
                raise AssertionError("a zombie wrote")
            assert self._dump() == before
            self.run[engine] = None
            return None
        return run

    # -- rules ---------------------------------------------------------------------------------------------------

    @initialize(
        streams=st.lists(st.sampled_from([(), ("clean",), ("mask",), ("clean", "mask")]), min_size=1, max_size=5),
        is_lenient=st.booleans(),
    )
    def first_run(self, streams: list[tuple[str, ...]], is_lenient: bool) -> None:
        self.begin(engine=0, streams=streams, is_lenient=is_lenient)

    @rule(
        engine=ENGINES,
        streams=st.lists(st.sampled_from([(), ("clean",), ("clean", "mask")]), max_size=4),
        is_lenient=st.booleans(),
    )
    def begin(self, engine: int, streams: list[tuple[str, ...]], is_lenient: bool) -> None:
        store = self.stores[engine]
        active = store.active_run("p")
        try:
            run = store.begin_run("p", execution_date=DATE)
        except AlreadyRunning:
            assert active is not None
            return
        assert active is None
        self.run[engine] = run
        store.begin_attempt(run.id, self._plan(streams, is_lenient))

    @rule(engine=ENGINES, number=st.integers(min_value=1, max_value=2))
    def claim(self, engine: int, number: int) -> None:
        if (run := self._owned(engine)) is None:
            return
        store = self.stores[engine]
        waiting = store.never_started(run.id)[:number]
        if waiting:
            before = store.run(run.id)
            assert store.claim(run.id, waiting) == (not before.stopping and not before.cancel_requested)

    @rule(
        engine=ENGINES,
        place=st.integers(min_value=0, max_value=4),
        status=st.sampled_from(["success", "success", "cancelled", LOADER, EXPORTER]),
    )
    def close(self, engine: int, place: int, status: str) -> None:
        if (run := self._owned(engine)) is None or not (names := self.stores[engine].open_streams(run.id)):
            return
        plan = self.plans[names[place % len(names)]]
        is_failure = status in (LOADER, EXPORTER)
        ended = outcome(plan, failed_block=status) if is_failure else outcome(plan, status)
        closed = self.stores[engine].close_stream(run.id, ended)
        assert closed.status == self.stores[engine].run(run.id).status
        assert closed.run_ended == (closed.status != "running")

    @rule(engine=ENGINES, status=st.sampled_from(["cancelled", "failure"]))
    def stop(self, engine: int, status: str) -> None:
        if (run := self._owned(engine)) is not None:
            self.stores[engine].request_stop(run.id, status)

    @rule(engine=ENGINES)
    def cancel_from_anywhere(self, engine: int) -> None:
        active = self.stores[engine].active_run("p")
        if active is not None:
            self.stores[engine].request_cancel(active.id)

    @rule(engine=ENGINES)
    def end(self, engine: int) -> None:
        if (run := self._owned(engine)) is not None and not self.stores[engine].open_streams(run.id):
            self.stores[engine].end_attempt(run.id)

    @rule(engine=ENGINES)
    def release(self, engine: int) -> None:
        run = self._owned(engine)
        if run is not None and self.stores[engine].run(run.id).status != "running":
            self.outboxes[engine].release_gate(run.id)

    @rule(engine=ENGINES)
    def finish(self, engine: int) -> None:
        if (run := self._owned(engine)) is None:
            return
        try:
            self.stores[engine].finish_run(run.id)
        except StateError:
            assert self.stores[engine].run(run.id).status == "running"
        else:
            self.run[engine] = None

    @rule(engine=ENGINES)
    def retry(self, engine: int) -> None:
        store = self.stores[engine]
        latest = store.latest_run("p")
        if latest is None or latest.is_active:
            return
        self.run[engine] = store.begin_retry(latest.id)
        names = [name for name in store.unfinished_streams(latest.id) if name in self.plans]
        streams = [self.plans[name] for name in names]
        parents = (LOADER, "clean", "mask", EXPORTER, "stream", "pipeline")
        store.begin_attempt(latest.id, attempt_plan(streams, parents, callback_blocks=QUEUES, attempts=2))

    @rule(engine=ENGINES)
    def crash(self, engine: int) -> None:
        self._die(engine)

    @rule(engine=ENGINES)
    def take_over(self, engine: int) -> None:
        store = self.stores[engine]
        active = store.active_run("p")
        if active is None:
            return
        is_dead = store.owner_state(active) == "dead"
        try:
            taken = store.take_over_run(active.id)
        except AlreadyRunning:
            assert not is_dead
        else:
            assert is_dead or active.owner == store.owner
            self.run[engine] = taken

    @rule(engine=ENGINES)
    def heartbeat(self, engine: int) -> None:
        if (run := self._owned(engine)) is not None:
            assert self.stores[engine].renew(run.id).is_mine

    @rule(seconds=st.sampled_from([1, 20, 31, 600, -15, -3600]))
    def tick(self, seconds: int) -> None:
        self.clock.move(seconds)

    @rule(engine=ENGINES, queue=st.sampled_from(QUEUES))
    def lease(self, engine: int, queue: str) -> None:
        if (engine, queue) in self.leased:
            return
        found = self.outboxes[engine].lease(queue)
        if isinstance(found, Delivery):
            self._check_order(found)
            self.leased[engine, queue] = found
        elif found is None:
            assert self._count("delivery", f"is_open AND callback_block = '{queue}'") == 0
        else:
            assert found >= 0
            assert self._count("delivery", f"is_open AND callback_block = '{queue}'") > 0

    @precondition(lambda self: bool(self.leased))
    @rule(place=st.integers(min_value=0, max_value=5), is_ok=st.booleans())
    def mark(self, place: int, is_ok: bool) -> None:
        key = sorted(self.leased)[place % len(self.leased)]
        delivery = self.leased.pop(key)
        row = self._one("delivery", f"idempotency_key = '{delivery.key}'")
        verdict = self.outboxes[key[0]].mark(delivery, OK if is_ok else RAISED)
        if row["lease_token"] == self.outboxes[key[0]]._token:
            assert verdict == ("done" if is_ok else "dead" if delivery.attempt == 2 else "retry")

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
            run = store.take_over_run(active.id)
            for name in store.open_streams(run.id):
                store.close_stream(run.id, outcome(self.plans[name], failed_block=EXPORTER))
            store.end_attempt(run.id)
            outbox.release_gate(run.id)
        for queue in QUEUES:
            for delivery in deliver_all(outbox, queue):
                assert delivery.attempt <= 2
            assert outbox.lease(queue) is None
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


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    derandomize=EXAMPLES == 60,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
