"""The promises of `protocols.Source`, each as a test."""

from __future__ import annotations

from .source_abilities import SourceAbilityPromises
from .source_bookmarks import BookmarkPromises
from .source_records import RecordPromises


class SourceContract(SourceAbilityPromises, RecordPromises, BookmarkPromises):
    """Subclass it as `TestMySource`; see `syncblocks.connectors.testing`."""
