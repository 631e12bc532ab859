"""One run as a task of an orchestrator: what happens comes as events, while the run is in a thread of its own.

The orchestrator's signals and time limits end as exceptions in its thread, at any line. Here that is a line that waits
for the next event; the run is then told to stop, and ends its streams as on a signal.
"""

from __future__ import annotations

import logging
import queue
import re
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from syncblocks.callbacks.plain_text import plain_text

from ..config import Pipeline
from ..delivery.masked_output import masked
from ..errors import NothingToRetry, NotLatest
from ..run.callback_output import outcome_text, output_lines
from ..run.mapped.opening import HeldRun
from ..run.mapped.recorded import recorded_result
from ..run.orchestrator_run import ordered_run, patterns_of_unfinished
from ..run.pipeline import run_pipeline
from ..run.progress import Progress
from ..run.results import RunResult, StreamResult
from ..run.signals import END_S, LAST_S
from ..session.inspection import existing_store
from ..store.model import DATA_EXPORTER, SUCCESS

if TYPE_CHECKING:
    from syncblocks.callbacks.protocols import Delivery, Outcome

    from ..plan.plan import Plan, PlannedStream
    from ..store.model import PipelineRun

#: Characters that `execution_partition` has no place for.
_NO_TRIGGER = re.compile(r"[^A-Za-z0-9_.:@+-]")

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsCommitted:
    """Records of a stream are in the destination."""

    stream: str
    #: Of this commit.
    records: int
    #: Of this run's attempt so far.
    total: int
    bookmark: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A stream has ended."""

    result: StreamResult
    run_id: int
    attempt: int
    #: Column of the table -> its Arrow type; empty: a transformer's function decides them, or an earlier attempt did.
    columns: Mapping[str, str] = field(default_factory=dict)
    #: Column of the table -> the source's column that it is made of; without those of `add_columns`.
    sources: Mapping[str, str] = field(default_factory=dict)
    key_properties: tuple[str, ...] = ()

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self.result.stream

    @property
    def figures(self) -> dict[str, Any]:
        """What an orchestrator shows, as JSON values; None where nobody has counted."""
        return {"run_id": self.run_id, "attempt": self.attempt, **figures_of(self.result)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message for the orchestrator's log."""

    text: str
    level: int = logging.INFO


#: How a task ends: the whole run or the end of a held one, the begin of a held one, a stream of it.
Result = RunResult | HeldRun | StreamResult

Event = RecordsCommitted | Ended | Said | Result


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestratorTask:
    """What an orchestrator's task is about."""

    pipeline: Pipeline
    #: Names or globs; None: all.
    streams: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    full_refresh: bool = False
    event: Mapping[str, Any] | None = None
    #: Whether the orchestrator repeats a try of this task, whose run has the pipeline's trigger.
    is_retry: bool = False
    #: A person may order the run of a trigger again, and means a new run after a success: each order has its own key.
    order_key: str = "1"
    #: Numbers of signals; the orchestrator adds one to stop the run, if it raises nothing.
    signals: list[int] = field(default_factory=list)


def events_of(task: OrchestratorTask) -> Generator[Event, None, None]:
    """Run a pipeline; yield what happens, the result last.

    A repeated try goes on with the run of the try before it: its next attempt takes the streams that did not succeed,
    and those that did are told of again. A run that has left nothing to do is not repeated. Where the pipeline has
    had another run since, the streams that are left get a new one.

    Raises:
        ConfigError: the file is wrong; nothing was run.
        SyncError, ConnectorError: as of `run_pipeline`.
        BaseException: whatever the orchestrator raises here, to stop the task: the run is stopped and has ended.
    """
    yield from events_while(lambda progress: _run(task, progress), task.signals)


def events_while(work: Callable[[Told], Result], signals: list[int]) -> Generator[Event, None, None]:
    """Do work in a thread; yield what happens, its result last.

    Args:
        work: gets the progress that tells of it.
        signals: numbers of signals, which the work looks at; one is added if this generator is closed before its end.

    Raises:
        Exception: what the work raises.
        BaseException: as of `events_of`.
    """
    events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            events.put(work(Told(events)))
        except BaseException as error:
            events.put(error)

    thread = threading.Thread(target=run, name="syncblocks", daemon=True)
    thread.start()
    has_ended = False
    try:
        while not has_ended:
            event = events.get()
            has_ended = isinstance(event, BaseException | Result)
            if isinstance(event, BaseException):
                raise event
            yield event
    finally:
        # Work that has ended may have its thread for a moment; a signal would stop the next try with the same list.
        if not has_ended and thread.is_alive():
            if not signals:
                signals.append(signal.SIGTERM)
            # As long as after a signal; what is not closed by then the next start recovers.
            thread.join(END_S + LAST_S)


