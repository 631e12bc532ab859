"""The two connectors of an opened pipeline, with their abilities."""

from __future__ import annotations

from dataclasses import dataclass

from syncblocks.connectors.abilities import Abilities
from syncblocks.connectors.protocols import Destination, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Connectors:
    """Source and destination of one opened pipeline."""

    source: Source
    #: Connector and place, as ledger and run store keep it: without secrets.
    source_name: str
    source_can: Abilities
    destination: Destination
    destination_can: Abilities
