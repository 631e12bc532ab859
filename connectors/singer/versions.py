"""ACTIVATE_VERSION in our target: what a table holds of older versions of a stream goes.

Every record of a stream whose messages number versions carries its own, in a column as other targets have it: a tap
that goes on with a version that an earlier run has begun does not send those records again. A table with a key loses
the others by their keys; one without is written anew from what stays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ..abilities import abilities_of
from ..arrow import compute as pc
from ..errors import FatalConnectorError
from ..protocols import Destination, Source
from ..stream import ReplicationMethod, Stream, TableState
from .plugin_config import make_connector
from .types import Column, columns_of

#: Holds the version of each record.
VERSION = "_sdc_table_version"


def version_column() -> Column:
    """Return the column that holds versions."""
    (column,) = columns_of({"properties": {VERSION: {"type": ["null", "integer"]}}})
    return column


class OlderVersions:
    """What one table holds of versions before one, read back from the destination."""

    def __init__(self, connector: str, config: Mapping[str, Any], destination: Destination, table: str) -> None:
        self._connector, self._config, self._table = connector, config, table
        self._destination = destination
        self._state: TableState = destination.describe([table])[table]

    @property
    def is_there(self) -> bool:
        """Whether there is a table at all."""
        return self._state.schema is not None

    def keys(self, key_properties: Sequence[str], version: int) -> pa.Table | None:
        """Return the keys, named as they arrive, of records of older versions or of none; None: there are none."""
        naming = abilities_of(self._destination).names_columns
        names: Mapping[str, str] = {name: name for name in key_properties}
        if naming is not None:
            names = naming.column_names(list(key_properties), self._state)
        with self._reader() as (source, stream):
            held = _only(stream, [*names.values(), VERSION])
            batches = [batch.filter(_is_older(batch, version)) for batch in _batches(source, held)]
        found = pa.Table.from_batches([batch for batch in batches if batch.num_rows], schema=held.schema)
        if not found.num_rows:
            return None
        return found.select(list(names.values())).rename_columns(list(names))

    @contextmanager
    def rest(self, version: int) -> Iterator[tuple[Stream, Iterator[pa.RecordBatch]] | None]:
        """Give the table as a stream with the records that stay, kept in a file meanwhile; None: all stay."""
        with tempfile.TemporaryFile() as file:
            with self._reader() as (source, stream):
                is_any = False
                with pa.ipc.new_stream(file, stream.schema) as writer:
                    for batch in _batches(source, stream):
                        is_older = _is_older(batch, version)
                        is_any = is_any or pc.any(is_older).as_py() is True
                        writer.write_batch(batch.filter(pc.invert(is_older)).cast(stream.schema))
            file.seek(0)
            yield (stream, iter(pa.ipc.open_stream(file))) if is_any else None

    @contextmanager
    def _reader(self) -> Iterator[tuple[Source, Stream]]:
        """Open the destination as a source; its own connections are closed: some databases open a file only once."""
        self._destination.close()
        source: Source = make_connector(self._connector, "source", self._config)
        with closing(source):
            name = self._state.stream_name
            found = next((stream for stream in source.discover() if stream.name == name), None)
            if found is None:
                raise FatalConnectorError(
                    f"table {self._table!r} cannot be read back, so that records of older versions cannot be removed; "
                    "`process_activate_version_messages: false` leaves them"
                )
            yield source, replace(found, replication_method=ReplicationMethod.FULL_TABLE, max_rejected=None)


def _only(stream: Stream, names: Sequence[str]) -> Stream:
    return replace(stream, schema=pa.schema([field for field in stream.schema if field.name in names]))


def _batches(source: Source, stream: Stream) -> Iterator[pa.RecordBatch]:
    for _, event in source.read([stream], {stream.name: None}):
        if isinstance(event, pa.RecordBatch):
            yield event


def _is_older(batch: pa.RecordBatch, version: int) -> pa.Array:
    """Tell of each record whether its version is older, or it has none."""
    if VERSION not in batch.schema.names:
        return pa.repeat(pc.constant(True), batch.num_rows)
    return pc.fill_null(pc.less(pc.cast(batch.column(VERSION), pa.int64()), version), True)


__all__ = ["VERSION", "OlderVersions", "version_column"]
