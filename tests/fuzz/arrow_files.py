"""Arrow files and streams, damaged: as a source, and as the file of a BATCH message."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.singer.batches import BadBatch, BatchFiles
from tests.fuzz.loop import damaged, touch

TABLE = pa.table(
    {
        "id": pa.array(range(40), pa.int64()),
        "name": pa.array([None if n % 7 == 0 else "n" * n for n in range(40)]),
        "raw": pa.array([b"\0\xff" * n for n in range(40)], pa.binary()),
        "part": pa.array([n / 3 for n in range(40)]),
        "amount": pa.array([Decimal(n) / 4 for n in range(40)], pa.decimal128(12, 2)),
        "tags": pa.array([["x"] * (n % 4) for n in range(40)], pa.list_(pa.string())),
        "kind": pa.array([str(n % 3) for n in range(40)]).dictionary_encode(),
        "place": pa.array([{"a": n, "b": str(n)} for n in range(40)]),
    }
)
WANTED = pa.schema([field for field in TABLE.schema if field.name != "kind"]).append(pa.field("kind", pa.string()))


def fuzzer(_prepared: str) -> Callable[[random.Random], str]:
    whole = [_written(kind, codec) for kind in (pa.ipc.new_file, pa.ipc.new_stream) for codec in (None, "lz4", "zstd")]
    folder = tempfile.TemporaryDirectory(prefix="syncblocks-fuzz-")

    def once(chance: random.Random) -> str:
        file = Path(folder.name, "batch.arrow")
        file.write_bytes(damaged(chance.choice(whole), chance))
        return as_source(file, "arrow") if chance.random() < 0.5 else _read(file, "arrow")

    return once


def as_source(file: Path, connector: str) -> str:
    """Read a file by a connector; return what came of it."""
    try:
        with closing(make_source(connector, {"path": str(file)}, file.parent)) as source:
            (stream,) = source.discover()
            for _, event in source.read([stream], {stream.name: None}):
                if isinstance(event, pa.RecordBatch):
                    event.validate()
                    touch(event)
    except (ConnectorError, MemoryError) as error:
        return type(error).__name__
    return "read"


def _written(kind: Callable[..., Any], codec: str | None) -> bytes:
    sink = pa.BufferOutputStream()
    with kind(sink, TABLE.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(TABLE, max_chunksize=16)
    return bytes(sink.getvalue())


def _read(file: Path, form: str) -> str:
    try:
        for batch in BatchFiles([str(file.parent)], file.parent).read_tables(str(file), {"format": form}, WANTED):
            batch.validate()
            touch(batch)
    except (BadBatch, ConnectorError, MemoryError) as error:
        return type(error).__name__
    return "read"
