"""Batches of an even size: drivers count records, not bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

#: A batch is full at one of them; see `stream.Event`.
BATCH_RECORDS = 65_536
BATCH_BYTES = 4 << 20

#: Records to ask a driver for at once: few, so that wide ones stay below 100 MB; narrow ones are joined.
FETCH_RECORDS = 4_096


def even_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join small batches up to `BATCH_RECORDS` or `BATCH_BYTES`; drop empty ones."""
    held: list[pa.RecordBatch] = []
    records = size_bytes = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        held.append(batch)
        records += batch.num_rows
        size_bytes += batch.nbytes
        if records >= BATCH_RECORDS or size_bytes >= BATCH_BYTES:
            yield _joined(held)
            held, records, size_bytes = [], 0, 0
    if held:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
