"""`sync_stream`: a task of a mapped run claims its stream, runs it, and closes it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack

from msgspec import Struct

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.incremental.bookmarks import values
from syncblocks.connectors.struct_helpers import replace

from ...config import Pipeline
from ...config.arguments import AnyPipeline, checks_arguments
from ...delivery.masked_output import masked_output
from ...errors import PipelineFailed, StateError, SyncError, TryLater
from ...plan.plan import Plan, PlannedStream
from ...store import Store
from ...store.model import AttemptPlan, LostRun, PipelineRun
from ...store.owner import current_owner
from ..coordinator import GRACE_S
from ..errors import LedgerUnreadable, process_died
from ..executors.protocol import Reference
from ..executors.threads import in_thread
from ..executors.worker.attempt import OpenedAttempt, has_changed, open_attempt, recorded_streams
from ..executors.worker.claimed import Claimed
from ..group import run_group
from ..notebook import default_progress
from ..progress import GuardedProgress, Progress
from ..recovery.fencing import owner_text
from ..recovery.lost_stream import end_lost
from ..recovery.unfinished_runs import drop_staging
from ..results import StreamResult
from ..signals import STOP_S
from ..stream import StreamRun
from ..stream_result import stream_result
from ..verify_after_run import verified
from .finishing import of_run
from .opening import HOLD_S
from .recorded import recorded_result
from .task_decision import StreamStanding, dead_streams, standing_of
from .watch import TaskWatch

log = logging.getLogger("syncblocks")

#: Seconds between two attempts to claim a stream when too many are open.
BUSY_S = 1.0
#: Seconds after which a waiting task should check again.
LATER_S = 20.0


@checks_arguments
def sync_stream(
    pipeline: AnyPipeline,
    run_id: int,
    stream: str,
    *,
    retry: bool = False,
    progress: Progress | None = None,
    signals: list[int] | None = None,
) -> StreamResult:
    """Run one stream of a mapped run in this process, and return how it ended.

    A stream that has succeeded is not run again. If another task died with the stream, the destination's ledger first
    decides how it ended.

    Args:
        pipeline: the same as in `open_run`.
        run_id: number of the mapped run.
        stream: the stream's name.
        retry: run an unsuccessful stream again, in the run's next attempt, which has only this stream.
        progress: called for each event.
        signals: numbers of signals that the caller has received; an added number cancels the stream.

    Returns:
        The result; its status is None if the run was stopped before the stream could start.

    Raises:
        ConfigError: the file is wrong.
        StateError: the run has no such stream, was cancelled, is no longer open, or is not the pipeline's latest.
        TryLater: another process has the stream, or `retry` must wait for the attempt's end.
        LedgerUnreadable: the destination cannot report how the stream ended; the next attempt asks again.
    """
    pipeline, run = of_run(pipeline, run_id)
    told = GuardedProgress(progress or default_progress())
    order = _Order(pipeline, run.id, stream, told, [] if signals is None else signals)
    with ExitStack() as stack:
        task = StreamTask(order, stack, is_retry=retry)
        result = task.run()
    told.raise_exit()
    return result


class _Order(Struct, frozen=True):
    """A task's run and stream."""

    pipeline: Pipeline
    run_id: int
    stream: str
    progress: GuardedProgress
    signals: list[int]


