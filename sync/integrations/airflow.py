"""Airflow 3: a pipeline as an operator. The task is the run.

    SyncOperator(task_id="sync", pipeline="/srv/crm/crm.yaml")

Nothing is read while DAGs are parsed. A try of the task after the first goes on with the run of the try before it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from ..config import Pipeline, load_pipeline
from ..errors import ConfigError
from ..run.results import RunResult
from .declared import Given
from .running import Ended, Task, events_of, summary, told, trigger_of


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
        pipeline: Given,
        streams: Sequence[str] = (),
        tags: Sequence[str] = (),
        full_refresh: bool = False,
        variables: Mapping[str, Any] | None = None,
        event: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        """Make the task.

        Args:
            pipeline: the pipeline file, or a mapping.
            streams: names or globs, only these; empty: all.
            tags: only streams that have one of them; empty: all.
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
                task = Task(
                    pipeline=_loaded(self.pipeline, self.variables, context),
                    streams=self.streams,
                    tags=self.tags,
                    full_refresh=self.full_refresh,
                    event=self.event if self.event is not None else context["dag_run"].conf,
                    is_retry=ti.try_number > 1,
                    may_be_again=True,
                    signals=self._signals,
                )
                return self._run(task)
            except ConfigError as error:
                raise AirflowFailException(str(error)) from error

    def on_kill(self) -> None:
        """Stop the run: Airflow calls it on SIGTERM, and the task goes on until the run has ended."""
        self._signals.append(signal.SIGTERM)

    def _run(self, task: Task) -> dict[str, Any]:
        ended: dict[str, Ended] = {}
        with closing(events_of(task)) as events:
            for event in events:
                told(self.log, event, ended)
        assert isinstance(event, RunResult)
        return summary(event.raise_for_status(), ended)


def _loaded(given: Given, variables: Mapping[str, Any] | None, context: Mapping[str, Any]) -> Pipeline:
    """Load a pipeline with the dates of the DAG run."""
    ti = context["ti"]
    return load_pipeline(
        given,
        variables=variables,
        execution_date=context.get("logical_date"),
        interval=_interval(context),
        trigger=trigger_of("airflow", ti.dag_id, ti.run_id, ti.task_id, *([ti.map_index] if ti.map_index >= 0 else [])),
    )


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


__all__ = ["SyncOperator"]
