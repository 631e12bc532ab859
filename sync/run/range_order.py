"""What a worker is told of a range that it is to load: which part of which snapshot, for which try of its stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from syncblocks.connectors.ranges import Range


class RangeOrder(Struct, frozen=True, kw_only=True):
    """One range of a stream that this process leads. Neither records nor secrets."""

    stream: str
    #: Of the try: its token in the destination's ledger is derived from it, see `stream_token`.
    number: int
    #: By which the source finds the snapshot, see `SharesRanges`.
    snapshot: str
    part: Range

    def encode(self) -> dict[str, Any]:
        """Return the JSON that the run store keeps while the range is loaded."""
        part = {"place": self.part.place, "label": self.part.label, "locator": dict(self.part.locator)}
        return {"number": self.number, "snapshot": self.snapshot, "part": part}

    @classmethod
    def of(cls, stream: str, document: Mapping[str, Any]) -> RangeOrder:
        """Read what `encode` wrote."""
        part = document["part"]
        return cls(
            stream=stream,
            number=int(document["number"]),
            snapshot=str(document["snapshot"]),
            part=Range(place=int(part["place"]), label=str(part["label"]), locator=dict(part["locator"])),
        )
