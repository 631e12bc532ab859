"""Steps of a stream before or after its load, as the plan decides them, and their keys in `plan --json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from msgspec import Struct

#: Key of each step in `plan --json`, in order -> the value for a stream that does not have the step.
ABSENT: Mapping[str, Any] = {"fills": [], "deletes": None, "before": []}


class PlannedStep(Struct, frozen=True, kw_only=True):
    """The plan of one step of a stream."""

    #: The key in `plan --json`.
    name: ClassVar[str]
    #: What a person should know about the step, in sentences.
    notices: tuple[str, ...] = ()

    @property
    def is_due(self) -> bool:
        """True if this run performs the step."""
        return True

    @property
    def completes(self) -> bool:
        """True if a transaction after the load completes the stream."""
        return False

    @property
    def may_remove_records(self) -> bool:
        """True if the step takes records out of the table, which foreign keys may refuse."""
        return False

    def document(self) -> Any:
        """Return the value in `plan --json`."""
        raise NotImplementedError

    def __str__(self) -> str:
        """Return the line in `plan`. Empty if `plan` shows the step at another place."""
        return ""


def in_order(steps: Iterable[PlannedStep]) -> tuple[PlannedStep, ...]:
    """Return steps in the order in which a plan lists them."""
    return tuple(sorted(steps, key=lambda step: [*ABSENT].index(step.name)))


def documents(steps: Iterable[PlannedStep]) -> dict[str, Any]:
    """Return the values of `plan --json` for all steps, whether the stream has them or not."""
    return {**ABSENT, **{step.name: step.document() for step in steps}}


__all__ = ["ABSENT", "PlannedStep", "documents", "in_order"]
