"""The promises of `protocols.Destination`, each as a test."""

from __future__ import annotations

from .destination_capabilities import DestinationCapabilityPromises
from .destination_ledger import LedgerPromises
from .destination_merges import MergePromises
from .destination_rejected import RejectedPromises
from .destination_writes import DataPromises
from .destination_written_ranges import WrittenRangePromises


class DestinationContract(
    DestinationCapabilityPromises, DataPromises, LedgerPromises, MergePromises, RejectedPromises, WrittenRangePromises
):
    """Subclass it as `TestMyDestination`; see `syncblocks.connectors.testing`."""