def _run(task: OrchestratorTask, progress: Told) -> RunResult:
    before = _before(task) if task.is_retry else None
    if before is None:
        return _run_anew(task, progress, task.streams, task.tags)
    result = _run_again(task, progress, before)
    for ended in _of_earlier_attempts(task.pipeline, before.id):
        progress.tell(ended)
    return result


def _run_again(task: OrchestratorTask, progress: Told, before: PipelineRun) -> RunResult:
    """Go on with the run of an earlier try."""
    with existing_store(task.pipeline) as store:
        has_planned = store is not None and bool(store.stream_statuses(before.id))
    # Without streams it has failed before its first one: its next attempt takes those of the task.
    streams, tags = (None, None) if has_planned else (task.streams, task.tags)
    try:
        return run_pipeline(
            task.pipeline,
            streams=streams,
            tags=tags,
            full_refresh=task.full_refresh,
            retry=before.id,
            order_key=task.order_key,
            wait_for_other=True,
            progress=progress,
            signals=task.signals,
        )
    except NothingToRetry:
        return _succeeded(task, before)
    except NotLatest:
        with existing_store(task.pipeline) as store:
            assert store is not None
            left = patterns_of_unfinished(store, before)
            if not left and store.run(before.id).status == SUCCESS:
                return _succeeded(task, before)
        # Without streams it has failed before its first one.
        return _run_anew(task, progress, left or task.streams, None if left else task.tags)


def _succeeded(task: OrchestratorTask, before: PipelineRun) -> RunResult:
    return RunResult(run_id=before.id, pipeline=task.pipeline.pipeline, status=SUCCESS)


def _run_anew(
    task: OrchestratorTask, progress: Told, streams: Sequence[str] | None, tags: Sequence[str] | None
) -> RunResult:
    return run_pipeline(
        task.pipeline,
        streams=streams,
        tags=tags,
        order_key=task.order_key,
        full_refresh=task.full_refresh,
        event=task.event,
        wait_for_other=True,
        progress=progress,
        signals=task.signals,
    )


def _before(task: OrchestratorTask) -> PipelineRun | None:
    with existing_store(task.pipeline) as store:
        return None if store is None else ordered_run(store, task.pipeline, task.order_key)


def _of_earlier_attempts(pipeline: Pipeline, run_id: int) -> Iterator[Ended]:
    """Yield the streams that an earlier try has completed: a process that is killed may not have told of them."""
    with existing_store(pipeline) as store:
        if store is None:
            return
        last = store.run(run_id).attempt
        # The last one has nothing new if it found nothing to retry: then it is an earlier try's, too.
        for attempt in range(1, last + 1):
            blocks = store.block_runs(run_id, attempt)
            for block in blocks:
                if block.block_type == DATA_EXPORTER and block.status == SUCCESS:
                    of_stream = [each for each in blocks if each.stream == block.stream]
                    yield Ended(result=recorded_result(of_stream, SUCCESS), run_id=run_id, attempt=attempt)


