"""The two ends of a pipeline: its connectors, and what each of them can do."""

from __future__ import annotations

from dataclasses import dataclass

from syncblocks.connectors.abilities import Abilities
from syncblocks.connectors.protocols import Destination, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Source and destination of one opened pipeline."""

    source: Source
    #: Connector and place, as ledger and store keep it: without the secrets that a place may hold.
    source_name: str
    source_can: Abilities
    destination: Destination
    destination_can: Abilities


__all__ = ["Ends"]
