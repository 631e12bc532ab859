"""Parquet to Parquet: what is in the source files is in the table's files, whatever wrote them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from syncblocks import load_pipeline, run_pipeline
from syncblocks.connectors.files.destination import ParquetDestination
from syncblocks.connectors.files.parquet_source import ParquetSource
from syncblocks.connectors.stream import Checkpoint, Stream
from syncblocks.sync.plan.plan import PlannedStream
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.verify.verification import verify_streams
from tests.connectors.files import files_readback
from tests.connectors.files.files_load import load_of, run

RECORDS = 20_000

Prepare = Callable[["Copy", list[pa.Table]], None]


def records(start: int = 0, number: int = RECORDS, **more: Any) -> pa.Table:
    """Return records of several types, whose row groups are large enough to be worth keeping."""
    ids = range(start, start + number)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "name": pa.array([f"näme {n * 7919 % 1_000_003} of {n}" for n in ids], pa.string()),
            "kind": pa.array([None if n % 10 == 0 else "abc"[n % 3] for n in ids], pa.string()),
            "price": pa.array([Decimal(n) / 100 for n in ids], pa.decimal128(12, 2)),
            "at": pa.array([datetime.fromtimestamp(n, UTC) for n in ids], pa.timestamp("us", "UTC")),
            **{name: pa.array([value] * number) for name, value in more.items()},
        }
    )


@pytest.fixture(scope="module")
def tables() -> list[pa.Table]:
    return [records(place * RECORDS) for place in range(3)]


class Copy:
    """A pipeline from Parquet files to Parquet files, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.source.mkdir()
        self.out = folder / "out"
        self.document: dict[str, Any] = {
            "source": {"connector": "parquet", "config": {"path": "source"}},
            "destination": {"connector": "parquet", "config": {"path": "out"}},
            "streams": [{"stream": "orders"}],
        }

    def put(self, name: str, table: pa.Table, **options: Any) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"compression": "snappy", "row_group_size": 10_000, "write_page_index": True, **options}
        pq.write_table(table, path, **options)
        return path

    def write(self) -> Path:
        path = self.folder / "p.yaml"
        path.write_text(yaml.safe_dump(self.document))
        return path

    def plan(self) -> PlannedStream:
        pipeline = load_pipeline(self.write())
        with opened(pipeline) as session, existing_store(pipeline) as store:
            (planned,) = make_plan(session, store).streams
        return planned

    def run(self) -> int:
        result = run_pipeline(self.write())
        assert result.status == "success", result
        return result.streams[0].records or 0

    def verify(self) -> str:
        pipeline = load_pipeline(self.write())
        with opened(pipeline) as session, existing_store(pipeline) as store:
            (found,) = verify_streams(session, make_plan(session, store))
        assert found.source_records == found.destination_records
        return found.verdict

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.out.rglob("*.parquet") if "_syncblocks_ledger" not in path.parts)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def in_duckdb(*paths: Path) -> list[tuple[Any, ...]]:
    """Read files with a reader that is not Arrow's."""
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        return connection.execute(
            "select count(*), count(distinct id), sum(id), sum(hash(columns(*))::hugeint) from read_parquet(?)",
            [[str(path) for path in paths]],
        ).fetchall()


def test_a_null_in_the_key_is_refused(copy: Copy, tables: list[pa.Table]) -> None:
    ids = pa.array([None, *range(1, RECORDS)], pa.int64())
    copy.put("orders/0.parquet", tables[1])
    copy.put("orders/1.parquet", tables[0].set_column(0, "id", ids))
    copy.document["streams"][0]["key_properties"] = ["id"]
    result = run_pipeline(copy.write())
    assert result.status == "failure"
    assert "'id' of the key is NULL" in str(result.streams[0].error)
    assert files_readback.tables(copy.out) == set()


def test_append_adds_a_part_a_run(copy: Copy, tables: list[pa.Table]) -> None:
    copy.document["streams"][0]["write_disposition"] = "append"
    copy.put("orders.parquet", tables[0])
    copy.run()
    copy.put("orders.parquet", tables[1])
    copy.run()
    assert [pq.read_table(file) for file in copy.files] == tables[:2]


def test_a_table_with_other_columns_takes_the_records(copy: Copy, tables: list[pa.Table]) -> None:
    copy.document["streams"][0]["write_disposition"] = "append"
    copy.put("orders.parquet", tables[0].append_column("more", pa.nulls(RECORDS, pa.int64())))
    copy.run()
    copy.put("orders.parquet", tables[1])
    copy.run()
    read = [pq.read_table(file) for file in copy.files]
    assert [table.column_names for table in read] == [[*tables[0].column_names, "more"]] * 2
    assert pa.concat_tables(read).drop_columns("more").equals(pa.concat_tables(tables[:2]))


def test_files_of_two_programs_become_one(copy: Copy, tables: list[pa.Table]) -> None:
    copy.put("orders/0.parquet", tables[0])
    with duckdb.connect() as connection:
        connection.register("incoming", tables[1])
        connection.execute(f"copy (select * from incoming) to '{copy.source / 'orders' / '1.parquet'}'")
    assert copy.run() == 2 * RECORDS
    (file,) = copy.files
    assert in_duckdb(file) == in_duckdb(*sorted((copy.source / "orders").iterdir()))
    assert pq.read_table(file).equals(pa.concat_tables(tables[:2]))


def hive(copy: Copy, tables: list[pa.Table]) -> None:
    for place, table in enumerate(tables):
        copy.put(f"orders/year={2020 + place}/part.parquet", table)


def small(copy: Copy, tables: list[pa.Table]) -> None:
    for place, table in enumerate(tables):
        copy.put(f"orders/{place}.parquet", table.slice(0, 100))


