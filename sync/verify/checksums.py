"""One side's checksums: in its database where that can compute them, else in DuckDB, through which its records go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import pyarrow as pa

from syncblocks.connectors.abilities import Abilities
from syncblocks.connectors.checksums import Checksums, KeyRange, Side
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.sides import Key
from syncblocks.connectors.stream import Event, Stream


def system_of(can: Abilities) -> str:
    """Return where checksums are computed: `postgres`, `mysql` or `duckdb`."""
    return "duckdb" if can.computes_checksums is None else can.computes_checksums.checksum_system()


def opened_checksums(source: Source, can: Abilities, side: Side) -> AbstractContextManager[Checksums]:
    """Open one side's checksums; they end with the context."""
    own = can.computes_checksums
    if own is not None and not any(column.is_read for column in side.columns):
        return own.checksums(side)
    from syncblocks.connectors.duckdb.record_checksums import checksums_of_records

    return checksums_of_records(source, side)


def read_within(
    source: Source, can: Abilities, stream: Stream, side: Side, ranges: Sequence[KeyRange]
) -> Iterator[Event]:
    """Read a whole table's stream, but only the records of some ranges of keys.

    Args:
        source: the side's.
        can: its abilities.
        stream: with the columns to read, the key's among them.
        side: has the key.
        ranges: ascending and disjoint.
    """
    own = can.computes_checksums
    if own is None:
        from syncblocks.connectors.duckdb.record_checksums import events_within

        yield from events_within(source, stream, side, ranges)
        return
    narrowed = own.narrowed(stream, side, ranges)
    for _, event in source.read([narrowed], {narrowed.name: None}):
        assert not isinstance(event, bytes | bytearray | memoryview), "the wire is `arrow`"
        yield event


def canonical_keys(source: Source, side: Side, batches: Iterable[pa.RecordBatch]) -> Iterator[list[Key]]:
    """Yield the keys of each batch of a side's records, as texts that are the same on the other side."""
    from syncblocks.connectors.duckdb.record_checksums import canonical_keys

    return canonical_keys(source, side, batches)


__all__ = ["canonical_keys", "opened_checksums", "read_within", "system_of"]
