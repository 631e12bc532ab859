"""The plan of a run with its options: start positions, deletes and fills."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import mistakes
from ...plan.plan import Plan
from ...plan.run_options import RunOptions
from ...plan.worker_plan import WorkerPlan
from ...session.session import PipelineSession, make_plan
from ...store import Store


def plan_with_options(
    session: PipelineSession,
    store: Store | None,
    options: RunOptions,
    *,
    streams: Sequence[str] = (),
    tags: Sequence[str] = (),
    only: Sequence[str] | None = None,
    part: WorkerPlan | None = None,
) -> Plan:
    """Plan a run with all its options. See `make_plan` for other arguments and errors."""
    plan = make_plan(session, store, streams=streams, tags=tags, options=options, only=only, part=part)
    with mistakes():
        if options.bookmarks:
            from .bookmarks import starting_at  # belongs to the state commands; few runs need it

            plan = starting_at(plan, options.bookmarks)
        if options.deletes or options.allow_deletes:
            from .deletes import deleting

            plan = deleting(plan, at_once=options.deletes, allowed=options.allow_deletes)
        if options.fills:
            from .filling import filling

            plan = filling(plan, options.fills, session.destination_can)
    return plan


__all__ = ["plan_with_options"]
