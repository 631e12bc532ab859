"""Wide records reach DuckDB in pieces: a commit would hold all of them in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from syncblocks.connectors.duckdb import DuckDBDestination
from syncblocks.connectors.duckdb.database import DuckDBInstance
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.stream import Checkpoint, Event
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.duckdb.duckdb_files import load, query

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("doc", pa.string())])
BUDGET_BYTES = 32_000_000
RECORDS, WIDTH_BYTES = 24, 2_000_000
ROW_GROUPS = "select count(distinct row_group_id) from pragma_storage_info('docs') where column_name = 'doc'"

pytestmark = pytest.mark.skipif(
    not DuckDBInstance(Path()).cuts_pieces, reason="DuckDB before 1.5.3 does not cut row groups"
)
Make = Callable[[], DuckDBDestination]


def document(number: int) -> str:
    return md5(str(number).encode()).hexdigest() * (WIDTH_BYTES // 32)


def documents(records: int = RECORDS) -> Iterator[Event]:
    for number in range(records):
        yield pa.RecordBatch.from_arrays([pa.array([number]), pa.array([document(number)])], schema=SCHEMA)
    yield Checkpoint(is_final=True)


def narrow() -> Iterator[Event]:
    yield pa.RecordBatch.from_arrays([pa.array([-1]), pa.array(["x"])], schema=SCHEMA)
    yield Checkpoint(is_final=True)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[DuckDBDestination] = []

    def another() -> DuckDBDestination:
        if made:
            made.pop().close()
        destination = DuckDBDestination({"path": "x.duckdb", "threads": 2}, tmp_path)
        destination.limit_memory(BUDGET_BYTES, is_strict=True)
        made.append(destination)
        return destination

    yield another
    for destination in made:
        destination.close()


def found(folder: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "x.duckdb"), config={"memory_limit": "1GB"}) as connection:
        return list(connection.execute("select id, md5(doc) from docs where id >= 0 order by id").fetchall())


def expected(records: int = RECORDS) -> list[tuple[int, str]]:
    return [(number, md5(document(number).encode()).hexdigest()) for number in range(records)]


@pytest.mark.full
@pytest.mark.parametrize("disposition", [WriteDisposition.REPLACE, WriteDisposition.APPEND])
def test_records_that_are_wider_together_than_the_budget_reach_a_new_table(
    disposition: WriteDisposition, make: Make, tmp_path: Path
) -> None:
    load(make(), "docs", disposition, documents(), SCHEMA, ["id"])
    # Later runs open the file anew: their checkpoints must not join the row groups, and would have no memory for it.
    load(make(), "others", WriteDisposition.REPLACE, narrow(), SCHEMA, ["id"])
    load(make(), "docs", WriteDisposition.APPEND, narrow(), SCHEMA, ["id"])
    make().close()
    assert found(tmp_path) == expected()
    ((row_groups,),) = query(tmp_path / "x.duckdb", ROW_GROUPS)
    assert row_groups > 3
    assert query(tmp_path / "x.duckdb", "select count(*) from docs, others where docs.id = others.id") == [(1,)]


def test_a_replacement_without_wide_records_is_checkpointed_as_any_table(make: Make, tmp_path: Path) -> None:
    for events in (documents(), narrow()):
        load(make(), "docs", WriteDisposition.REPLACE, events, SCHEMA, ["id"])
    with make()._sessions.lease() as lease:
        assert lease.session.query("select current_setting('max_vacuum_tasks') > 0") == [(True,)]


def test_a_load_that_fails_leaves_none_of_its_pieces(make: Make, tmp_path: Path) -> None:
    def broken() -> Iterator[Event]:
        for event in documents():
            if isinstance(event, Checkpoint):
                raise FatalConnectorError("the source broke")
            yield event

    load(make(), "docs", WriteDisposition.REPLACE, narrow(), SCHEMA, ["id"])
    with pytest.raises(FatalConnectorError, match="the source broke"):
        load(make(), "docs", WriteDisposition.REPLACE, broken(), SCHEMA, ["id"])
    make().close()
    assert query(tmp_path / "x.duckdb", "select id from docs") == [(-1,)]
    tables = "select count(*) from duckdb_tables() where starts_with(table_name, '_syncblocks_stg_')"
    assert query(tmp_path / "x.duckdb", tables) == [(0,)]


@pytest.mark.full
def test_a_merge_numbers_records_over_all_pieces(tmp_path: Path) -> None:
    destination = DuckDBDestination({"path": "x.duckdb", "threads": 2}, tmp_path)

    def twice() -> Iterator[Event]:
        for event in documents():
            if isinstance(event, pa.RecordBatch):
                yield pa.RecordBatch.from_arrays([event.column(0), pa.array(["x" * WIDTH_BYTES])], schema=SCHEMA)
                yield event
        yield Checkpoint(is_final=True)

    for _ in range(2):
        load(destination, "docs", WriteDisposition.MERGE, twice(), SCHEMA, ["id"])
    destination.close()
    assert found(tmp_path) == expected()


@pytest.mark.full
def test_another_load_that_writes_does_not_stop_pieces(tmp_path: Path) -> None:
    destination = DuckDBDestination({"path": "x.duckdb", "threads": 2}, tmp_path)
    with destination._sessions.lease() as lease:
        lease.session.begin()
        lease.session.execute("create table other as select 1 as id")
        load(destination, "docs", WriteDisposition.REPLACE, documents(60), SCHEMA, ["id"])
        lease.session.commit()
    destination.close()
    assert found(tmp_path) == expected(60)
    assert query(tmp_path / "x.duckdb", "select id from other") == [(1,)]


@pytest.mark.full
def test_wide_records_for_a_table_that_is_there_leave_no_log(tmp_path: Path) -> None:
    destination = DuckDBDestination({"path": "x.duckdb", "threads": 2}, tmp_path)
    load(destination, "docs", WriteDisposition.APPEND, narrow(), SCHEMA, ["id"])
    load(destination, "docs", WriteDisposition.APPEND, documents(80), SCHEMA, ["id"])
    destination.close()
    assert not (tmp_path / "x.duckdb.wal").exists()
    assert found(tmp_path) == expected(80)
