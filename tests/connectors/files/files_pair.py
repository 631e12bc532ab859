"""Short ways to drive the connectors of files in tests, and to look at what they wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.destination import (
    CSVDestination,
    FileDestination,
    JSONLDestination,
    ParquetDestination,
)
from syncblocks.connectors.files.jsonl_source import JSONLSource
from syncblocks.connectors.files.parquet_source import ParquetSource
from syncblocks.connectors.files.source import FileSource
from syncblocks.connectors.stream import Checkpoint, LedgerRow, Stream
from tests.connectors.files import files_load, files_readback

FINAL = Checkpoint(bookmark={"n": 1}, is_final=True)
FORMATS: dict[str, tuple[type[FileDestination], type[FileSource]]] = {
    "csv": (CSVDestination, CSVSource),
    "jsonl": (JSONLDestination, JSONLSource),
    "parquet": (ParquetDestination, ParquetSource),
}
every_format = pytest.mark.parametrize("name", FORMATS)
PAIRS = list[tuple[int, str | None]]


def destination_of(name: str, folder: Path, **config: Any) -> FileDestination:
    return FORMATS[name][0]({"path": str(folder), **config}, folder)


def looked_at(name: str, folder: Path) -> PAIRS:
    """What another reader sees."""
    records = files_readback.read_table(folder, "orders", f".{name}", files_load.SCHEMA) or []
    return sorted((record["id"], record["name"]) for record in records)


def read(name: str, folder: Path | str, table: str = "orders") -> list[dict[str, Any]]:
    """What our own source sees."""
    source = FORMATS[name][1]({"path": str(folder)}, Path.cwd())
    (stream,) = [stream for stream in source.discover() if stream.name == table]
    batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    return [record for batch in batches for record in batch.to_pylist()]


def row_of(destination: FileDestination) -> LedgerRow:
    (row,) = destination.describe(["orders"])["orders"].ledger
    return row


def source_of(path: Path, kind: type[FileSource] = CSVSource, **config: Any) -> FileSource:
    return kind({"path": str(path), **config}, path.parent)


def only(source: FileSource) -> Stream:
    (stream,) = source.discover()
    return stream


def types_of(source: FileSource) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in only(source).schema}


def records_of(source: FileSource, stream: Stream | None = None) -> list[dict[str, Any]]:
    stream = stream or only(source)
    events = [event for _, event in source.read([stream], {})]
    return [record for event in events if isinstance(event, pa.RecordBatch) for record in event.to_pylist()]


def column(path: Path, texts: list[str]) -> pa.DataType:
    path.write_text("v,end\n" + "".join(f"{text},x\n" for text in texts))
    return types_of(source_of(path))["v"]
