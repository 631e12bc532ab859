"""Parquet files, damaged: as a source, and as the file of a BATCH message."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from tests.fuzz.arrow_files import TABLE, _read, as_source
from tests.fuzz.loop import damaged


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
        return as_source(file, "parquet") if chance.random() < 0.7 else _read(file, "parquet")

    return once
