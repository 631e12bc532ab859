"""Prefect 3: a pipeline as a task, or as a flow of that task.

    crm = sync_flow("crm.yaml")
    crm()

The task is the run. A retry of the task or of its flow goes on with the run of the try before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from prefect import Flow, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext, TaskRunContext

from ..config import load_pipeline
from ..config.names import load_names
from ..errors import ConfigError
from ..run.results import RunResult
from .declared import Given
from .running import Ended, Task, events_of, summary, told, trigger_of


def _may_help(_task: Any, _run: Any, state: Any) -> bool:
    """Whether another try may end better: one with the same file may not."""
    return not isinstance(state.result(raise_on_failure=False), ConfigError)


@task(name="sync", retry_condition_fn=_may_help)
def sync(
    pipeline: Given,
    *,
    streams: Sequence[str] = (),
    tags: Sequence[str] = (),
    full_refresh: bool = False,
    variables: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a pipeline; return `run_id`, `status`, `callbacks`, and `streams` with their figures.

    Give it retries by `sync.with_options(retries=2)`.

    Args:
        pipeline: the pipeline file, or a mapping.
        streams: names or globs, only these; empty: all.
        tags: only streams that have one of them; empty: all.
        full_refresh: replace every table and ignore every bookmark.
        variables: runtime variables, before those of the file.
        event: JSON values that callbacks get as `event`.

    Raises:
        ConfigError: the file is wrong.
        PipelineFailed: a stream failed or was cancelled.
    """
    flow_run, task_run = FlowRunContext.get(), TaskRunContext.get()
    assert task_run is not None, "Prefect has started this task"
    run = task_run.task_run
    first, tries = run.id, run.run_count
    if flow_run is not None and flow_run.flow_run is not None:
        first, tries = flow_run.flow_run.id, max(tries, flow_run.flow_run.run_count)
    logger = get_run_logger()
    loaded = load_pipeline(pipeline, variables=variables, trigger=trigger_of("prefect", first, run.dynamic_key))
    order = Task(
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
    pipeline: Given, *, name: str | None = None, retries: int = 0, retry_delay_seconds: float = 0, **options: Any
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
        streams: Sequence[str] = (),
        tags: Sequence[str] = (),
        full_refresh: bool = False,
        variables: dict[str, Any] | None = None,
        event: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        done: dict[str, Any] = run(
            pipeline, streams=streams, tags=tags, full_refresh=full_refresh, variables=variables, event=event
        )
        return done

    return synced


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


__all__ = ["sync", "sync_flow"]
