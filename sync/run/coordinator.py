"""The coordinator of one attempt: claims streams in order, starts and stops them, and waits for their ends."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress

from syncblocks.connectors.incremental.bookmarks import values

from ..errors import SyncError
from ..flow.feed import Budget
from ..flow.memory import budget_bytes, in_flight_bytes, record_bytes
from ..plan.plan import Plan, PlannedStream
from ..session.session import PipelineSession
from ..store import Store
from ..store.model import LostRun, PipelineRun, StreamOutcome
from .executors.protocol import MakeExecutor, Reference, RunningStream
from .executors.threads import Threads, in_thread
from .lease import RunLease
from .limits import most_at_once
from .progress import Progress
from .signals import STOP_S
from .store_calls import StoreCalls
from .stream_blocks import CANCELLED, FAILURE
from .stream_result import stream_result

#: Seconds that a stopped stream has to end by itself; after that, the coordinator closes it.
GRACE_S = 3.0


class Coordinator:
    """Carries out the plan of one attempt: decides what runs and when; an executor runs it."""

    def __init__(
        self,
        session: PipelineSession,
        store: Store,
        run: PipelineRun,
        plan: Plan,
        progress: Progress,
        lease: RunLease,
        *,
        notify: Callable[[], None],
        is_stopping: Callable[[], bool],
        make_executor: MakeExecutor = Threads,
    ) -> None:
        self._session = session
        self._pipeline = session.pipeline
        self._store = store
        self._run = run
        self._progress = progress
        self._notify = notify
        self._is_stopping = is_stopping
        self._lease = lease
        session.use_store(store, run.id)
        memory = budget_bytes(self._pipeline.memory)
        budget = Budget(in_flight_bytes(memory), record_bytes(memory))
        self._is_refused = False
        self._is_interrupted = False
        self._stop_reason = ""
        self._has_failed = False
        planned = {stream.name: stream for stream in plan.streams}
        self._groups = {names: [planned[name] for name in names] for names in plan.groups}
        #: Unclaimed groups in run order; a stream that ends takes the next one.
        self._waiting = deque(self._groups.values())
        #: Groups taken from it and not started yet; threads of streams change it too.
        self._chosen: list[Sequence[PlannedStream]] = []
        self._choosing = threading.Lock()
        #: Groups claimed in the transaction that closed another stream, not started yet.
        self._claimed: deque[Sequence[PlannedStream]] = deque()
        self._active: dict[Future[None], Sequence[RunningStream]] = {}
        #: Names of streams that the coordinator is ending itself.
        self._abandoned: dict[str, Future[None]] = {}
        self.runs: list[RunningStream] = []
        #: Names of streams with a reported result.
        self._told: set[str] = set()
        calls = StoreCalls(session, store, run, notify=notify, lose=lease.lose)
        context = calls.context(progress, budget, close_stream=self._close, is_owner=lambda: store.is_owner(run.id))
        self._executor = make_executor(context, planned)
        #: Whether other processes run the streams: then only the coordinator claims, apart from any close.
        self._is_remote = not isinstance(self._executor, Threads)

    def execute(self, concurrency: int | None) -> None:
        """Run every stream to its end, or until the run is stopped.

        Errors raised here come from no stream, such as a signal handler's exit: running streams are ended first.
        """
        try:
            self._execute(concurrency)
        except BaseException:
            self._end_streams()
            raise
        finally:
            self._executor.close()

    def _execute(self, concurrency: int | None) -> None:
        stopped_at: float | None = None
        while self._waiting or self._claimed or self._active:
            while self._claimed:
                self._start([self._claimed.popleft()])
            # Checked each time: workers may come and go.
            limit = most_at_once(self._session, concurrency, self._executor.slots)
            places = self._executor.places(limit)
            while len(self._active) < places and not self._must_stop():
                if not (groups := self._batch(limit)):
                    break
                nonce = secrets.token_hex(16) if self._is_remote else ""
                if self._claim(groups, nonce):
                    self._start(groups, nonce)
            if not self._waiting:
                self._executor.spread(places)
            if stopped_at is None and self._must_stop():
                stopped_at = time.monotonic()
                self._waiting.clear()
                self._stop()
            self._collect(0.05 if stopped_at else 0.2)
            self._cancel_late()
            if stopped_at is not None and time.monotonic() - stopped_at > GRACE_S:
                self._give_up()
                return

    def _next(self, ended: str = "") -> Sequence[PlannedStream]:
        """Take the next waiting group whose chains are free; `ended` will be closed now; empty: none."""
        with self._choosing:
            members = [run.planned for run in self._members() if not run.has_ended and run.name != ended]
            members += [planned for group in self._chosen for planned in group]
            busy = {planned.placement.chain for planned in members if planned.placement.chain}
            for group in list(self._waiting):
                if busy.isdisjoint(planned.placement.chain for planned in group):
                    self._waiting.remove(group)
                    self._chosen.append(group)
                    return group
        return ()

    def _batch(self, limit: int) -> list[Sequence[PlannedStream]]:
        """Take waiting groups for one reference: few if few remain, so that all workers end at about the same time."""
        size = self._executor.batch_size(len(self._waiting), limit)
        groups: list[Sequence[PlannedStream]] = []
        while len(groups) < size and (group := self._next()):
            groups.append(group)
        return groups

    def _claim(self, groups: Sequence[Sequence[PlannedStream]], nonce: str) -> bool:
        """Claim groups; return False if the run is stopping."""
        names = [planned.name for group in groups for planned in group]
        if not self._store.claim(self._run.id, names, nonce=nonce):
            self._is_refused = True
            return False
        self._notify()  # the claim may have decided `is_last_block_run` of an event
        return True

    def _start(self, claimed: Sequence[Sequence[PlannedStream]], nonce: str = "") -> None:
        names = tuple(tuple(planned.name for planned in group) for group in claimed)
        reference = Reference(run_id=self._run.id, attempt=self._run.attempt, groups=names, nonce=nonce)
        work = self._executor.submit(reference, self._announce)
        self._active[work.done] = work.members
        for group in claimed:
            self._chosen.remove(group)

    def _announce(self, member: RunningStream) -> None:
        self.runs.append(member)
        table = member.planned.key.destination_table
        self._progress.stream_started(member.name, table, values(member.planned.start.bookmark))
        if self._stop_reason:  # claimed just before the stop
            member.cancel(self._stop_reason)

    def _collect(self, timeout_s: float) -> None:
        members = self._members()
        watched = [*self._active, *(end for end in self._abandoned.values() if not end.done())]
        done, _ = wait(watched, timeout=timeout_s, return_when=FIRST_COMPLETED)
        for future in done:
            self._has_failed |= _has_failed(self._active.pop(future, ()))
            future.result()
        for member in members:  # members of a group, each at its own end
            if member.has_ended and member.name not in self._told:
                self._told.add(member.name)
                self._progress.stream_result(stream_result(member))
        self._leave_hanging()

    def _leave_hanging(self) -> None:
        """Stop waiting for threads whose streams were ended without them: they may hang forever."""
        for future, members in list(self._active.items()):
            are_ended = all(member.has_ended and member.name in self._abandoned for member in members)
            if are_ended and not self._is_remote:
                self._has_failed |= _has_failed(members)
                del self._active[future]

    def _must_stop(self) -> bool:
        if self._is_asked() or self._is_refused or self._lease.is_lost:
            return True
        return not self._pipeline.allow_blocks_to_fail and (self._has_failed or _has_failed(self._members()))

    def _is_asked(self) -> bool:
        return self._is_interrupted or self._is_stopping() or self._lease.is_cancelled

    def _stop(self) -> None:
        """Stop claiming, and cancel the running streams."""
        self._stop_reason = self._reason()
        try:
            self._store.request_stop(self._run.id)
        except LostRun:
            self._lease.lose()
        for member in self._open_members():
            member.cancel(self._stop_reason)

    def _reason(self) -> str:
        if self._lease.is_late:
            return f"run_timeout_s={self._pipeline.run_timeout_s:g} is over"
        if self._is_asked() or self._store.cancel_requested(self._run.id):
            return "the run was cancelled"
        if self._lease.is_lost:
            return "the run was taken over by another process"
        failed = [run.name for run in self.runs if run.has_ended and run.status == FAILURE]
        if failed:
            return f"another stream failed: {failed[0]}"
        late = [run.name for run in self.runs if run.has_ended and run.status == CANCELLED]
        return f"another stream timed out: {', '.join(late[:1])}"

    def _end_streams(self) -> None:
        """Stop the run, and end the running streams if source, destination and run store answer in time."""
        self._is_interrupted = True
        self._waiting.clear()
        with suppress(SyncError):
            self._stop()
        end = time.monotonic() + GRACE_S
        while (left := self._open_members()) and time.monotonic() < end:
            time.sleep(0.02)
        for member in left:
            self._abandon(member)
        wait(self._abandoned.values(), timeout=STOP_S - GRACE_S)

    def _open_members(self) -> list[RunningStream]:
        return [member for member in self.runs if not member.has_ended]

    def _give_up(self) -> None:
        """End the running streams without their threads or workers, and wait until each is closed.

        After a signal there is no time to wait for a destination or run store that does not answer. A stream that is
        still open then stays open, and the next start recovers it.
        """
        members = self._members()
        for member in members:
            self._abandon(member)
        limit: float | None = None
        while not all(member.has_ended for member in members):
            if limit is None and self._is_stopping():
                limit = time.monotonic() + STOP_S - GRACE_S
            if limit is not None and time.monotonic() > limit:
                return
            self._collect(0.02)

    def _abandon(self, member: RunningStream) -> None:
        """End a stream without its thread or worker; in the background, since the destination may not answer."""
        if member.name not in self._abandoned:
            self._abandoned[member.name] = in_thread(member.abandon, f"stream-{member.name}")

    def _cancel_late(self) -> None:
        for member in self._members():
            limit_s = member.planned.policy.timeout_s
            if limit_s is None or member.has_ended or not member.has_started:
                continue
            late_s = time.monotonic() - member.started - limit_s
            if late_s >= 0:
                member.cancel(f"timeout_s={limit_s:g} is over")
            if late_s > GRACE_S:
                self._abandon(member)

    def _members(self) -> list[RunningStream]:
        # A copy, made in one step: the threads of streams call this too.
        return [member for group in list(self._active.values()) for member in group]

    def _close(self, outcome: StreamOutcome) -> None:
        """Close a stream, and claim the next group in the same transaction."""
        is_alone = (outcome.stream,) in self._groups
        # Workers get more than one group at a time, each batch under a separate nonce.
        takes_next = is_alone and not self._is_remote and not self._must_stop()
        following = self._next(outcome.stream) if takes_next else ()
        try:
            closed = self._store.close_stream(self._run.id, outcome, claim=[planned.name for planned in following])
        except LostRun:
            self._lease.lose()
        else:
            if closed.has_claimed:
                self._claimed.append(following)
        self._notify()


def _has_failed(runs: Iterable[RunningStream]) -> bool:
    """Whether a stream has failed. Only counts streams closed in the store: only then are the others cancelled."""
    return any(member.has_ended and member.status in (FAILURE, CANCELLED) for member in runs)
