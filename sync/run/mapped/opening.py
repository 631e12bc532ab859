"""`open_run`: plans a run and keeps it open for tasks; each task claims its own stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...config.arguments import AnyPipeline, JsonObject, checks_arguments
from ...config.executor import THREADS
from ...plan.features.log_based import refuse_apart
from ...plan.placement import place_of
from ...plan.plan import Plan
from ...plan.run_options import RunOptions
from ...session.inspection import existing_store
from ...session.session import PipelineSession
from ...store import Store
from ...store.model import RUNNING, SUCCESS, UNCLAIMED, ErrorInfo, PipelineRun
from ..executors.opening import with_executor
from ..lease import RunLease
from ..notebook import default_progress
from ..orchestrator_run import carries_out, is_latest, ordered_run, patterns_of_unfinished
from ..pipeline import loaded_with
from ..progress import Progress
from ..results import RunResult
from ..runner import PipelineRunner, RunnerOptions

#: Default seconds for which a run stays open after its tasks' last sign of life.
HOLD_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRun:
    """A run that waits for its tasks: `sync_stream` for each stream, and `finish_run`."""

    #: The run's number, passed between tasks.
    id: int
    pipeline: str
    #: Names, in run order.
    streams: tuple[str, ...]


@checks_arguments
def open_run(
    pipeline: AnyPipeline,
    *,
    streams: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    full_refresh: bool = False,
    variables: Mapping[str, Any] | None = None,
    event: JsonObject | None = None,
    trigger: str | None = None,
    hold_s: int = HOLD_S,
    wait_for_other: bool = False,
    retry: bool = False,
    order_key: str = "",
    progress: Progress | None = None,
    signals: list[int] | None = None,
) -> HeldRun:
    """Plan a run and keep it open, so that its streams run one by one in other processes or on other machines.

    Until `finish_run`, every other start of the pipeline is refused. No start recovers the run until its tasks have
    shown no sign of life for `hold_s` seconds.

    Args:
        pipeline: result of `load_pipeline`, or its argument: a pipeline file, or a mapping.
        streams: globs; default: all selected streams.
        tags: only streams with one of these `tags`; default: all.
        full_refresh: replace every table and ignore every bookmark.
        variables: runtime variables; override the file's (not with a loaded pipeline).
        event: JSON values that callbacks get as `event`.
        trigger: first half of `execution_partition` (not with a loaded pipeline).
        hold_s: seconds, from 60 to one week.
        wait_for_other: wait for an active run of the same pipeline instead of refusing.
        retry: return the run that an earlier call with the same trigger opened, if it is still open.
        order_key: recorded with the run. With `retry`, a run of the same trigger and key is returned even after its
            end, and its streams can be tried again. Empty: it is not returned.
        progress: called for each event.
        signals: numbers of signals that the caller has received; an added number gives up.

    Raises:
        ConfigError: the file is wrong, or its streams cannot run one by one; no stream ran.
        AlreadyRunning: the pipeline has an active run.
        PipelineFailed: the run failed before its first stream, and has ended.
    """
    pipeline = loaded_with(pipeline, variables=variables, trigger=trigger)
    pipeline = with_executor(pipeline, THREADS)
    order = RunnerOptions(
        order_key=order_key,
        streams=streams or (),
        tags=tags or (),
        given=RunOptions(full_refresh=full_refresh, is_late=not pipeline.is_dated),
        event=event or {},
        wait_for_other=wait_for_other,
    )
    with Opener(pipeline, progress or default_progress(), order, inline_callbacks=False, signals=signals) as opener:
        opener.hold_s = hold_s
        if retry and (there := opener.opened_before()) is not None:
            return there
        result = opener.run()
    if result.status != RUNNING or result.run_id is None:
        result.raise_for_status()
    assert result.run_id is not None
    return HeldRun(id=result.run_id, pipeline=pipeline.pipeline, streams=result.never_started)


class Opener(PipelineRunner):
    """Begins a run like any other, but leaves the streams to its tasks."""

    hold_s = HOLD_S

    def opened_before(self) -> HeldRun | None:
        """Return the run that an earlier attempt opened; None: this one opens a run."""
        key = self.order.order_key
        with existing_store(self.pipeline) as store:
            run = None if store is None else ordered_run(store, self.pipeline, key)
            if store is None or run is None:
                return None
            if run.is_active and run.hold_s is not None:
                return _held(store, run)
            if not carries_out(store, run, key):
                return None
        return self._ended_before(run)

    def _ended_before(self, run: PipelineRun) -> HeldRun | None:
        """Return this order's ended run if it has started streams: they must not run twice."""
        self.open_store()
        if run.is_active:  # the process that ended it has died
            self.clear_up()
            run = self.store.run(run.id)
        has_started = any(each.status != UNCLAIMED for each in self.store.stream_statuses(run.id))
        if run.is_active or not has_started:
            return None
        if run.status == SUCCESS or is_latest(self.store, run):
            return _held(self.store, run)
        self.order = self.order._replace(streams=patterns_of_unfinished(self.store, run), tags=())
        return None

    def make_plan(self, only: Sequence[str] | None) -> Plan | ErrorInfo:
        """Return the plan, or why the run fails before its first stream.

        Raises:
            ConfigError: the streams cannot run one by one.
        """
        plan = super().make_plan(only)
        if isinstance(plan, Plan):
            _check(self.session, plan)
        return plan

    def worker_order(self, plan: Plan) -> dict[str, Any]:
        """Return the plan's options for the tasks, and which streams may run at the same time."""
        chains = {planned.name: planned.placement.chain for planned in plan.streams if planned.placement.chain}
        most = _most_at_once(self.session)
        return {**self.order.given.document(), "workers_on_host": 1, "chains": chains, "most": most}

    def run_streams(self, run: PipelineRun, plan: Plan, lease: RunLease) -> RunResult:
        """Keep the run open; its result shows the streams as not started."""
        self.store.hold_run(run.id, self.hold_s)
        names = tuple(planned.name for planned in plan.streams)
        return RunResult(run_id=run.id, pipeline=run.pipeline, status=RUNNING, never_started=names)


