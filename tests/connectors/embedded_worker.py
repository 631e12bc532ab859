"""Loads a table in a process of its own, so that a test can kill it: `python -m tests.connectors.embedded_worker`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa

from connectors.registry import make_destination
from connectors.stream import Checkpoint, LedgerKey, Load, Stream, WriteDisposition

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("v", pa.string())])


def main(connector: str, path: str, disposition: str, token: str, first: int, last: int) -> None:
    """Load ids `first` to `last` with `v` = token, in two commits where the disposition allows it."""
    destination = make_destination(connector, {"url" if "://" in path else "path": path}, Path.cwd())
    key = LedgerKey(pipeline="p", stream="s", destination_table="people")
    row = destination.take_over(key, token=token, owner=token, source="test://")
    sys.stdout.write(json.dumps({"bookmark": row.bookmark, "completed_by": row.completed_by}) + "\n")
    sys.stdout.flush()
    half = (first + last) // 2

    def batch(low: int, high: int) -> pa.RecordBatch:
        ids = pa.array(range(low, high), pa.int64())
        return pa.RecordBatch.from_arrays([ids, pa.array([token] * len(ids))], schema=SCHEMA)

    events: list[pa.RecordBatch | Checkpoint] = [batch(first, half)]
    if disposition != "replace":
        events.append(Checkpoint(bookmark={"id": half}))
    events += [batch(half, last), Checkpoint(bookmark={"id": last}, is_final=True)]
    load = Load(
        key=key,
        stream=Stream(name="s", schema=SCHEMA, key_properties=("id",)),
        write_disposition=WriteDisposition(disposition),
        token=token,
        run=token,
    )
    for _ in destination.load(load, iter(events)):
        pass
    destination.close()


if __name__ == "__main__":
    name, place, how, mark, low, high = sys.argv[1:]
    main(name, place, how, mark, int(low), int(high))
