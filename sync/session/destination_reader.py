"""The destination opened for reading: its connector as a source of the same place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa

from syncblocks.connectors.capabilities import Capabilities, capabilities_of
from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.field_facts import facts_of
from syncblocks.connectors.log_based import DELETES
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.read_spec import Condition
from syncblocks.connectors.replace_range import has_times
from syncblocks.connectors.stream import DELETED_AT, VALID_TO, Stream, TableState
from syncblocks.connectors.struct_helpers import replace

from ..config import Pipeline
from ..flow.filtered import FilteredSource
from ..plan.features.replace_range import conditions_of
from ..plan.policy import Configured
from .read_back import make_reader
from .session import PipelineSession


class DestinationReader(NamedTuple):
    """The destination as a source that filters every stream, and its capabilities."""

    source: Source
    can: Capabilities


@contextmanager
def destination_reader(session: PipelineSession) -> Iterator[DestinationReader]:
    """Open the destination as a source; closes its own connections first.

    Raises:
        ConnectorConfigError: the connector cannot read.
    """
    session.destination.close()  # some databases can open a file only once
    with reader_of(session.pipeline) as reader:
        yield reader


@contextmanager
def reader_of(pipeline: Pipeline) -> Iterator[DestinationReader]:
    """Open a pipeline's destination as a source, beside the connections that write it.

    Raises:
        ConnectorConfigError: the connector cannot read.
    """
    made = make_reader(pipeline)
    if made is None:
        name = pipeline.destination.connector
        raise ConnectorConfigError(f"connector {name!r} only writes", connector=name)
    reader = FilteredSource(made, capabilities_of(made))
    try:
        yield DestinationReader(reader, reader.adapted())
    finally:
        reader.close()


def offered_streams(reader: DestinationReader, tables: Collection[TableState]) -> dict[str, Stream]:
    """Return the reader's streams by name; only those of some tables, if it can open them alone."""
    lists = reader.can.lists_streams
    found = reader.source.discover() if lists is None else lists.open_streams({table.stream_name for table in tables})
    return {stream.name: stream for stream in found}


def live_records(copy: Stream, selected: Configured) -> Stream:
    """Leave out former versions of a history, and records that `deletes: soft` has marked as deleted."""
    is_marked = selected.policy.deletes is not None and selected.policy.deletes.is_soft
    is_marked |= selected.stream.locator.get(DELETES) == "soft"
    name = VALID_TO if selected.policy.added.history is not None else DELETED_AT if is_marked else ""
    # Columns of files may have no name.
    found = [field for field in copy.schema if name and field.name.casefold() == name]
    return (
        replace(
            copy, read=replace(copy.read, where=tuple(Condition(field=field, operator="is_null") for field in found))
        )
        if found
        else copy
    )


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
    is_of_database = any(facts_of(field).native_system for field in table.schema)
    return Stream(name=table.stream_name, schema=table.schema) if is_of_database else None


def described(offered: pa.Schema, known: pa.Schema) -> pa.Schema:
    """Return a table's columns as its reader offers them, if it knows their types; else as its destination does."""
    if any(facts_of(field).native_type for field in offered):
        return offered
    return pa.schema([field for field in known if field.name in offered.names] or list(offered))


def within(copy: Stream, table: TableState, column: str, interval: tuple[datetime, datetime]) -> Stream | None:
    """Return a destination table with the records of an interval only; None: its column holds no days or times.

    Args:
        copy: as `copy_of` returned it; the reader is a `FilteredSource`.
        table: as the destination describes it.
        column: the table's.
        interval: start and end; the end is not in it.
    """
    schema = copy.schema if table.schema is None else described(copy.schema, table.schema)
    field = next((each for each in schema if each.name.casefold() == column.casefold()), None)
    if field is None or not has_times(field.type):
        return None
    return replace(copy, read=replace(copy.read, where=conditions_of(field, interval)))
