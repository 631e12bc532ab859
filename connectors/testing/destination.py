"""The promises of `protocols.Destination`, each as a test."""

from __future__ import annotations

from .destination_data import DataPromises
from .destination_ledger import LedgerPromises


class DestinationContract(DataPromises, LedgerPromises):
    """Subclass it as `TestMyDestination`; see `connectors.testing`."""