class StreamTask:
    """One call of `sync_stream`."""

    def __init__(self, order: _Order, stack: ExitStack, *, is_retry: bool) -> None:
        """Open the run store; `stack` closes it, and everything that the task opens later."""
        self._order = order
        self._stack = stack
        self._is_retry = is_retry
        self._me = current_owner()
        #: In the name of this process: it reads, and begins attempts.
        self._store = stack.enter_context(Store.open(order.pipeline.store_url))
        self._opened: OpenedAttempt | None = None

    def run(self) -> StreamResult:
        """Act until the stream is decided."""
        while True:
            stands = standing_of(self._store, self._order.run_id, self._order.stream)
            if stands.step == "done":
                return self._recorded(stands)
            if stands.step == "dead":  # then this is its retry, even if the orchestrator does not call it so
                self._is_retry = True
                self._settle(stands.run)
            elif stands.step == "busy":
                raise self._later(stands, "another process has it")
            elif stands.step == "claim":
                if (result := self._claim(stands)) is not None:
                    return result
            elif not self._is_retry:
                return self._recorded(stands)
            elif stands.step == "ended":
                if (result := self._try_again(stands)) is not None:
                    return result
            elif not self._settle(stands.run):
                raise self._later(stands, "the attempt is still open")

    # -- without running it ------------------------------------------------------------------------------------------

    def _recorded(self, stands: StreamStanding) -> StreamResult:
        """Return how it ended, or that it never started."""
        blocks = self._store.block_runs_of(stands.run.id, stands.attempt, [self._order.stream])
        if blocks:
            return recorded_result(blocks, stands.status)
        plan = self._plan(stands.run, stands.attempt)
        planned = next(each for each in plan.streams if each.stream == self._order.stream)
        return StreamResult(
            stream=planned.stream,
            destination_table=planned.destination_table,
            status=None,
            error=f"run {stands.run.id} was stopped before the stream could start",
        )

    def _later(self, stands: StreamStanding, why: str) -> Exception:
        run, name = stands.run, self._order.stream
        if self._store.owner_state(run) == "dead":
            return StateError(
                f"stream {name!r}: {why}, and run {run.id} is no longer open for tasks: the next start "
                "of the pipeline ends it"
            )
        return TryLater(f"stream {name!r} of run {run.id}: {why}", after_s=LATER_S)

    def _settle(self, run: PipelineRun) -> bool:
        """Close the attempt's streams of dead tasks, as the ledger decides; return whether there were any."""
        dead = dead_streams(self._store, run)
        for name, former in dead.items():
            attempt, nonce = self._open(run, run.attempt), secrets.token_hex(16)
            try:
                if not attempt.store.take_dead(run.id, run.attempt, name, nonce, former, self._me):
                    continue  # another task is faster
                self._order.progress.message(f"{name}: its task has died; the ledger decides", level="warning")
                self._close_dead(attempt, name, nonce)
            except LostRun as error:
                log.warning("%s: %s", name, error)
        return bool(dead)

    def _close_dead(self, attempt: OpenedAttempt, name: str, nonce: str) -> None:
        run, planned = attempt.run, attempt.then[name]
        error = process_died("the process of the task died, or was cut off for too long")
        destination = attempt.session.destination
        end_lost(
            attempt.store,
            run,
            attempt.recorded,
            [name],
            destination,
            owner=owner_text(run),
            error=error,
            drop=lambda: drop_staging(destination, run, [planned]),
            nonce=nonce,
        )

    # -- claiming ----------------------------------------------------------------------------------------------------

    def _plan(self, run: PipelineRun, attempt: int) -> AttemptPlan:
        plan = self._store.attempt_plan(run.id, attempt)
        if plan is None:
            raise StateError(f"attempt {attempt} of run {run.id} has no plan")
        return plan

    def _open(self, run: PipelineRun, attempt: int) -> OpenedAttempt:
        """Open source, destination and run store in the name of the run's owner; once for each attempt and owner."""
        opened = self._opened
        if opened is not None and (opened.run.attempt, opened.run.owner) == (attempt, run.owner):
            return opened
        if opened is not None:
            opened.close()
        self._opened = None
        made = open_attempt(self._order.pipeline, self._order.pipeline.store_url, run, self._plan(run, attempt))
        self._stack.callback(made.close)
        self._opened = made
        return made

    def _claim(self, stands: StreamStanding) -> StreamResult | None:
        """Claim the stream and run it; None: check again."""
        run, name = stands.run, self._order.stream
        if run.hold_s is None:
            raise StateError(f"run {run.id} is not a mapped run, or not open for tasks any more: {run.holder} has it")
        attempt, nonce = self._open(run, stands.attempt), secrets.token_hex(16)
        order = attempt.recorded.extra.get("order", {})
        chains = order.get("chains", {})
        beside = [other for other in chains if other != name and chains[other] == chains.get(name)]
        most = order.get("most")
        while True:
            claimed = attempt.store.claim_own(run.id, run.attempt, name, nonce, self._me, most=most, beside=beside)
            if claimed == "claimed":
                return self._carry_out(attempt, nonce, None)
            if claimed == "stopping":
                if self._is_retry:
                    raise self._later(stands, "the run is stopping")
                return self._recorded(stands)
            if claimed == "gone" or (claimed == "busy" and self._settle(run)):
                return None
            if self._order.signals:
                raise PipelineFailed(f"stream {name!r}: the task was stopped before it could start")
            time.sleep(BUSY_S)

    def _try_again(self, stands: StreamStanding) -> StreamResult | None:
        """Begin the next attempt with only this stream, and run it; None: check again."""
        run, name = stands.run, self._order.stream
        before = self._open(run, stands.attempt)
        planned = next(iter(_only(before.plan([name] if before.is_plain else tuple(before.then)), name)), None)
        if planned is None:
            raise has_changed(name)
        streams = recorded_streams(before.session.pipeline, [planned])
        # `finish` calls today's callbacks anyway.
        plan = replace(before.recorded, streams=streams)
        nonce, hold_s = secrets.token_hex(16), run.hold_s or HOLD_S
        if not self._store.begin_held_attempt(run.id, run.attempt, plan, nonce, self._me, hold_s=hold_s):
            return None
        begun = self._store.run(run.id)
        return self._carry_out(self._open(begun, begun.attempt), nonce, planned)

    # -- running -----------------------------------------------------------------------------------------------------

    def _carry_out(self, attempt: OpenedAttempt, nonce: str, planned: PlannedStream | None) -> StreamResult:
        """Run the claimed stream; `planned`: its plan, if just made.

        Raises:
            LedgerUnreadable: its end is unknown; it stays open.
            StateError: it was taken away.
        """
        with masked_output(attempt.session.redactor):
            run, store, name = attempt.run, attempt.store, self._order.stream
            reference = Reference(run_id=run.id, attempt=run.attempt, groups=((name,),), nonce=nonce)
            claimed = Claimed(attempt, reference, self._order.progress, closed=lambda: store.renew_hold(run.id))
            try:
                if planned is None:
                    planned = self._planned_again(attempt)
            except (SyncError, ConnectorError) as error:
                claimed.close_unplanned(name, error)
                return self._recorded(standing_of(self._store, run.id, name))
            member = StreamRun(claimed.context, planned)
            with TaskWatch(store, reference, claimed.me, member):
                self._follow(run, member)
            if claimed.is_lost:
                raise StateError(f"stream {name!r} was taken from this task: run {run.id} was ended meanwhile")
            if member.outcome is None:
                raise member.error or LedgerUnreadable(f"stream {name!r}: its outcome is unknown")
            progress = self._order.progress
            (result,) = verified((stream_result(member),), [member], attempt.session, store, progress)
            progress.stream_result(result)
            return result

    def _follow(self, run: PipelineRun, member: StreamRun) -> None:
        """Run the stream in a thread until it has ended, or must be abandoned."""
        signals, progress, planned = self._order.signals, self._order.progress, member.planned
        progress.run_started(run, Plan(streams=(planned,), groups=((planned.name,),)))
        progress.stream_started(member.name, planned.key.destination_table, values(planned.start.bookmark))
        work = in_thread(lambda: run_group([member]), f"stream-{member.name}")
        try:
            _follow(member, work, lambda: bool(signals) or progress.exit is not None)
        except BaseException:  # orchestrators interrupt their tasks in this way
            _stop(member, work)
            raise

    def _planned_again(self, attempt: OpenedAttempt) -> PlannedStream:
        """Plan the stream again.

        Raises:
            SyncError: the source has changed since the run was planned.
        """
        name = self._order.stream
        plan = attempt.plan([name] if attempt.is_plain else tuple(attempt.then))
        same = attempt.same(_only(plan, name))
        if not same:
            raise has_changed(name)
        return same[0]


