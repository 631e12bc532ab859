"""What earlier runs have left in the destination, settled before the first stream of a run begins."""

from __future__ import annotations

from syncblocks.connectors.abilities import Abilities
from syncblocks.connectors.protocols import Destination

from ..plan.connectors import Ends
from ..plan.plan import Plan
from ..store.model import PipelineRun
from .takeover import forget_positions, owner_text


def settle_tables(ends: Ends, run: PipelineRun, plan: Plan, *, is_partial: bool, is_fresh: bool) -> None:
    """Let go of ranges that this run does not resume, and of positions in tables that are gone.

    Args:
        ends: whose destination holds them.
        run: this one.
        plan: what it does.
        is_partial: what is not in the plan may come later.
        is_fresh: nothing is resumed.

    Raises:
        LedgerUnreadable: a row cannot be read.
        ConnectorError: or written.
    """
    _drop_ranges(ends.destination_can, run, plan, is_partial=is_partial, is_fresh=is_fresh)
    _forget_gone_tables(ends.destination, run, plan)


def _drop_ranges(can: Abilities, run: PipelineRun, plan: Plan, *, is_partial: bool, is_fresh: bool) -> None:
    if can.loads_ranges is None:
        return
    planned = {stream.key: stream.reading.loaders > 1 and not is_fresh for stream in plan.streams}
    can.loads_ranges.drop_ranges(run.pipeline, lambda key: planned.get(key, is_partial))


def _forget_gone_tables(destination: Destination, run: PipelineRun, plan: Plan) -> None:
    """Let every stream of a table that was dropped start over, also one that is not in this run, or fails in it."""
    gone = {}
    for planned in plan.streams:
        others = [row for row in planned.table.ledger if row.key != planned.key]
        if planned.table.schema is None and planned.table.is_described and others:
            gone.update({row.key: row for row in planned.table.ledger})
    forget_positions(destination, gone.values(), owner_text(run))


__all__ = ["settle_tables"]
