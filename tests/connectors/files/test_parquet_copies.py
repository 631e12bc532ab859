"""Parquet to Parquet: whole files go over as they are, and what cannot do so goes over record by record."""

from __future__ import annotations

import os
import struct
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
from syncblocks.connectors.errors import FatalConnectorError, RetriableError
from syncblocks.connectors.files.destination import ParquetDestination
from syncblocks.connectors.files.parquet_copy import WIRE
from syncblocks.connectors.files.source import ParquetSource
from syncblocks.connectors.files.thrift import parse, written
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
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    monkeypatch.setattr(
        "syncblocks.connectors.files.source.LEAST_GROUP_BYTES", 100_000
    )  # so that the tests' files may be small
    return Copy(tmp_path)


def in_duckdb(*paths: Path) -> list[tuple[Any, ...]]:
    """Read files with a reader that is not Arrow's."""
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        return connection.execute(
            "select count(*), count(distinct id), sum(id), sum(hash(columns(*))::hugeint) from read_parquet(?)",
            [[str(path) for path in paths]],
        ).fetchall()


def test_one_file_arrives_byte_by_byte(copy: Copy, tables: list[pa.Table]) -> None:
    path = copy.put("orders.parquet", tables[0])
    assert copy.plan().wire == WIRE
    assert copy.run() == RECORDS
    assert [file.read_bytes() for file in copy.files] == [path.read_bytes()]
    assert copy.verify() == "equal"


def test_many_files_become_one_whose_pages_are_theirs(copy: Copy, tables: list[pa.Table]) -> None:
    paths = [copy.put(f"orders/{place}.parquet", table) for place, table in enumerate(tables)]
    assert copy.plan().wire == WIRE
    assert copy.run() == 3 * RECORDS
    (file,) = copy.files
    assert file == copy.out / "orders.parquet"
    assert pq.read_table(file).equals(pa.concat_tables(tables))
    assert in_duckdb(file) == in_duckdb(*paths)
    found = pq.read_metadata(file)
    groups = [pq.read_metadata(path).row_group(place) for path in paths for place in range(2)]
    assert found.num_row_groups == len(groups)
    for place, group in enumerate(groups):
        assert found.row_group(place).num_rows == group.num_rows
        for column in range(group.num_columns):
            ours, theirs = found.row_group(place).column(column), group.column(column)
            assert (ours.encodings, ours.compression, ours.total_compressed_size) == (
                theirs.encodings, theirs.compression, theirs.total_compressed_size
            )  # fmt: skip
            assert ours.statistics == theirs.statistics
            assert theirs.has_offset_index
            assert not ours.has_offset_index
    assert copy.verify() == "equal"


