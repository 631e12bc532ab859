"""Stages wide records in pieces of a few dozen megabytes; each piece is committed and checkpointed.

DuckDB writes a column from memory in vectors of 2,048 records, even for wide records; only the end of a row group ends
a vector earlier. Records that are appended after a checkpoint begin a new row group.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pyarrow as pa

from .database import DuckDBInstance
from .memory import MemoryNeed

#: A batch with a single wide record needs this multiple of its size in DuckDB.
_COPIES = 8


class Pieces:
    """Cuts batches into pieces, and raises the memory limit for each; narrow records are always one piece."""

    def __init__(
        self, batches: Iterator[pa.RecordBatch], schema: pa.Schema, database: DuckDBInstance, *, is_cut: bool
    ) -> None:
        """Give the batches the schema's column names; without `is_cut` they are one piece."""
        self._batches = batches
        self._schema = schema
        self._database = database
        self._is_cut = is_cut
        self._threads = database.threads()
        #: Memory for data that no checkpoint has written yet.
        self._need = self._empty()
        self._whole = self._empty()
        # The statement that asks for the first batch already uses memory for each column.
        database.ensure_memory(self._need.size_bytes)
        self._is_over = False
        #: A committed piece is only in the log: another load prevents the checkpoint.
        self.has_pending = False

    @property
    def whole_bytes(self) -> int:
        """Bytes that DuckDB needs to process all batches so far."""
        return self._whole.size_bytes

    def has_more(self) -> bool:
        """Return whether the last piece was cut; the next one may still be empty."""
        return not self._is_over

    def is_wide(self) -> bool:
        """Wait for the first batch, and return whether its records are wide enough to be cut."""
        first = next(self._batches, None)
        if first is None:
            return False
        self._batches = chain([first], self._batches)
        need = self._empty()
        need.add(first)
        return self._is_cut and need.vector_bytes >= self._database.piece_bytes

    def piece(self) -> Iterator[pa.RecordBatch]:
        """Yield batches up to the next necessary commit, or to the end."""
        size_bytes = 0
        for batch in self._batches:
            size_bytes += batch.nbytes
            self._whole.add(batch)
            self._need.add(batch)
            self._database.ensure_memory(self._need.size_bytes, most_bytes=_COPIES * batch.nbytes)
            yield pa.RecordBatch.from_arrays(batch.columns, schema=self._schema)
            del batch  # released before the next batch is made
            most_bytes = self._database.piece_bytes
            if self._is_cut and size_bytes >= most_bytes and self._need.vector_bytes >= most_bytes:
                return
        self._is_over = True

    def note_commit(self, *, is_checkpointed: bool) -> None:
        """Note a commit: after a checkpoint DuckDB has nothing of the earlier batches in memory."""
        self.has_pending = not is_checkpointed
        if is_checkpointed:
            self._need = self._empty()

    def _empty(self) -> MemoryNeed:
        return MemoryNeed(self._schema, self._threads)


__all__ = ["Pieces"]
