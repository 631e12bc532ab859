"""The plan of a run with the options that it was given: where streams start, what they delete and what they fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..plan.plan import Plan
from ..session.session import Session, make_plan
from ..store import Store


class Given(NamedTuple):
    """Options of one run that decide its plan, as JSON values: a worker plans by them as the run did."""

    full_refresh: bool = False
    drop_history: bool = False
    #: The run was due before it began (a tick).
    is_late: bool = False
    #: Stream -> a value, as text, for each of its bookmark_properties.
    bookmarks: Mapping[str, Mapping[str, str]] = {}
    #: Look for deleted records now.
    deletes: bool = False
    #: Streams that may delete more than their limit.
    allow_deletes: Sequence[str] = ()
    #: Stream -> columns that its records get first.
    fills: Mapping[str, Sequence[str]] = {}

    def document(self) -> dict[str, Any]:
        """Return it as the run store keeps it."""
        return self._asdict()


def given_of(document: Mapping[str, Any]) -> Given:
    """Return what `Given.document` has written; keys of others are left out."""
    return Given(**{name: document[name] for name in Given._fields if name in document})


def plan_as_given(
    session: Session,
    store: Store | None,
    given: Given,
    *,
    streams: Sequence[str] = (),
    tags: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> Plan:
    """Plan a run by its options; see `make_plan` for the others and for errors."""
    plan = make_plan(
        session,
        store,
        streams=streams,
        tags=tags,
        full_refresh=given.full_refresh,
        drop_history=given.drop_history,
        may_be_late=given.is_late,
        only=only,
    )
    if given.bookmarks:
        from .given_start import starting_at  # with the commands about states; few runs need it

        plan = starting_at(plan, given.bookmarks)
    if given.deletes or given.allow_deletes:
        from .given_deletes import deleting

        plan = deleting(plan, at_once=given.deletes, allowed=given.allow_deletes)
    if given.fills:
        from .given_filling import filling

        plan = filling(plan, given.fills, session.destination_can)
    return plan


__all__ = ["Given", "given_of", "plan_as_given"]
