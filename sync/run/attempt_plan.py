"""A plan's record in the run store: the block runs of an attempt, and its callbacks."""

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
    """Return the record of an attempt for the run store, before the attempt begins.

    Args:
        session: the opened pipeline.
        plan: plan of the attempt.
        order: options that workers on other machines need to plan the same.
        order_key: the orchestrator's order that this attempt carries out; empty: none.
        is_partial: whether the command left out selected streams.
    """
    pipeline = session.pipeline
    missing = [each.stream for each in session.missing]
    return AttemptPlan(
        # Each worker that dies leaves tokens for this many attempts.
        streams=stream_plans(pipeline, plan, has_workers=order is not None),
        subscriptions=_resolve_filters(session.code, [planned.name for planned in plan.streams]),
        # The pipeline file at the time of the call decides which callbacks run.
        callbacks=tuple(RecordedCallback(block=spec.block, digest=spec.digest) for spec in session.code.callbacks),
        allow_blocks_to_fail=pipeline.allow_blocks_to_fail,
        # A path may contain a secret.
        extra={
            "source": session.source_address,
            "destination": session.destination_address,
            **({} if order is None else {"order": dict(order)}),
            **({"order_key": order_key} if order_key else {}),
            **({"is_partial": True} if is_partial else {}),
            **({"missing_streams": missing} if missing else {}),
        },
    )


def stream_plans(pipeline: Pipeline, plan: Plan, *, has_workers: bool = False) -> tuple[StreamPlan, ...]:
    """Return the record of a plan's streams for the run store."""

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
                "shape": planned.schema.shape,
                **(
                    {"refusal": [planned.verdict.refusal, planned.verdict.is_refused_by_destination]}
                    if planned.verdict.refusal
                    else {}
                ),
            },
        )
        for planned in plan.streams
    )


def _resolve_filters(code: UserCode, names: Sequence[str]) -> tuple[Any, ...]:
    """Replace globs in `streams` filters by names: the store only knows names."""
    return tuple(
        replace(
            subscription,
            streams=tuple(name for name in names if matches_any(subscription.streams, name)),
        )
        if subscription.streams is not None
        else subscription
        for subscription in code.subscriptions
    )
