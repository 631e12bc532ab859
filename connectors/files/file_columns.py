"""Columns whose values are not in the files: of folders' names, and `_file`, `_file_modified` and `_file_row`."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from ..arrow.text import from_text
from ..errors import FatalConnectorError
from ..field_facts import with_facts
from ..stream import FILE, FILE_MODIFIED, FILE_ROW
from .formats import unfit
from .paths import DataFile
from .settings import FileSourceSettings

FILE_COLUMNS = pa.schema(
    [with_facts(pa.field(FILE, pa.string()), of_file=True), (FILE_MODIFIED, pa.timestamp("us", "UTC"))]
)

ROW_COLUMN = with_facts(pa.field(FILE_ROW, pa.int64()), is_row=True)


def with_file_columns(stream: str, schema: pa.Schema, settings: FileSourceSettings) -> pa.Schema:
    """Return the schema with the columns that the settings ask for at its end.

    Raises:
        FatalConnectorError: the files have such a column themselves.
    """
    added = [*(FILE_COLUMNS if settings.file_columns else ()), *([ROW_COLUMN] if settings.file_rows else [])]
    taken = [field.name for field in added if field.name in schema.names]
    if taken:
        key = "file_rows" if taken[0] == FILE_ROW else "file_columns"
        raise FatalConnectorError(
            f"the files of stream {stream!r} already have a column {taken[0]!r}: remove `{key}`", key=key
        )
    return pa.schema([*schema, *added])


def numbered(batch: pa.RecordBatch, before: int) -> pa.RecordBatch:
    """Return a batch with the numbers of its records in their file, if it has that column; `before`: records before."""
    place = batch.schema.get_field_index(FILE_ROW)
    if place < 0:
        return batch
    numbers = pa.array(range(before + 1, before + batch.num_rows + 1), pa.int64())
    return batch.set_column(place, batch.schema.field(place), numbers)


def filled(batch: pa.RecordBatch, file: DataFile) -> pa.RecordBatch:
    """Return a batch with the name and the time of its file in those of the two columns that it has.

    Raises:
        FatalConnectorError: the name is no text.
    """
    values = {FILE: file.name, FILE_MODIFIED: file.entry().modified}
    for field in FILE_COLUMNS:
        place = batch.schema.get_field_index(field.name)
        if place >= 0:
            try:
                single = pa.array([values[field.name]], field.type)
            except UnicodeEncodeError as error:
                raise FatalConnectorError(
                    f"the name of the file {file.label!r} is not valid UTF-8: rename the file", key="file_columns"
                ) from error
            column = single.take(pa.repeat(pa.scalar(0), batch.num_rows))
            batch = batch.set_column(place, batch.schema.field(place), column)
    return batch


def marked_in_paths(schema: pa.Schema, files: Iterable[DataFile]) -> pa.Schema:
    """Return the columns; those of folders' names are marked."""
    in_paths = {name for file in files for name, _ in file.partitions}
    if in_paths.isdisjoint(schema.names):
        return schema
    fields = [with_facts(field, in_path=True) if field.name in in_paths else field for field in schema]
    return pa.schema(fields)


def with_partitions(file: DataFile, batch: pa.RecordBatch, own: frozenset[str]) -> pa.RecordBatch:
    """Return a batch with the values of its folders' names in the columns that the file itself lacks.

    Args:
        file: the batch's.
        batch: with a column for each folder's name, or without.
        own: names of the columns that the file has; empty: not known.

    Raises:
        FatalConnectorError: a value is none of its column's type.
    """
    for name, value in file.partitions:
        place = batch.schema.get_field_index(name)
        if place < 0 or name in own or (not own and batch.column(place).null_count < batch.num_rows):
            continue
        field = batch.schema.field(place)
        try:
            single = from_text(pa.array([value], pa.string()), field.type, is_empty_null=True)
        except (ValueError, pa.ArrowException) as error:
            raise unfit(file.label, field, value) from error
        batch = batch.set_column(place, field, single.take(pa.repeat(0, batch.num_rows)))
    return batch
