"""`run --deletes` and `run --allow-deletes`: run deletes now, or beyond their limit."""

from __future__ import annotations

from collections.abc import Sequence

from syncblocks.connectors.struct_helpers import replace

from ...errors import ConfigError, nearest_match
from ...plan.features.deletes import PlannedDeletes
from ...plan.plan import Plan, PlannedStream


def deleting(plan: Plan, *, at_once: bool, allowed: Sequence[str]) -> Plan:
    """Return a plan in which streams delete missing records despite `every`, or beyond the limit.

    Args:
        plan: the plan of the run.
        at_once: applies to all streams with `deletes`.
        allowed: names of streams without a limit; they delete at once too.

    Raises:
        ConfigError: no stream of the run, or not a named one, has `deletes`.
    """
    able = [planned.name for planned in plan.streams if planned.step(PlannedDeletes) is not None]
    for name in allowed:
        if name not in able:
            is_known = any(planned.name == name for planned in plan.streams)
            text = f"stream {name!r} " + ("does not say `deletes`" if is_known else "is not a stream of this run")
            raise ConfigError(text, key="--allow-deletes", allowed=tuple(able[:20]), nearest=nearest_match(name, able))
    if at_once and not able:
        raise ConfigError("no stream of this run has `deletes: hard` or `soft`", key="--deletes")

    def ordered(planned: PlannedStream) -> PlannedStream:
        is_allowed, deletes = planned.name in allowed, planned.step(PlannedDeletes)
        if deletes is None or not (at_once or is_allowed):
            return planned
        return planned.with_step(replace(deletes, is_due=True, is_allowed=is_allowed))

    return replace(plan, streams=tuple(map(ordered, plan.streams)))