def _held(store: Store, run: PipelineRun) -> HeldRun:
    plan = store.attempt_plan(run.id, 1)
    assert plan is not None  # written when the run began
    return HeldRun(id=run.id, pipeline=run.pipeline, streams=tuple(each.stream for each in plan.streams))


def _most_at_once(session: PipelineSession) -> int | None:
    """Return how many streams may be open at once; None: one for each task."""
    pipeline = session.pipeline
    limits = (
        None if pipeline.concurrency == "auto" else int(pipeline.concurrency),
        session.destination.max_loads,
        pipeline.source.concurrency,
        pipeline.destination.concurrency,
    )
    return min((limit for limit in limits if limit is not None), default=None)


def _check(session: PipelineSession, plan: Plan) -> None:
    """Refuse options with which streams cannot run in separate processes.

    Raises:
        ConfigError: names the setting.
    """
    pipeline, way_out = session.pipeline, "let one task run the whole pipeline"
    refuse_apart(plan.streams)
    for group in plan.groups:
        if len(group) > 1:
            raise pipeline.error(
                ("source", "connector"),
                f"one read yields the streams {', '.join(map(repr, group[:3]))} together, so they cannot run in "
                f"separate tasks: {way_out}",
            )
    if place_of(session.source_can, session.destination_can) == "process":
        ends = (("source", session.source_can.knows_place), ("destination", session.destination_can.knows_place))
        role = next(role for role, can in ends if can is None or can.place() == "process")
        name = pipeline.source.connector if role == "source" else pipeline.destination.connector
        raise pipeline.error(
            (role, "connector"),
            f"with a task for each stream each has its own process, but only one process at a time can use {name!r}: "
            f"{way_out}",
        )
    if not session.destination.has_ledger:
        raise pipeline.error(
            ("destination", "connector"),
            "a task for each stream needs a destination with a ledger, which refuses the commits of a task that was "
            f"given up: {pipeline.destination.connector!r} cannot hold one; {way_out}",
        )


__all__ = ["HOLD_S", "HeldRun", "open_run"]
