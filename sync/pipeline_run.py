"""Run a pipeline: recover what is left, plan, run the streams, deliver the callbacks. One process owns a run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callbacks.dispatcher import Dispatcher
from connectors.errors import ConnectorConfigError, ConnectorError
from connectors.protocols import Destination, Source
from connectors.registry import make_destination, make_source

from .catalog import SelectedStream, select_streams
from .config import Pipeline, config_error_from_connector, glob_matches, load_pipeline, resolve_references
from .errors import AlreadyRunning, ConfigError, SyncError
from .plan import Plan, PlannedStream, plan_streams
from .progress import Progress
from .recovery import recover
from .secrets import Redactor
from .store import Store
from .store.model import AttemptPlan, BlockPlan, ErrorInfo, LostRun, PipelineRun, StreamPlan
from .stream_run import CANCELLED, FAILURE, StreamContext, StreamRun, run_group
from .subscriptions import UserCode, check_stream_filters, load_user_code
from .transform import Transformer

#: A run asks the store this often whether somebody wants it cancelled.
POLL_S = 0.5
#: The run's lease is renewed this often (it lasts 30 s).
HEARTBEAT_S = 10.0
#: After a stop, streams get this long to come back by themselves before they are closed without them.
GRACE_S = 3.0
#: After a signal, due events get one try each within this time.
SIGNAL_DRAIN_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResult:
    """How one stream ended."""

    stream: str
    destination_table: str
    #: success, failure, cancelled; None: never started, or still open because the ledger could not be read.
    status: str | None
    records: int | None = None
    size_bytes: int | None = None
    duration_s: float | None = None
    bookmark: Mapping[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a pipeline run ended; `exit_code` is what the command line returns."""

    run_id: int | None
    pipeline: str
    status: str
    streams: tuple[StreamResult, ...] = ()
    #: Deliveries of callbacks by state, over this run and one that it recovered.
    callbacks: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    #: Signal that stopped the run.
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """0 done; 1 a stream failed, was cancelled, or nothing could be reached; 3 a callback is dead or due; 130/143."""
        if self.signal is not None:
            return 128 + self.signal
        if self.status != "success":
            return 1
        return 3 if self.callbacks.get("dead") or self.callbacks.get("due") else 0


@dataclass(slots=True, kw_only=True)
class Session:
    """An opened pipeline: its connectors, user code and store. Close it when done."""

    pipeline: Pipeline
    code: UserCode
    source: Source
    destination: Destination
    redactor: Redactor

    def close(self) -> None:
        """Close every connection to source and destination."""
        for connector in (self.source, self.destination):
            connector.close()


def open_session(pipeline: Pipeline) -> Session:
    """Make the connectors and load the user's files; connects to nothing.

    Raises:
        ConfigError: settings, callback or transformer files are wrong.
    """
    code = load_user_code(pipeline)
    return Session(
        pipeline=pipeline,
        code=code,
        source=_make(pipeline, "source"),
        destination=_make(pipeline, "destination"),
        redactor=Redactor(pipeline.secret_values),
    )


def make_plan(
    session: Session,
    store: Store | None,
    *,
    streams: Sequence[str] = (),
    full_refresh: bool = False,
    only: Sequence[str] | None = None,
) -> Plan:
    """Ask source and destination what there is and decide what a run would do; writes nothing.

    Args:
        session: the opened pipeline.
        store: for bookmarks that the destination may have lost; None: no store yet.
        streams: globs; only the selected streams that match (`--stream`).
        full_refresh: replace every table and forget every bookmark.
        only: exact names (`runs retry`).

    Raises:
        ConfigError: something in the pipeline file cannot work.
        ConnectorError: source or destination cannot be reached.
    """
    pipeline = session.pipeline
    try:
        selected = select_streams(pipeline, session.source.discover())
        check_stream_filters(pipeline, [stream.name for stream in selected])
        selected = _narrow(selected, streams, only)
        tables = session.destination.describe(list(dict.fromkeys(stream.destination_table for stream in selected)))
    except ConnectorConfigError as error:
        raise config_error_from_connector(pipeline, _role(error, pipeline), error) from error
    return plan_streams(
        pipeline,
        selected,
        tables,
        _known_states(store, pipeline.pipeline),
        session.code,
        source=session.source,
        destination=session.destination,
        full_refresh=full_refresh,
    )


