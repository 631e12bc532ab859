"""Runs of an INCREMENTAL read over batches made by hand."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from syncblocks.connectors.incremental.bookmarks import BOUNDARY, HASH_BYTES
from syncblocks.connectors.incremental.checkpoints import incremental
from syncblocks.connectors.read_spec import NullBookmarks, ReadSpec, ReplicationMethod
from syncblocks.connectors.stream import Bookmark, Checkpoint, Stream

SCHEMA = pa.schema([("id", pa.int64()), ("a", pa.int64()), ("b", pa.string())])


def stream(*properties: str, schema: pa.Schema = SCHEMA) -> Stream:
    return Stream(
        name="people",
        schema=schema,
        read=ReadSpec(
            method=ReplicationMethod.INCREMENTAL,
            bookmark_properties=properties or ("a",),
            null_bookmarks=NullBookmarks.ONCE,
        ),
    )


WIDTHS = (pa.int32(), pa.int64())


def batch(records: Iterable[Sequence[Any]], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(schema.names, each, strict=True)) for each in records], schema=schema)


def run(
    of: Stream, batches: Iterable[pa.RecordBatch], bookmark: Bookmark | None = None, **options: Any
) -> tuple[list[tuple[Any, ...]], list[Checkpoint]]:
    """Return the records that got through, and the checkpoints as they come back from a store."""
    options = {"is_ordered": True, **options}
    records: list[tuple[Any, ...]] = []
    checkpoints = []
    for event in incremental(of, batches, bookmark, **options):
        if isinstance(event, pa.RecordBatch):
            assert event.num_rows, "an empty batch is not worth sending"
            records += [tuple(record.values()) for record in event.to_pylist()]
        else:
            assert isinstance(event, Checkpoint)
            checkpoints.append(Checkpoint(bookmark=json.loads(json.dumps(event.bookmark, allow_nan=False))))
    return records, checkpoints


def hash_count(checkpoint: Checkpoint) -> int:
    assert checkpoint.bookmark is not None
    return len(b64decode(checkpoint.bookmark[BOUNDARY]["hashes"])) // HASH_BYTES
