"""`run_pipeline`: load the file, or reload it as it was for a retried run, and run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..config import Pipeline, exact_pattern, load_pipeline
from ..config.arguments import AnyPipeline, JsonObject, checks_arguments
from ..config.executor import THREADS
from ..errors import ConfigError, NotLatest, SyncError, mistakes
from ..plan.run_options import RunOptions
from ..store import Store
from ..store.model import PipelineRun
from .executors.opening import with_executor
from .progress import Progress
from .results import RunResult
from .runner import PipelineRunner, RunnerOptions

if TYPE_CHECKING:
    from ..plan.planned_repair import Repair


@checks_arguments
def run_pipeline(
    pipeline: AnyPipeline,
    *,
    streams: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    full_refresh: bool = False,
    drop_history: bool = False,
    variables: Mapping[str, Any] | None = None,
    event: JsonObject | None = None,
    trigger: str | None = None,
    concurrency: int | None = None,
    inline_callbacks: bool = False,
    wait_for_other: bool = False,
    retry: bool | int = False,
    order_key: str = "",
    tick: int | None = None,
    repairs: Mapping[str, Repair] | None = None,
    bookmarks: Mapping[str, Mapping[str, str]] | None = None,
    deletes: bool = False,
    allow_deletes: Sequence[str] = (),
    fills: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
    executor: Any = None,
    signals: list[int] | None = None,
) -> RunResult:
    """Sync a pipeline's streams and deliver its callbacks.

    Args:
        pipeline: result of `load_pipeline`, or its argument: a pipeline file, or a mapping.
        streams: globs; default: all selected streams.
        tags: only streams with one of these `tags`; default: all.
        full_refresh: replace every table and ignore every bookmark.
        drop_history: with `full_refresh`, also restart the histories (`write_disposition: history`).
        variables: runtime variables; override the file's (not with a loaded pipeline). With `retry`, the run's own
            variables have priority.
        event: JSON values that callbacks get as `event` (not with `retry`).
        trigger: first half of `execution_partition` (not with a loaded pipeline, nor with `retry`).
        concurrency: simultaneous streams; overrides the file's.
        inline_callbacks: run callbacks in this process, for a debugger.
        wait_for_other: wait for an active run of the same pipeline instead of refusing.
        retry: a new attempt of the latest run, for streams that did not succeed or never started, limited by `streams`
            and `tags`. A number: this run, which must be the latest.
        order_key: recorded with the attempt, so that an orchestrator recognises the run of its order.
        tick: the claimed tick of this run (`run --tick`).
        repairs: repair these streams and do nothing else (`verify --repair`).
        bookmarks: stream -> a value, as text, for each of its bookmark_properties: where it starts in this run.
        deletes: look now for records that the source no longer has, whatever `every` of `deletes` says.
        allow_deletes: streams that may delete more than their limit, even all records if the source is empty.
        fills: stream -> columns to fill in existing records first (`syncblocks fill`); only these streams run.
        progress: called for each event of the run; default: a table below the cell in a notebook.
        executor: where streams run; overrides the file's: the file's form, an address, a `distributed.Client`, or any
            `concurrent.futures.Executor`.
        signals: numbers of signals that the caller has received, for a run outside of the main thread. An added number
            stops the run as the signal would.

    Raises:
        ConfigError: the file, or a part that it names, is wrong; no stream ran.
        AlreadyRunning: another process runs this pipeline.
        NotLatest: `retry` names a run that is not the latest.
    """
    if retry and (event is not None or trigger is not None):
        raise ConfigError("a retry has the event and the trigger of its run: leave `event` and `trigger` out")
    pipeline = loaded_with(pipeline, variables=variables, trigger=trigger)
    given, retried = pipeline, None
    if retry:
        retried = _latest_run(pipeline, None if retry is True else retry)
        with mistakes():  # no connection is open yet
            pipeline = as_of_run(pipeline, retried)
    pipeline = with_executor(pipeline, executor if repairs is None else THREADS)
    order = RunnerOptions(
        streams=list(map(exact_pattern, fills)) if fills else streams or (),
        tags=tags or (),
        given=RunOptions(
            full_refresh=full_refresh,
            drop_history=drop_history,
            is_late=tick is not None or retried is not None or not pipeline.is_dated,
            bookmarks={name: dict(texts) for name, texts in (bookmarks or {}).items()},
            deletes=deletes,
            allow_deletes=list(allow_deletes),
            fills={name: list(columns) for name, columns in (fills or {}).items()},
        ),
        event=event or {},
        concurrency=concurrency,
        wait_for_other=wait_for_other,
        retry=None if retried is None else retried.id,
        order_key=order_key,
        tick=tick,
        repairs=repairs,
        executor=executor,
    )
    if progress is None:
        from .notebook import default_progress

        progress = default_progress()
    if retried is not None:
        _warn_of_kept_variables(given, retried, progress)
    with PipelineRunner(pipeline, progress, order, inline_callbacks=inline_callbacks, signals=signals) as runner:
        return runner.run()


def loaded_with(pipeline: AnyPipeline, *, variables: Mapping[str, Any] | None, trigger: str | None) -> Pipeline:
    """Load a pipeline unless it is already loaded.

    Raises:
        ConfigError: `variables` or `trigger` with a loaded pipeline, whose templates are already filled in.
    """
    if not (isinstance(pipeline, Pipeline) and pipeline.is_loaded):
        return load_pipeline(pipeline, variables=variables, trigger=trigger)
    if variables or trigger is not None:
        raise ConfigError("a loaded pipeline has its variables and trigger already: give them to load_pipeline")
    return pipeline


def _latest_run(pipeline: Pipeline, wanted: int | None) -> PipelineRun:
    """Return the latest run, which is retried.

    Raises:
        SyncError: there is no run.
        NotLatest: another run was asked for.
    """
    latest = None
    if Store.exists(pipeline.store_url):
        with Store.open(pipeline.store_url) as store:
            latest = store.latest_run(pipeline.pipeline)
    if latest is None:
        raise SyncError(f"pipeline {pipeline.pipeline!r} has never run: there is nothing to retry")
    if wanted not in (None, latest.id):
        raise NotLatest(pipeline.pipeline, wanted, latest.id)
    return latest


def as_of_run(pipeline: Pipeline, run: PipelineRun) -> Pipeline:
    """Load the file again with a run's execution date, trigger and variables, which all attempts share.

    The caller's variables count if the run does not have them.
    """
    given = {name: value for name, value in pipeline.variable_overrides.items() if name not in run.variables}
    return load_pipeline(
        pipeline.given,
        folder=pipeline.folder if pipeline.path is None else None,
        variables=given,
        execution_date=run.execution_date,
        interval=run.interval,
        trigger=run.trigger,
        environ=pipeline.environ,
        recorded=run.variables,
    )


def _warn_of_kept_variables(given: Pipeline, run: PipelineRun, progress: Progress) -> None:
    """Warn about the caller's variables that are ignored, since the retried run has other values."""
    for name, value in given.variable_overrides.items():
        if run.variables.get(name, value) != value:
            text = f"variable {name!r}: a retry keeps the value of its run; leave the new value out"
            progress.message(text, level="warning")
