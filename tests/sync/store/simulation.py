"""Many virtual workers over the real store: they take claims, close streams, die and freeze, by a clock of their own.

The store is the product's, and so are its transactions; what is made up is time, workers, and a destination that
keeps a token and a count for each stream. A violation is something that no run may ever show.

`python -m tests.sync.store.simulation FILE` writes down a million block runs, for `tests.benchmarks.workers`.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.store import Store
from syncblocks.sync.store.model import LostRun, StreamPlan
from syncblocks.sync.store.owner import Owner, current_owner
from tests.sync.store.store_helpers import FixedClock, attempt_plan, begin, outcome, stream_plan

#: Seconds between two looks of the coordinator, and between two renewals of a worker's lease.
POLL_S, BEAT_S = 5.0, 10.0
#: Seconds that a frozen worker sleeps: past its lease.
FROZEN_S = 90.0
#: Groups in a call, calls for each worker, and tries of a stream whose worker dies.
GROUPS, CALLS, TRIES = 8, 2, 3


@dataclass(slots=True)
class Call:
    """Streams that travel together under a nonce."""

    nonce: str
    streams: deque[str]


@dataclass(slots=True, eq=False)
class Worker:
    """One virtual process."""

    me: Owner
    call: Call | None = None
    stream: str = ""
    is_dead: bool = False
    frozen_until: float = 0.0


@dataclass(slots=True)
class Found:
    """What a simulation has seen."""

    violations: list[str] = field(default_factory=list)
    #: Of each stream the second at which a worker took it, and the seconds since its claim.
    lags: list[tuple[float, float]] = field(default_factory=list)
    #: Second -> transactions of the store.
    load: Counter[int] = field(default_factory=Counter)
    died: int = 0
    frozen: int = 0
    #: Closes and commits of zombies that were refused.
    refused: int = 0
    lost: int = 0
    block_runs: int = 0
    #: By the virtual clock, and of this process's processor time.
    seconds: float = 0.0
    cpu_s: float = 0.0


def simulate(url: str, *, runs: int = 1, streams: int, workers: int, seed: int, crash: float = 0.02) -> Iterator[Found]:
    """Run a pipeline again and again over one store, which keeps all of it; yield what was seen of each run.

    `crash`: the chance that a worker dies or freezes while it runs a stream.
    """
    clock = FixedClock()
    with Store.open(url, clock=clock) as store:
        for number in range(runs):
            chance, begun = random.Random(f"{seed} {number}"), time.process_time()
            found = Simulation(store, clock, chance, streams=streams, workers=workers, crash=crash).run()
            found.cpu_s = time.process_time() - begun
            yield found


class Simulation:
    """One attempt of one run; `run` carries it out."""

    def __init__(
        self, store: Store, clock: FixedClock, chance: random.Random, *, streams: int, workers: int, crash: float
    ) -> None:
        self.store, self.clock, self.chance, self.crash = store, clock, chance, crash
        self.plans: dict[str, StreamPlan] = {f"s{number}": stream_plan(f"s{number}") for number in range(streams)}
        plan = attempt_plan(self.plans.values(), callback_blocks=(), allow_blocks_to_fail=True)
        self.run_id = begin(self.store, plan).id
        self.found = Found()
        self.now = 0.0
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._unclaimed = deque(self.plans)
        self._queue: deque[Call] = deque()
        self._flying: dict[str, Call] = {}
        self._claimed_at: dict[str, float] = {}
        self._tries: Counter[str] = Counter()
        self._idle = deque(self._worker() for _ in range(workers))
        self._slots = CALLS * workers
        # The destination: who may commit a stream, and how often it was.
        self._tokens: dict[str, str] = {}
        self._committed: Counter[str] = Counter()
        self._closed: Counter[str] = Counter()

    def run(self) -> Found:
        """Go on until every stream is closed and every zombie has woken up; check what the store says then."""
        self._look()
        while self._due:
            at, _, work = heapq.heappop(self._due)
            self.clock.move(at - self.now)
            self.now = at
            work()
        self.found.seconds = self.now
        self._check()
        self.store.finish_run(self.run_id)
        return self.found

    def _after(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), work))

    def _count(self) -> None:
        self.found.load[int(self.now)] += 1

    def _nonce(self) -> str:
        return f"{self.chance.getrandbits(64):016x}"

    def _worker(self) -> Worker:
        host = f"host-{next(self._numbers)}"
        return Worker(replace(current_owner(), host=host, boot_id=host, pid_namespace=host))

    # -- the coordinator -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._take_lost()
        calls = len(set(map(id, self._flying.values())))
        while self._unclaimed and calls < self._slots:
            calls += 1
            size = min(GROUPS, max(1, len(self._unclaimed) // self._slots))
            names = [self._unclaimed.popleft() for _ in range(size)]
            call = Call(self._nonce(), deque(names))
            self._count()
            assert self.store.claim(self.run_id, names, nonce=call.nonce)
            self._send(call, names)
        self._count()
        self.store.renew([self.run_id])
        self._hand_out()
        if self._unclaimed or self._flying:
            self._after(POLL_S, self._look)

    def _send(self, call: Call, names: Sequence[str]) -> None:
        self._queue.append(call)
        self._flying.update(dict.fromkeys(names, call))
        self._claimed_at.update(dict.fromkeys(names, self.now))

    def _take_lost(self) -> None:
        if not self._flying:
            return
        self._count()
        states = self.store.claim_states(self.run_id, 1, list(self._flying))
        behind: dict[int, tuple[Call, list[str]]] = {}
        dead = set()
        for name, state in states.items():
            call = self._flying[name]
            if not state.is_open:
                del self._flying[name]
            elif state.is_taken and not state.is_alive:
                dead.add(id(call))
                self._take_over(name, call)
            elif not state.is_taken:
                behind.setdefault(id(call), (call, []))[1].append(name)
        for number, (call, names) in behind.items():
            if number in dead:
                self._send_again(call, names, is_waiting=True)

    def _take_over(self, name: str, call: Call) -> None:
        nonce = self._nonce()
        self._count()
        if self.store.take_back(self.run_id, 1, [name], nonce, call.nonce) != [name]:
            return
        self._tokens[name] = nonce  # a commit under way is over by then, and counts
        self._tries[name] += 1
        if not self._committed[name] and self._tries[name] < TRIES:
            again = Call(nonce, deque([name]))
            self._send(again, [name])
            return
        status = "success" if self._committed[name] else "failure"
        self._close(name, nonce, status)
        self.found.lost += status == "failure"

    def _send_again(self, call: Call, names: Sequence[str], *, is_waiting: bool) -> None:
        nonce = self._nonce()
        self._count()
        back = self.store.take_back(self.run_id, 1, names, nonce, call.nonce, is_waiting=is_waiting)
        if back:
            self._send(Call(nonce, deque(back)), back)

    def _close(self, name: str, nonce: str, status: str) -> None:
        self._count()
        self.store.close_stream(self.run_id, outcome(self.plans[name], status), nonce=nonce)
        self._closed[name] += 1
        self._flying.pop(name, None)

    def _hand_out(self) -> None:
        while self._idle and self._queue:
            worker = self._idle.popleft()
            worker.call = self._queue.popleft()
            self._next(worker)

    # -- workers -------------------------------------------------------------------------------------------------

    def _next(self, worker: Worker, *, has_taken: bool = False) -> None:
        """Take the next stream of a worker's call, or wait for another call."""
        assert worker.call is not None
        while worker.call.streams:
            name = worker.call.streams.popleft()
            if not has_taken:
                self._count()
                has_taken = self.store.take_claim(self.run_id, 1, [name], worker.call.nonce, worker.me)
            if has_taken:
                self._begin(worker, name)
                return
        worker.call, worker.stream = None, ""
        self._idle.append(worker)
        self._hand_out()

    def _begin(self, worker: Worker, name: str) -> None:
        assert worker.call is not None
        worker.stream = name
        self.found.lags.append((self.now, self.now - self._claimed_at[name]))
        self._tokens[name] = worker.call.nonce
        takes_s = self.chance.lognormvariate(3.0, 0.8)  # a median of 20 s
        fate = self.chance.random()
        if fate < self.crash / 2:
            self.found.died += 1
            self._after(takes_s * self.chance.random(), lambda: self._die(worker, name))
        elif fate < self.crash:
            self.found.frozen += 1
            worker.frozen_until = self.now + takes_s + FROZEN_S
            self._after(takes_s + FROZEN_S, lambda: self._end(worker, name))
        else:
            self._after(takes_s, lambda: self._end(worker, name))
            self._beat(worker, name)

    def _beat(self, worker: Worker, name: str) -> None:
        def renew() -> None:
            if worker.stream == name and worker.call is not None and not worker.is_dead:
                self._count()
                self.store.renew_claims(self.run_id, 1, [name], worker.me)
                self._after(BEAT_S, renew)

        self._after(BEAT_S, renew)

    def _die(self, worker: Worker, name: str) -> None:
        worker.is_dead = True
        if self.chance.random() < 0.5:  # between its commit and its close
            self._commit(worker, name)
        self._after(10.0, lambda: self._idle.append(self._worker()))

    def _commit(self, worker: Worker, name: str) -> bool:
        assert worker.call is not None
        if self._tokens[name] != worker.call.nonce:
            self.found.refused += 1
            return False
        self._committed[name] += 1
        return True

    def _end(self, worker: Worker, name: str) -> None:
        assert worker.call is not None
        status = "success" if self._commit(worker, name) else "failure"
        following = worker.call.streams[0] if worker.call.streams else ""
        self._count()
        try:
            closed = self.store.close_stream(
                self.run_id,
                outcome(self.plans[name], status),
                nonce=worker.call.nonce,
                take=following,
                worker=worker.me,
            )
        except LostRun:
            self.found.refused += 1
            self._next(worker)
            return
        if status != "success":
            self.found.violations.append(f"{name}: a worker that may not commit closed its stream")
        self._closed[name] += 1
        self._next(worker, has_taken=closed.has_taken)

    # -- the end -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        found, names = self.found, list(self.plans)
        found.violations += [f"{name}: closed {number} times" for name, number in self._closed.items() if number != 1]
        found.violations += [f"{name}: never closed" for name in names if not self._closed[name]]
        found.violations += [
            f"{name}: committed {number} times" for name, number in self._committed.items() if number > 1
        ]
        runs = self.store.block_runs_of(self.run_id, 1, names)
        found.block_runs = len(runs)
        for kind in ("data_loader", "data_exporter"):
            of_kind = [run for run in runs if run.block_type == kind]
            if sorted(run.index for run in of_kind if run.index is not None) != list(range(len(names))):
                found.violations.append(f"{kind}: the indexes are not 0..{len(names) - 1}")
            if [run.index for run in of_kind if run.is_last_block_run] != [len(names) - 1]:
                found.violations.append(f"{kind}: not exactly the last one is flagged")
        for run in runs:
            if (run.status == "success") != bool(self._committed[run.stream]):
                found.violations.append(f"{run.stream}: {run.status}, committed {self._committed[run.stream]} times")
        expected = "failure" if found.lost else "success"
        if self.store.run(self.run_id).status != expected:
            found.violations.append(f"the run is not {expected}")


def in_memory() -> str:
    """Return a folder in memory where there is one: the disk would be waited for at each of the transactions."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


def main(path: str) -> None:
    """Write down what a hundred runs of 5,000 streams with 1,000 workers show, one JSON line a run."""
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder, Path(path).open("w") as file:
        store = f"sqlite:///{folder}/store.db"
        for number, found in enumerate(simulate(store, runs=100, streams=5_000, workers=1_000, seed=19), start=1):
            file.write(json.dumps({name: getattr(found, name) for name in Found.__slots__}) + "\n")
            file.flush()
            size = Path(folder, "store.db").stat().st_size / 1e6
            sys.stdout.write(f"run {number}: {found.violations} {found.cpu_s:.1f} s, the store has {size:.0f} MB\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