def test_a_joined_file_says_only_what_is_true_of_all(copy: Copy, tables: list[pa.Table]) -> None:
    """What pandas notes of its index, or others of the area that a file covers, would be wrong."""
    for place, table in enumerate(tables):
        notes = {"owner": "sales", "area": f"{place}"} | ({"first": "yes"} if place == 0 else {})
        table = table.append_column("code", pa.array(["x", "y"] * (RECORDS // 2)).dictionary_encode())
        copy.put(f"orders/{place}.parquet", table.replace_schema_metadata(notes))
    assert copy.plan().wire == WIRE
    copy.run()
    (file,) = copy.files
    assert pq.read_schema(file).metadata == {b"owner": b"sales"}
    assert pq.read_schema(file).field("code").type == pa.dictionary(pa.int32(), pa.string())
    assert set(pq.read_metadata(file).metadata) == {b"owner", b"ARROW:schema"}


def test_bloom_filters_of_joined_files_are_found(copy: Copy) -> None:
    (copy.source / "orders").mkdir()
    with duckdb.connect() as connection:
        for place in range(3):
            connection.execute(
                f"copy (select 'f{place} ' || i % 100 as name, i, hash(i) as h from range(10240) r(i)) "
                f"to '{copy.source / 'orders' / str(place)}.parquet'"
            )
        assert copy.plan().wire == WIRE
        copy.run()
        (file,) = copy.files
        for place in range(3):
            probe = f"from parquet_bloom_probe('{file}', 'name', 'f{place} 7') order by row_group_id"
            excluded = [found for (found,) in connection.execute(f"select bloom_filter_excludes {probe}").fetchall()]
            assert excluded == [other != place for other in range(3)]


def test_files_that_are_copied_are_not_split(copy: Copy, tables: list[pa.Table]) -> None:
    copy.put("orders/0.parquet", tables[0])
    copy.put("orders/1.parquet", tables[1])
    copy.document["source"]["config"]["range_bytes"] = 1000
    copy.document["parallel_reads"] = 4
    planned = copy.plan()
    assert (planned.wire, str(planned.reading)) == (WIRE, "one reader: its files are copied as they are")
    copy.document["destination"]["config"]["compression"] = "zstd"
    planned = copy.plan()
    assert (planned.wire, planned.reading.readers) == ("arrow", 4)


def test_a_copy_of_a_null_in_the_key_is_refused(copy: Copy, tables: list[pa.Table]) -> None:
    ids = pa.array([None, *range(1, RECORDS)], pa.int64())
    copy.put("orders/0.parquet", tables[1])
    copy.put("orders/1.parquet", tables[0].set_column(0, "id", ids))
    copy.document["streams"][0]["key_properties"] = ["id"]
    assert copy.plan().wire == WIRE
    result = run_pipeline(copy.write())
    assert result.status == "failure"
    assert "'id' is NULL" in str(result.streams[0].error)
    assert files_readback.tables(copy.out) == set()


def test_append_adds_a_part_a_run(copy: Copy, tables: list[pa.Table]) -> None:
    copy.document["streams"][0]["write_disposition"] = "append"
    path = copy.put("orders.parquet", tables[0])
    assert copy.plan().wire == WIRE
    copy.run()
    first = path.read_bytes()
    path = copy.put("orders.parquet", tables[1])
    copy.run()
    assert [file.read_bytes() for file in copy.files] == [first, path.read_bytes()]


def test_a_table_with_other_columns_takes_the_records_and_not_the_file(copy: Copy, tables: list[pa.Table]) -> None:
    copy.document["streams"][0]["write_disposition"] = "append"
    copy.put("orders.parquet", tables[0].append_column("more", pa.nulls(RECORDS, pa.int64())))
    copy.run()
    copy.put("orders.parquet", tables[1])
    copy.run()
    read = [pq.read_table(file) for file in copy.files]
    assert [table.column_names for table in read] == [[*tables[0].column_names, "more"]] * 2
    assert pa.concat_tables(read).drop_columns("more").equals(pa.concat_tables(tables[:2]))


def test_files_of_two_programs_become_one_by_their_records(copy: Copy, tables: list[pa.Table]) -> None:
    """Readers judge a file's statistics by the program that its footer names."""
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
def test_what_is_not_taken_whole_goes_over_by_its_records(copy: Copy, tables: list[pa.Table], prepare: Prepare) -> None:
    prepare(copy, tables)
    assert copy.plan().wire == "arrow"
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
def test_urls_are_copied_as_well(
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
    assert copy.plan().wire == WIRE
    assert copy.run() == 3 * RECORDS
    out = copy.document["destination"]["config"]["path"]
    with fsspec.open(f"{out}/orders.parquet", "rb") as file:
        assert pq.read_table(file).equals(pa.concat_tables(tables))


# -- files that change -----------------------------------------------------------------------------------------------


def source_of(path: Path) -> tuple[ParquetSource, Stream]:
    source = ParquetSource({"path": str(path)}, path)
    (stream,) = source.discover()
    assert source.offers(stream) == (WIRE, "arrow")
    return source, stream


def load(out: Path, source: ParquetSource, stream: Stream) -> int:
    destination = ParquetDestination({"path": str(out)}, out)
    events = [event for _, event in source.read([stream], {}, WIRE)]
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


def test_a_file_that_is_rewritten_while_it_is_read_is_no_copy(copy: Copy, tables: list[pa.Table]) -> None:
    path = copy.put("orders/0.parquet", tables[0])
    source, stream = source_of(copy.source)
    events = source.read([stream], {}, WIRE)
    next(events)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(RetriableError, match=r"0\.parquet"):
        list(events)
    with pytest.raises(RetriableError, match="no Parquet file any more"):
        list(source.read([stream], {}, WIRE))


def test_a_load_that_ends_within_a_file_commits_nothing(copy: Copy, tables: list[pa.Table]) -> None:
    copy.put("orders.parquet", tables[0])
    source, stream = source_of(copy.source)
    header, *_ = (event for _, event in source.read([stream], {}, WIRE))
    destination = ParquetDestination({"path": str(copy.out)}, copy.out)
    with pytest.raises(FatalConnectorError, match="ended before its end"):
        run(destination, load_of("replace", "token", stream.schema), header, Checkpoint(is_final=True))
    assert files_readback.tables(copy.out) == set()
    assert destination.describe(["orders"])["orders"].schema is None


def test_footers_are_written_as_they_were_read(copy: Copy, tables: list[pa.Table]) -> None:
    paths = [
        copy.put("a.parquet", tables[0]),
        copy.put("b.parquet", pa.table({"l": [[1, None], None], "b": [True, None]})),
    ]
    with duckdb.connect() as connection:
        path = copy.source / "c.parquet"
        connection.execute(f"copy (select 1 as a, [{{'x': 2}}] as b, true as c) to '{path}'")
        paths.append(path)
    for path in paths:
        content = path.read_bytes()
        (length,) = struct.unpack("<i", content[-8:-4])
        footer = content[-8 - length : -8]
        assert written(parse(footer)) == footer
    with pytest.raises(FatalConnectorError, match="damaged"):
        parse(footer[: len(footer) // 2])
