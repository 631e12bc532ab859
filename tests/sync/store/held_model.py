"""The part of the model test that is about held runs: tasks that claim, close, die, are tried again and are ended."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from syncblocks.sync.errors import AlreadyRunning, StateError
from syncblocks.sync.store import LostRun, Store
from syncblocks.sync.store.model import PipelineRun, StreamOutcome
from syncblocks.sync.store.owner import Owner
from tests.sync.store.store_helpers import EXPORTER, LOADER, attempt_plan, outcome
from tests.sync.store.store_model import QUEUES, StoreModel

PARENTS = (LOADER, "clean", "mask", EXPORTER, "stream", "pipeline")
HOLD_S = 300


@dataclass(frozen=True)
class TaskModel:
    """A task that has claimed a stream, as it believes."""

    run: PipelineRun
    stream: str
    nonce: str
    worker: Owner


def has_tasks(machine: HeldModel) -> bool:
    """Whether a run is held, or a task believes to have a stream."""
    return bool(machine.tasks) or machine.held() is not None


class HeldModel(StoreModel):
    """Steps of held runs; tasks are processes of this machine and of another one."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[TaskModel] = []
        self.task_number = 0

    def held(self) -> PipelineRun | None:
        """The run that is held, if one is."""
        active = self.stores[0].active_run("p")
        return active if active is not None and active.hold_s is not None else None

    def _of_tasks(self, run: PipelineRun) -> Store:
        return Store(self.database, run.owner, self._liveness)

    def _worker(self) -> tuple[str, Owner]:
        self.task_number += 1
        place = self.chance.choice(["here", "here", "elsewhere"])
        owner = Owner(host=place, boot_id=place, pid_namespace="1", pid=100 + self.task_number, started=1)
        return f"nonce {self.task_number}", owner

    def hold(self, engine: int) -> None:
        """The end of `open`: the engine that has begun a run gives it away; it is a zombie from then on."""
        run = self.run[engine]
        if run is not None and self.stores[engine].is_owner(run.id):
            self.stores[engine].hold_run(run.id, HOLD_S)

    @precondition(has_tasks)
    @rule(number=st.integers(min_value=3, max_value=12))
    def work_of_tasks(self, number: int) -> None:
        """Several steps of tasks in a row."""
        steps = {
            self._claim_own: 30,
            self._close_own: 25,
            self._kill_task: 4,
            self._settle: 6,
            self._try_again: 8,
            self._renew_hold: 2,
            self._refused_start: 1,
        }
        for _ in range(number):
            (step,) = self.chance.choices(list(steps), weights=list(steps.values()))
            step()

    def _claim_own(self) -> None:
        if (run := self.held()) is None or not (waiting := self.stores[0].never_started(run.id)):
            return
        nonce, worker = self._worker()
        stream, most = self.chance.choice(waiting), self.chance.choice([None, None, 1, 3])
        store, opened = self._of_tasks(run), self.stores[0].open_streams(run.id)
        beside = self.chance.choice([(), (), waiting[:1], opened[:1]])
        claimed = store.claim_own(run.id, run.attempt, stream, nonce, worker, most=most, beside=beside)
        if run.stopping or run.cancel_requested:
            assert claimed == "stopping"
        elif (most is not None and len(opened) >= most) or set(beside) & set(opened):
            assert claimed == "busy"
        else:
            assert claimed == "claimed"
            assert store.claim_own(run.id, run.attempt, stream, "other", worker) == "gone"
            self.tasks.append(TaskModel(run, stream, nonce, worker))

    def _close_own(self) -> None:
        """A task closes: once, and not if it was settled, or its run taken over, meanwhile."""
        if not self.tasks:
            return
        task = self.tasks.pop(self.chance.randrange(len(self.tasks)))
        status = self.chance.choices(["success", "cancelled", EXPORTER], weights=[8, 1, 1])[0]
        store, plan = self._of_tasks(task.run), self.plans.get(task.stream)
        if plan is None:  # of a run long ago
            return
        ended = outcome(plan, failed_block=status) if status == EXPORTER else outcome(plan, status)
        row = self._rows(
            f"SELECT s.claim FROM _syncblocks_stream_run AS s JOIN _syncblocks_pipeline_run AS r ON r.id = s.run_id"
            f" AND r.attempt = s.attempt WHERE r.id = {task.run.id} AND s.stream = '{task.stream}' AND r.is_active"
            f" AND s.status = 'running' AND r.owner = '{task.run.owner.encode()}'"
        )
        if [each["claim"] for each in row] == [task.nonce]:
            assert store.holds_claim(task.run.id, task.stream, task.nonce)
            store.close_stream(task.run.id, ended, nonce=task.nonce)
            return
        before = self._dump()
        try:
            store.close_stream(task.run.id, ended, nonce=task.nonce)
        except LostRun:
            assert self._dump() == before
        else:
            raise AssertionError("a zombie closed")

    def _kill_task(self) -> None:
        if self.tasks:
            self.dead.add(self.chance.choice(self.tasks).worker)

    def _settle(self) -> None:
        """A task that waits closes what dead ones have left; at times it dies itself before it has."""
        if (run := self.held()) is None:
            return
        store = self._of_tasks(run)
        looking = self.stores[0].claim_states(run.id, run.attempt, self.stores[0].open_streams(run.id))
        for name, state in looking.items():
            if state.is_alive:
                continue
            nonce, worker = self._worker()
            assert store.take_dead(run.id, run.attempt, name, nonce, state.nonce, worker)
            assert not store.take_dead(run.id, run.attempt, name, "other", state.nonce, worker)
            if self.chance.random() < 0.2:
                self.dead.add(worker)
                continue
            store.close_stream(run.id, self._decided(name), nonce=nonce)

    def _decided(self, name: str) -> StreamOutcome:
        return outcome(self.plans[name], failed_block=None if self.chance.random() < 0.3 else EXPORTER)

    def _try_again(self) -> None:
        """A task whose stream did not succeed begins the next attempt over it alone, once the attempt has ended."""
        store = self.stores[0]
        if (run := store.latest_run("p")) is None:
            return
        left = [name for name in store.unfinished_streams(run.id) if name in self.plans]
        if not left:
            return
        nonce, worker = self._worker()
        stream = self.chance.choice(left)
        plan = attempt_plan([self.plans[stream]], PARENTS, callback_blocks=QUEUES)
        active, before = store.active_run("p"), self._dump()
        try:
            has_begun = store.begin_held_attempt(run.id, run.attempt, plan, nonce, worker, hold_s=HOLD_S)
        except (AlreadyRunning, StateError):
            assert active is not None
            assert active.hold_s is None or active.cancel_requested
            assert self._dump() == before
            return
        assert has_begun == (run.status != "running")
        if has_begun:
            self.tasks.append(TaskModel(store.run(run.id), stream, nonce, worker))
        else:
            assert self._dump() == before

    def _renew_hold(self) -> None:
        if (run := self.held()) is not None:
            self._of_tasks(run).renew_hold(run.id)
            until = self.stores[0].run(run.id).lease_until
            held_s = (until - self.clock.now()).total_seconds()
            assert held_s in (0, 30) if run.cancel_requested else held_s == HOLD_S

    def _refused_start(self) -> None:
        """As long as it is held, no start recovers it, and none begins another run."""
        run, store = self.held(), self.stores[self.chance.randrange(3)]
        if run is None or run.lease_until <= self.clock.now():
            return
        with pytest.raises(AlreadyRunning, match="held for tasks"):
            store.begin_run("p", execution_date=run.execution_date)
        with pytest.raises(AlreadyRunning, match="held for tasks"):
            store.reclaim_run(run.id)

    @precondition(lambda self: self.held() is not None)
    @rule(engine=st.integers(min_value=0, max_value=2))
    def finish_held(self, engine: int) -> None:
        """`finish`: stops what has not started, and takes the run over when no task lives, as this engine knows."""
        run, store = self.held(), self.stores[engine]
        assert run is not None
        self._of_tasks(run).request_stop(run.id)
        states = store.claim_states(run.id, run.attempt, store.open_streams(run.id))
        lives = any(state.is_alive for state in states.values())
        assert store.take_held_run(run.id) == (not lives)
        if not lives:
            self.run[engine] = store.run(run.id)
            assert store.take_held_run(run.id)