def _follow(member: StreamRun, work: Future[None], is_stopping: Callable[[], bool]) -> None:
    """Wait for a stream's end; cancel it when it must stop or its time is over, and abandon a thread that hangs."""
    limit_s, ending, asked_at = member.planned.policy.timeout_s, None, None
    while not work.done():
        wait([work] if ending is None else [work, ending], timeout=0.2)
        if is_stopping():
            member.cancel("the task was stopped")
        elif limit_s is not None and time.monotonic() - member.started >= limit_s:
            member.cancel(f"timeout_s={limit_s:g} is over")
        if member.stop_reason is not None and asked_at is None:
            asked_at = time.monotonic()
        if asked_at is not None and ending is None and time.monotonic() - asked_at > GRACE_S:
            ending = in_thread(member.abandon, f"end-{member.name}")
        if ending is not None and ending.done():
            return
    work.result()


def _stop(member: StreamRun, work: Future[None]) -> None:
    """End a stream at once: the next attempt decides about anything left open."""
    member.cancel("the task was stopped")
    wait([work], timeout=GRACE_S)
    if not member.has_ended:
        wait([in_thread(member.abandon, f"end-{member.name}")], timeout=STOP_S - GRACE_S)


def _only(plan: Plan, name: str) -> list[PlannedStream]:
    return [planned for planned in plan.streams if planned.name == name]


__all__ = ["sync_stream"]
