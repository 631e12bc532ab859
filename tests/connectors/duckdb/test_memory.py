"""DuckDB's memory: little while records are staged, enough for the merge of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from syncblocks.connectors.duckdb import DuckDBDestination, DuckDBSource
from syncblocks.connectors.duckdb.memory import COLUMN_BYTES, MemoryNeed
from syncblocks.connectors.duckdb.settings import MEMORY_LIMIT_BYTES
from syncblocks.connectors.stream import Checkpoint, Event
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.duckdb.duckdb_files import load, query

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


@pytest.mark.full
def test_a_merge_has_more_memory_than_a_load_until_its_commit(tmp_path: Path) -> None:
    destination = DuckDBDestination({"path": "x.duckdb", "threads": 2}, tmp_path)
    before = limit_of(destination)
    merge_twice(destination)
    assert limit_of(destination) == before
    destination.close()
    found = query(tmp_path / "x.duckdb", "select count(*), count(distinct id) from people")
    assert found == [(BATCHES * RECORDS, BATCHES * RECORDS)]


def of_width(size_bytes: int, records: int) -> pa.RecordBatch:
    ids = pa.array(range(records), pa.int64())
    return pa.RecordBatch.from_arrays([ids, pa.array(["x" * size_bytes] * records)], schema=SCHEMA)


def test_narrow_records_need_no_more_than_the_limit_however_many_they_are() -> None:
    need = MemoryNeed(SCHEMA, threads=2)
    for _ in range(100):
        need.add(of_width(200, 10_000))
    assert need.size_bytes < MEMORY_LIMIT_BYTES


def test_wide_records_need_what_duckdb_works_on_at_once() -> None:
    need = MemoryNeed(SCHEMA, threads=2)
    for _ in range(30):
        need.add(of_width(1_000_000, 10))
    assert need.size_bytes > 300_000_000
    before = need.size_bytes
    need.add(of_width(0, 0))
    assert need.size_bytes == before


def test_each_column_of_a_wide_table_needs_its_blocks_nested_ones_included() -> None:
    nested = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))])
    schema = pa.schema([pa.field(f"c{place}", nested) for place in range(100)])
    assert MemoryNeed(schema, threads=3).size_bytes == 100 * 4 * 3 * COLUMN_BYTES


@pytest.mark.full
def test_a_table_of_thousands_of_columns_has_its_room_before_the_first_batch(tmp_path: Path) -> None:
    destination = DuckDBDestination({"path": "x.duckdb", "threads": 2}, tmp_path)
    schema = pa.schema([(f"c{place}", pa.int64()) for place in range(2500)])
    batch = pa.RecordBatch.from_pylist([{"c2499": 1}], schema=schema)
    events: list[Event] = [batch, Checkpoint(is_final=True)]
    destination.limit_memory(40 << 20, is_strict=False)  # of a small budget; 2,500 columns need as much by themselves
    load(destination, "wide", WriteDisposition.REPLACE, iter(events), schema, [])
    destination.close()
    assert query(tmp_path / "x.duckdb", "select c2499 from wide") == [(1,)]


def test_a_load_raises_the_limit_but_not_under_a_merge_that_has_more(tmp_path: Path) -> None:
    destination = DuckDBDestination({"path": "x.duckdb"}, tmp_path)
    database = destination._database
    with destination._sessions.lease() as lease:

        def limit() -> str:
            return str(lease.session.query("select current_setting('memory_limit')")[0][0])

        lease.session.execute(database.lift_limit())
        lifted = limit()
        database.ensure_memory(256 << 20)
        assert limit() == lifted
        database.restore_limit()
        assert limit() == "256.0 MiB"
        database.ensure_memory(200 << 20)
        assert limit() == "256.0 MiB"
    destination.close()


def test_a_budget_of_the_pipeline_file_bounds_what_wide_records_get(tmp_path: Path) -> None:
    destination = DuckDBDestination({"path": "x.duckdb"}, tmp_path)
    destination.limit_memory(300 << 20, is_strict=True)
    with destination._sessions.lease() as lease:
        destination._database.ensure_memory(1 << 40)
        assert lease.session.query("select current_setting('memory_limit')") == [("300.0 MiB",)]
        destination._database.ensure_memory(1 << 40, most_bytes=500 << 20)  # one record that is wider than that
        assert lease.session.query("select current_setting('memory_limit')") == [("500.0 MiB",)]
    destination.close()


@pytest.mark.full
def test_many_values_of_a_megabyte_fit_without_a_setting(tmp_path: Path) -> None:
    destination = DuckDBDestination({"path": "x.duckdb", "threads": 2}, tmp_path)

    def documents() -> Iterator[Event]:
        for number in range(60):
            ids = pa.array(range(4 * number, 4 * number + 4), pa.int64())
            texts = pa.array([f"{value:08}" * 125_000 for value in ids.to_pylist()])
            yield pa.RecordBatch.from_arrays([ids, texts], schema=SCHEMA)
        yield Checkpoint(is_final=True)

    load(destination, "documents", WriteDisposition.REPLACE, documents(), SCHEMA, ["id"])
    destination.close()
    source = DuckDBSource({"path": "x.duckdb", "threads": 2}, tmp_path)
    stream = next(each for each in source.discover() if each.name == "documents")
    batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    source.close()
    found = pa.Table.from_batches(batches).column("name").combine_chunks()
    assert pc.binary_length(found).unique().to_pylist() == [1_000_000]
    assert (len(found), len(found.unique())) == (240, 240)
