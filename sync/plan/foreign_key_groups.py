"""Streams whose deletes foreign keys join: one group, which loads parents first and deletes children first. Pure."""

from __future__ import annotations

from syncblocks.connectors.struct_helpers import replace

from .plan import Plan


def joined(plan: Plan) -> Plan:
    """Return the plan with one group for each chain of streams of which one deletes records in this run.

    The group stands where its first stream does. Its streams are read one by one, whatever one read could yield.
    """
    chains = {
        planned.placement.chain for planned in plan.streams if planned.placement.chain and planned.may_remove_records
    }
    if not chains:
        return plan
    members: dict[str, list[str]] = {}
    for planned in plan.streams:  # parents come first
        if planned.placement.chain in chains:
            members.setdefault(planned.placement.chain, []).append(planned.name)
    chain_of = {name: chain for chain, names in members.items() for name in names}
    groups: list[tuple[str, ...]] = []
    for group in plan.groups:
        for chain in dict.fromkeys(chain_of[name] for name in group if name in chain_of):
            if chain in members:
                groups.append(tuple(members.pop(chain)))
        if others := tuple(name for name in group if name not in chain_of):
            groups.append(others)
    streams = tuple(
        replace(planned, placement=replace(planned.placement, is_joined=True)) if planned.name in chain_of else planned
        for planned in plan.streams
    )
    return replace(plan, streams=streams, groups=tuple(groups))


__all__ = ["joined"]