class Told(Progress):
    """Turns the calls of the engine into events."""

    def __init__(self, events: queue.SimpleQueue[Event | BaseException]) -> None:
        self._events = events
        self._totals: dict[str, int] = {}
        self._planned: dict[str, PlannedStream] = {}
        self._run: PipelineRun | None = None
        self._told: set[str] = set()

    def tell(self, ended: Ended) -> None:
        """Tell of a stream, once."""
        if ended.stream not in self._told:
            self._told.add(ended.stream)
            self._events.put(ended)

    def run_started(self, run: PipelineRun, plan: Plan) -> None:
        """See `Progress`."""
        self._run, self._planned = run, {planned.name: planned for planned in plan.streams}
        text = f"run {run.id}, attempt {run.attempt}: {len(plan.streams)} stream{'s' * (len(plan.streams) != 1)}"
        self._say(text)

    def committed(self, stream: str, *, records: int, bookmark: dict[str, Any] | None) -> None:
        """See `Progress`."""
        total = self._totals[stream] = self._totals.get(stream, 0) + records
        self._events.put(RecordsCommitted(stream=stream, records=records, total=total, bookmark=bookmark))

    def retrying(self, stream: str, *, attempt: int, delay_s: float, error: str) -> None:
        """See `Progress`."""
        text = f"{stream}: try {attempt} failed, the next one begins in {delay_s:g} s: {error}"
        self._say(text, logging.WARNING)

    def stream_result(self, result: StreamResult) -> None:
        """See `Progress`."""
        assert self._run is not None
        planned = self._planned[result.stream]
        level = logging.INFO if result.status == SUCCESS else logging.ERROR
        text = f"{result.stream}: {result.status or 'not ended'}, {result.records or 0:,} records"
        self._say(f"{text}: {result.error}" if result.error else text, level)
        is_known = planned.is_schema_decided and result.status == SUCCESS
        self.tell(
            Ended(
                result=result,
                run_id=self._run.id,
                attempt=self._run.attempt,
                columns={each.name: str(each.type) for each in planned.arriving.schema} if is_known else {},
                sources=_sources(planned) if is_known else {},
                key_properties=planned.arriving.key_properties if is_known else (),
            )
        )

    def delivered(self, delivery: Delivery, outcome: Outcome, mark: str) -> None:
        """Log what the callback printed, then its error."""
        for line in output_lines(delivery, outcome):
            self._say(line)
        if text := outcome_text(delivery, outcome, mark):
            self._say(text, logging.WARNING)

    def message(self, text: str, *, level: str = "info") -> None:
        """See `Progress`."""
        self._say(text, _LEVELS[level])

    def _say(self, text: str, level: int = logging.INFO) -> None:
        """Send a message to the orchestrator's log, whose readers must not see the run's secrets."""
        self._events.put(Said(text=masked(plain_text(text)), level=level))


def _sources(planned: PlannedStream) -> dict[str, str]:
    """Return column of the table -> the source's column, where no function of a transformer decides them."""
    arriving = [name for name in planned.arriving.schema.names if name not in planned.policy.added.names]
    read = planned.stream.schema.names
    return dict(zip(arriving, read, strict=True)) if len(arriving) == len(read) else {}


def leftover(result: RunResult) -> str:
    """Say which callbacks a run has left; they do not fail the task, whose data is there."""
    found = [f"{number} {state}" for state in ("due", "dead") if (number := result.callbacks.get(state))]
    how = "due ones are delivered by the next start, `syncblocks callbacks history` says why others are dead"
    return f"callbacks: {', '.join(found)}; {how}" if found else ""


def trigger_of(*parts: object) -> str:
    """Return the trigger id of a task's runs: its parts, each character that has no place there as an underscore."""
    return _NO_TRIGGER.sub("_", "-".join(map(str, parts)))


def figures_of(result: StreamResult) -> dict[str, Any]:
    """Return how a stream has ended as JSON values, without its status; None where nobody has counted."""
    return {
        "destination_table": result.destination_table,
        "records": result.records,
        "records_rejected": result.records_rejected,
        "records_deleted": result.records_deleted,
        "records_replaced": result.records_replaced,
        "warnings": None if result.warnings is None else dict(result.warnings),
        "size_bytes": result.size_bytes,
        "duration_s": None if result.duration_s is None else round(result.duration_s, 3),
        "bookmark": None if result.bookmark is None else dict(result.bookmark),
    }


def whole_summary(result: RunResult) -> dict[str, Any]:
    """Return what the end of a mapped run hands on to others, as JSON values."""
    streams = {each.stream: {**figures_of(each), "status": each.status} for each in result.streams}
    return {"run_id": result.run_id, "status": result.status, "streams": streams, "callbacks": dict(result.callbacks)}


def summary(result: RunResult, ended: Mapping[str, Ended]) -> dict[str, Any]:
    """Return what a task hands on to others, as JSON values."""
    streams = {name: {**each.figures, "status": each.result.status} for name, each in ended.items()}
    return {"run_id": result.run_id, "status": result.status, "streams": streams, "callbacks": dict(result.callbacks)}


def told(logger: Any, event: Event, ended: dict[str, Ended]) -> None:
    """Write an event into the orchestrator's log, and keep how a stream has ended."""
    if isinstance(event, Said):
        logger.log(event.level, "%s", event.text)
    elif isinstance(event, RecordsCommitted):
        logger.info("%s: committed %s records, %s so far", event.stream, f"{event.records:,}", f"{event.total:,}")
    elif isinstance(event, Ended):
        ended[event.stream] = event
    elif isinstance(event, RunResult) and (text := leftover(event)):
        logger.warning("%s", text)
