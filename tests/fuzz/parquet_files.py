"""Parquet files, damaged: as a source, and as the file of a BATCH message."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.registry import make_source
from tests.fuzz.arrow_files import TABLE, _read
from tests.fuzz.loop import damaged, touch


def fuzzer(_prepared: str) -> Callable[[random.Random], str]:
    folder = tempfile.TemporaryDirectory(prefix="syncblocks-fuzz-")
    file = Path(folder.name, "t.parquet")
    whole = []
    for codec, version in (("none", "1.0"), ("zstd", "2.6"), ("snappy", "2.6")):
        pq.write_table(TABLE, file, compression=codec, version=version, row_group_size=16)
        whole.append(file.read_bytes())

    def once(chance: random.Random) -> str:
        assert folder.name in str(file)  # the folder lives as long as this
        file.write_bytes(damaged(chance.choice(whole), chance))
        return _as_source(file) if chance.random() < 0.7 else _read(file, "parquet")

    return once


def _as_source(file: Path) -> str:
    try:
        with closing(make_source("parquet", {"path": str(file)}, file.parent)) as source:
            (stream,) = source.discover()
            for _, event in source.read([stream], {stream.name: None}):
                if isinstance(event, pa.RecordBatch):
                    event.validate()
                    touch(event)
    except (ConnectorError, MemoryError) as error:
        return type(error).__name__
    return "read"
