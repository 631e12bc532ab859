"""Short ways to drive the mysql connector in tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from syncblocks.connectors.registry import make_destination, make_source
from syncblocks.connectors.stream import Checkpoint, Event, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition, WriteSpec
from tests.connectors.mysql.mysql_databases import database

FINAL = Checkpoint(is_final=True)
PEOPLE = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])
APPEND, MERGE, REPLACE = WriteDisposition.APPEND, WriteDisposition.MERGE, WriteDisposition.REPLACE


def destination_of(url: str, **config: Any) -> Any:
    return make_destination("mysql", {"url": url, **config}, Path.cwd())


def people(*records: tuple[int, str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": number, "name": name} for number, name in records], schema=PEOPLE)


def load_of(
    schema: pa.Schema,
    disposition: WriteDisposition,
    table: str = "people",
    key: Sequence[str] = ("id",),
    conflict_method: ConflictMethod = ConflictMethod.UPDATE,
    **more: Any,
) -> Load:
    token = secrets.token_hex(16)
    return Load(
        key=LedgerKey(pipeline="p", stream="s", destination_table=table),
        stream=Stream(name="s", schema=schema, key_properties=tuple(key)),
        write=WriteSpec(disposition=disposition, conflict_method=conflict_method),
        token=token,
        run=token,
        **more,
    )


def write(destination: Any, load: Load, events: Iterable[Event]) -> list[Any]:
    destination.take_over(load.key, token=load.token, owner="test", source="test://")
    return list(destination.load(load, iter(events)))


def read(url: str, table: str, **config: Any) -> tuple[Stream, list[dict[str, Any]]]:
    source = make_source("mysql", {"url": url, **config}, Path.cwd())
    try:
        stream = next(stream for stream in source.discover() if stream.name == f"{database(url)}.{table}")
        batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    finally:
        source.close()
    return stream, [record for batch in batches for record in batch.to_pylist()]
