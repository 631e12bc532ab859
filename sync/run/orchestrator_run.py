"""The run for an orchestrator's task: each attempt of the task finds it by trigger id and key."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import Pipeline, exact_pattern
from ..store import Store
from ..store.model import SUCCESS, PipelineRun


def ordered_run(store: Store, pipeline: Pipeline, order_key: str) -> PipelineRun | None:
    """Return the run that this attempt continues; None: there is none, or another order's run has succeeded.

    Args:
        store: the run store.
        pipeline: loaded with the task's trigger id.
        order_key: distinguishes orders of one trigger; empty: a successful run is not recognised again.
    """
    run = store.latest_run(pipeline.pipeline, pipeline.trigger)
    if run is None or run.is_active or run.status != SUCCESS:
        return run
    return run if carries_out(store, run, order_key) else None


def carries_out(store: Store, run: PipelineRun, order_key: str) -> bool:
    """Whether this order began the latest attempt of a run."""
    return bool(order_key) and store.attempt_plan_of(run.id).extra.get("order_key") == order_key


def is_latest(store: Store, run: PipelineRun) -> bool:
    """Whether a run may get another attempt."""
    latest = store.latest_run(run.pipeline)
    return latest is not None and latest.id == run.id


def patterns_of_unfinished(store: Store, run: PipelineRun) -> Sequence[str]:
    """Return patterns of the streams that have not succeeded, for a run that replaces this one."""
    return [exact_pattern(name) for name in store.unfinished_streams(run.id)]
