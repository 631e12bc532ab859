"""What loads into Delta tables hold in memory: row groups, and of a merge the keys that arrived."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peaks import peak_of_code

LOAD = """
import sys
import numpy as np, pyarrow as pa
from syncblocks.connectors.stream import Checkpoint
from tests.connectors.delta.delta_loads import destination_of, load_of, run
from pathlib import Path
sys.path.insert(0, "")
folder, disposition, first, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
schema = pa.schema([("id", pa.int64()), ("name", pa.string())])

def batches():
    for start in range(first, first + count, 50_000):
        ids = np.arange(start, min(start + 50_000, first + count))
        yield pa.RecordBatch.from_arrays([pa.array(ids), pa.array([f"{n:0>200}" for n in ids])], schema=schema)
    yield Checkpoint(is_final=True)

destination = destination_of(folder)
destination.limit_memory(64 << 20, is_strict=True)
row = destination.take_over(load_of(disposition, "t", schema).key, token="t", owner="o", source="s")
(commit,) = list(destination.load(load_of(disposition, "t", schema), batches()))
assert commit.records == count
assert pa.default_memory_pool().max_memory() < 50 << 20
"""


@pytest.mark.full
def test_neither_the_table_nor_what_arrives_is_held(tmp_path: Path) -> None:
    base = peak_of_code(LOAD, Path.cwd(), str(tmp_path / "small"), "append", "0", "1000")
    size = 1_000_000 * 200
    appended = peak_of_code(LOAD, Path.cwd(), str(tmp_path), "append", "0", "1000000")
    assert appended - base < size // 3
    merged = peak_of_code(LOAD, Path.cwd(), str(tmp_path), "merge", "500000", "200000")
    assert merged - base < size, "of which a part is the library's, and memory that Arrow keeps for later"
