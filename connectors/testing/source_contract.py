"""The promises of `protocols.Source`, each as a test."""

from __future__ import annotations

from .source_bookmarks import BookmarkPromises
from .source_capabilities import SourceCapabilityPromises
from .source_records import RecordPromises


class SourceContract(SourceCapabilityPromises, RecordPromises, BookmarkPromises):
    """Subclass it as `TestMySource`; see `syncblocks.connectors.testing`."""
