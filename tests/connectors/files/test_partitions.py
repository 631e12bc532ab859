"""`partition_by` and `file_records`: which files a table has, and that no record is lost or twice."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.files import layout
from syncblocks.connectors.files.destination import FileDestination
from syncblocks.connectors.files.parquet_source import ParquetSource
from syncblocks.connectors.stream import Checkpoint
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.files.files_load import load_of, run
from tests.connectors.files.files_pair import FINAL, destination_of, every_format, read

SCHEMA = pa.schema(
    [pa.field("id", pa.int64(), nullable=False), ("region", pa.string()), ("at", pa.timestamp("us", "Europe/Berlin"))]
)
NEW_YEAR = datetime(2024, 12, 31, 23, 30, tzinfo=UTC)  # 2025 in Berlin
LATER = datetime(2025, 6, 1, tzinfo=UTC)


def batch(*records: tuple[int, str | None, datetime | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [dict(zip(SCHEMA.names, record, strict=True)) for record in records], schema=SCHEMA
    )


def load(disposition: str, token: str) -> Any:
    return load_of(disposition, token, SCHEMA)


def partitioned(name: str, folder: Path, **config: Any) -> FileDestination:
    return destination_of(name, folder, **{"partition_by": ["year(at)", "region"], **config})


def folders(folder: Path) -> list[str]:
    return sorted({path.parent.relative_to(folder).as_posix() for path in folder.glob("orders/**/part-*")})


def ids(name: str, folder: Path) -> dict[str, list[int]]:
    """Return the ids in each folder, as DuckDB finds them."""
    reads = {"csv": "read_csv", "jsonl": "read_json", "parquet": "read_parquet"}[name]
    found: dict[str, list[int]] = {}
    with duckdb.connect() as connection:
        for path in sorted(folder.glob(f"orders/**/part-*.{name}")):
            place = path.parent.relative_to(folder / "orders").as_posix()
            rows = connection.execute(f"select id from {reads}(?)", [str(path)]).fetchall()
            found[place] = sorted(found.get(place, []) + [row[0] for row in rows])
    return found


@every_format
def test_records_are_in_folders_by_their_values(tmp_path: Path, name: str) -> None:
    run(
        partitioned(name, tmp_path),
        load("replace", "t1"),
        batch((1, "eu", NEW_YEAR), (2, None, LATER), (3, "a/b=c %", LATER), (4, "eu", None)),
        batch((5, "eu", NEW_YEAR), (6, "__HIVE_DEFAULT_PARTITION__", LATER)),
        FINAL,
    )
    assert ids(name, tmp_path) == {
        "at_year=2024/region=eu": [1, 5],
        "at_year=2025/region=__HIVE_DEFAULT_PARTITION__": [2],
        "at_year=2025/region=a%2Fb%3Dc%20%25": [3],
        "at_year=__HIVE_DEFAULT_PARTITION__/region=eu": [4],
        "at_year=2025/region=%5F_HIVE_DEFAULT_PARTITION__": [6],
    }
    found = {record["id"]: (record["region"], record["at"]) for record in read(name, tmp_path)}
    assert found[1] == ("eu", NEW_YEAR)
    assert found[3] == ("a/b=c %", LATER)
    assert found[6] == ("__HIVE_DEFAULT_PARTITION__", LATER)
    with duckdb.connect() as connection:
        if name == "parquet":
            rows = connection.execute(
                "select id, at_year::text, region from read_parquet(?, hive_partitioning = true) order by id",
                [str(tmp_path / "orders/**/*.parquet")],
            ).fetchall()
            assert rows[0] == (1, "2024", "eu")


@every_format
def test_merge_finds_keys_in_all_partitions(tmp_path: Path, name: str) -> None:
    run(partitioned(name, tmp_path), load("replace", "t1"), batch((1, "eu", LATER), (2, "us", LATER)), FINAL)
    moves = batch((1, "us", LATER), (3, "eu", LATER), (1, "asia", LATER))
    run(partitioned(name, tmp_path), load("merge", "t2"), moves, FINAL)
    assert ids(name, tmp_path) == {
        "at_year=2025/region=asia": [1],
        "at_year=2025/region=eu": [3],
        "at_year=2025/region=us": [2],
    }, "of the records of a key the last one counts, whatever its folder"


@every_format
def test_replace_drops_folders_without_records_and_append_adds_files(tmp_path: Path, name: str) -> None:
    run(partitioned(name, tmp_path), load("replace", "t1"), batch((1, "eu", NEW_YEAR), (2, "us", LATER)), FINAL)
    run(partitioned(name, tmp_path), load("replace", "t2"), batch((3, "us", LATER)), FINAL)
    assert folders(tmp_path) == ["orders/at_year=2025/region=us"]
    assert not (tmp_path / "orders/at_year=2024").exists()
    run(partitioned(name, tmp_path), load("append", "t3"), batch((4, "us", LATER), (5, "eu", LATER)), FINAL)
    assert ids(name, tmp_path) == {"at_year=2025/region=eu": [5], "at_year=2025/region=us": [3, 4]}
    run(partitioned(name, tmp_path), load("replace", "t4"), FINAL)
    assert read(name, tmp_path) == []
    assert folders(tmp_path) == []


@every_format
def test_a_file_has_at_most_so_many_records(tmp_path: Path, name: str) -> None:
    destination = destination_of(name, tmp_path, file_records=3)
    records = [(number, "x", LATER) for number in range(8)]
    run(destination, load("replace", "t1"), batch(*records[:4]), batch(*records[4:]), FINAL)
    assert ids(name, tmp_path) == {".": list(range(8))}
    assert len(list(tmp_path.glob("orders/part-*"))) == 3
    run(destination, load("merge", "t2"), batch((9, "x", LATER)), FINAL)
    assert [record["id"] for record in read(name, tmp_path)] == [*range(8), 9]
    assert len(list(tmp_path.glob("orders/part-*"))) == 3
    run(destination, load("replace", "t3"), batch((1, "x", LATER)), FINAL)
    assert [path.name for path in tmp_path.glob(f"*.{name}")] == [f"orders.{name}"]
    assert not (tmp_path / "orders").exists()


@every_format
def test_a_file_that_has_so_many_bytes_gets_no_further_batch(tmp_path: Path, name: str) -> None:
    batches = [batch((number, "x" * 50, LATER)) for number in range(4)]
    run(destination_of(name, tmp_path, file_bytes=1), load("replace", "t1"), *batches, FINAL)
    assert len(list(tmp_path.glob("orders/part-*"))) == 4
    run(destination_of(name, tmp_path, file_bytes=1_000_000), load("replace", "t2"), *batches, FINAL)
    assert [record["id"] for record in read(name, tmp_path)] == list(range(4))
    assert [path.name for path in tmp_path.glob(f"*.{name}")] == [f"orders.{name}"]


@pytest.mark.full
def test_any_sequence_of_loads_leaves_what_one_table_would_have(tmp_path: Path) -> None:
    for seed in range(6):
        draw, table = random.Random(seed), dict[int, tuple[Any, ...]]()
        folder = tmp_path / str(seed)
        for number in range(5):
            disposition = draw.choice(["replace", "merge", "merge"])
            records = [
                (draw.randrange(20), draw.choice(["eu", "us", None, ""]), draw.choice([NEW_YEAR, LATER, None]))
                for _ in range(draw.randrange(12))
            ]
            if disposition == "replace":
                records = list({record[0]: record for record in records}.values())
                table = {}
            table |= {record[0]: record for record in records}
            destination = partitioned("parquet", folder, file_records=draw.choice([None, 2]))
            halves = [batch(*records[:5]), batch(*records[5:])]
            middle = [Checkpoint(bookmark={"n": 0})] if disposition == "merge" else []
            run(destination, load(disposition, f"t{number}"), halves[0], *middle, halves[1], FINAL)
            found = {record["id"]: tuple(record.values()) for record in read("parquet", folder)}
            assert found == table, (seed, number)
            listed = {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}
            assert sum(1 for path in listed if "staging" in path) == 0


def test_many_partitions_are_written_with_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOST_OPEN", 3)
    regions = [f"r{number % 7}" for number in range(70)]
    records = [(number, region, LATER) for number, region in enumerate(regions)]
    destination = destination_of("csv", tmp_path, partition_by=["region"])
    run(destination, load("replace", "t1"), batch(*records[:35]), batch(*records[35:]), FINAL)
    assert sorted(record["id"] for record in read("csv", tmp_path)) == list(range(70))
    monkeypatch.setattr(layout, "MOST_FILES", 5)
    with pytest.raises(FatalConnectorError, match="use a coarser partition"):
        run(destination, load("replace", "t2"), batch(*records), FINAL)
    assert len(read("csv", tmp_path)) == 70, "as it was"


def test_what_cannot_be_partitioned_is_refused(tmp_path: Path) -> None:
    stream = load("replace", "t").stream
    for said, words in (
        (["nothing"], "column 'nothing' does not exist; the columns are id, region, at"),
        (["year(region)"], "column 'region' is string, not a time, which year"),
    ):
        with pytest.raises(ConnectorConfigError, match=words):
            destination_of("csv", tmp_path, partition_by=said).accepts(stream, WriteDisposition.REPLACE)
    with pytest.raises(ConnectorConfigError, match="folder levels have the name 'region'"):
        destination_of("csv", tmp_path, partition_by=["region", "region"])
    run(destination_of("csv", tmp_path), load("replace", "t1"), batch((1, "eu", LATER)), FINAL)
    refused = partitioned("csv", tmp_path).describe(["orders"])["orders"].refuses
    assert "`partition_by`" in refused[WriteDisposition.MERGE]
    assert WriteDisposition.REPLACE not in refused


def test_a_path_that_gives_a_column_twice_says_what_to_rename(tmp_path: Path) -> None:
    folder = tmp_path / "x=1" / "x=2"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"i": [1]}), folder / "t.parquet")
    with pytest.raises(
        FatalConnectorError, match=r"t\.parquet: two folders of the path give the same column: rename one"
    ):
        ParquetSource({"path": str(tmp_path)}, tmp_path).discover()
