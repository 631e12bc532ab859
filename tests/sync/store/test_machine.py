"""A model test: random histories of three engines over the real store, with a clock of their own.

Claims, closes, stops, crashes, takeovers, zombies, held runs with their tasks, and deliveries in any order; after each
step the store is read by plain SQL, and at the end whatever is left is recovered and delivered.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from syncblocks.callbacks.protocols import Delivery, NothingOpen
from syncblocks.sync.errors import AlreadyRunning, StateError
from syncblocks.sync.store import LostRun
from syncblocks.sync.store.model import AttemptPlan, PipelineRun
from syncblocks.sync.store.transactions import LEASE_S
from tests.sync.store.held_model import HeldModel
from tests.sync.store.store_helpers import (
    DATE,
    EXPORTER,
    LOADER,
    OK,
    RAISED,
    attempt_plan,
    outcome,
    stream_plan,
)
from tests.sync.store.store_model import QUEUES

pytestmark = pytest.mark.full

ENGINES = st.integers(min_value=0, max_value=2)
TRANSFORMERS: list[tuple[str, ...]] = [(), (), ("clean",), ("mask",), ("clean", "mask")]
ENDS = ("success", "cancelled", LOADER, EXPORTER)
#: Set higher at night.
EXAMPLES = int(os.environ.get("SYNCBLOCKS_TEST_MODEL_EXAMPLES", "50"))


def has_run(machine: StoreMachine) -> bool:
    """Whether some engine believes to own a run: rules for all three of them would mostly do nothing."""
    return any(machine.run)


class StoreMachine(HeldModel):
    """The steps: whatever engines, and those who cancel and deliver, may do."""

    def _plan(self, streams: list[tuple[str, ...]], *, is_lenient: bool) -> AttemptPlan:
        plans = [stream_plan(f"s{number}", *blocks) for number, blocks in enumerate(streams)]
        self.plans = {plan.stream: plan for plan in plans}
        parents = (LOADER, "clean", "mask", EXPORTER, "stream", "pipeline")
        return attempt_plan(plans, parents, allow_blocks_to_fail=is_lenient, callback_blocks=QUEUES)

    def _actor(self) -> int:
        """The next engine, in turn, that believes to own a run: its owner, or a zombie."""
        self.turns += 1
        holders = [engine for engine in range(3) if self.run[engine] is not None]
        return holders[self.turns % len(holders)]

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

    @initialize(seed=st.integers(min_value=0, max_value=2**64))
    def first_run(self, seed: int) -> None:
        self.chance.seed(seed)
        self._begin(self.chance.randrange(3))

    @rule(engine=ENGINES)
    def start(self, engine: int) -> None:
        """What a start does: recover if there is something to recover, else begin or retry."""
        chance = self.chance
        if self.stores[engine].active_run("p") is not None and chance.random() < 0.9:
            self._take_over(engine)
        elif chance.random() < 0.3:
            self._retry(engine)
        else:
            self._begin(engine)

    def _begin(self, engine: int) -> None:
        store = self.stores[engine]
        active = store.active_run("p")
        try:
            run = store.begin_run("p", execution_date=DATE)
        except AlreadyRunning:
            assert active is not None
            return
        assert active is None
        self.run[engine] = run
        chance = self.chance
        streams = [chance.choice(TRANSFORMERS) for _ in range(chance.choice([0, 1, 2, 3, 4, 5, 6]))]
        store.begin_attempt(run.id, self._plan(streams, is_lenient=chance.random() < 0.5))
        if chance.random() < 0.4:
            self.hold(engine)

    @rule(engine=ENGINES, number=st.integers(min_value=3, max_value=10))
    def work(self, engine: int, number: int) -> None:
        """Several claims and closes in a row: what most of a run consists of."""
        chance = self.chance
        for _ in range(number):
            if not self._can_go_on() and chance.random() < 0.5:
                self.conclude()
                self.start(engine)
            if not has_run(self):
                self.start(chance.randrange(3))
            if not has_run(self):
                return
            (step,) = chance.choices(
                ["claim", "close", "stop", "cancel", "end", "heartbeat", "release"], weights=[30, 30, 2, 1, 1, 2, 2]
            )
            if step == "claim":
                self._claim(chance.choice([1, 1, 2]))
            elif step == "close":
                self._close(chance.randrange(5), chance.choices(ENDS, weights=[8, 1, 1, 1])[0])
            elif step == "stop":
                self._stop(chance.choice(["cancelled", "failure"]))
            elif step == "cancel":
                self._cancel(chance.randrange(3))
            elif step == "end":
                self._end()
            elif step == "heartbeat":
                self._heartbeat()
            else:
                self._release()

    @precondition(has_run)
    @rule()
    def conclude(self) -> None:
        """The end of a run as an engine drives it; cut short now and then."""
        for step in (self._end, self._release, self._finish):
            # Ending what has hardly begun is possible, and dull.
            likely = 0.2 if step == self._end and self._can_go_on() else 0.8
            if has_run(self) and self.chance.random() < likely:
                step()

    def _can_go_on(self) -> bool:
        """Whether some attempt has a stream to claim or to close."""
        return self._count("stream_run", "status = 'running'") > 0 or bool(
            self._rows(
                "SELECT 1 FROM _syncblocks_attempt AS a JOIN _syncblocks_stream_run AS s USING (run_id, attempt)"
                " WHERE a.status = 'running' AND a.stop_status IS NULL AND s.status = 'unclaimed'"
            )
        )

    def _claim(self, number: int) -> None:
        engine = self._actor()
        if (run := self._owned(engine)) is None:
            return
        store = self.stores[engine]
        waiting = store.never_started(run.id)[:number]
        if waiting:
            before = store.run(run.id)
            assert store.claim(run.id, waiting) == (not before.stopping and not before.cancel_requested)

    def _close(self, place: int, status: str) -> None:
        engine = self._actor()
        if (run := self._owned(engine)) is None or not (names := self.stores[engine].open_streams(run.id)):
            return
        plan = self.plans[names[place % len(names)]]
        is_failure = status in (LOADER, EXPORTER)
        ended = outcome(plan, failed_block=status) if is_failure else outcome(plan, status)
        store = self.stores[engine]
        waiting = store.never_started(run.id)[: self.chance.choice([0, 1, 2])]
        before = store.run(run.id)
        closed = store.close_stream(run.id, ended, claim=waiting)
        after = store.run(run.id)
        assert closed.status == after.status
        assert closed.has_claimed == (bool(waiting) and not after.stopping)
        assert not (closed.has_claimed and (before.stopping or before.cancel_requested))
        can_go_on = bool(store.open_streams(run.id)) or (bool(store.never_started(run.id)) and not closed.is_stopping)
        assert closed.run_ended == (closed.status != "running") == (not can_go_on)

    def _stop(self, status: str) -> None:
        engine = self._actor()
        if (run := self._owned(engine)) is not None:
            self.stores[engine].request_stop(run.id, status)

    def _cancel(self, engine: int) -> None:
        active = self.stores[engine].active_run("p")
        if active is not None:
            self.stores[engine].request_cancel(active.id)

    def _end(self) -> None:
        engine = self._actor()
        if (run := self._owned(engine)) is not None and not self.stores[engine].open_streams(run.id):
            self.stores[engine].end_attempt(run.id)

    def _release(self) -> None:
        engine = self._actor()
        run = self._owned(engine)
        if run is not None and self.stores[engine].run(run.id).status != "running":
            self.outboxes[engine].release_gate(run.id)

    def _finish(self) -> None:
        engine = self._actor()
        if (run := self._owned(engine)) is None:
            return
        try:
            self.stores[engine].finish_run(run.id)
        except StateError:
            assert self.stores[engine].run(run.id).status == "running"
        else:
            self.run[engine] = None

    def _retry(self, engine: int) -> None:
        store = self.stores[engine]
        latest = store.latest_run("p")
        if latest is None or latest.is_active:
            return
        self.run[engine] = store.begin_retry(latest.id)
        names = [name for name in store.unfinished_streams(latest.id) if name in self.plans]
        streams = [self.plans[name] for name in names]
        parents = (LOADER, "clean", "mask", EXPORTER, "stream", "pipeline")
        store.begin_attempt(latest.id, attempt_plan(streams, parents, callback_blocks=QUEUES))

    @rule(engine=ENGINES)
    def crash(self, engine: int) -> None:
        self._die(engine)

    def _take_over(self, engine: int) -> None:
        store = self.stores[engine]
        active = store.active_run("p")
        if active is None:
            return
        row = self._one("pipeline_run", f"id = {active.id}")
        lasts = timedelta(seconds=row["hold_s"] or LEASE_S)
        is_dead = active.owner != store.owner and not self._is_held(row["owner"], row["lease_until"], engine, lasts)
        assert store.owner_state(active) == ("dead" if is_dead else "alive")
        try:
            taken = store.reclaim_run(active.id)
        except AlreadyRunning:
            assert not is_dead
        else:
            assert is_dead or active.owner == store.owner
            assert taken.owner == store.owner
            self.run[engine] = taken

    def _heartbeat(self) -> None:
        engine = self._actor()
        if (run := self._owned(engine)) is not None:
            assert self.stores[engine].renew([run.id]) == {run.id}

    @rule(seconds=st.sampled_from([1, 20, 31, 600, -15, -3600]))
    def tick(self, seconds: int) -> None:
        self.clock.move(seconds)

    def _lease(self, engine: int, queue: str) -> None:
        if (engine, queue) in self.leased:
            return
        held = self._rows(f"SELECT * FROM _syncblocks_delivery WHERE state = 'leased' AND callback_block = '{queue}'")
        found = self.outboxes[engine].lease(queue)
        if isinstance(found, Delivery):
            mine = self.outboxes[engine]._token
            for row in held:
                is_over = datetime.fromisoformat(row["lease_until"]).replace(tzinfo=UTC) <= self.clock.now()
                until, since = (datetime.fromisoformat(row[name]) for name in ("lease_until", "leased_at"))
                is_held = not is_over and self._is_held(row["lease_owner"], row["lease_until"], engine, until - since)
                assert row["lease_token"] == mine or not is_held
            self._check_order(found)
            self.leased[engine, queue] = found
        elif found == NothingOpen():
            assert self._count("delivery", f"is_open AND callback_block = '{queue}'") == 0
        else:
            assert found.wait_s >= 0
            assert self._count("delivery", f"is_open AND callback_block = '{queue}'") > 0

    @rule(number=st.integers(min_value=3, max_value=12))
    def deliver(self, number: int) -> None:
        """Several deliveries in a row, by whatever engine."""
        chance = self.chance
        for _ in range(number):
            engine, queue = chance.randrange(3), chance.choice(QUEUES)
            self._lease(engine, queue)
            if (engine, queue) in self.leased and chance.random() < 0.8:
                self._mark(engine, queue, is_ok=chance.random() < 0.7)
            self.clock.move(chance.choice([0, 1, 1, 1, 1, 300]))

    @precondition(lambda self: bool(self.leased))
    @rule(place=st.integers(min_value=0, max_value=5), is_ok=st.booleans())
    def mark(self, place: int, is_ok: bool) -> None:
        engine, queue = sorted(self.leased)[place % len(self.leased)]
        self._mark(engine, queue, is_ok=is_ok)

    def _mark(self, engine: int, queue: str, *, is_ok: bool) -> None:
        delivery = self.leased.pop((engine, queue))
        row = self._one("delivery", f"idempotency_key = '{delivery.key}'")
        verdict = self.outboxes[engine].mark(delivery, OK if is_ok else RAISED)
        if row["lease_token"] == self.outboxes[engine]._token:
            assert verdict == ("done" if is_ok else "dead" if delivery.attempt == 2 else "retry")


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    derandomize=EXAMPLES == 50,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
