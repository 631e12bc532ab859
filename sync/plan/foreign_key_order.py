"""The order of streams whose tables foreign keys connect: parents first, and one after another. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from syncblocks.connectors.protocols import NamesTables
from syncblocks.connectors.stream import TableState

from .selected_stream import SelectedStream


class StreamOrder(Struct, frozen=True, kw_only=True):
    """Streams in the order in which they run."""

    streams: tuple[SelectedStream, ...]
    #: Stream -> the streams whose tables its table refers to.
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Stream -> name of its chain: streams of one chain run one after another. Streams without foreign keys have none.
    chains: Mapping[str, str] = field(default_factory=dict)
    #: Streams of each cycle, of which none can be first.
    cycles: tuple[tuple[str, ...], ...] = ()


def in_order(
    selected: Sequence[SelectedStream], tables: Mapping[str, TableState], names: NamesTables | None
) -> StreamOrder:
    """Put the streams into an order in which each comes after those that its table refers to; else they keep theirs."""
    if names is None or not any(tables[stream.destination_table].refers_to for stream in selected):
        return StreamOrder(streams=tuple(selected))
    of_table: dict[str, list[str]] = {}
    for stream in selected:
        of_table.setdefault(names.one_name(stream.destination_table), []).append(stream.name)
    parents = {
        stream.name: tuple(
            name
            for table in sorted(tables[stream.destination_table].refers_to)
            for name in of_table.get(table, ())
            if name != stream.name
        )
        for stream in selected
    }
    ordered, cycles = _parents_first([stream.name for stream in selected], parents)
    by_name = {stream.name: stream for stream in selected}
    return StreamOrder(
        streams=tuple(by_name[name] for name in ordered), parents=parents, chains=_chains(parents), cycles=tuple(cycles)
    )


def cycle_of(name: str, parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the streams of all cycles that a stream is part of, in the order of `parents`; empty: it is in none."""
    above = {each: _ancestors(each, parents) for each in (name, *_ancestors(name, parents))}
    return [each for each in parents if each in above[name] and name in above[each]]


def _ancestors(name: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    left = [*parents.get(name, ())]
    while left:
        if (one := left.pop()) not in found:
            found.add(one)
            left += parents.get(one, ())
    return found


def _parents_first(
    names: Sequence[str], parents: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the order, and the streams of each cycle; a cycle is entered at its first stream."""
    ordered: dict[str, None] = {}
    cycles = []
    for first in names:
        # Without recursion: a chain may be longer than Python's stack.
        path = [(first, iter(parents[first]))] if first not in ordered else []
        while path:
            name, rest = path[-1]
            parent = next((each for each in rest if each not in ordered), None)
            if parent is None:
                ordered[name] = None
                path.pop()
                continue
            under_way = [each for each, _ in path]
            if parent in under_way:
                cycles.append(tuple(under_way[under_way.index(parent) :]))
            else:
                path.append((parent, iter(parents[parent])))
    return list(ordered), cycles


def _chains(parents: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the name of each stream's chain, of those that a foreign key connects."""
    linked: dict[str, set[str]] = {}
    for name, found in parents.items():
        for parent in found:
            linked.setdefault(name, set()).add(parent)
            linked.setdefault(parent, set()).add(name)
    chains: dict[str, str] = {}
    for name in linked:
        left = [] if name in chains else [name]
        while left:
            one = left.pop()
            if one not in chains:
                chains[one] = name
                left += linked[one]
    return chains


def cycle_warnings(order: StreamOrder) -> list[str]:
    """Warn of streams of which none can be written first."""
    return [
        f"foreign keys of the tables of {', '.join(cycle)} form a cycle, so that records may refer to records that are "
        "not there yet, and each stream commits on its own: drop one of the keys for the time of the load"
        for cycle in order.cycles
    ]
