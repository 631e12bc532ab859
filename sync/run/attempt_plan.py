"""The record of a plan in the run store: the block runs of an attempt, and the callbacks that it calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from syncblocks.connectors.struct_helpers import replace

from ..config import Pipeline, matches_any
from ..delivery.subscriptions import UserCode
from ..plan.plan import Plan, PlannedStream
from ..session.session import PipelineSession
from ..store.model import AttemptPlan, BlockPlan, RecordedCallback, StreamPlan


def attempt_plan(
    session: PipelineSession,
    plan: Plan,
    order: Mapping[str, Any] | None = None,
    *,
    order_key: str = "",
    is_partial: bool = False,
) -> AttemptPlan:
    """Return what the run store records of an attempt before it begins.

    Args:
        session: the opened pipeline.
        plan: of the attempt.
        order: what the workers of other machines need to know to plan the same.
        order_key: names the orchestrator's order that the attempt carries out; empty: it has none.
        is_partial: whether selected streams were left out by the command.
    """
    pipeline = session.pipeline
    missing = [each.stream for each in session.missing]
    return AttemptPlan(
        # Each worker that dies leaves tokens of as many attempts behind.
        streams=stream_plans(pipeline, plan, has_workers=order is not None),
        subscriptions=_resolve_filters(session.code, [planned.name for planned in plan.streams]),
        # At the time of the call, the pipeline file says what is called.
        callbacks=tuple(RecordedCallback(block=spec.block, digest=spec.digest) for spec in session.code.callbacks),
        allow_blocks_to_fail=pipeline.allow_blocks_to_fail,
        # A path may hold a secret.
        extra={
            "source": session.redactor.redact(session.source.identity()),
            "destination": session.redactor.redact(session.destination.identity()),
            **({} if order is None else {"order": dict(order)}),
            **({"order_key": order_key} if order_key else {}),
            **({"is_partial": True} if is_partial else {}),
            **({"missing_streams": missing} if missing else {}),
        },
    )


def stream_plans(pipeline: Pipeline, plan: Plan, *, has_workers: bool = False) -> tuple[StreamPlan, ...]:
    """Return what the run store records of the streams of a plan."""

    def tries(planned: PlannedStream) -> int:
        return planned.tries * (planned.policy.retries + 1 if has_workers else 1)

    return tuple(
        StreamPlan(
            stream=planned.name,
            destination_table=planned.key.destination_table,
            blocks=(
                BlockPlan(pipeline.source.block, "data_loader"),
                *(BlockPlan(block, "transformer") for block in planned.transformers),
                BlockPlan(pipeline.destination.block, "data_exporter"),
            ),
            config={
                "wire": planned.wire,
                "tries": tries(planned),
                "shape": planned.shape,
                **({"refusal": [planned.refusal, planned.is_refused_by_destination]} if planned.refusal else {}),
            },
        )
        for planned in plan.streams
    )


def _resolve_filters(code: UserCode, names: Sequence[str]) -> tuple[Any, ...]:
    """Replace globs in `streams` filters by names: the store knows names only."""
    return tuple(
        replace(
            subscription,
            streams=tuple(name for name in names if matches_any(subscription.streams, name)),
        )
        if subscription.streams is not None
        else subscription
        for subscription in code.subscriptions
    )
