"""A load's wide records in pieces: DuckDB would hold up to 2,048 of them at once when it commits, whatever they weigh.

It writes a vector of a column from memory, and a vector holds 2,048 records unless their row group ends before. What
is appended after a checkpoint begins a row group of its own, so that staged records are committed and checkpointed as
soon as they have come to a few dozen megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from .database import Database
from .room import Room

#: A batch of a single wide record needs so many times its size in DuckDB.
_COPIES = 8


class Pieces:
    """Cuts batches into pieces, and makes room for each; narrow records are one piece, however many."""

    def __init__(
        self, batches: Iterator[pa.RecordBatch], schema: pa.Schema, database: Database, *, is_cut: bool
    ) -> None:
        """Rename the batches' columns as in the schema; without `is_cut` they are one piece."""
        self._batches = batches
        self._schema = schema
        self._database = database
        self._is_cut = is_cut
        self._threads = database.threads()
        #: What no checkpoint has written yet.
        self._room = self._empty()
        self._whole = self._empty()
        # The statement that asks for the first batch holds something of each column by then.
        database.make_room(self._room.size_bytes)
        self._is_over = False
        #: A piece was committed and is not in the file itself, since another load is in the way of a checkpoint.
        self.has_pending = False

    @property
    def whole_bytes(self) -> int:
        """Bytes that DuckDB needs to work on all that came so far."""
        return self._whole.size_bytes

    def has_more(self) -> bool:
        """Tell whether the last piece was cut; the next one may be empty all the same."""
        return not self._is_over

    def piece(self) -> Iterator[pa.RecordBatch]:
        """Yield batches up to where they must be committed, or to the end."""
        size_bytes = 0
        for batch in self._batches:
            size_bytes += batch.nbytes
            self._whole.add(batch)
            self._room.add(batch)
            self._database.make_room(self._room.size_bytes, most_bytes=_COPIES * batch.nbytes)
            yield pa.RecordBatch.from_arrays(batch.columns, schema=self._schema)
            del batch  # not held while the next one is made
            most_bytes = self._database.piece_bytes
            if self._is_cut and size_bytes >= most_bytes and self._room.vector_bytes >= most_bytes:
                return
        self._is_over = True

    def note_commit(self, *, is_checkpointed: bool) -> None:
        """Count anew what DuckDB holds."""
        self.has_pending = not is_checkpointed
        if is_checkpointed:
            self._room = self._empty()

    def _empty(self) -> Room:
        return Room(self._schema, self._threads)


__all__ = ["Pieces"]
