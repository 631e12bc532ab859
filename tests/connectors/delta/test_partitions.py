"""`partition_by`: what the log says of each file, and that merges find records in partitions of whoever made them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.stream import Checkpoint
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.delta.delta_loads import FINAL, ITEMS, destination_of, items, load_of, run
from tests.connectors.delta.delta_tables import opened, plain_table, read_table

SCHEMA = pa.schema(
    [("id", pa.int64()), ("region", pa.string()), ("day", pa.date32()), ("is_new", pa.bool_()), ("name", pa.string())]
)
DAY = date(2024, 2, 29)


def batch(*records: tuple[Any, ...]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [dict(zip(SCHEMA.names, record, strict=True)) for record in records], schema=SCHEMA
    )


def partitions(folder: Path) -> list[dict[str, Any]]:
    """Return the values of each file's partition columns."""
    table = opened(folder, "items")
    assert table is not None
    found = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    rows = [{name: each[f"partition.{name}"] for name in table.metadata().partition_columns} for each in found]
    return sorted(rows, key=repr)


def test_records_are_split_by_the_values_of_columns(tmp_path: Path) -> None:
    destination = destination_of(tmp_path, partition_by=["region", "day", "is_new"])
    first = batch((1, "e/u é%", DAY, True, "a"), (2, "us", DAY, False, "b"), (3, "e/u é%", DAY, True, "c"))
    run(destination, load_of("merge", "t0", SCHEMA), first, batch((4, None, None, None, "d")), FINAL)
    assert partitions(tmp_path) == [
        {"region": "e/u é%", "day": DAY, "is_new": True},
        {"region": "us", "day": DAY, "is_new": False},
        {"region": None, "day": None, "is_new": None},
    ]
    run(
        destination,
        load_of("merge", "t1", SCHEMA),
        batch((3, "us", DAY, None, "moved"), (5, "us", None, True, "e")),
        FINAL,
    )
    found = {row["id"]: (row["region"], row["is_new"], row["name"]) for row in read_table(tmp_path, "items") or []}
    assert found == {
        1: ("e/u é%", True, "a"),
        2: ("us", False, "b"),
        3: ("us", None, "moved"),
        4: (None, None, "d"),
        5: ("us", True, "e"),
    }
    assert {row["id"] for row in plain_table(tmp_path, "items") or []} == set(found)
    log = "".join(path.read_text() for path in (tmp_path / "items" / "_delta_log").glob("*.json"))
    assert '"partitionValues":{"day":"2024-02-29"' in log or '"day":"2024-02-29"' in log


def test_partitions_that_another_program_has_made_are_merged_into(tmp_path: Path) -> None:
    records = pa.Table.from_batches([batch((1, "a b", DAY, True, "old"), (2, "é%20/x", DAY, None, "old"))])
    write_deltalake((tmp_path / "items").as_uri(), records, partition_by=["region", "is_new"])
    destination = destination_of(tmp_path)
    state = destination.describe(["items"])["items"]
    assert (state.is_table, state.is_adoptable, state.is_empty, state.ledger) == (True, True, False, ())
    run(
        destination,
        load_of("merge", "t0", SCHEMA),
        batch((2, "new", DAY, True, "new"), (3, "a b", DAY, True, "c")),
        FINAL,
    )
    found = sorted((row["id"], row["region"], row["name"]) for row in read_table(tmp_path, "items") or [])
    assert found == [(1, "a b", "old"), (2, "new", "new"), (3, "a b", "c")]


@pytest.mark.parametrize("disposition", ["append", "replace", "merge"])
def test_an_empty_text_is_no_partition(tmp_path: Path, disposition: str) -> None:
    destination = destination_of(tmp_path, partition_by=["name"])
    with pytest.raises(FatalConnectorError, match="'name': '' cannot be a partition"):
        run(destination, load_of(disposition, "t0"), items((1, "a"), (2, "")), FINAL)
    assert read_table(tmp_path, "items") is None


def test_more_partitions_than_there_are_numbers_for_are_refused(tmp_path: Path) -> None:
    columns = [f"part{number}" for number in range(4)]
    schema = pa.schema([("id", pa.int64()), *((name, pa.int64()) for name in columns)])
    numbers = pa.array(range(1 << 16))
    destination = destination_of(tmp_path, partition_by=columns)
    with pytest.raises(ConnectorConfigError, match="each record would be a file"):
        run(destination, load_of("append", "t0", schema), pa.record_batch([numbers] * 5, schema=schema), FINAL)


@pytest.mark.parametrize(
    ("columns", "said"),
    [(["missing"], "no column 'missing'"), (["id", "name"], "a column beside"), (["price"], "only texts")],
)
def test_columns_that_cannot_split_a_table_are_refused_in_advance(
    tmp_path: Path, columns: list[str], said: str
) -> None:
    schema = pa.schema([*ITEMS, ("price", pa.float64())]) if "price" in columns else ITEMS
    destination = destination_of(tmp_path, partition_by=columns)
    with pytest.raises(ConnectorConfigError, match=said):
        destination.accepts(load_of("append", "t0", schema).stream, WriteDisposition.APPEND)


def test_another_partition_by_is_refused(tmp_path: Path) -> None:
    run(destination_of(tmp_path, partition_by=["name"]), load_of("append", "t0"), items((1, "a")), FINAL)
    other = destination_of(tmp_path, partition_by=["id"])
    refuses = other.describe(["items"])["items"].refuses
    assert set(refuses) == set(WriteDisposition)
    assert "`partition_by`" in refuses[WriteDisposition.REPLACE]
    with pytest.raises(ConnectorConfigError, match="another `partition_by`"):
        run(other, load_of("append", "t1"), items((2, "b")), FINAL)


def test_a_stream_may_lack_the_column_of_the_partitions(tmp_path: Path) -> None:
    destination = destination_of(tmp_path)
    run(destination_of(tmp_path, partition_by=["name"]), load_of("append", "t0"), items((1, "a")), FINAL)
    ids = pa.schema([("id", pa.int64())])
    run(destination, load_of("append", "t1", ids), pa.RecordBatch.from_pylist([{"id": 2}], schema=ids), FINAL)
    assert sorted((row["id"], row["name"]) for row in read_table(tmp_path, "items") or []) == [(1, "a"), (2, None)]


@pytest.mark.full
def test_many_partitions_and_commits_lose_nothing(tmp_path: Path) -> None:
    destination = destination_of(tmp_path, partition_by=["name"])
    destination.limit_memory(1 << 20, is_strict=True)
    parts = [items(*((n, f"p{n % 40}") for n in range(first, first + 2000))) for first in range(0, 20000, 2000)]
    run(destination, load_of("append", "t0"), *parts, Checkpoint(bookmark={"n": 1}), items((-1, "p1")), FINAL)
    records = plain_table(tmp_path, "items") or []
    assert sorted(row["id"] for row in records) == list(range(-1, 20000))
    assert all(row["name"] == f"p{row['id'] % 40}" for row in records if row["id"] >= 0)
    assert json.dumps(partitions(tmp_path)).count("name") == len(partitions(tmp_path)) >= 41
