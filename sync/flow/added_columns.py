"""Columns that the engine adds (`add_columns`): one value in all records of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.arrow.type_names import type_text
from syncblocks.connectors.stream import VALID_FROM, VALID_TO, Stream
from syncblocks.connectors.struct_helpers import replace

from ..errors import SyncError

if TYPE_CHECKING:
    from .history import HistoryColumns


class ColumnTaken(SyncError):
    """A column of `add_columns` has the name of an existing column."""

    code = "column_taken"


class AddedColumn(Struct, frozen=True, kw_only=True):
    """One column, and its value in this run."""

    field: pa.Field
    value: pa.Scalar
    #: A merge keeps the value of an existing record.
    is_kept: bool = False

    def __str__(self) -> str:
        """Return it as text for users: `_synced_at (timestamptz) = 2026-01-31 ..., kept on update`."""
        shown = f"{self.field.name} ({type_text(self.field.type)}) = {self.value}"
        return f"{shown}, kept on update" if self.is_kept else shown


class AddedColumns(Struct, frozen=True):
    """The columns added to a stream, after its own; none: the stream stays unchanged."""

    columns: tuple[AddedColumn, ...] = ()
    #: The times of versions, for `write_disposition: history`.
    history: HistoryColumns | None = None

    def __bool__(self) -> bool:
        return bool(self.columns) or self.history is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        times = () if self.history is None else self.history.names
        return (*(column.field.name for column in self.columns), *times)

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of columns that an update does not change."""
        return tuple(column.field.name for column in self.columns if column.is_kept)

    def taken(self, names: Iterable[str]) -> str:
        """Return the name of an added column that a stream with these columns already has; empty: none."""
        known = {name.casefold() for name in names}
        return next((name for name in self.names if name.casefold() in known), "")

    def stream(self, stream: Stream) -> Stream:
        """Return the stream with the columns; a version of a record is identified by its time as well."""
        keys = stream.key_properties if self.history is None else (*stream.key_properties, *self.history.keys)
        return replace(stream, schema=self.schema(stream.schema), key_properties=keys) if self else stream

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return a stream's columns with the added ones.

        Raises:
            ColumnTaken: the stream already has such a column (from a transformer).
        """
        if taken := self.taken(schema.names):
            whose = "of add_columns" if taken not in (VALID_FROM, VALID_TO) else "of a history"
            raise ColumnTaken(f"column {taken!r} {whose} is one of the stream's own: give it another name")
        times = () if self.history is None else self.history.fields
        return pa.schema([*schema, *(column.field for column in self.columns), *times], schema.metadata)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with the columns."""
        if not self:
            return batch
        added = [pa.repeat(column.value, batch.num_rows) for column in self.columns]
        added += [] if self.history is None else self.history.arrays(batch)
        return pa.RecordBatch.from_arrays([*batch.columns, *added], schema=self.schema(batch.schema))
