"""Mending what `verify` found: a run that merges the source's records of some ranges, and removes the others there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from syncblocks.connectors.abilities import Abilities
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.stream import Block, Bookmark, Event, ReplicationMethod, Stream, WriteDisposition

from ..plan.plan import Plan
from ..plan.repair import Repair


class NarrowedSource:
    """A source that reads the records of one repair only."""

    def __init__(self, source: Source, can: Abilities, repair: Repair) -> None:
        self._source = source
        self._can = can
        self._repair = repair

    def read(
        self, group: Sequence[Stream], _bookmarks: Mapping[str, Bookmark | None], _wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        """Yield the records of the ranges, whatever the bookmark says; not those that the stream never reads."""
        from syncblocks.connectors.arrow import compute as pc
        from syncblocks.connectors.incremental.bookmarks import unread

        from .checksums import read_within

        (stream,) = group
        whole = replace(stream, replication_method=ReplicationMethod.FULL_TABLE)
        side = self._repair.side
        for event in read_within(self._source, self._can, whole, side, self._repair.ranges):
            if isinstance(event, pa.RecordBatch):
                event = event.filter(pc.invert(unread(event, side.stream, side.until)))
            yield stream.name, event


def repairing(plan: Plan, repairs: Mapping[str, Repair]) -> Plan:
    """Return a plan that repairs some streams, and does nothing else."""
    streams = [
        replace(
            planned, repair=repairs[planned.name], write_disposition=WriteDisposition.MERGE, wire="arrow", changes=()
        )
        for planned in plan.streams
        if planned.name in repairs
    ]
    return replace(plan, streams=tuple(streams), groups=tuple((planned.name,) for planned in streams))


__all__ = ["NarrowedSource", "repairing"]
