"""DuckDB's memory: little while records are staged, enough for the merge of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.duckdb import DuckDBDestination
from connectors.stream import Checkpoint, Event, WriteDisposition

from .duckdb_files import load, query

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])
BATCHES, RECORDS = 40, 65_536


def people() -> Iterator[Event]:
    for number in range(BATCHES):
        ids = pa.array(range(number * RECORDS, (number + 1) * RECORDS), pa.int64())
        yield pa.RecordBatch.from_arrays([ids, ids.cast(pa.string())], schema=SCHEMA)
    yield Checkpoint(is_final=True)


def merge_twice(destination: DuckDBDestination) -> None:
    for _ in range(2):
        load(destination, "people", WriteDisposition.MERGE, people(), SCHEMA, ["id"])


def limit_of(destination: DuckDBDestination) -> str:
    with destination._sessions.lease() as lease:
        return str(lease.session.query("select current_setting('memory_limit')")[0][0])


@pytest.mark.slow
def test_a_merge_has_more_memory_than_a_load_until_its_commit(tmp_path: Path) -> None:
    destination = DuckDBDestination({"path": "x.duckdb", "threads": 2}, tmp_path)
    before = limit_of(destination)
    merge_twice(destination)
    assert limit_of(destination) == before
    destination.close()
    found = query(tmp_path / "x.duckdb", "select count(*), count(distinct id) from people")
    assert found == [(BATCHES * RECORDS, BATCHES * RECORDS)]
