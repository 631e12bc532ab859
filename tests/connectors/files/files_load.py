"""Loads made-up records into files: for tests, and as a process of its own that a failpoint kills."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.rejected.records import rejection
from syncblocks.connectors.stream import Checkpoint, Commit, Event, LedgerKey, Load, Rejected, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition, WriteSpec

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])


def key_of(table: str = "orders", stream: str = "source.orders") -> LedgerKey:
    return LedgerKey(pipeline="tests", stream=stream, destination_table=table)


def load_of(disposition: str, token: str, schema: pa.Schema = SCHEMA, **changed: Any) -> Load:
    return Load(
        key=changed.pop("key", key_of()),
        stream=Stream(name="source.orders", schema=schema, key_properties=("id",)),
        write=WriteSpec(
            disposition=WriteDisposition(disposition),
            conflict_method=changed.pop("conflict_method", ConflictMethod.UPDATE),
            kept=changed.pop("kept", ()),
        ),
        token=token,
        run=f"{token}:1",
        **changed,
    )


def batch_of(*records: tuple[int, str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": number, "name": name} for number, name in records], schema=SCHEMA)


def run(destination: Any, load: Load, *events: Event) -> list[Commit]:
    destination.take_over(load.key, token=load.token, owner=f"run {load.token}", source="tests://")
    return list(destination.load(load, iter(events)))


def generation(number: int, disposition: str) -> Iterator[Event]:
    """Yield what one run of the crash tests sends; incremental ones have two checkpoints."""
    yield batch_of((1, f"a{number}"), (10 * number, "b"))
    if disposition != "replace":
        yield Checkpoint(bookmark={"part": 1})
    yield batch_of((10 * number + 1, "c"))
    yield Checkpoint(bookmark={"part": 2}, is_final=True)


def main(arguments: Sequence[str]) -> None:
    named, folder, disposition, number, *bad = arguments
    connector, _, column = named.partition(":")
    config = {"path": folder, **({"partition_by": [column]} if column else {})}
    destination = make_destination(connector, config, Path(folder))
    load = load_of(disposition, f"token{number}")
    load = replace(load, write=replace(load.write, max_rejected=len(bad) or None))
    rejected = [Rejected(records=tuple(rejection(text, "bad") for text in bad))] if bad else []
    run(destination, load, *rejected, *generation(int(number), disposition))


if __name__ == "__main__":
    main(sys.argv[1:])