def other_columns(copy: Copy, tables: list[pa.Table]) -> None:
    copy.put("orders/0.parquet", tables[0])
    copy.put("orders/1.parquet", tables[1].drop_columns("kind"))


def with_stream(**settings: Any) -> Prepare:
    def prepare(copy: Copy, tables: list[pa.Table]) -> None:
        copy.put("orders.parquet", tables[0])
        copy.document["streams"][0] |= settings

    return prepare


def with_types(copy: Copy, tables: list[pa.Table]) -> None:
    copy.put("orders.parquet", tables[0])
    copy.document["source"]["config"]["types"] = {"id": "string"}


def with_compression(copy: Copy, tables: list[pa.Table]) -> None:
    copy.put("orders.parquet", tables[0])
    copy.document["destination"]["config"]["compression"] = "zstd"


def with_transformer(copy: Copy, tables: list[pa.Table]) -> None:
    copy.put("orders.parquet", tables[0])
    (copy.folder / "t.py").write_text("@transformer\ndef same(df):\n    return df\n")
    copy.document["transformers"] = [{"block": "t", "file": "t.py", "rename": {"id": "number"}}]


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(hive, id="columns out of the path"),
        pytest.param(small, id="small row groups"),
        pytest.param(other_columns, id="other columns"),
        pytest.param(with_stream(columns={"exclude": ["kind"]}), id="a selection of columns"),
        pytest.param(with_types, id="other types"),
        pytest.param(with_compression, id="a compression"),
        pytest.param(with_transformer, id="a transformer"),
        pytest.param(with_stream(key_properties=["id"], write_disposition="merge"), id="merge"),
        pytest.param(
            with_stream(replication_method="INCREMENTAL", bookmark_properties=["id"], write_disposition="append"),
            id="INCREMENTAL",
        ),
    ],
)
def test_records_arrive_as_they_were(copy: Copy, tables: list[pa.Table], prepare: Prepare) -> None:
    prepare(copy, tables)
    number = copy.run()
    assert copy.verify() == ("counted" if "transformers" in copy.document else "equal")
    read = pa.concat_tables([pq.read_table(file) for file in copy.files], promote_options="default")
    assert read.num_rows == number
    sources = sorted(copy.source.rglob("*.parquet"))
    sent = pa.concat_tables([pq.read_table(file, partitioning=None) for file in sources], promote_options="default")
    for name in ("name", "price", "at"):
        assert read.column(name).combine_chunks().equals(sent.column(name).combine_chunks())
    if "year" in read.column_names:
        assert set(read.column("year").to_pylist()) == {2020, 2021, 2022}


@pytest.mark.parametrize(("source", "destination"), [("memory", "memory"), ("file", "memory"), ("memory", "file")])
def test_urls_work_as_folders_do(
    copy: Copy, tables: list[pa.Table], source: str, destination: str, tmp_path: Path
) -> None:
    places = {
        "memory": lambda name: f"memory://{tmp_path.name}-{name}",
        "file": lambda name: f"file://{tmp_path / name}",
    }
    copy.document["source"]["config"]["path"] = places[source]("source")
    copy.document["destination"]["config"]["path"] = places[destination]("out")
    for place, table in enumerate(tables):
        path = copy.put(f"orders/{place}.parquet", table)
        if source == "memory":
            with fsspec.open(f"{places[source]('source')}/orders/{place}.parquet", "wb") as file:
                file.write(path.read_bytes())
    assert copy.run() == 3 * RECORDS
    out = copy.document["destination"]["config"]["path"]
    with fsspec.open(f"{out}/orders.parquet", "rb") as file:
        assert pq.read_table(file).equals(pa.concat_tables(tables))


# -- files that change -----------------------------------------------------------------------------------------------


def source_of(path: Path) -> tuple[ParquetSource, Stream]:
    source = ParquetSource({"path": str(path)}, path)
    (stream,) = source.discover()
    return source, stream


def load(out: Path, source: ParquetSource, stream: Stream) -> int:
    destination = ParquetDestination({"path": str(out)}, out)
    events = [event for _, event in source.read([stream], {})]
    commits = run(destination, load_of("replace", "token", stream.schema), *events, Checkpoint(is_final=True))
    return sum(commit.records for commit in commits)


def test_a_column_that_turns_up_after_the_plan_arrives(copy: Copy, tables: list[pa.Table]) -> None:
    copy.put("orders/0.parquet", tables[0])
    source, stream = source_of(copy.source)
    copy.put("orders/1.parquet", tables[1].append_column("more", pa.array(range(RECORDS), pa.int64())))
    copy.put("orders/2.parquet", tables[2])
    assert load(copy.out, source, stream) == 3 * RECORDS
    (file,) = copy.files
    read = pq.read_table(file)
    assert read.drop_columns("more").equals(pa.concat_tables(tables))
    assert read.column("more").to_pylist() == [None] * RECORDS + list(range(RECORDS)) + [None] * RECORDS


def test_decimals_of_32_and_64_bits_are_written_though_arrow_tells_no_repeated_ones_apart(copy: Copy) -> None:
    prices = [Decimal("1.10"), None, Decimal("-2.25"), Decimal("1.10")]
    kinds = {"narrow": pa.decimal32(5, 2), "wider": pa.decimal64(12, 2)}
    copy.put("orders/0.parquet", pa.table({name: pa.array(prices, kind) for name, kind in kinds.items()}))
    assert copy.run() == 4
    (file,) = copy.files
    with duckdb.connect() as connection:
        found = connection.execute("select narrow, wider from read_parquet(?)", [str(file)]).fetchall()
    assert found == [(price, price) for price in prices]
