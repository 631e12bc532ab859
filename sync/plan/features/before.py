"""The planned step of `before`: statements that run before each attempt reads the stream."""

from __future__ import annotations

from typing import Any, ClassVar

from ...config.before_statements import BeforeStatement
from ..policy import Policy
from ..steps import PlannedStep


class PlannedBefore(PlannedStep, frozen=True, kw_only=True):
    """The statements of a stream, in order."""

    name: ClassVar[str] = "before"
    statements: tuple[BeforeStatement, ...]

    def document(self) -> Any:
        """Return each statement with its connection."""
        return [statement.document() for statement in self.statements]


def plan_before(policy: Policy) -> PlannedBefore | None:
    """Return the step, or `None` if the stream does not have statements."""
    return PlannedBefore(statements=policy.before) if policy.before else None


__all__ = ["PlannedBefore", "plan_before"]
