"""The plan of a run with its options: start positions, deletes and fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import mistakes
from ...plan.plan import Plan
from ...plan.worker_plan import WorkerPlan
from ...session.session import PipelineSession, make_plan
from ...store import Store


class RunOptions(NamedTuple):
    """A run's options that decide its plan, as JSON values: workers plan by them as the run did."""

    full_refresh: bool = False
    drop_history: bool = False
    #: The execution date is not given, or comes from before the run's begin: a tick, or a further attempt.
    is_late: bool = False
    #: Stream -> a value, as text, for each of its bookmark_properties.
    bookmarks: Mapping[str, Mapping[str, str]] = {}
    #: Delete missing records now.
    deletes: bool = False
    #: Streams that may delete more than their limit.
    allow_deletes: Sequence[str] = ()
    #: Stream -> columns to fill in its records first.
    fills: Mapping[str, Sequence[str]] = {}

    def document(self) -> dict[str, Any]:
        """Return the run store's form."""
        return self._asdict()


def options_of(document: Mapping[str, Any]) -> RunOptions:
    """Return the options that `RunOptions.document` wrote; ignore other keys."""
    return RunOptions(**{name: document[name] for name in RunOptions._fields if name in document})


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
    """Plan a run by its options; see `make_plan` for other arguments and errors."""
    plan = make_plan(
        session,
        store,
        streams=streams,
        tags=tags,
        full_refresh=options.full_refresh,
        drop_history=options.drop_history,
        may_be_late=options.is_late,
        only=only,
        part=part,
    )
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


__all__ = ["RunOptions", "options_of", "plan_with_options"]
