"""Prefect 3: a pipeline as a task, or as a flow of that task.

    crm = sync_flow("crm.yaml")
    crm()

The task is the run. A retry of the task or of its flow goes on with the run of the try before it.

    crm = streams_flow("crm.yaml")

Here each stream is a task: a flow opens the run, maps a task over its streams, and ends it.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any
from uuid import UUID, uuid4

from prefect import Flow, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.futures import wait

from ..api import cancel_active
from ..config import load_pipeline
from ..config.names import load_names
from ..errors import ConfigError, TryLater
from ..run.mapped.finishing import finish_run
from ..run.mapped.opening import HOLD_S, HeldRun, open_run
from ..run.mapped.task import sync_stream
from ..run.progress import Progress
from ..run.results import RunResult, StreamResult
from .declared_streams import PipelineFile
from .task_run import (
    Ended,
    OrchestratorTask,
    Result,
    events_of,
    events_while,
    figures_of,
    summary,
    told,
    trigger_of,
    whole_summary,
)

#: Seconds between two looks whether a stream can be tried again.
WAIT_S = 1.0

#: Try of a flow run, and what tasks of it are asked to do -> task run, and its place among those.
_asked: dict[tuple[UUID, int, str], dict[UUID, int]] = {}
_lock = threading.Lock()


def _may_help(_task: Any, _run: Any, state: Any) -> bool:
    """Whether another try may end better: one with the same file may not."""
    return not isinstance(state.result(raise_on_failure=False), ConfigError)


@task(name="sync", retry_condition_fn=_may_help)
def sync(
    pipeline: PipelineFile,
    *,
    streams: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    full_refresh: bool = False,
    variables: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a pipeline; return `run_id`, `status`, `callbacks`, and `streams` with their figures.

    Give it retries by `sync.with_options(retries=2)`.

    Args:
        pipeline: the pipeline file, or a mapping.
        streams: names or globs, only these; default: all.
        tags: only streams that have one of them; default: all.
        full_refresh: replace every table and ignore every bookmark.
        variables: runtime variables, before those of the file.
        event: JSON values that callbacks get as `event`.

    Raises:
        ConfigError: the file is wrong.
        PipelineFailed: a stream failed or was cancelled.
    """
    tries, trigger = _order(tuple(streams or ()), tuple(tags or ()), full_refresh)
    logger = get_run_logger()
    loaded = load_pipeline(pipeline, variables=variables, trigger=trigger)
    order = OrchestratorTask(
        pipeline=loaded,
        streams=streams,
        tags=tags,
        full_refresh=full_refresh,
        event=event,
        is_retry=tries > 1,
    )
    ended: dict[str, Ended] = {}
    with closing(events_of(order)) as events:
        for each in events:
            told(logger, each, ended)
    assert isinstance(each, RunResult)
    try:
        _show(loaded.pipeline, ended)
    except Exception as error:  # the run has ended, whether the server answers or not
        logger.warning("no artifact: %s", error)
    return summary(each.raise_for_status(), ended)


