"""Errors about NULL in a NOT NULL column: they name the destination's table, the column and a record."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa

from ...arrow import compute as pc
from ...errors import ConnectorError
from ...stream import Stream
from ..identifiers import TableName

#: Error texts of systems about a column that refuses NULL.
_REFUSED = re.compile(
    r"not.null|cannot be null|null values?\b|insert (the value )?null|\*\*\* null|null supplied", re.I
)


class Nulls:
    """Remembers the first record of a transaction with NULL in each column, for the error message."""

    def __init__(self, table: TableName) -> None:
        self._table = table
        #: Column of the table -> key of the first record with NULL there.
        self._first: dict[str, str] = {}

    def forget(self) -> None:
        """Begin a transaction."""
        self._first = {}

    def note(self, batch: pa.RecordBatch, stream: Stream, names: Mapping[str, str]) -> None:
        """Search a batch of the stream for NULLs; `names`: column of the stream -> column of the table."""
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if values.null_count and names[name] not in self._first:
                place = pc.index(pc.is_null(values), pc.constant(True)).as_py()
                self._first[names[name]] = shown_key(batch, place, stream.key_properties)

    def explain(self, error: ConnectorError, staging: str) -> None:
        """Name table, column and record in an error about NULL; `staging`: a name that users do not know."""
        text = str(error)
        if not _REFUSED.search(text):
            return
        named = [name for name in self._first if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.I)]
        error.renamed(staging, self._table.name)
        if len(named) == 1:
            error.extended(before=f"{refused(self._table, named[0], self._first[named[0]])} (", after=")")
        else:
            error.extended(after=f"; {self._table} refuses NULL there: {_WAYS_OUT}")


_WAYS_OUT = "`on_rejected: keep` sets such records aside; or exclude the column with `columns`, or allow NULL in it"


def reason(table: TableName, column: str) -> str:
    """Return the reason why a record with NULL in a column is rejected."""
    return f"column {column!r} of {table} refuses NULL"


def refused(table: TableName, column: str, key: str) -> str:
    """Return the error text for a record with NULL in a column; `key` comes from `shown_key`."""
    record = f"the record {key}" if key else "a record"
    return f"{reason(table, column)}, but {record} has no value for it: {_WAYS_OUT}"


def shown_key(batch: pa.RecordBatch, place: int, key: Sequence[str]) -> str:
    """Return the key of one record of a batch: `id = 7`; empty without a key."""
    present = [name for name in key if name in batch.schema.names]
    return shown_values(present, [batch.column(name)[place].as_py() for name in present])


def shown_values(names: Sequence[str], values: Sequence[object]) -> str:
    """Show the values of some columns: `id = 7`."""
    return ", ".join(f"{name} = {value!r}" for name, value in zip(names, values, strict=True))


__all__ = ["Nulls", "reason", "refused", "shown_key", "shown_values"]
