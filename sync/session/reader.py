"""A destination, read back: its connector as a source of the same place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.registry import make_source, settings_model
from syncblocks.connectors.stream import Stream, TableState

from .session import Session


@contextmanager
def destination_reader(session: Session) -> Iterator[Source]:
    """Open the destination as a source, for a while; its connections as a destination are closed before.

    Raises:
        ConnectorConfigError: the connector only writes.
    """
    session.destination.close()  # some databases open a file only once
    block = session.pipeline.destination
    kept = settings_model(block.connector, "source")
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


def copy_of(table: TableState, offered: Mapping[str, Stream]) -> Stream | None:
    """Return a table as a stream of its reader; None: there is no such table.

    A database's reader may not offer it: it stands outside the schema or database that `config` names, or this user may
    not read it. Then it is what the destination says of it.
    """
    found = offered.get(table.stream_name)
    if found is not None or table.schema is None:
        return found
    is_of_database = any(b"native_system" in (field.metadata or {}) for field in table.schema)
    return Stream(name=table.stream_name, schema=table.schema) if is_of_database else None


__all__ = ["copy_of", "destination_reader"]