def sync_flow(
    pipeline: PipelineFile, *, name: str | None = None, retries: int = 0, retry_delay_seconds: float = 0, **options: Any
) -> Flow[Any, dict[str, Any]]:
    """Return a flow that runs a pipeline. Connects to nothing, and reads no secret.

    Args:
        pipeline: the pipeline file, or a mapping.
        name: of the flow; default: the pipeline's.
        retries: of the run, each for the streams that did not succeed.
        retry_delay_seconds: between them.
        options: of `prefect.flow`.

    Raises:
        ConfigError: the file is wrong.
    """
    run = sync.with_options(retries=retries, retry_delay_seconds=retry_delay_seconds)

    @flow(name=name or load_names(pipeline).pipeline, **options)
    def synced(
        streams: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        full_refresh: bool = False,
        variables: dict[str, Any] | None = None,
        event: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        done: dict[str, Any] = run(
            pipeline, streams=streams, tags=tags, full_refresh=full_refresh, variables=variables, event=event
        )
        return done

    return synced


@task(name="open", retry_condition_fn=_may_help)
def open_held(
    pipeline: PipelineFile,
    *,
    streams: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    full_refresh: bool = False,
    variables: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
    hold_s: int = HOLD_S,
) -> dict[str, Any]:
    """Plan a run and hold it for its streams; return `run_id` and `streams`. A flow that is tried again finds it.

    Raises:
        ConfigError: the file is wrong, or its streams cannot run in tasks of their own.
        PipelineFailed: the run failed before its first stream.
    """
    tries, trigger = _order(tuple(streams or ()), tuple(tags or ()), full_refresh)
    loaded = load_pipeline(pipeline, variables=variables, trigger=trigger)
    run = _worked(
        lambda progress, signals: open_run(
            loaded,
            streams=streams,
            tags=tags,
            full_refresh=full_refresh,
            event=event,
            hold_s=hold_s,
            wait_for_other=True,
            retry=tries > 1,
            order_key="1",
            progress=progress,
            signals=signals,
        )
    )
    assert isinstance(run, HeldRun)
    return {"run_id": run.id, "streams": list(run.streams)}


@task(name="stream", task_run_name="{stream}", retry_condition_fn=_may_help)
def sync_held(pipeline: PipelineFile, run_id: int, stream: str, *, retry: bool = False) -> dict[str, Any]:
    """Run one stream of a mapped run; return its figures. A retry is the next attempt of the run, over it alone.

    Args:
        pipeline: the pipeline file, or a mapping.
        run_id: of the mapped run.
        stream: the stream's name.
        retry: whether it has ended otherwise before.

    Raises:
        PipelineFailed: it failed, was cancelled, or the run was stopped before it could start.
    """
    task_run = TaskRunContext.get()
    is_retry = retry or (task_run is not None and task_run.task_run.run_count > 1)
    while True:
        try:
            result = _worked(
                lambda progress, signals: sync_stream(
                    pipeline, run_id, stream, retry=is_retry, progress=progress, signals=signals
                )
            )
            break
        except TryLater as error:  # another stream is tried again, in another task
            get_run_logger().info("%s", error)
            time.sleep(WAIT_S)
    assert isinstance(result, StreamResult)
    return {"stream": stream, "status": result.status, **figures_of(result.raise_for_status())}


@task(name="finish")
def finish_held(pipeline: PipelineFile, run_id: int) -> dict[str, Any]:
    """End a mapped run, whatever became of its tasks, and deliver its callbacks; return what `sync` returns.

    Raises:
        PipelineFailed: a stream failed, was cancelled or never started.
    """
    result = _worked(lambda progress, signals: finish_run(pipeline, run_id, progress=progress, signals=signals))
    assert isinstance(result, RunResult)
    try:
        _show(result.pipeline, {each.stream: Ended(result=each, run_id=run_id, attempt=0) for each in result.streams})
    except Exception as error:  # the run has ended, whether the server answers or not
        get_run_logger().warning("no artifact: %s", error)
    return whole_summary(result.raise_for_status())


def streams_flow(
    pipeline: PipelineFile,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay_seconds: float = 0,
    hold_s: int = HOLD_S,
    **options: Any,
) -> Flow[Any, dict[str, Any]]:
    """Return a flow with a task for each stream. Connects to nothing, and reads no secret.

    Args:
        pipeline: the pipeline file, or a mapping.
        name: of the flow; default: the pipeline's.
        retries: of the streams that did not succeed: tasks of their own, once all others are done.
        retry_delay_seconds: between them.
        hold_s: seconds that the run waits for its tasks after the last sign of life of one.
        options: of `prefect.flow`, such as `task_runner`.

    Raises:
        ConfigError: the file is wrong.
    """

    @flow(name=name or load_names(pipeline).pipeline, **options)
    def synced(
        streams: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        full_refresh: bool = False,
        variables: dict[str, Any] | None = None,
        event: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        opened = open_held(
            pipeline,
            streams=streams,
            tags=tags,
            full_refresh=full_refresh,
            variables=variables,
            event=event,
            hold_s=hold_s,
        )
        run_id, left = opened["run_id"], opened["streams"]
        tries = _tries()
        try:
            for number in range(retries + 1):
                is_retry = number > 0 or tries > 1
                ran = {each: sync_held.submit(pipeline, run_id, each, retry=is_retry) for each in left}
                wait(list(ran.values()))
                left = [each for each, future in ran.items() if not future.state.is_completed()]
                if not left or number == retries:
                    break
                time.sleep(retry_delay_seconds)
        except BaseException:  # the flow is cancelled: Prefect interrupts this thread only
            with suppress(Exception):  # what is not ended the next start recovers
                cancel_active(load_pipeline(pipeline), run_id)
                finish_run(pipeline, run_id)
            raise
        done: dict[str, Any] = finish_held(pipeline, run_id)
        return done

    return synced


def _order(*arguments: object) -> tuple[int, str]:
    """Return which try of its order a task is, and the order's trigger id.

    In a flow that is what the task is asked to do, and how many tasks of the flow were asked the same before: a flow
    that is tried again has new tasks, whose ids are others.
    """
    of_flow, of_task = FlowRunContext.get(), TaskRunContext.get()
    flow_run = None if of_flow is None else of_flow.flow_run
    task_run = None if of_task is None else of_task.task_run
    if flow_run is None or task_run is None:
        return _tries(), trigger_of("prefect", uuid4() if task_run is None else task_run.id)
    asked = hashlib.sha256(repr(arguments).encode()).hexdigest()[:8]
    with _lock:
        same = _asked.setdefault((flow_run.id, flow_run.run_count, asked), {})
        number = same.setdefault(task_run.id, len(same))
    return _tries(), trigger_of("prefect", flow_run.id, asked, *([number] if number else []))


def _tries() -> int:
    """Return which try this is of the flow run, or of the task run if that has more."""
    of_flow, of_task = FlowRunContext.get(), TaskRunContext.get()
    flow_run = None if of_flow is None else of_flow.flow_run
    return max(
        1 if flow_run is None else flow_run.run_count,
        1 if of_task is None else of_task.task_run.run_count,
    )


def _worked(work: Callable[[Progress, list[int]], Result]) -> Result:
    """Do work, told of in the log of the task."""
    logger, ended, signals = get_run_logger(), dict[str, Ended](), list[int]()
    with closing(events_while(lambda progress: work(progress, signals), signals)) as events:
        for event in events:
            told(logger, event, ended)
    assert isinstance(event, Result)
    return event


def _show(pipeline: str, ended: Mapping[str, Ended]) -> None:
    """Show how the streams have ended as an artifact of the run."""
    rows = [
        {"stream": name, "status": each.result.status, **each.figures, "error": each.result.error}
        for name, each in ended.items()
    ]
    if rows:
        key = re.sub("[^a-z0-9]+", "-", f"syncblocks-{pipeline}".lower()).strip("-")
        create_table_artifact(table=[{key: _cell(value) for key, value in row.items()} for row in rows], key=key)


def _cell(value: Any) -> Any:
    return str(value) if isinstance(value, dict) else value


__all__ = ["finish_held", "open_held", "streams_flow", "sync", "sync_flow", "sync_held"]
