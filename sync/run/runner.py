"""One process's work on one pipeline: recover a dead run, plan, run the streams, deliver the callbacks.

A process that works on a run owns it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from syncblocks.callbacks.null_dispatcher import NullDispatcher
from syncblocks.connectors.errors import ConnectorError, RetriableError
from syncblocks.connectors.log_based import LogMoment
from syncblocks.connectors.stream import Bookmark
from syncblocks.connectors.struct_helpers import replace

from ..config import Pipeline, put_at_its_place
from ..delivery.current_callbacks import CurrentCallbacks
from ..delivery.masked_output import masked_output
from ..delivery.subscriptions import warm_blocks
from ..errors import AlreadyRunning, ConfigError, Mistake, NothingToRetry, SyncError, mistakes
from ..flow.spool import discard_spools
from ..plan.evolution import left_out_text
from ..plan.foreign_key_groups import joined
from ..plan.plan import Plan, PlannedStream, missing_warnings
from ..plan.run_options import RunOptions
from ..plan.selection import left_out_by_when, matching_names
from ..session.session import open_session, role_of
from ..store import Store
from ..store.model import ErrorInfo, PipelineRun
from ..store.outbox import StoreOutbox
from .attempt_plan import attempt_plan
from .context import StreamContext
from .coordinator import Coordinator
from .errors import LedgerUnreadable, error_info
from .executors.opening import import_ahead, open_engine
from .executors.protocol import Executor, MakeExecutor, RunningStream
from .executors.threads import Threads
from .lease import RunLease
from .progress import GuardedProgress, Progress
from .recorder import Recorder
from .recovery.fencing import ASK_AGAIN_S, owner_text
from .recovery.unfinished_runs import clear_leftovers, close_left_streams, leave, recover
from .results import RunResult, StreamResult, StreamResults
from .run_options.options import plan_with_options
from .signals import CLOSE_S, LAST_S, Watch, caught_signals
from .stream_blocks import CANCELLED, FAILURE
from .stream_result import stream_result
from .verify_after_run import verified

if TYPE_CHECKING:
    import signal

    from syncblocks.callbacks.dispatcher import Dispatcher

    from ..plan.planned_repair import Repair
    from .executors.engine import OpenedEngine

log = logging.getLogger("syncblocks")

_UNREADABLE = "the destination's ledger could not be read"


class RunnerOptions(NamedTuple):
    """Options of one call of `run_pipeline`."""

    streams: Sequence[str] = ()
    tags: Sequence[str] = ()
    given: RunOptions = RunOptions()
    event: Mapping[str, Any] = {}
    concurrency: int | None = None
    wait_for_other: bool = False
    #: The run that gets its next attempt.
    retry: int | None = None
    order_key: str = ""
    tick: int | None = None
    repairs: Mapping[str, Repair] | None = None
    executor: Any = None
    #: See `StreamContext`.
    log_until: Bookmark | None = None


class PipelineRunner:
    """One process's work on one pipeline, from the recovery to the last callback."""

    def __init__(
        self,
        pipeline: Pipeline,
        progress: Progress,
        order: RunnerOptions,
        *,
        inline_callbacks: bool,
        signals: list[int] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self._recorder = Recorder()
        self.progress = GuardedProgress(progress, self._recorder)
        self.order = order
        with mistakes():  # no connection is open yet
            self.session = open_session(pipeline)
        self.signals: list[int] = [] if signals is None else signals
        self.session.is_stopping, self.session.log_until = self.is_stopping, order.log_until
        self._is_inline = inline_callbacks
        self._store: Store | None = None
        self._outbox: StoreOutbox | None = None
        self._dispatcher: Dispatcher | NullDispatcher | None = None
        self.run_ids: list[int] = []
        #: The run that this process has not finished yet.
        self._unfinished_run: PipelineRun | None = None
        self._is_interrupted = False
        self._watch: Watch | None = None
        self._engine: OpenedEngine | None = None
        self._stack = ExitStack()
        #: The moment at which merged LOG_BASED streams are compared after the run, and why there is none.
        self._moment: LogMoment | None = None
        self._unheld = ""
        self._held = self._stack.enter_context(ExitStack())

    def __enter__(self) -> Self:
        self._stack.enter_context(masked_output(self.session.redactor))
        self._stack.enter_context(self._recorder)
        self.session.prepare()
        self._watch = self._stack.enter_context(caught_signals(self.signals.append, self._say_farewell))
        return self

    def __exit__(self, *error: object) -> None:
        with self._stack:
            if self._dispatcher is not None:
                self._dispatcher.close(grace_s=self._grace_s)
            if self._outbox is not None:
                self._outbox.close()
            if self._unfinished_run is not None:
                self._keep_log(self._unfinished_run)
                leave(self.store, self._unfinished_run)
            self.session.close()
            if self._store is not None:
                self._store.close()
            if self._engine is not None:
                self._engine.close()
        if error[0] is None:
            self.progress.raise_exit()

    def is_stopping(self) -> bool:
        """Whether a signal, an exit of the progress or an interruption stops the run."""
        return bool(self.signals) or self._is_interrupted or self.progress.exit is not None

    @property
    def _has_tick(self) -> bool:
        """Whether a tick ordered the run: a failed callback delays no later tick, and `recover` repeats it."""
        return self.order.tick is not None

    @property
    def _grace_s(self) -> float:
        """Seconds for a running callback when the process ends."""
        return 0.0 if len(self.signals) > 1 else 1.0

    def _say_farewell(self, number: signal.Signals) -> None:
        text = f"{number.name}: the process ends while it waits for an answer; the next start recovers the run"
        self.progress.message(text, level="error")
        self.progress.close()

    # -- the run, from left to right -----------------------------------------------------------------------------

    def run(self) -> RunResult:
        """Run everything. An error after a signal becomes a result: the signal ended the run."""
        try:
            return self._run()
        except (SyncError, ConnectorError) as error:
            if not self.signals:
                raise
            run_id = self.run_ids[-1] if self.run_ids else None
            message = self.session.redactor.redact(str(error))
            return RunResult(
                run_id=run_id, pipeline=self.pipeline.pipeline, status=CANCELLED, error=message, signal=self.signals[0]
            )

    def _run(self) -> RunResult:
        import_ahead(self.pipeline, self.order.executor)
        while True:
            if Store.exists(self.pipeline.store_url):
                self.open_store()
                self.clear_up()
            if self.is_stopping():
                return self.result(None, CANCELLED, ())
            latest = self._latest()
            plan = self.make_plan(self._chosen())
            if self._engine is None and isinstance(plan, Plan):
                self._engine = open_engine(self.session, self.order.executor)
            self.open_store()  # only now: a mistake in the file must create nothing
            if self._latest() != latest:
                continue  # another run has begun meanwhile: this plan, or its failed connection, came before its end
            try:
                run = self._begin(plan)
            except AlreadyRunning as error:  # another run began while this process was planning
                self._wait_or_refuse(error)
            else:
                return self._execute(run, plan)

    def _execute(self, run: PipelineRun, plan: Plan | ErrorInfo) -> RunResult:
        with RunLease(self.store, run.id, self.pipeline.run_timeout_s, self._recorder.figures) as lease:
            try:
                return self._executed(run, plan, lease)
            except BaseException as error:
                self._end_interrupted(run, self._reason(plan, error))
                raise

    def _reason(self, plan: Plan | ErrorInfo, error: BaseException) -> ErrorInfo | None:
        """Return the error of an interrupted run; None: a signal handler's exit cancelled it."""
        if isinstance(plan, ErrorInfo):
            return plan
        return self._error_info(error) if isinstance(error, Exception) else None

    def _end_interrupted(self, run: PipelineRun, reason: ErrorInfo | None) -> None:
        """End a run after an error that no stream caused; its events get one attempt each."""
        self._is_interrupted = True
        try:
            self.store.request_stop(run.id)
            close_left_streams(self.store, run, self.session.destination, is_crash=False)
            self.deliver(self.store.end_attempt(run.id, error=reason), (), None)
        except (SyncError, ConnectorError) as second:
            log.warning("run %s stays open, the next start recovers it: %s", run.id, second)

    @property
    def _is_partial(self) -> bool:
        """Whether the run skips streams that the file selects."""
        order = self.order
        return bool(order.streams or order.tags or order.retry or order.repairs or order.given.fills)

    def _executed(self, run: PipelineRun, plan: Plan | ErrorInfo, lease: RunLease) -> RunResult:
        if isinstance(plan, ErrorInfo):
            return self._fail_before_first(run, plan)
        try:
            is_partial, is_fresh = self._is_partial, self.order.given.full_refresh
            clear_leftovers(self.session.connectors, run, plan, is_partial=is_partial, is_fresh=is_fresh)
            if plan.given_up.rows or plan.given_up.is_dropped:
                from .log_based import give_up_log  # few pipelines need it

                give_up_log(self.session, plan, owner_text(run))
        except (ConnectorError, LedgerUnreadable) as error:
            return self._fail_before_first(run, self._error_info(error))
        if self.pipeline.before and self.order.repairs is None:
            from .before_statements import run_before_pipeline  # few pipelines need it

            try:
                run_before_pipeline(self.session, lambda: self.is_stopping() or lease.is_cancelled)
            except ConnectorError as error:
                if not lease.is_cancelled:  # otherwise the streams end as cancelled before the first one
                    return self._fail_before_first(run, self._error_info(error))
        self.progress.run_started(run, plan)
        return self.run_streams(run, plan, lease)

    def run_streams(self, run: PipelineRun, plan: Plan, lease: RunLease) -> RunResult:
        """Run the plan, including all callbacks."""
        if self.order.log_until is None and any(each.policy.verify and each.write.changes for each in plan.streams):
            self._hold_moment(plan)
        self._recorder.is_remote = self._engine is not None
        coordinator = Coordinator(
            self.session,
            self.store,
            run,
            plan if self._engine is not None else joined(plan),
            self.progress,
            lease,
            notify=self.dispatcher.notify,
            is_stopping=self.is_stopping,
            make_executor=self._make_executor(lease),
        )
        coordinator.execute(self.order.concurrency)
        result = self._finish(run, coordinator.runs, lease)
        started = {member.name for member in coordinator.runs}
        return replace(result, never_started=tuple(each.name for each in plan.streams if each.name not in started))

    def _hold_moment(self, plan: Plan) -> None:
        """Hold the moment of the log at which merged streams are compared; without it the run is as any other."""
        from .log_based import moment_of_run  # few pipelines need it

        try:
            self._moment = self._held.enter_context(moment_of_run(self.session, plan))
        except ConnectorError as error:
            self._unheld = self.session.redactor.redact(str(error))
        if self._moment is not None:
            self.session.log_until = self._moment.bookmark

    def _make_executor(self, lease: RunLease) -> MakeExecutor:
        engine = self._engine
        if engine is None:
            return Threads

        def make(context: StreamContext, planned: Mapping[str, PlannedStream]) -> Executor:
            from .executors.remote import Remote  # a run in threads spares the import

            return Remote(engine, self.store, context, planned, notify=self.dispatcher.notify, lose=lease.lose)

        return make

    @property
    def store(self) -> Store:
        assert self._store is not None
        return self._store

    @property
    def outbox(self) -> StoreOutbox:
        assert self._outbox is not None
        return self._outbox

    @property
    def dispatcher(self) -> Dispatcher | NullDispatcher:
        assert self._dispatcher is not None
        return self._dispatcher

    def open_store(self) -> None:
        """Open the run store and its queues of callbacks. Idempotent."""
        if self._store is not None:
            return
        pipeline = self.pipeline
        self._store = Store.open(pipeline.store_url)
        self.session.use_store(self._store)
        callbacks = CurrentCallbacks(pipeline, self.session.code)
        self._outbox = self._store.outbox(pipeline.pipeline, callbacks, is_served=not self._is_inline)
        self._outbox.holds_lost = True
        if self._has_tick:
            self._outbox.hold_retries()
        blocks = [*self._outbox.deliveries.open_blocks(), *(spec.block for spec in self.session.code.callbacks)]
        if (left := self._store.active_run(pipeline.pipeline)) is not None:
            # Its recovery may have events for blocks that the file no longer has: they are reported as dead.
            blocks += [callback.block for callback in self._store.attempt_plan_of(left.id).callbacks]
        self._dispatcher = self._started_dispatcher(list(dict.fromkeys(blocks))) if blocks else NullDispatcher()

    def _started_dispatcher(self, blocks: Sequence[str]) -> Dispatcher:
        from .dispatching import make_dispatcher  # a run without callbacks spares the import

        dispatcher = make_dispatcher(
            self.pipeline, self.outbox, self.store, blocks, self.session.redactor, self.progress, inline=self._is_inline
        )
        # Child processes start while the plan waits for databases.
        dispatcher.warm(warm_blocks(self.session.code.subscriptions))
        dispatcher.start()
        return dispatcher

    def clear_up(self) -> PipelineRun | None:
        """Before new work: end and return a dead process's run, and deliver due callbacks."""
        recovered = self._recover()
        if recovered is None:
            self.drain(self.pipeline.drain_s)
            return None
        self.run_ids.append(recovered.id)
        self._unfinished_run = recovered
        with RunLease(self.store, recovered.id):
            self.dispatcher.notify()
            self.drain(self.pipeline.drain_s)
            discard_spools(self.pipeline, [recovered.key], keep=self.outbox.deliveries.open_data())
            self.store.finish_run(recovered.id)
            self._unfinished_run = None
        return recovered

    def deliver_lost(self) -> None:
        """Give repeatedly interrupted calls one attempt. They may end this process, so all other work comes first."""
        self.outbox.holds_lost = False
        self.outbox.hold_retries()
        self.drain(self.pipeline.drain_s, one_try=True)

    def _recover(self) -> PipelineRun | None:
        while not self.is_stopping():
            try:
                return recover(self.store, self.pipeline.pipeline, self.session.destination, self.progress)
            except AlreadyRunning as error:
                self._wait_or_refuse(error)
        return None

    def _wait_or_refuse(self, error: AlreadyRunning) -> None:
        if not self.order.wait_for_other:
            raise error
        self.session.close()  # the other run may need a file that this process has opened
        self.progress.message(f"waiting: {error}")
        time.sleep(1.0)

    def _latest(self) -> tuple[int, int] | None:
        latest = None if self._store is None else self._store.latest_run(self.pipeline.pipeline)
        return None if latest is None else (latest.id, latest.attempt)

    def make_plan(self, only: Sequence[str] | None) -> Plan | ErrorInfo:
        """Return the plan, or why the run fails before its first stream."""
        self.session.missing = self.session.unreadable = ()
        plan = self._plan_or_error(only)
        for warning in (*missing_warnings(self.session.missing), *self.session.unreadable):
            self.progress.message(warning, level="warning")
        return plan

    def _plan_or_error(self, only: Sequence[str] | None) -> Plan | ErrorInfo:
        try:
            plan = self._planned(only)
            for warning in (*self.session.code.misspelt, *plan.skipped):
                self.progress.message(warning, level="warning")
            for name, when in plan.left_out.items():
                self.progress.message(left_out_by_when(name, when))
            for planned in plan.streams:
                if planned.schema.ignored:
                    self.progress.message(left_out_text(planned.name, planned.schema.ignored))
            if self.order.repairs is None:
                return plan
            from ..verify.repair import repairing

            return repairing(plan, self.order.repairs)
        except ConfigError as error:
            # After an earlier run, it came with a change of source or destination, unless the file alone shows it.
            has_run = self._store is not None and self._store.latest_run(self.pipeline.pipeline) is not None
            if not has_run or isinstance(error, Mistake):
                raise
            return self._error_info(error)
        except ConnectorError as error:
            if self.signals:
                raise
            return self._error_info(error)

    def _planned(self, only: Sequence[str] | None) -> Plan:
        order, retries = self.order, self.pipeline.retries
        waits_s = [*ASK_AGAIN_S, *[self.pipeline.retry_delay_s] * retries]
        while True:
            try:
                return plan_with_options(
                    self.session,
                    self._store,
                    order.given,
                    streams=() if order.retry and only is not None else order.streams,
                    tags=order.tags,
                    only=only,
                )
            except RetriableError as error:  # such as a database file that another start has locked for its plan
                if not waits_s or self.is_stopping():
                    raise
                wait_s = waits_s.pop(0)
                if len(waits_s) < retries:
                    self.progress.message(f"{error}; the run is planned again in {wait_s:g} s", level="warning")
                self._pause(wait_s)

    def _pause(self, wait_s: float) -> None:
        end_s = time.monotonic() + wait_s
        while not self.is_stopping() and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.2))

    def _begin(self, planned: Plan | ErrorInfo) -> PipelineRun:
        """Begin the run and record its plan in one step: after a crash, recovery knows which callbacks to call."""
        pipeline = self.pipeline
        plan = planned if isinstance(planned, Plan) else Plan(streams=(), groups=())
        workers, key = self.worker_order(plan), self.order.order_key
        recorded = attempt_plan(self.session, plan, workers, order_key=key, is_partial=self._is_partial)
        if self.order.retry is not None:
            run = self.store.begin_retry(
                self.order.retry, tick=self.order.tick, plan=recorded, limit_s=pipeline.run_timeout_s
            )
        else:
            run = self.store.begin_run(
                pipeline.pipeline,
                execution_date=pipeline.execution_date,
                trigger=pipeline.trigger,
                event=self.order.event,
                variables=pipeline.variable_references,
                interval=pipeline.interval,
                tick=self.order.tick,
                plan=recorded,
                limit_s=pipeline.run_timeout_s,
            )
        self.run_ids.append(run.id)
        self._unfinished_run = run
        return run

    def worker_order(self, plan: Plan) -> dict[str, Any] | None:
        """Return the options with which other processes plan as this one did; None: no other processes."""
        if self._engine is None:
            return None
        return {**self.order.given.document(), "workers_on_host": self._engine.workers_on_host}

    def _chosen(self) -> list[str] | None:
        """Return the names of the run's selected streams; None: all of the file."""
        if self.order.retry is not None:
            names = self._unfinished(self.order.retry)
            return None if names is None else matching_names(names, self.order.streams)
        return None if self.order.repairs is None else list(self.order.repairs)

    def _unfinished(self, run_id: int) -> list[str] | None:
        """Return a run's remaining streams; None: it failed before its first stream, and they are unknown."""
        names = self.store.unfinished_streams(run_id)
        if not names and self.store.run(run_id).status == "success":
            raise NothingToRetry(f"run {run_id} of {self.pipeline.pipeline!r} has succeeded: there is nothing to retry")
        return list(names) if names or self.store.stream_statuses(run_id) else None

    def _fail_before_first(self, run: PipelineRun, error: ErrorInfo) -> RunResult:
        ended = self.store.end_attempt(run.id, error=error)
        self.progress.run_ended(ended)
        return self.deliver(ended, (), error.message)

    # -- the end -------------------------------------------------------------------------------------------------

    def _finish(self, run: PipelineRun, runs: Sequence[RunningStream], lease: RunLease) -> RunResult:
        results = tuple(stream_result(member) for member in runs)
        if any(member.outcome is None or not member.has_ended for member in runs):
            reason = "some streams could not be ended in time" if self.is_stopping() else _UNREADABLE
            message = f"{reason}: the run stays open, the next start recovers it"
            self.progress.message(message, level="error")
            if self.is_stopping():
                self.drain(LAST_S)
            return self.result(run, FAILURE, results, message)
        if lease.is_lost:
            return self.result(run, FAILURE, results, "another process took this run over")
        ended = self.store.end_attempt(run.id)
        self.progress.run_ended(ended)
        if self.order.repairs is None and not self.is_stopping():  # `verify --repair` compares itself
            results = verified(
                results, runs, self.session, self.store, self.progress, moment=self._moment, unheld=self._unheld
            )
        self._held.close()
        return self.deliver(ended, results, None)

    def deliver(self, run: PipelineRun, results: tuple[StreamResult, ...], error: str | None) -> RunResult:
        """Close every connection, then deliver: callbacks may open a database that locks its file."""
        self.session.close()
        if self._has_tick:
            self.outbox.hold_retries()
        self.outbox.release_gate(run.id)
        self.outbox.holds_lost = False
        self.dispatcher.notify()
        self.drain(self.pipeline.drain_s)
        # Closed before due deliveries are counted: a running call may still end.
        self.dispatcher.close(grace_s=self._grace_s)
        self._keep_log(run)
        self.store.finish_run(run.id)
        self._unfinished_run = None
        result = self.result(run, run.status, results, error)
        if self.pipeline.history is not None and not self.is_stopping():
            from .prune import prune_at_end  # few pipelines need it

            prune_at_end(self.pipeline, self.store)
        return result

    def _keep_log(self, run: PipelineRun) -> None:
        """Write the end of the log into the run store, before the run may be pruned."""
        figures = self._recorder.figures()
        try:
            self.store.save_log(run.id, run.attempt, self._recorder.log(), figures if figures["streams"] else None)
        except SyncError as error:
            log.warning("the log of run %s is not kept: %s", run.id, error)

    def drain(self, limit_s: float, *, one_try: bool = False) -> None:
        """Deliver due callbacks for a limited time; after a signal, with `one_try`, and for a tick each once."""
        signals = len(self.signals)
        if signals > 1:
            return
        if self.is_stopping():
            limit_s = LAST_S - CLOSE_S if self._watch is None else self._watch.deliver()
            self.dispatcher.drain(limit_s, stop=lambda: len(self.signals) > 1, one_try=True)
            return
        is_empty = self.dispatcher.drain(limit_s, stop=self.is_stopping, one_try=one_try or self._has_tick)
        if not is_empty and self.is_stopping():
            self.drain(LAST_S)

    def result(
        self, run: PipelineRun | None, status: str, streams: tuple[StreamResult, ...], error: str | None = None
    ) -> RunResult:
        """Return how a run has ended."""
        return RunResult(
            run_id=None if run is None else run.id,
            pipeline=self.pipeline.pipeline,
            status=status,
            streams=StreamResults(streams),
            callbacks=self.outbox.deliveries.counts(self.run_ids) if self._outbox is not None else {},
            error=error,
            signal=self.signals[0] if self.signals else None,
            missing_streams=tuple(each.stream for each in self.session.missing),
        )

    def _error_info(self, error: Exception) -> ErrorInfo:
        log.debug("failed before the first stream", exc_info=error)
        raised = error if isinstance(error, ConnectorError) else error.__cause__
        if not isinstance(raised, ConnectorError):
            return error_info(error, self.session.redactor)
        role = role_of(self.pipeline, raised)
        if raised is error:
            put_at_its_place(self.pipeline, role, error)
        return error_info(error, self.session.redactor, block=getattr(self.pipeline, role).block)
