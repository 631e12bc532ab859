"""Compare the keys of source and destination: which the source no longer has, and which are back.

Databases find the ranges of keys that differ by checksums, and only the keys of these ranges are read. Of all others
each key is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.checksums import EVERYTHING, Digest, KeyRange
from syncblocks.connectors.errors import ConnectorError, FatalConnectorError, Interrupted
from syncblocks.connectors.read_spec import Condition
from syncblocks.connectors.stream import Rejected, Stream, Warned
from syncblocks.connectors.struct_helpers import asdict, replace

from ..plan.reading import computing
from ..store.documents import warnings_in_words
from .checksums import SideReader
from .comparison import RangeDifference, differing_ranges

if TYPE_CHECKING:  # it imports DuckDB's canonical forms, which few runs need
    from syncblocks.connectors.duckdb.key_set import KeySet

#: Keys of one side that are read in one step, and most ranges of a step: a statement names all of them.
KEYS_AT_ONCE, RANGES_AT_ONCE = 200_000, 500

#: Keys of the table that are looked up in one step.
LOOKED_UP_AT_ONCE = 500_000


@dataclass(slots=True)
class KeyDifference:
    """What a comparison of keys has found."""

    #: Records of the source, and those of the table that are not marked as deleted.
    source_records: int
    table_records: int
    #: How many keys of the table the source no longer has.
    missing: int = 0
    #: Keys that were read on both sides together.
    read: int = 0
    #: These keys, and those of marked records that are back, under their names in the table. Too many are not kept.
    missing_keys: list[pa.RecordBatch] | None = None
    returned_keys: list[pa.RecordBatch] | None = None


def compare_keys(
    source: SideReader,
    copy: SideReader,
    *,
    marks: str,
    most: Callable[[int], int],
    former: Sequence[Condition] = (),
) -> KeyDifference:
    """Compare the keys of a source and of its copy.

    Args:
        source: over the key's columns only.
        copy: the same of the table, without marked records, or with the current versions only.
        marks: the table's column of marks; empty: it has none.
        most: number of the table's records -> most keys to keep of those that are missing at the source.
        former: of a history: what the versions that have ended meet. A key that has no others is back.

    Raises:
        ConnectorError: a side cannot be read, or a record of the source is rejected: its key is not known.
    """
    totals, ranges = _differing(source, copy)
    found = KeyDifference(source_records=0, table_records=0, missing_keys=[], returned_keys=[])
    if totals is not None:
        found.source_records, found.table_records = (total.records for total in totals)
    from syncblocks.connectors.duckdb.key_set import open_key_set

    memory = {} if source.memory_bytes is None else {"memory_bytes": source.memory_bytes}
    with open_key_set(source.side.key, **memory) as keys:
        for part in _steps(ranges):
            filled = keys.fill(_source_keys(source, part))
            found.read += filled
            if totals is None:
                found.source_records += filled
            for batch in _joined(_table_keys(copy, part, marks)):
                found.read += batch.num_rows
                is_there = keys.contains(batch, copy.side.key)
                is_live = _is_live(batch, marks)
                if totals is None:
                    found.table_records += pc.sum(is_live).as_py() or 0
                _note(found, batch, is_there, is_live, marks, most(found.table_records) if totals else None)
                if former:
                    keys.remove(batch, copy.side.key)
            if former and keys.count():
                _note_back(found, copy, part, former, keys)
    return found


def _note(
    found: KeyDifference, batch: pa.RecordBatch, is_there: pa.Array, is_live: pa.Array, marks: str, most: int | None
) -> None:
    names = [name for name in batch.schema.names if name != marks]
    missing = batch.filter(pc.and_(is_live, pc.invert(is_there))).select(names)
    found.missing += missing.num_rows
    if most is not None and found.missing > most:
        found.missing_keys = None
    if found.missing_keys is not None and missing.num_rows:
        found.missing_keys.append(missing)
    returned = batch.filter(pc.and_(is_there, pc.invert(is_live))).select(names)
    if found.returned_keys is not None and returned.num_rows:
        found.returned_keys.append(returned)


def _note_back(
    found: KeyDifference, copy: SideReader, part: Sequence[KeyRange], former: Sequence[Condition], keys: KeySet
) -> None:
    """Note the keys of ended versions that the source has, and no current version."""
    assert found.returned_keys is not None
    for event in copy.read_within(
        replace(copy.side.stream, read=replace(copy.side.stream.read, where=tuple(former))), part
    ):
        if not isinstance(event, pa.RecordBatch):
            continue
        found.read += event.num_rows
        back = event.filter(keys.contains(event, copy.side.key))
        if back.num_rows:
            keys.remove(back, copy.side.key)
            found.returned_keys += pa.table(back).group_by(back.schema.names).aggregate([]).to_batches()


def _differing(source: SideReader, copy: SideReader) -> tuple[tuple[Digest, Digest] | None, list[RangeDifference]]:
    """Return both totals and the ranges to read; no totals where the databases cannot tell: everything is read."""
    if computing(source.can, source.side.stream) is None or copy.can.computes_checksums is None:
        return None, [RangeDifference(EVERYTHING, 0, 0)]
    reason: ConnectorError | None = None

    def interrupt() -> None:
        for each in (source, copy):
            each.source.interrupt(each.side.stream.name)

    try:
        with ExitStack() as stack:
            mine, theirs = (stack.enter_context(side.checksums()) for side in (source, copy))
            try:
                left, right, ranges = differing_ranges(mine, theirs, source.side.key, interrupt=interrupt)
            except ConnectorError as error:
                reason = error
                raise
    except Interrupted:
        if reason is not None:  # one side failed, and the other one was interrupted
            raise reason from None
        raise
    return (left, right), ranges


def _steps(ranges: Sequence[RangeDifference]) -> Iterator[list[KeyRange]]:
    part: list[KeyRange] = []
    size = 0
    for each in ranges:
        part.append(each.keys)
        size += max(each.source_records, each.destination_records)
        if size >= KEYS_AT_ONCE or len(part) == RANGES_AT_ONCE:
            yield part
            part, size = [], 0
    if part:
        yield part


def _source_keys(source: SideReader, ranges: Sequence[KeyRange]) -> Iterator[pa.RecordBatch]:
    for event in source.read_within(source.side.stream, ranges):
        if isinstance(event, Rejected) and event.records:
            raise FatalConnectorError(
                f"{len(event.records)} record(s) of the source cannot be read ({event.records[0].reason}): nobody "
                "knows their keys, so nothing is deleted",
                stream=source.side.stream.name,
            )
        if isinstance(event, Warned):
            raise FatalConnectorError(
                f"the connector logged {warnings_in_words(asdict(event))} while it read the keys, so keys may be "
                "missing, and nothing is deleted",
                stream=source.side.stream.name,
            )
        if isinstance(event, pa.RecordBatch):
            yield event


def _table_keys(copy: SideReader, ranges: Sequence[KeyRange], marks: str) -> Iterator[pa.RecordBatch]:
    """Read keys with their marks, those of marked records as well."""
    stream = copy.side.stream
    whole = _with_marks(stream, marks) if marks else stream
    for event in copy.read_within(whole, ranges):
        if isinstance(event, pa.RecordBatch):
            yield event


def _with_marks(stream: Stream, marks: str) -> Stream:
    (condition,) = stream.read.where
    return replace(stream, schema=stream.schema.append(condition.field), read=replace(stream.read, where=()))


def _is_live(batch: pa.RecordBatch, marks: str) -> pa.Array:
    if marks:
        return batch.column(marks).is_null()
    return pa.repeat(pc.constant(True), batch.num_rows)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join small batches: each look-up passes over all keys of the other side."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(each.num_rows for each in waiting) >= LOOKED_UP_AT_ONCE:
            yield _one(waiting)
            waiting = []
    if waiting:
        yield _one(waiting)


def _one(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.concat_batches(list(batches))


def keys_table(batches: Sequence[pa.RecordBatch], columns: Mapping[str, pa.Scalar]) -> pa.Table | None:
    """Return keys as one table, with columns of one value each behind them; None: there are none."""
    if not batches:
        return None
    table = pa.Table.from_batches(list(batches))
    for name, value in columns.items():
        table = table.append_column(pa.field(name, value.type), pa.repeat(value, table.num_rows))
    return table


__all__ = ["KeyDifference", "compare_keys", "keys_table"]
