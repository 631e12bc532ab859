"""Airflow 3: a pipeline as an operator, whose task is the run; or as a task group with a task for each stream.

    SyncOperator(task_id="sync", pipeline="/srv/crm/crm.yaml")
    sync_task_group("sync", pipeline="/srv/crm/crm.yaml")

Nothing is read while DAGs are parsed. A try of the task after the first goes on with the run of the try before it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from airflow.sdk import BaseOperator, TaskGroup
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

from ..config import Pipeline, load_pipeline
from ..errors import AlreadyRunning, ConfigError, PipelineFailed, TryLater
from ..run.mapped.finishing import finish_run
from ..run.mapped.opening import HOLD_S, HeldRun, open_run
from ..run.mapped.task import LATER_S, sync_stream
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


class SyncOperator(BaseOperator):
    """Runs a pipeline. The return value (XCom) has `run_id`, `status`, `callbacks`, and `streams` with their figures.

    Callbacks get the DAG run's logical date as `execution_date`, its data interval as `interval_start_datetime` and
    `interval_end_datetime`, and its `conf` as `event`.
    """

    #: Without `pipeline`: a mapping has templates of its own.
    template_fields: ClassVar[Sequence[str]] = ("streams", "tags", "variables", "env", "event")

    def __init__(
        self,
        *,
        pipeline: PipelineFile,
        streams: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        full_refresh: bool = False,
        variables: Mapping[str, Any] | None = None,
        event: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        """Make the task.

        Args:
            pipeline: the pipeline file, or a mapping.
            streams: names or globs, only these; default: all.
            tags: only streams that have one of them; default: all.
            full_refresh: replace every table and ignore every bookmark.
            variables: runtime variables, before those of the file.
            event: JSON values that callbacks get as `event`; default: the DAG run's conf.
            env: environment variables of the run, such as `{"CRM_URL": "{{ conn.crm.get_uri() }}"}`.
            options: of `BaseOperator`.
        """
        super().__init__(**options)
        self.pipeline = pipeline
        self.streams = streams
        self.tags = tags
        self.full_refresh = full_refresh
        self.variables = variables
        self.event = event
        self.env = env
        self._signals: list[int] = []

    def execute(self, context: Any) -> dict[str, Any]:
        """Run the pipeline.

        Raises:
            AirflowFailException: the file is wrong; another try would find the same.
            PipelineFailed: a stream failed or was cancelled.
        """
        ti = context["ti"]
        self._signals.clear()
        with _environment(self.env or {}):
            try:
                task = OrchestratorTask(
                    pipeline=_loaded(self.pipeline, self.variables, context),
                    streams=self.streams,
                    tags=self.tags,
                    full_refresh=self.full_refresh,
                    event=self.event if self.event is not None else context["dag_run"].conf,
                    is_retry=ti.try_number > 1,
                    order_key=_order_key(self, ti),
                    signals=self._signals,
                )
                return self._run(task)
            except ConfigError as error:
                raise AirflowFailException(str(error)) from error

    def on_kill(self) -> None:
        """Stop the run: Airflow calls it on SIGTERM, and the task goes on until the run has ended."""
        self._signals.append(signal.SIGTERM)

    def _run(self, task: OrchestratorTask) -> dict[str, Any]:
        ended: dict[str, Ended] = {}
        with closing(events_of(task)) as events:
            for event in events:
                told(self.log, event, ended)
        assert isinstance(event, RunResult)
        return summary(event.raise_for_status(), ended)


class _OfHeldRun(BaseOperator):
    """What the tasks of a mapped run share: the pipeline file, the environment, and how they are stopped."""

    #: Without `pipeline`: a mapping has templates of its own.
    template_fields: ClassVar[Sequence[str]] = ("env",)

    def __init__(self, *, pipeline: PipelineFile, env: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.pipeline = pipeline
        self.env = env
        self._signals: list[int] = []

    def on_kill(self) -> None:
        """Stop the work: Airflow calls it on SIGTERM."""
        self._signals.append(signal.SIGTERM)

    def _worked(self, work: Callable[[Progress], Result]) -> Result:
        """Do the work, told of in the log.

        Raises:
            AirflowFailException: the file is wrong; another try would find the same.
        """
        ended: dict[str, Ended] = {}
        self._signals.clear()
        with _environment(self.env or {}):
            try:
                with closing(events_while(work, self._signals)) as events:
                    for event in events:
                        told(self.log, event, ended)
            except ConfigError as error:
                raise AirflowFailException(str(error)) from error
        assert isinstance(event, Result)
        return event


class OpenRunOperator(_OfHeldRun):
    """Plans a run and holds it. The return value (XCom) has `run_id` and `stream` of each stream."""

    template_fields: ClassVar[Sequence[str]] = ("streams", "tags", "variables", "env", "event")

    def __init__(
        self,
        *,
        streams: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        full_refresh: bool = False,
        variables: Mapping[str, Any] | None = None,
        event: Mapping[str, Any] | None = None,
        hold_s: int = HOLD_S,
        **options: Any,
    ) -> None:
        """Make the task; arguments as of `sync_task_group`."""
        super().__init__(**options)
        self.streams = streams
        self.tags = tags
        self.full_refresh = full_refresh
        self.variables = variables
        self.event = event
        self.hold_s = hold_s

    def execute(self, context: Any) -> list[dict[str, Any]]:
        """Open the run, or return the one that the try before has opened.

        Raises:
            AirflowFailException: the file is wrong, or its streams cannot run in tasks of their own.
            PipelineFailed: the run failed before its first stream.
        """
        ti = context["ti"]

        def work(progress: Progress) -> HeldRun:
            return open_run(
                _loaded(self.pipeline, self.variables, context),
                streams=self.streams,
                tags=self.tags,
                full_refresh=self.full_refresh,
                event=self.event if self.event is not None else context["dag_run"].conf,
                hold_s=self.hold_s,
                wait_for_other=True,
                retry=ti.try_number > 1,
                order_key=_order_key(self, ti),
                progress=progress,
                signals=self._signals,
            )

        run = self._worked(work)
        assert isinstance(run, HeldRun)
        # A mapped task takes nothing but the return value, and there may be no stream.
        ti.xcom_push(key="run_id", value=run.id)
        return [{"run_id": run.id, "stream": name} for name in run.streams]


class SyncStreamOperator(_OfHeldRun):
    """Runs one stream of a mapped run; a retry is the next attempt of the run, over this stream alone."""

    template_fields: ClassVar[Sequence[str]] = ("env", "claim")

    def __init__(self, *, claim: Any, **options: Any) -> None:
        """Make the task.

        Args:
            claim: `run_id` and `stream`, as `OpenRunOperator` returns them.
            options: `pipeline`, `env`, and those of `BaseOperator`.
        """
        super().__init__(**options)
        self.claim = claim

    def execute(self, context: Any) -> dict[str, Any]:
        """Run the stream; return its figures.

        Raises:
            PipelineFailed: it failed, was cancelled, or the run was stopped before it could start.
            AirflowRescheduleException: it has to wait until the attempt of the run has ended.
        """
        run_id, name, is_retry = int(self.claim["run_id"]), str(self.claim["stream"]), context["ti"].try_number > 1
        try:
            result = self._worked(
                lambda progress: sync_stream(
                    self.pipeline, run_id, name, retry=is_retry, progress=progress, signals=self._signals
                )
            )
        except (TryLater, AlreadyRunning) as error:
            self.log.info("%s", error)
            after_s = error.after_s if isinstance(error, TryLater) else LATER_S
            raise AirflowRescheduleException(datetime.now(UTC) + timedelta(seconds=after_s)) from error
        assert isinstance(result, StreamResult)
        return {"run_id": run_id, "stream": name, "status": result.status, **figures_of(result.raise_for_status())}


class FinishRunOperator(_OfHeldRun):
    """Ends a mapped run, and delivers its callbacks; the return value is that of `SyncOperator`."""

    def __init__(self, *, opened: str, **options: Any) -> None:
        """Make the task.

        Args:
            opened: id of the task that has opened the run.
            options: `pipeline`, `env`, and those of `BaseOperator`.
        """
        super().__init__(**options)
        self.opened = opened

    def execute(self, context: Any) -> dict[str, Any]:
        """End the run.

        Raises:
            AirflowFailException: there is no run, or a stream of it failed, was cancelled or never started.
        """
        run_id = context["ti"].xcom_pull(task_ids=self.opened, key="run_id")
        if run_id is None:
            raise AirflowFailException(f"task {self.opened} has opened no run: there is nothing to end")
        result = self._worked(
            lambda progress: finish_run(self.pipeline, int(run_id), progress=progress, signals=self._signals)
        )
        assert isinstance(result, RunResult)
        try:
            return whole_summary(result.raise_for_status())
        except PipelineFailed as error:  # it has ended: another try would only say so again
            raise AirflowFailException(str(error)) from error


def sync_task_group(
    group_id: str = "sync",
    *,
    pipeline: PipelineFile,
    streams: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    full_refresh: bool = False,
    variables: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    hold_s: int = HOLD_S,
    **options: Any,
) -> TaskGroup:
    """Return a task group `open >> stream (a mapped task for each stream) >> finish`; call it in a DAG.

    Args:
        group_id: name of the group.
        pipeline: the pipeline file, or a mapping.
        streams: names or globs, only these; default: all.
        tags: only streams that have one of them; default: all.
        full_refresh: replace every table and ignore every bookmark.
        variables: runtime variables, before those of the file.
        event: JSON values that callbacks get as `event`; default: the DAG run's conf.
        env: environment variables of each task.
        hold_s: seconds that the run waits for its tasks after the last sign of life of one.
        options: of `BaseOperator`, for the task of each stream, such as `retries`, `pool` and
            `max_active_tis_per_dagrun`; those that all tasks take, for all: `retries` and `retry_delay`.
    """
    shared: dict[str, Any] = {"pipeline": pipeline, "env": env}
    of_all = {name: options[name] for name in ("retries", "retry_delay") if name in options}
    with TaskGroup(group_id) as group:
        opened = OpenRunOperator(
            task_id="open",
            streams=streams,
            tags=tags,
            full_refresh=full_refresh,
            variables=variables,
            event=event,
            hold_s=hold_s,
            **shared,
            **of_all,
        )
        ran = SyncStreamOperator.partial(
            task_id="stream", map_index_template="{{ task.claim['stream'] }}", **shared, **options
        ).expand(claim=opened.output)
        finish = FinishRunOperator(task_id="finish", opened=opened.task_id, trigger_rule="all_done", **shared, **of_all)
        opened >> ran >> finish
    return group


def _loaded(given: PipelineFile, variables: Mapping[str, Any] | None, context: Mapping[str, Any]) -> Pipeline:
    """Load a pipeline with the dates of the DAG run."""
    ti = context["ti"]
    return load_pipeline(
        given,
        variables=variables,
        execution_date=context.get("logical_date"),
        interval=_interval(context),
        trigger=trigger_of("airflow", ti.dag_id, ti.run_id, ti.task_id, *([ti.map_index] if ti.map_index >= 0 else [])),
    )


def _order_key(operator: BaseOperator, ti: Any) -> str:
    """Return how many tries a task had before it was cleared last: Airflow then gives it `retries` more."""
    return str(max(0, ti.max_tries - (operator.retries or 0)))


def _interval(context: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """Return the data interval; None: the timetable has moments only."""
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    return (start, end) if start is not None and end is not None and start < end else None


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    """Give the task's process more environment variables: its connectors and callbacks read them, too."""
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


__all__ = ["FinishRunOperator", "OpenRunOperator", "SyncOperator", "SyncStreamOperator", "sync_task_group"]
