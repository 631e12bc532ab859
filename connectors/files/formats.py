"""What a file format is to the rest of the package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

import pyarrow as pa

from ..arrow.conform import plain_type
from ..errors import FatalConnectorError
from .paths import DataFile
from .read_rejections import ReadRejections, no_such

#: Bytes of a stream's files that its types are inferred from; files of up to this size are seen whole.
INFER_BYTES = 64 << 20


class Writer(Protocol):
    """Writes batches of one schema into an open file; the file's owner closes it."""

    def write(self, batch: pa.RecordBatch) -> None: ...
    def close(self) -> None:
        """Write what is held back and the end of the file."""
        ...

    def abandon(self) -> None:
        """Let go of a file that nobody will read; raises nothing."""
        ...


class Format(Protocol):
    """One format."""

    #: Suffix of files that are written, without the dot.
    suffix: str
    #: Suffixes that belong to it, with the dot.
    suffixes: Sequence[str]

    def names(self, file: DataFile) -> list[str] | None:
        """Return the columns that the file itself names; None for a format without a header."""
        ...

    def schema(self, files: Sequence[DataFile], budget_bytes: int) -> pa.Schema:
        """Return the columns of all files, with types that their first bytes (or their metadata) fit.

        At least the first block of each file is looked at. A text column where nothing was seen is text.
        """
        ...

    def read(
        self, file: DataFile, wanted: pa.Schema, known: frozenset[str], rejected: ReadRejections | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches of the wanted columns; a column that the file lacks is NULL.

        Records that do not fit go into `rejected`, at the latest when the iterator ends; None: the first one is an
        error. A format without a header yields a wider batch for a column that is neither wanted nor known.

        Raises:
            FatalConnectorError: with file, line and column, where a value does not fit.
        """
        ...

    def count(self, file: DataFile) -> int: ...

    def stored(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema as this format keeps it (indexes of dictionaries, views and the like undone)."""
        ...

    def has_type(self, kind: pa.DataType) -> bool:
        """Tell whether values of the type can be written at all."""
        ...

    def keeps_as_text(self, kind: pa.DataType) -> bool:
        """Tell whether the format has no such type, so that values are written as `text.to_text` does."""
        ...

    def writer(self, sink: BinaryIO, schema: pa.Schema) -> Writer: ...

    @property
    def needs_equal_columns(self) -> bool:
        """Tell whether all files of a table must have the same columns for others to read them together."""
        ...


def unfit(file: DataFile, line: int | None, column: str, value: object, kind: pa.DataType) -> FatalConnectorError:
    """Return the error for a value that is none of its column's type."""
    where = f"{file.label}:{line}" if line else file.label
    mend = f"`config.types: {{{column}: string}}` takes it as text"
    return FatalConnectorError(f"{where}: {no_such(column, value, kind)}; {mend}", key="types")


def plain(schema: pa.Schema) -> pa.Schema:
    """Return the schema without encodings and without metadata but `native_type`."""
    fields = []
    for field in schema:
        native = (field.metadata or {}).get(b"native_type")
        metadata = {b"native_type": native} if native else None
        fields.append(pa.field(field.name, plain_type(field.type), field.nullable, metadata))
    return pa.schema(fields)


def sliced(batch: pa.RecordBatch, size: int) -> Iterator[pa.RecordBatch]:
    """Yield the batch in parts of at most so many records."""
    if batch.num_rows <= size:
        yield batch
        return
    for start in range(0, batch.num_rows, size):
        yield batch.slice(start, size)
