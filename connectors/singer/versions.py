"""ACTIVATE_VERSION in a target: remove a table's records of older versions of the stream.

If messages have versions, every record keeps its version in a column, as in other targets: a tap that goes on with the
version of an earlier run does not send those records again. From a table with a key, older records are removed by their
keys; a table without a key is written anew from the records that stay.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pyarrow as pa

from ..arrow import compute as pc
from ..capabilities import capabilities_of
from ..errors import FatalConnectorError
from ..programs.types import PropertyColumn, columns_of
from ..protocols import Destination, Source
from ..read_spec import ReplicationMethod
from ..stream import Stream, TableState
from ..struct_helpers import replace
from .plugin_config import make_connector

#: Column of the version of each record.
VERSION = "_sdc_table_version"


def version_column() -> PropertyColumn:
    """Return the field of the version column."""
    (column,) = columns_of({"properties": {VERSION: {"type": ["null", "integer"]}}})
    return column


class OlderVersions:
    """The records of one table with older versions than one, read back from the destination."""

    def __init__(self, connector: str, config: Mapping[str, Any], destination: Destination, table: str) -> None:
        self._connector, self._config, self._table = connector, config, table
        self._destination = destination
        self._state: TableState = destination.describe([table])[table]

    @property
    def is_there(self) -> bool:
        """Whether the table exists."""
        return self._state.schema is not None

    def keys(self, key_properties: Sequence[str], version: int) -> pa.Table | None:
        """Return the keys of records with an older version or none, under the stream's names; None: there are none."""
        naming = capabilities_of(self._destination).names_columns
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
        """Yield the stream of the records that stay, kept in a file; None: all records stay."""
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
        """Open the destination as a source, after closing it: some databases open a file only once."""
        self._destination.close()
        source: Source = make_connector(self._connector, "reader", self._config)
        with closing(source):
            name = self._state.stream_name
            found = next((stream for stream in source.discover() if stream.name == name), None)
            if found is None:
                raise FatalConnectorError(
                    f"table {self._table!r} cannot be read, so records of older versions cannot be removed; "
                    "`process_activate_version_messages: false` keeps them"
                )
            yield (
                source,
                replace(found, read=replace(found.read, method=ReplicationMethod.FULL_TABLE, max_rejected=None)),
            )


def _only(stream: Stream, names: Sequence[str]) -> Stream:
    return replace(stream, schema=pa.schema([field for field in stream.schema if field.name in names]))


def _batches(source: Source, stream: Stream) -> Iterator[pa.RecordBatch]:
    for _, event in source.read([stream], {stream.name: None}):
        if isinstance(event, pa.RecordBatch):
            yield event


def _is_older(batch: pa.RecordBatch, version: int) -> pa.Array:
    """Return a mask of the records with an older version, or none."""
    if VERSION not in batch.schema.names:
        return pa.repeat(pc.constant(True), batch.num_rows)
    return pc.fill_null(pc.less(pc.cast(batch.column(VERSION), pa.int64()), version), True)


__all__ = ["VERSION", "OlderVersions", "version_column"]
