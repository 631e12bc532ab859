"""The destination opened for reading: its connector as a source of the same place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from syncblocks.connectors.abilities import abilities_of
from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.registry import make_source, settings_model
from syncblocks.connectors.stream import Stream, TableState

from .session import Session
from .statements import known_settings


@contextmanager
def destination_reader(session: Session) -> Iterator[Source]:
    """Open the destination as a source; closes its own connections first.

    Raises:
        ConnectorConfigError: the connector cannot read.
    """
    session.destination.close()  # some databases can open a file only once
    block = session.pipeline.destination
    kept = settings_model(block.connector, "source")
    if kept is None:
        raise ConnectorConfigError(f"connector {block.connector!r} only writes", connector=block.connector)
    reader = make_source(block.connector, known_settings(kept, block.config), session.pipeline.folder)
    try:
        yield reader
    finally:
        reader.close()


def offered_streams(reader: Source, tables: Collection[TableState]) -> dict[str, Stream]:
    """Return the reader's streams by name; only those of some tables, if it can open them alone."""
    lists = abilities_of(reader).lists_streams
    found = reader.discover() if lists is None else lists.open_streams({table.stream_name for table in tables})
    return {stream.name: stream for stream in found}


def copy_of(table: TableState, offered: Mapping[str, Stream]) -> Stream | None:
    """Return a destination table as a stream of the reader; None if the table does not exist.

    A database may not offer the table: it is outside the schema that `config` names, or the user may not read it. The
    stream is then made from the destination's description of the table.

    Raises:
        FatalConnectorError: the table is there, and cannot be read.
    """
    found = offered.get(table.stream_name)
    if found is not None and found.unreadable:
        raise FatalConnectorError(found.unreadable, stream=found.name)
    if found is not None or table.schema is None:
        return found
    is_of_database = any(b"native_system" in (field.metadata or {}) for field in table.schema)
    return Stream(name=table.stream_name, schema=table.schema) if is_of_database else None
