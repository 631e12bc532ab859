"""Loads a table, here or in a process of its own that a failpoint kills."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.stream import Checkpoint, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from tests.zygote import Zygote

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
        write=WriteSpec(disposition=WriteDisposition(disposition)),
        token=token,
        run=token,
    )
    for _ in destination.load(load, iter(events)):
        pass
    destination.close()


def load_in_a_process(
    zygote: Zygote, connector: str, path: Path | str, disposition: str, token: str, low: int, high: int, **how: Any
) -> int:
    """Do the same in a process; `how` is a failpoint or a trace. Return its exit code."""
    arguments = (connector, str(path), disposition, token, str(low), str(high))
    done = zygote.module("tests.contracts.embedded_worker", *arguments, **how)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


if __name__ == "__main__":
    name, place, how, mark, low, high = sys.argv[1:]
    main(name, place, how, mark, int(low), int(high))
