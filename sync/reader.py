"""A destination, read back: its connector as a source of the same place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from connectors.errors import ConnectorConfigError
from connectors.protocols import Source
from connectors.registry import connector_class, make_source

from .session import Session


@contextmanager
def destination_reader(session: Session) -> Iterator[Source]:
    """Open the destination as a source, for a while; its connections as a destination are closed before.

    Raises:
        ConnectorConfigError: the connector only writes.
    """
    session.destination.close()  # some databases open a file only once
    block = session.pipeline.destination
    kept = getattr(connector_class(block.connector, "source"), "settings", None)
    if kept is None:
        raise ConnectorConfigError(f"connector {block.connector!r} only writes", connector=block.connector)
    # What concerns writing only (such as `compression`) a source does not know.
    known = {field.alias or name for name, field in kept.model_fields.items()} | set(kept.model_fields)
    config = {key: value for key, value in block.config.items() if key in known}
    reader = make_source(block.connector, config, session.pipeline.folder)
    try:
        yield reader
    finally:
        reader.close()


__all__ = ["destination_reader"]
