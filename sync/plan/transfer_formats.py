"""The wire of each stream: in which form its records go from the source to the destination."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from syncblocks.connectors.protocols import Source
from syncblocks.connectors.stream import Stream

#: The wire that every source offers and every destination accepts.
ARROW = "arrow"
#: Wires whose blocks contain column names, so that columns cannot be renamed.
_WITH_NAMES = {"singer", "parquet"}


def chosen_wire(source: Source, accepted: Collection[str], stream: Stream, arriving: Stream) -> str:
    """Return the first wire that the source offers for a stream and the destination accepts for it as it arrives."""
    accepted = set(accepted)
    if arriving.schema.names != stream.schema.names:
        accepted -= _WITH_NAMES
    return next((wire for wire in source.offers(stream) if wire in accepted), ARROW)


def common_wires(wires: Mapping[str, str], groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Give all streams of a group the same wire: one read yields one wire.

    Args:
        wires: stream -> the wire of its own.
        groups: names of the streams that one read yields.
    """
    return {
        name: wires[name] if len({wires[each] for each in group}) == 1 else ARROW for group in groups for name in group
    }
