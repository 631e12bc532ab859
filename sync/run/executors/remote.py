"""The executor for other processes: an engine transports references, and the run store reports how streams ended.

The engine's answers decide nothing. A stream has ended when the run store says so. If its worker has died, lost its
lease or given up, this process takes the claim back, asks the destination's ledger and closes the stream.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.struct_helpers import replace

from ...errors import ExecutorError, SyncError
from ...plan.plan import PlannedStream
from ...store import Store
from ...store.model import AttemptPlan, BlockOutcome, BlockRun, ErrorInfo, LostRun, StreamOutcome
from ..context import StreamContext
from ..errors import LedgerUnreadable, Stopped, message_of, process_died
from ..recovery.fencing import owner_text, stream_token
from ..recovery.lost_stream import end_lost, unknown_blocks
from ..stream_blocks import CANCELLED, FAILURE
from .engine import CALLS_A_WORKER, Engine
from .flight import Answer, DueEnd, Flight, RemoteStream, reference_of
from .protocol import Reference, RunningStream, Work
from .threads import in_thread

log = logging.getLogger("syncblocks")

#: Seconds between two looks into the run store while streams are in flight.
POLL_S = 0.5
#: Seconds without an answer of the run store until the run gives up.
GIVE_UP_S = 60.0
#: Number of times that groups are sent again if no worker starts one.
TRIES = 4
#: Maximum of groups in one call: a call costs as much as a small stream.
MOST_GROUPS = 16


class Remote:
    """Runs groups in other processes; see `Executor`."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        context: StreamContext,
        planned: Mapping[str, PlannedStream],
        *,
        notify: Callable[[], None],
        lose: Callable[[], None],
    ) -> None:
        """Run the streams of one attempt.

        Args:
            engine: transports them.
            store: store of the run, used in its owner's name.
            context: the attempt's streams in this process.
            planned: its streams by name.
            notify: called when deliveries may be due.
            lose: called when the store refuses writes of this process.
        """
        self._engine = engine
        self._store = store
        self._context = context
        self._planned = planned
        self._notify = notify
        self._lose = lose
        self._plan: AttemptPlan | None = None
        self._flights: list[Flight] = []
        self._lock = threading.Lock()
        #: Requests of other threads to the watch thread.
        self._news: SimpleQueue[Callable[[], None]] = SimpleQueue()
        #: Number of calls that may run, once all groups are claimed.
        self._spread_to = 0
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @property
    def slots(self) -> int:
        """See `Executor`."""
        return self._engine.slots

    def places(self, limit: int) -> int:
        """See `Executor`: one waiting reference for each running one, if its workers run no more than that at once."""
        most, slots = self._engine.most_at_once, self._engine.slots
        return slots if most is not None and most <= limit else min(limit, slots)

    def batch_size(self, waiting: int, limit: int) -> int:
        """See `Executor`: few if few remain, so that all workers end at about one time; long streams are spread."""
        at_once = max(1, min(limit, self._engine.slots // CALLS_A_WORKER))
        return min(MOST_GROUPS, max(1, waiting // (2 * at_once)))

    def submit(self, reference: Reference, announce: Callable[[RunningStream], None]) -> Work:
        """See `Executor`."""
        groups: list[Sequence[RemoteStream]] = [
            [RemoteStream(self._planned[name], self._context, self._wake) for name in group]
            for group in reference.groups
        ]
        members = [member for group in groups for member in group]
        for member in members:
            announce(member)
        work = Work(members, Future())
        self._launch(Flight(reference, groups, work))
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="workers", daemon=True)
            self._thread.start()
        return work

    def spread(self, limit: int) -> None:
        """See `Executor`."""
        self._spread_to = limit

    def _launch(self, flight: Flight) -> None:
        self._send(flight)
        with self._lock:
            self._flights.append(flight)

    def close(self) -> None:
        """See `Executor`."""
        if not self._is_closed:
            self._is_closed = True
            self._wake()
            self._engine.release()

    def _wake(self) -> None:
        self._news.put(lambda: None)

    def _send(self, flight: Flight) -> None:
        flight.tries += 1
        flight.has_answered, number = False, flight.tries

        def answered(answer: Answer) -> None:
            self._news.put(lambda: note(answer))

        def note(answer: Answer) -> None:
            if number == flight.tries:
                flight.answer, flight.has_answered = answer, True

        try:
            flight.withdraw = self._engine.submit(flight.reference.encode(), answered)
        except ExecutorError as error:
            answered({"problem": message_of(error)})

    # -- the watch -----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        failing_since: float | None = None
        while True:
            self._take_news(POLL_S if self._flights else 60.0)
            with self._lock:
                flights = list(self._flights)
                if self._is_closed and not flights:
                    return
            try:
                self._look(flights)
                self._spread()
                failing_since = None
            except LostRun:
                self._lose()
            except SyncError as error:
                log.warning("the streams of workers cannot be supervised: %s", self._redacted(error))
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > GIVE_UP_S:  # the run's own lease has expired by then
                    self._fail(flights, error)
                    return
                time.sleep(POLL_S)
            except BaseException as error:
                self._fail(flights, error)
                return

    @staticmethod
    def _fail(flights: Sequence[Flight], error: BaseException) -> None:
        """Pass an error to the coordinator: its streams stay open, and the next start recovers them."""
        for flight in flights:
            if not flight.work.done.done():
                flight.work.done.set_exception(error)
            for member in flight.members:
                member.leave()

    def _redacted(self, error: BaseException) -> str:
        return self._context.redactor.redact(str(error))

    def _take_news(self, timeout_s: float) -> None:
        try:
            news = self._news.get(timeout=timeout_s)
            while True:
                news()
                news = self._news.get_nowait()
        except Empty:
            return

    def _look(self, flights: Sequence[Flight]) -> None:
        """Compare the calls in flight with the run store, always in two statements."""
        if not flights:
            return
        run = self._context.run
        names = [member.name for flight in flights for member in flight.members if not member.has_ended]
        states = self._store.claim_states(run.id, run.attempt, names) if names else {}
        closed = [name for name in names if not states[name].is_open]
        figures: dict[str, list[BlockRun]] = {}
        if closed:
            for block_run in self._store.block_runs_of(run.id, run.attempt, closed):
                figures.setdefault(block_run.stream, []).append(block_run)
        for flight in flights:
            for member in flight.members:
                if member.has_ended:
                    continue
                state = states[member.name]
                if not state.is_open:
                    flight.has_run = True
                    if flight.is_told or member.is_abandoned:
                        self._end(flight, member, figures[member.name])
                    continue
                member.is_taken, member.nonce = state.is_taken, state.nonce
                if state.is_taken:
                    member.note_start()
                    flight.has_run = True
                if not member.is_being_taken:
                    self._look_after(flight, member, is_alive=state.is_alive)
            self._look_at_waiting(flight)
            self._ask_to_stop(flight)
            self._finish(flight)
        if closed:
            self._notify()

    def _look_after(self, flight: Flight, member: RemoteStream, *, is_alive: bool) -> None:
        """Take over an open stream that its worker will not end; a stream without a worker only if it must stop."""
        answer = flight.answer or {}
        if member.due_end is not None:
            self._end_lost_stream(flight, member, member.due_end.error)
        elif member.is_abandoned or (member.stop_reason is not None and not member.is_taken):
            self._end_lost_stream(flight, member, None)
        elif not member.is_taken:
            return
        elif not is_alive:
            self._end_lost_stream(
                flight, member, process_died("the process of the worker died, or was cut off for too long")
            )
        elif not flight.has_answered or flight.answer is None or member.name in answer.get("refused", ()):
            return  # its new owner ends it, or its lease expires
        else:
            why = str(answer.get("died") or answer.get("problem") or "the worker has left the stream open")
            self._end_lost_stream(flight, member, process_died(why))

    def _look_at_waiting(self, flight: Flight) -> None:
        """Decide about groups of a call that no worker has."""
        answer, waiting = flight.answer or {}, flight.waiting
        if not waiting:
            return
        if not flight.has_answered:
            if absent := self._engine.absent:
                self._give_up(flight, waiting, absent)
        elif answer.get("stopping"):
            return  # the run will stop: then they are cancelled
        elif flight.answer is not None and "missing" not in answer and not answer.get("refused") and not flight.has_run:
            why = answer.get("problem") or answer.get("died") or "the worker has left it open"
            self._give_up(flight, waiting, str(why))
        elif flight.tries >= TRIES and not flight.has_run:
            self._give_up(flight, waiting, "the cluster lost it too many times")
        else:
            self._divide(flight, waiting, tries=0 if flight.has_run else flight.tries)

    def _give_up(self, flight: Flight, groups: Sequence[Sequence[RemoteStream]], why: str) -> None:
        for group in groups:
            for member in group:
                self._end_lost_stream(flight, member, _nobody(why))

    def _divide(self, flight: Flight, groups: Sequence[Sequence[RemoteStream]], *, tries: int = 0) -> None:
        """Send groups without a worker in a new call, under a new nonce."""
        former, nonce = flight.reference, secrets.token_hex(16)
        names = [member.name for group in groups for member in group]
        back = set(self._store.take_back(former.run_id, former.attempt, names, nonce, former.nonce, is_waiting=True))
        moved = [group for group in groups if back.issuperset(member.name for member in group)]
        if moved:
            flight.groups = [group for group in flight.groups if group not in moved]
            self._launch(Flight(reference_of(former, moved, nonce), moved, flight.work, tries=tries))

    def _spread(self) -> None:
        """Split calls in which groups wait behind a long stream while workers are idle."""
        with self._lock:
            flights = list(self._flights)
        room = self._spread_to - len(flights)
        for flight in flights:
            waiting = flight.waiting if room > 0 and flight.is_slow else []
            if waiting:
                self._divide(flight, waiting[: (len(waiting) + 1) // 2])
                room -= 1

    def _ask_to_stop(self, flight: Flight) -> None:
        stopping = [each for each in flight.members if each.stop_reason is not None and not each.has_ended]
        if stopping and not flight.was_stopped:
            if all(member.has_ended or member.stop_reason is not None for member in flight.members):
                flight.was_stopped = True
                flight.withdraw()
            names = [member.name for member in stopping]
            ours = flight.reference
            self._store.ask_to_stop(ours.run_id, ours.attempt, names, str(stopping[0].stop_reason))

    def _finish(self, flight: Flight) -> None:
        if not all(member.has_ended for member in flight.members):
            return
        with self._lock:
            if flight not in self._flights:
                return
            self._flights.remove(flight)
        for text, level in (flight.answer or {}).get("messages", ()):
            self._context.progress.message(self._context.redactor.redact(str(text)), level=str(level))
        if all(member.has_ended for member in flight.work.members) and not flight.work.done.done():
            flight.work.done.set_result(None)

    def _end(self, flight: Flight, member: RemoteStream, found: Sequence[BlockRun]) -> None:
        """Note how a stream ended, from the run store."""
        outcome = StreamOutcome(
            stream=member.name,
            blocks=tuple(
                BlockOutcome(
                    block=each.block,
                    status=each.status,
                    rows=each.rows,
                    rows_rejected=each.rows_rejected,
                    rows_deleted=each.rows_deleted,
                    rows_replaced=each.rows_replaced,
                    warnings=each.warnings,
                    size_bytes=each.size_bytes,
                    bookmark_before=each.bookmark_before,
                    bookmark_after=each.bookmark_after,
                    schema_changes=each.schema_changes,
                    error=each.error,
                    notices=each.notices,
                )
                for each in found
            ),
        )
        member.end(outcome, outcome.status, self._error_of(flight, member, outcome))

    def _error_of(self, flight: Flight, member: RemoteStream, outcome: StreamOutcome) -> BaseException | None:
        if outcome.status == CANCELLED:
            return Stopped(member.stop_reason or "stopped")
        if outcome.status != FAILURE:
            return None
        told = (flight.answer or {}).get("errors", {}).get(member.name)
        recorded = [each.error.message for each in outcome.blocks if each.error is not None]
        return SyncError(str(told or next(iter(recorded), "failed")))

    # -- the end without a worker --------------------------------------------------------------------------------

    def _end_lost_stream(self, flight: Flight, member: RemoteStream, error: ErrorInfo | None) -> None:
        """End a stream without its worker, in a thread: the destination may not answer.

        Args:
            flight: the stream's call.
            member: the stream.
            error: its error; None: it was cancelled.
        """
        member.is_being_taken = True
        if member.due_end is None:
            error = None if member.stop_reason is not None else error
            member.due_end = DueEnd(error, was_taken=member.is_taken or member.losses > 0)
        due = member.due_end

        def work() -> None:
            after: Callable[[], None] | None = None
            try:
                after = self._taken_over(flight, member, due)
            except LostRun:
                self._lose()
                member.end(None, FAILURE, LedgerUnreadable("the run was taken over by another process"))
            except (LedgerUnreadable, ConnectorError) as unreadable:
                member.end(None, CANCELLED if due.error is None else FAILURE, unreadable)
            except SyncError as failed:  # the run store does not answer: the next look tries again
                log.warning("%s: %s", member.name, self._redacted(failed))
            finally:
                self._news.put(lambda: taken_over(after))

        def taken_over(after: Callable[[], None] | None) -> None:
            member.is_being_taken = False
            if after is not None:
                after()

        in_thread(work, f"take-over-{member.name}")

    def _taken_over(self, flight: Flight, member: RemoteStream, due: DueEnd) -> Callable[[], None] | None:
        """Take a claim back, then close the stream; or return the function that sends it to another worker."""
        run, store, nonce = self._context.run, self._store, secrets.token_hex(16)
        if not store.take_back(run.id, run.attempt, [member.name], nonce, member.nonce, is_waiting=not member.is_taken):
            member.due_end = None
            return None  # closed meanwhile, or taken by a worker: the next look shows which
        plan = self._attempt_plan()
        if due.was_taken:
            losses = member.losses
            end_lost(
                store,
                run,
                plan,
                [member.name],
                self._context.destination,
                owner=owner_text(run),
                error=due.error,
                drop=lambda: self._drop_staging(member),
                nonce=nonce,
                goes_on=lambda outcome: self._tries_again(member, outcome),
            )
            return (lambda: self._send_to_another(flight, member, nonce)) if member.losses > losses else None
        planned = next(each for each in plan.streams if each.stream == member.name)
        status, failed = (CANCELLED, "") if due.error is None else (FAILURE, planned.blocks[-1].block)
        error = None if due.error is None else replace(due.error, stream=member.name, block=failed)
        blocks = unknown_blocks(planned, status, error, failed=failed)
        store.close_stream(run.id, StreamOutcome(stream=member.name, blocks=blocks), nonce=nonce)
        return None

    def _tries_again(self, member: RemoteStream, outcome: StreamOutcome) -> bool:
        """Use one of the stream's `retries` for its lost worker, with the usual wait; False: none is left.

        The worker is fenced now: it can no longer commit, and its commits are known.
        """
        policy, context, error = member.planned.policy, self._context, outcome.blocks[-1].error
        if outcome.status != FAILURE or error is None:
            return False
        if member.losses >= policy.retries or member.stop_reason is not None or member.is_abandoned:
            return False
        context.resolve_change(member.name, bool(outcome.is_held_committed))
        context.report_retry(member.name, str(error.block), error)
        member.losses += 1
        context.progress.retrying(member.name, attempt=member.losses, delay_s=policy.retry_delay_s, error=error.message)
        member.wait_for_retry(policy.retry_delay_s)
        return True

    def _send_to_another(self, flight: Flight, member: RemoteStream, nonce: str) -> None:
        flight.groups = [rest for group in flight.groups if (rest := [each for each in group if each is not member])]
        member.is_taken, member.due_end = False, None
        self._launch(Flight(reference_of(flight.reference, [[member]], nonce), [[member]], flight.work))

    def _attempt_plan(self) -> AttemptPlan:
        if self._plan is None:
            run = self._context.run
            self._plan = self._store.attempt_plan(run.id, run.attempt)
        assert self._plan is not None  # written when the run began
        return self._plan

    def _drop_staging(self, member: RemoteStream) -> None:
        """Drop its last worker's staging tables; the ledger has decided, so a failed drop is harmless."""
        tries, losses = member.planned.tries, member.losses
        numbers = range(losses * tries + 1, (losses + 1) * tries + 1)
        tokens = [stream_token(self._context.run, member.name, number) for number in numbers]
        try:
            self._context.destination.drop_staging(tokens)
        except ConnectorError as error:
            log.debug("%s: the staging tables of its worker stay: %s", member.name, error)


def _nobody(why: str) -> ErrorInfo:
    return ErrorInfo(type="NoWorker", message=f"no worker has run this stream: {why}")
