"""One side of a comparison: its checksums, its records within ranges of keys, and its keys as texts.

A database that can do so computes its own checksums. The records of any other connector go through DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pyarrow as pa
from msgspec import Struct

from ..plan.reading import computing

if TYPE_CHECKING:  # every run imports this module, few compare
    from syncblocks.connectors.capabilities import Capabilities
    from syncblocks.connectors.checksums import Checksums, KeyRange, Side
    from syncblocks.connectors.compared_values import Key
    from syncblocks.connectors.protocols import Source
    from syncblocks.connectors.stream import Event, Stream


def only_columns(schema: pa.Schema, names: set[str]) -> pa.Schema:
    return pa.schema([field for field in schema if field.name in names])


def system_of(can: Capabilities, stream: Stream) -> str:
    """Return the system that computes the checksums: `postgres`, `mysql` or `duckdb`."""
    own = computing(can, stream)
    return "duckdb" if own is None else own.checksum_system()


class SideReader(Struct, frozen=True):
    """A connector, its capabilities, and the table that it reads for a comparison."""

    source: Source
    can: Capabilities
    side: Side
    #: What may be held of the keys and hashes of records that go through DuckDB; None: its default.
    memory_bytes: int | None = None

    def checksums(self) -> AbstractContextManager[Checksums]:
        """Open the side's checksums; they are closed with the context."""
        own = computing(self.can, self.side.stream)
        if own is not None and not any(column.is_read for column in self.side.columns):
            return own.checksums(self.side)
        from syncblocks.connectors.duckdb.record_checksums import MEMORY_BYTES, checksums_of_records

        return checksums_of_records(self.source, self.side, self.memory_bytes or MEMORY_BYTES)

    def read_within(self, stream: Stream, ranges: Sequence[KeyRange]) -> Iterator[Event]:
        """Read the records of some ranges of keys.

        Args:
            stream: the whole table, with the columns to read, the key's among them.
            ranges: ascending and disjoint.
        """
        own = computing(self.can, self.side.stream)
        if own is None:
            from syncblocks.connectors.duckdb.record_checksums import MEMORY_BYTES, events_within

            yield from events_within(self.source, stream, self.side, ranges, self.memory_bytes or MEMORY_BYTES)
            return
        narrowed = own.narrowed(stream, self.side, ranges)
        for _, event in self.source.read([narrowed], {narrowed.name: None}):
            assert not isinstance(event, bytes | bytearray | memoryview), "the wire is `arrow`"
            yield event

    def canonical_keys(self, batches: Iterable[pa.RecordBatch]) -> Iterator[list[Key]]:
        """Yield the keys of each batch as texts; both sides write the same key as the same text."""
        from syncblocks.connectors.duckdb.record_checksums import canonical_keys

        return canonical_keys(self.source, self.side, batches)
