"""Make the source that reads what a pipeline's destination holds. Opens nothing."""

from __future__ import annotations

from syncblocks.connectors.capabilities import capabilities_of
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.registry import make_reader as make_reader_of
from syncblocks.connectors.registry import settings_model
from syncblocks.connectors.settings import known_settings

from ..config import Pipeline


def make_reader(pipeline: Pipeline) -> Source | None:
    """Make the source that reads a pipeline's destination; None: the connector only writes. Opens nothing.

    Raises:
        ConnectorConfigError: the connector has no source.
    """
    block = pipeline.destination
    kept = settings_model(block.connector, "reader", pipeline.folder)
    if kept is None:
        return None
    return make_reader_of(block.connector, known_settings(kept, block.config), pipeline.folder)


def checksums_of_destination(pipeline: Pipeline) -> str | None:
    """Return the system that computes checksums of the destination's tables.

    Empty: none does, the records are read. None: they cannot be read either.
    """
    reader = make_reader(pipeline)
    if reader is None:
        return None
    own = capabilities_of(reader).computes_checksums
    return "" if own is None else own.checksum_system()
