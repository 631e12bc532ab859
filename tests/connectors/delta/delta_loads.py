"""Loads into Delta tables, as the engine makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from syncblocks.connectors.delta.destination import DeltaDestination
from syncblocks.connectors.stream import Checkpoint, Commit, Event, LedgerKey, Load, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec

ITEMS = pa.schema([("id", pa.int64()), ("name", pa.string())])
FINAL = Checkpoint(is_final=True)


def destination_of(folder: Path, **config: Any) -> DeltaDestination:
    return DeltaDestination({"path": str(folder), **config}, folder)


def items(*records: tuple[int, str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": number, "name": name} for number, name in records], schema=ITEMS)


def load_of(
    disposition: str, token: str, schema: pa.Schema = ITEMS, *, key: Sequence[str] = ("id",), stream: str = "items"
) -> Load:
    return Load(
        key=LedgerKey(pipeline="p", stream=stream, destination_table="items"),
        stream=Stream(name="items", schema=schema, key_properties=tuple(key)),
        write=WriteSpec(disposition=WriteDisposition(disposition)),
        token=token,
        run=f"{token}:1",
    )


def begin(destination: DeltaDestination, load: Load, events: Iterable[Event]) -> Iterator[Commit]:
    row = destination.take_over(load.key, token=load.token, owner=f"owner of {load.token}", source="s")
    return destination.load(replace(load, columns=row.columns), iter(events))


def run(destination: DeltaDestination, load: Load, *events: Event) -> list[Commit]:
    return list(begin(destination, load, events))
