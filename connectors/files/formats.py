"""The interface of a file format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from ..arrow.conform import plain_type, reason
from ..arrow.type_names import yaml_text
from ..errors import FatalConnectorError
from ..field_facts import Precision, TypeOrigin, facts_of, with_facts
from .paths import UNREADABLE, DataFile
from .read_rejections import ReadRejections, no_such
from .settings import FileSourceSettings
from .split_files import Unit

#: Bytes of a stream's files from which types are inferred; smaller files are read whole.
INFER_BYTES = 64 << 20
#: Bytes of JSON that are parsed at once: objects of Python take several times as many.
_CHUNK_BYTES = 1 << 20
#: What a time with a zone ends with, quoted or not.
ZONED = re.compile(r"\d\d(?:Z|[+-]\d\d:?\d\d)\"?$")


#: An integer of 64 bits at most, but for some of 19 digits.
_INTEGER = re.compile("-?[0-9]{1,19}")


class Writer(Protocol):
    """Writes batches of one schema into an open file; the file's owner closes it."""

    def write(self, batch: pa.RecordBatch) -> None: ...
    def close(self) -> None:
        """Write buffered records and the end of the file."""
        ...

    def abandon(self) -> None:
        """Close a file that will not be used; raise nothing."""
        ...


class Format(Protocol):
    """Reads and writes files of one format."""

    #: Suffix of files that are written, without the dot.
    suffix: str
    #: Suffixes of files that are read, with the dot.
    suffixes: Sequence[str]
    #: How files are written, where that is not the usual way; files written in two ways are no table.
    written: Mapping[str, Any]

    def names(self, file: DataFile) -> list[str] | None:
        """Return the names in the file's header or schema; None for a format that has neither."""
        ...

    def schema(self, files: Sequence[DataFile], budget_bytes: int) -> pa.Schema:
        """Return the columns of all files, with types that their first bytes (or their metadata) fit.

        Read at least the first block of each file. A column without a value is text.
        """
        ...

    def read(
        self, file: DataFile, wanted: pa.Schema, known: frozenset[str], rejected: ReadRejections | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches of the wanted columns; a column that the file lacks is NULL.

        Records that do not fit go into `rejected`, at the latest when the iterator ends; None: the first one is an
        error. A format without a header yields a wider batch for a column that is neither wanted nor known.

        Raises:
            FatalConnectorError: a value does not fit; the message has file, line and column.
        """
        ...

    def number_texts(self, file: DataFile, columns: Sequence[str]) -> Iterator[Mapping[str, pa.Array]]:
        """Yield the numbers of some columns as they are written; asked of columns that are undecided only."""
        ...

    def count(self, file: DataFile) -> int: ...

    def unit(self, file: DataFile) -> Unit:
        """Return what parts of a file are counted in; empty: `split` does not split it."""
        ...

    def split(self, file: DataFile, count: int, range_bytes: int) -> list[tuple[DataFile, str]]:
        """Return parts of a file that are read on their own, and what to call them; one part: it is read as a whole."""
        ...

    def stored(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema as this format keeps it, without dictionaries, views and other encodings."""
        ...

    def written_type(self, kind: pa.DataType) -> pa.DataType:
        """Return the type that a column of this type has in a file; of untyped formats, the type itself."""
        ...

    def has_type(self, kind: pa.DataType) -> bool:
        """Tell whether the format can write values of the type."""
        ...

    def keeps_as_text(self, kind: pa.DataType) -> bool:
        """Tell whether the format lacks the type, so that `arrow.text.to_text` writes its values."""
        ...

    def writer(self, sink: BinaryIO, schema: pa.Schema) -> Writer: ...

    @property
    def needs_equal_columns(self) -> bool:
        """Tell whether other programs need the same columns in all files of a table."""
        ...


class BoundedFormat(Protocol):
    """A format whose records have no end that is known before it is found."""

    #: Most bytes of a record.
    record_bytes: int


def next_chunk(file: DataFile, opened: BinaryIO) -> bytes:
    """Read the next piece of a file of JSON; nothing at its end.

    Raises:
        FatalConnectorError: it cannot be read, or not be decompressed.
    """
    try:
        return opened.read(_CHUNK_BYTES)
    except UNREADABLE as error:
        raise unreadable(file, error) from error


def unreadable(file: DataFile, error: Exception) -> FatalConnectorError:
    """Return the error for a file that cannot be read, or not be decompressed."""
    said = reason(error)
    if "sequence of calls to bz2" in said:  # what Arrow says of a member without content that others follow
        said = "one of its bzip2 parts is empty: unpack the file and compress it again"
    return FatalConnectorError(f"{file.label}: cannot be read: {said}")


def unfit(where: str, field: pa.Field, value: object) -> FatalConnectorError:
    """Return the error for a value that does not have its column's type, with the value's place."""
    name = yaml_text(field.name)
    mend = f"`config.types: {{{name}: string}}` reads it as text"
    facts = facts_of(field)
    if facts.origin is not TypeOrigin.SOURCE:
        # The stream's own `types` wins over `config.types`, which may be what the value does not fit.
        mend = f"`types: {{{name}: string}}` in this stream reads it as text"
    if facts.origin is TypeOrigin.TABLE or facts.precision is Precision.WIDENS:
        mend = f"the table's column decides; {mend}, together with `on_schema_change: widen` or --full-refresh"
        if pa.types.is_integer(field.type) and _INTEGER.fullmatch(str(value)) and -(2**63) <= int(str(value)) < 2**63:
            mend = f"the table's column decides; `types: {{{name}: bigint}}` of the stream makes it wider"
    if pa.types.is_timestamp(field.type) and field.type.tz is not None:
        mend += ", `config.timezone` sets the zone of times without one"
    elif pa.types.is_timestamp(field.type) and ZONED.search(str(value)):
        mend += f", `{name}: timestamptz` reads times with a zone"
    return FatalConnectorError(f"{where}: {no_such(field.name, value, field.type)}; {mend}", key="types")


def demand_columns(file: DataFile, columns: int, settings: FileSourceSettings) -> None:
    """Raise if a stream has more columns than it may have."""
    if columns > settings.max_columns:
        raise FatalConnectorError(
            f"{file.label}: more than {settings.max_columns:,} columns; `config.max_columns` allows more",
            key="max_columns",
        )


def plain(schema: pa.Schema) -> pa.Schema:
    """Return the schema without encodings, and without metadata except `native_type`."""
    fields = []
    for field in schema:
        made = pa.field(field.name, plain_type(field.type), field.nullable)
        fields.append(with_facts(made, native_type=facts_of(field).native_type))
    return pa.schema(fields)


def sliced(batch: pa.RecordBatch, size: int) -> Iterator[pa.RecordBatch]:
    """Yield the batch in parts of at most `size` records."""
    if batch.num_rows <= size:
        yield batch
        return
    for start in range(0, batch.num_rows, size):
        yield batch.slice(start, size)