def run_pipeline(
    pipeline: Pipeline | str | Path,
    *,
    streams: Sequence[str] = (),
    full_refresh: bool = False,
    variables: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
    trigger: str | None = None,
    concurrency: int | None = None,
    inline_callbacks: bool = False,
    wait_for_other: bool = False,
    retry: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Sync a pipeline's streams and deliver its callbacks; return how it ended.

    Args:
        pipeline: what `load_pipeline` returned, or the path of a pipeline file.
        streams: globs; empty = all selected streams.
        full_refresh: replace every table and forget every bookmark.
        variables: runtime variables over those of the file (only with a path).
        event: JSON values that reach the callbacks as `event`.
        trigger: first half of `execution_partition` (only with a path).
        concurrency: streams at once, over the file's.
        inline_callbacks: run callbacks in this process, for a debugger.
        wait_for_other: wait for a run of the same pipeline under way instead of refusing.
        retry: a new attempt of the latest run, over the streams that did not succeed or never started.
        progress: told what happens, as it happens.

    Raises:
        ConfigError: the file, or what it names, is wrong; nothing was run or written.
        AlreadyRunning: another process runs this pipeline.
    """
    if not isinstance(pipeline, Pipeline):
        pipeline = load_pipeline(pipeline, variables=variables, trigger=trigger)
    runner = _Runner(pipeline, progress or Progress(), inline_callbacks=inline_callbacks)
    with runner:
        return runner.run(
            streams=streams,
            full_refresh=full_refresh,
            event=event or {},
            concurrency=concurrency,
            wait_for_other=wait_for_other,
            retry=retry,
        )


class _Runner:
    """One process's work on one pipeline; the coordinator, the only one that claims."""

    def __init__(self, pipeline: Pipeline, progress: Progress, *, inline_callbacks: bool) -> None:
        self.pipeline = pipeline
        self.progress = progress
        self.session = open_session(pipeline)
        self.store = Store.open(pipeline.store_url)
        self.outbox = self.store.outbox(pipeline.pipeline)
        self.signals: list[int] = []
        self._is_lost = threading.Event()
        blocks = [spec.block for spec in self.session.code.callbacks]
        self.dispatcher = Dispatcher(
            self.outbox,
            list(dict.fromkeys([*self.outbox.open_blocks(), *blocks])),
            resolve=lambda kwargs: resolve_references(kwargs, pipeline.folder, os.environ),
            on_outcome=progress.delivered,
            inline=inline_callbacks,
        )

    def __enter__(self) -> _Runner:
        return self

    def __exit__(self, *error: object) -> None:
        self.dispatcher.close(grace_s=1.0)
        self.session.close()
        self.store.close()

    # -- the run, from left to right -----------------------------------------------------------------------------

    def run(
        self,
        *,
        streams: Sequence[str],
        full_refresh: bool,
        event: Mapping[str, Any],
        concurrency: int | None,
        wait_for_other: bool,
        retry: bool,
    ) -> RunResult:
        with _signals(self._on_signal):
            recovered = self._recover(wait_for_other)
            self.dispatcher.start()
            self._drain(self.pipeline.drain_s)
            if recovered is not None:
                self.store.finish_run(recovered.id)
            if self.signals:
                return self._result(None, "cancelled", ())
            only = self._unfinished() if retry else None
            planned = self._plan(streams, full_refresh, only)
            run = self._begin(event, retry)
            if isinstance(planned, ErrorInfo):
                return self._fail_before_first(run, planned)
            self.store.begin_attempt(run.id, self._attempt_plan(planned))
            self.progress.run_started(run, planned)
            with self._heartbeat(run):
                runs = self._run_streams(run, planned, concurrency)
                return self._finish(run, runs)

    def _recover(self, wait_for_other: bool) -> PipelineRun | None:
        while True:
            try:
                return recover(self.store, self.pipeline.pipeline, self.session.destination, self.progress)
            except AlreadyRunning as error:
                if not wait_for_other or self.signals:
                    raise
                self.progress.message(f"waiting: {error}")
                time.sleep(1.0)

    def _plan(self, streams: Sequence[str], full_refresh: bool, only: Sequence[str] | None) -> Plan | ErrorInfo:
        """Return the plan, or why the run fails before its first stream."""
        try:
            plan = make_plan(self.session, self.store, streams=streams, full_refresh=full_refresh, only=only)
        except ConfigError as error:
            # A pattern that matched in an earlier run is not the file's mistake: the source has changed.
            if error.code != "no_stream" or self.store.latest_run(self.pipeline.pipeline) is None or streams:
                raise
            return self._error_info(error)
        except ConnectorError as error:
            return self._error_info(error)
        for warning in plan.warnings:
            self.progress.message(warning, level="warning")
        return plan

    def _begin(self, event: Mapping[str, Any], retry: bool) -> PipelineRun:
        pipeline = self.pipeline
        if retry:
            latest = self.store.latest_run(pipeline.pipeline)
            assert latest is not None
            return self.store.begin_retry(latest.id)
        return self.store.begin_run(
            pipeline.pipeline,
            execution_date=pipeline.execution_date,
            trigger=pipeline.trigger,
            event=event,
            variables=pipeline.variable_references,
        )

    def _unfinished(self) -> list[str]:
        latest = self.store.latest_run(self.pipeline.pipeline)
        if latest is None:
            raise SyncError(f"pipeline {self.pipeline.pipeline!r} has never run: there is nothing to retry")
        names = self.store.unfinished_streams(latest.id)
        if not names and latest.status == "success":
            raise SyncError(f"run {latest.id} of {self.pipeline.pipeline!r} has succeeded: there is nothing to retry")
        return list(names)

    def _fail_before_first(self, run: PipelineRun, error: ErrorInfo) -> RunResult:
        self.store.begin_attempt(run.id, self._attempt_plan(Plan(streams=(), groups=())))
        ended = self.store.end_attempt(run.id, error=error)
        self.progress.message(error.message, level="error")
        return self._deliver(ended, (), error.message)

    # -- streams -------------------------------------------------------------------------------------------------

    def _run_streams(self, run: PipelineRun, plan: Plan, concurrency: int | None) -> list[StreamRun]:
        context = self._context(run)
        slots = self._slots(concurrency)
        waiting = [[plan.stream(name) for name in group] for group in plan.groups]
        started: list[StreamRun] = []
        active: dict[Future[None], list[StreamRun]] = {}
        pool = ThreadPoolExecutor(slots, thread_name_prefix="stream")
        try:
            polled, stopped_at = time.monotonic(), None
            while waiting or active:
                while waiting and len(active) < slots and stopped_at is None and not self._must_stop(started):
                    group = [StreamRun(context, planned) for planned in waiting[0]]
                    if not self.store.claim(run.id, [member.name for member in group]):
                        break
                    waiting.pop(0)
                    started += group
                    self._announce(group)
                    active[pool.submit(run_group, group)] = group
                    self.dispatcher.notify()  # a claim may have decided a flag
                done, _ = wait(active, timeout=0.05 if stopped_at else 0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    del active[future]
                    future.result()
                self._cancel_late(active)
                if time.monotonic() - polled >= POLL_S and stopped_at is None:
                    polled = time.monotonic()
                    if self.store.cancel_requested(run.id):
                        self.signals.append(0)
                if stopped_at is None and self._must_stop(started):
                    stopped_at = time.monotonic()
                    self._stop(run, active)
                    waiting.clear()
                if stopped_at is not None and time.monotonic() - stopped_at > GRACE_S:
                    for group in active.values():
                        for member in group:
                            member.abandon()
                    break
        finally:
            pool.shutdown(wait=not any(member.status is None for member in started) and stopped_at is None)
        return started

    def _must_stop(self, started: Sequence[StreamRun]) -> bool:
        if self.signals or self._is_lost.is_set():
            return True
        failed = any(member.status in (FAILURE, CANCELLED) for member in started)
        return failed and not self.pipeline.allow_blocks_to_fail

    def _stop(self, run: PipelineRun, active: Mapping[Future[None], Sequence[StreamRun]]) -> None:
        """End further claims, and the streams in flight."""
        try:
            self.store.request_stop(run.id, CANCELLED if self.signals else FAILURE)
        except LostRun:
            self._is_lost.set()
        reason = "the run was cancelled" if self.signals else "another stream failed"
        for group in active.values():
            for member in group:
                member.cancel(reason)

    def _cancel_late(self, active: Mapping[Future[None], Sequence[StreamRun]]) -> None:
        for group in active.values():
            for member in group:
                limit_s = member.planned.selected.timeout_s
                late_s = time.monotonic() - member.started - (limit_s or 0)
                if limit_s is None or member.status is not None or late_s < 0:
                    continue
                member.cancel(f"timeout_s={limit_s:g} is over")
                if late_s > GRACE_S:
                    member.abandon()

    def _announce(self, group: Sequence[StreamRun]) -> None:
        from connectors.bookmarks import values

        for member in group:
            planned = member.planned
            self.progress.stream_started(member.name, planned.key.destination_table, values(planned.start.bookmark))

    def _context(self, run: PipelineRun) -> StreamContext:
        def close(outcome: Any) -> None:
            try:
                self.store.close_stream(run.id, outcome)
            except LostRun:
                self._is_lost.set()
            self.dispatcher.notify()

        return StreamContext(
            pipeline=self.pipeline,
            run=run,
            source=self.session.source,
            destination=self.session.destination,
            progress=self.progress,
            redactor=self.session.redactor,
            spool_folder=self.pipeline.state_folder / "spool",
            transformers=lambda planned: self._transformers(run, planned),
            close=close,
            is_owner=lambda: self.store.is_owner(run.id),
        )

    def _transformers(self, run: PipelineRun, planned: PlannedStream) -> list[Transformer]:
        from callbacks.kwargs import hydrate

        made = []
        for block in self.pipeline.transformers:
            if block.block not in planned.transformers:
                continue
            kwargs = hydrate(self._transformer_kwargs(run, planned, block.block))
            kwargs = resolve_references(kwargs, self.pipeline.folder, os.environ)
            functions = [_bind(function, kwargs) for function in self.session.code.transformers[block.block]]
            made.append(Transformer(block.block, functions, block.rename or {}))
        return made

    def _transformer_kwargs(self, run: PipelineRun, planned: PlannedStream, block: str) -> dict[str, Any]:
        recorded = self.store.run_kwargs(run)
        return recorded | {
            "block_uuid": block,
            "stream": planned.name,
            "destination_table": planned.key.destination_table,
        }

    def _slots(self, concurrency: int | None) -> int:
        wanted = concurrency or self.pipeline.concurrency
        slots = min(8, 2 * (os.cpu_count() or 1)) if wanted == "auto" else int(wanted)
        limit = self.session.destination.max_loads
        return max(1, slots if limit is None else min(slots, limit))

    # -- the end -------------------------------------------------------------------------------------------------

    def _finish(self, run: PipelineRun, runs: Sequence[StreamRun]) -> RunResult:
        results = tuple(_stream_result(member) for member in runs)
        if any(member.outcome is None for member in runs):
            message = "the destination's ledger could not be read: the run stays open, the next start settles it"
            self.progress.message(message, level="error")
            return self._result(run, FAILURE, results, message)
        if self._is_lost.is_set():
            return self._result(run, FAILURE, results, "another process took this run over")
        ended = self.store.end_attempt(run.id)
        self.progress.run_ended(ended)
        return self._deliver(ended, results, None)

    def _deliver(self, run: PipelineRun, results: tuple[StreamResult, ...], error: str | None) -> RunResult:
        """Close every connection, then deliver: callbacks may open a file-locking database."""
        self.session.close()
        self.outbox.release_gate(run.id)
        self.dispatcher.notify()
        self._drain(self.pipeline.drain_s)
        self.store.finish_run(run.id)
        return self._result(run, run.status, results, error)

    def _drain(self, limit_s: float) -> None:
        signals = len(self.signals)
        if signals > 1:
            return
        if signals == 1 and self.signals[0] != 0:
            self.dispatcher.drain(SIGNAL_DRAIN_S, stop=lambda: len(self.signals) > 1, one_try=True)
            return
        if not self.dispatcher.drain(limit_s, stop=lambda: len(self.signals) > signals):
            if len(self.signals) > signals and self.signals[-1] != 0:
                self._drain(SIGNAL_DRAIN_S)

    def _result(
        self, run: PipelineRun | None, status: str, streams: tuple[StreamResult, ...], error: str | None = None
    ) -> RunResult:
        stop = next((number for number in self.signals if number), None)
        return RunResult(
            run_id=None if run is None else run.id,
            pipeline=self.pipeline.pipeline,
            status=status,
            streams=streams,
            callbacks=self.outbox.counts(),
            error=error,
            signal=stop,
        )

    def _attempt_plan(self, plan: Plan) -> AttemptPlan:
        pipeline = self.pipeline
        return AttemptPlan(
            streams=tuple(
                StreamPlan(
                    stream=planned.name,
                    destination_table=planned.key.destination_table,
                    blocks=(
                        BlockPlan(pipeline.source.block, "data_loader"),
                        *(BlockPlan(block, "transformer") for block in planned.transformers),
                        BlockPlan(pipeline.destination.block, "data_exporter"),
                    ),
                    config={"wire": planned.wire, "write_disposition": str(planned.write_disposition)},
                )
                for planned in plan.streams
            ),
            subscriptions=_resolve_filters(self.session.code, [planned.name for planned in plan.streams]),
            callbacks=self.session.code.callbacks,
            allow_blocks_to_fail=pipeline.allow_blocks_to_fail,
            extra={"source": self.session.source.identity(), "destination": self.session.destination.identity()},
        )

    def _error_info(self, error: Exception) -> ErrorInfo:
        return ErrorInfo(
            type=type(error).__name__,
            message=self.session.redactor.redact(str(error)),
            traceback="",
            stream="",
            block="",
        )

    def _on_signal(self, number: int) -> None:
        self.signals.append(number)

    @contextmanager
    def _heartbeat(self, run: PipelineRun) -> Iterator[None]:
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_S):
                if not self.store.renew(run.id).is_mine:
                    self._is_lost.set()
                    return

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _make(pipeline: Pipeline, role: str) -> Any:
    block = pipeline.source if role == "source" else pipeline.destination
    make: Callable[..., Any] = make_source if role == "source" else make_destination
    try:
        return make(block.connector, block.config, pipeline.folder)
    except ConnectorConfigError as error:
        raise config_error_from_connector(pipeline, role, error) from error


def _role(error: ConnectorConfigError, pipeline: Pipeline) -> str:
    is_source = error.connector == pipeline.source.connector and error.connector != pipeline.destination.connector
    return "source" if is_source else "destination"


def _narrow(
    selected: Sequence[SelectedStream], globs: Sequence[str], only: Sequence[str] | None
) -> tuple[SelectedStream, ...]:
    kept = [stream for stream in selected if only is None or stream.name in only]
    for pattern in globs:
        if not any(glob_matches(pattern, stream.name) for stream in kept):
            names = ", ".join(stream.name for stream in kept[:20])
            raise ConfigError(f"--stream {pattern!r} matches none of the selected streams: {names}")
    if globs:
        kept = [stream for stream in kept if any(glob_matches(pattern, stream.name) for pattern in globs)]
    return tuple(kept)


def _known_states(store: Store | None, pipeline: str) -> dict[tuple[str, str], Any]:
    if store is None:
        return {}
    return {(state.stream, state.destination_table): state.bookmark for state in store.states(pipeline)}


def _resolve_filters(code: UserCode, names: Sequence[str]) -> tuple[Any, ...]:
    """The store knows names, not globs."""
    from dataclasses import replace

    return tuple(
        replace(
            subscription,
            streams=tuple(name for name in names if any(glob_matches(glob, name) for glob in subscription.streams)),
        )
        if subscription.streams is not None
        else subscription
        for subscription in code.subscriptions
    )


def _bind(function: Any, kwargs: Mapping[str, Any]) -> Callable[[Any], Any]:
    def call(frame: Any) -> Any:
        positional, named = function.binding.arguments(kwargs, frame)
        return function.function(*positional, **named)

    return call


def _stream_result(member: StreamRun) -> StreamResult:
    blocks = member.outcome.blocks if member.outcome is not None else ()
    last = blocks[-1] if blocks else None
    return StreamResult(
        stream=member.name,
        destination_table=member.planned.key.destination_table,
        status=member.status if member.outcome is not None else None,
        records=last.rows if last else None,
        size_bytes=blocks[0].size_bytes if blocks else None,
        duration_s=time.monotonic() - member.started,
        bookmark=last.bookmark_after if last else None,
        error=None if member.error is None else member.context.redactor.redact(str(member.error)),
    )


@contextmanager
def _signals(handler: Callable[[int], None]) -> Iterator[None]:
    """Take SIGINT and SIGTERM while a run is under way (only the main thread can); restore what was there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in former:
        signal.signal(number, lambda got, _frame: handler(got))
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)
