"""How many streams a run handles at once, and limits of its user on the servers. Writes nothing."""

from __future__ import annotations

import os

from ..flow.memory import budget_bytes, streams_at_once
from ..plan.plan import Plan
from ..session.session import PipelineSession


def most_at_once(session: PipelineSession, concurrency: int | None, offered: int | None) -> int:
    """Return how many streams, or groups, may run at once.

    Args:
        session: the opened pipeline.
        concurrency: overrides the file's; None: use the file's.
        offered: capacity of a remote executor; None: streams run in this process.
    """
    pipeline = session.pipeline
    wanted = concurrency or pipeline.concurrency
    usual = min(8, 2 * (os.cpu_count() or 1)) if offered is None else offered
    limits = (
        usual if wanted == "auto" else int(wanted),
        session.destination.max_loads,
        pipeline.source.concurrency,
        pipeline.destination.concurrency,
        # Remote workers have their own memory.
        streams_at_once(budget_bytes(pipeline.memory)) if offered is None else offered,
    )
    return max(1, min(limit for limit in limits if limit is not None))


def limit_warnings(session: PipelineSession, plan: Plan) -> list[str]:
    """Return the limits on both servers that can end this run, each text once.

    Raises:
        ConnectorError: a server cannot be asked.
    """
    needed = _connections(session, plan)
    # Connections to one database count together, even from several connectors.
    is_one = session.source.identity() == session.destination.identity()
    ends = (
        (session.pipeline.source.block, session.source_can.knows_limits),
        (session.pipeline.destination.block, session.destination_can.knows_limits),
    )
    found: dict[str, list[str]] = {}
    for block, knows in ends:
        for text in [] if knows is None else knows.limit_warnings(needed * (2 if is_one else 1)):
            found.setdefault(text, []).append(block)
    return [f"{' and '.join(blocks)}: {text}" for text, blocks in found.items()]


def _connections(session: PipelineSession, plan: Plan) -> int:
    """Return the maximum of connections that a run opens at one of its ends.

    A stream has one for each reader or loader; an idle one may wait for streams of another transfer format.
    """
    readers = {planned.name: planned.reading.readers for planned in plan.streams}
    groups = sorted((max(readers[name] for name in group) for group in plan.groups), reverse=True)
    return sum(each + 1 for each in groups[: most_at_once(session, None, None)])


__all__ = ["limit_warnings", "most_at_once"]
