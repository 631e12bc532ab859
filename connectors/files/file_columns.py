"""The columns `_file` and `_file_modified` of a stream of files."""

from __future__ import annotations

import pyarrow as pa

from ..errors import FatalConnectorError
from ..stream import FILE, FILE_MODIFIED, OF_FILE
from .paths import DataFile

FILE_COLUMNS = pa.schema(
    [pa.field(FILE, pa.string(), metadata={OF_FILE: b""}), (FILE_MODIFIED, pa.timestamp("us", "UTC"))]
)


def with_file_columns(stream: str, schema: pa.Schema) -> pa.Schema:
    """Return the schema with both columns at its end.

    Raises:
        FatalConnectorError: the files have such a column themselves.
    """
    taken = [name for name in FILE_COLUMNS.names if name in schema.names]
    if taken:
        raise FatalConnectorError(
            f"the files of stream {stream!r} have a column {taken[0]!r} of their own: leave `file_columns` out",
            key="file_columns",
        )
    return pa.schema([*schema, *FILE_COLUMNS])


def filled(batch: pa.RecordBatch, file: DataFile) -> pa.RecordBatch:
    """Return a batch with the name and the time of its file in those of the two columns that it has."""
    values = {FILE: file.name, FILE_MODIFIED: file.entry().modified}
    for field in FILE_COLUMNS:
        place = batch.schema.get_field_index(field.name)
        if place >= 0:
            single = pa.array([values[field.name]], field.type)
            column = single.take(pa.repeat(pa.scalar(0), batch.num_rows))
            batch = batch.set_column(place, batch.schema.field(place), column)
    return batch
