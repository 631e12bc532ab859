"""The memory budget: what is in flight is counted, wide records pass, and a run's peak does not depend on its rows."""

from __future__ import annotations

import json
import sys
import threading
import weakref
from hashlib import md5
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet
import pytest

from syncblocks import Progress
from syncblocks.connectors.arrow.record_size import RecordTooWide
from syncblocks.connectors.duckdb.database import DuckDBInstance
from syncblocks.connectors.ranges import Range
from syncblocks.connectors.stream import Checkpoint, Rejected, RejectedRecord, Stream
from syncblocks.sync.flow.feed import Budget, Feed, Item, start_reading
from syncblocks.sync.flow.memory import STREAM_BYTES, budget_bytes, machine_bytes, streams_at_once
from syncblocks.sync.flow.spooled_feed import SpooledFeed
from syncblocks.sync.run.ranges import StreamRanges, start_reading_ranges
from tests.peaks import peak_bytes
from tests.sync.pipelines import Bench

MEGABYTE = 1_000_000


class Watched(Budget):
    """Notes the most that was ever in flight."""

    def __init__(self, limit_bytes: int) -> None:
        self._used = self.peak = 0
        super().__init__(limit_bytes)

    @property  # type: ignore[override]
    def used_bytes(self) -> int:
        return self._used

    @used_bytes.setter
    def used_bytes(self, value: int) -> None:
        self._used = value
        self.peak = max(self.peak, value)


def carry(feed: Feed, sizes: list[int], taken: list[int]) -> list[threading.Thread]:
    def put() -> None:
        for size in sizes:
            feed.put(Item(bytes(size)))
        feed.end()

    def take() -> None:
        taken.extend(len(item.event) for item in feed)
        feed.close()

    threads = [threading.Thread(target=put), threading.Thread(target=take)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("limit", [1, 100, 1000, 10_000])
def test_batches_in_flight_keep_to_the_budget_that_streams_share(limit: int) -> None:
    budget = Watched(limit)
    sizes = [size for size in (90, 1, 40, 100, 0, 7) for _ in range(60)]
    results: list[list[int]] = [[] for _ in range(5)]
    threads = [
        thread for number, taken in enumerate(results) for thread in carry(Feed(f"s{number}", budget), sizes, taken)
    ]
    for thread in threads:
        thread.join(60)
    assert results == [sizes] * 5
    assert budget.used_bytes == 0
    # A stream that has nothing in flight may always go on: one batch each, however small the budget.
    assert budget.peak <= max(limit, 0) + 5 * max(sizes)
    if limit == 1:
        assert budget.peak <= 5 * max(sizes)


def test_a_stream_that_is_given_up_gives_its_part_back() -> None:
    budget = Budget(100)
    feed = Feed("s", budget)
    feed.put(Item(bytes(60)))
    feed.put(Item(bytes(30)))
    next(iter(feed))
    assert budget.used_bytes == 90
    feed.close()
    feed.close()
    assert budget.used_bytes == 0
    assert not feed.put(Item(bytes(10)))
    assert budget.used_bytes == 0


def test_a_batch_that_was_loaded_is_let_go_before_the_next_one_comes() -> None:
    feed = Feed("s", Budget(10_000))
    batches = [pa.record_batch({"n": pa.array([number])}) for number in range(2)]
    first = weakref.ref(batches[0])
    for batch in batches:
        feed.put(Item(batch))
    del batch
    batches.clear()
    items = iter(feed)
    item = next(items)
    del item
    next(items)
    assert first() is None


def test_a_source_begins_no_wide_batch_while_the_load_works_on_one() -> None:
    feed = Feed("s", Budget(100))
    feed.put(Item(bytes(40)))
    items = iter(feed)
    next(items)
    passed: list[str] = []

    def read_on() -> None:
        feed.wait(bytes(20))  # 40 are in flight: there is room for this and another one
        passed.append("narrow")
        feed.wait(bytes(40))
        passed.append("wide")
        feed.end()

    thread = threading.Thread(target=read_on)
    thread.start()
    while not passed:
        thread.join(0.01)
    assert passed == ["narrow"]
    assert list(items) == []  # the load has asked for more
    thread.join(60)
    assert passed == ["narrow", "wide"]


@pytest.mark.parametrize(
    ("block", "ahead"),
    [
        *(
            (bytes(size), ahead)
            for size, ahead in ((20 << 20, 2), (16 << 20, 2), (4 << 20, 8), (1 << 20, 32), (100, 100))
        ),
        (Rejected(records=(RejectedRecord(record="x" * (1 << 20), reason="not a number"),) * 4), 7),
        (Checkpoint(bookmark=None), 100),
    ],
    ids=["20 MB", "16 MB", "4 MB", "1 MB", "100 bytes", "rejected", "checkpoint"],
)
def test_the_reader_is_ahead_by_two_large_batches_or_by_many_small_ones(block: Any, ahead: int) -> None:
    feed = Feed("s")
    feed.put(Item(block))
    items = iter(feed)
    next(items)  # the load works on one
    added: list[int] = []

    def read_on() -> None:
        while feed.put(Item(block)):
            added.append(1)

    thread = threading.Thread(target=read_on)
    thread.start()
    while len(added) < ahead:
        thread.join(0.001)
    thread.join(0.05)
    assert len(added) == ahead
    next(items)
    while len(added) < ahead + 1:
        thread.join(0.001)
    thread.join(0.05)
    assert len(added) == ahead + 1
    feed.close()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("limit_bytes", [sys.maxsize, 8_000_000])
def test_batches_of_few_records_and_many_columns_count_by_what_their_columns_take_too(limit_bytes: int) -> None:
    # As a filter leaves them: Arrow holds about as much for each column as a hundred numbers.
    feed = Feed("s", Budget(limit_bytes))
    batch = pa.record_batch({f"c{number}": [1] for number in range(1_000)})
    added: list[int] = []

    def read_on() -> None:
        while feed.put(Item(batch)):
            added.append(1)

    thread = threading.Thread(target=read_on)
    thread.start()
    thread.join(0.3)
    feed.close()
    thread.join(60)
    assert 1 < len(added) * batch.num_columns * 1_000 <= min(limit_bytes, 32 << 20)


def test_the_budget_is_a_quarter_of_the_machine_unless_the_file_says_otherwise() -> None:
    assert budget_bytes(None) == max(STREAM_BYTES, machine_bytes() // 4)
    assert budget_bytes(512 * MEGABYTE) == 512 * MEGABYTE
    assert [streams_at_once(size * MEGABYTE) for size in (64, 127, 512)] == [1, 1, 8]


# ---------------------------------------------------------------- a record larger than all of it
def of_sizes(*sizes: int) -> pa.RecordBatch:
    return pa.record_batch(
        {"id": range(7, 7 + len(sizes)), "doc": ["x" * size for size in sizes], "n": [1] * len(sizes)}
    )


def test_a_record_larger_than_memory_is_refused_with_its_key_and_column() -> None:
    feed = Feed("s", Budget(10, 2 * MEGABYTE), ["id"])
    for fits in (of_sizes(2 * MEGABYTE), of_sizes(*[MEGABYTE] * 5), pa.record_batch({"doc": ["x" * 2 * MEGABYTE] * 3})):
        feed.refuse_too_wide(fits)
    with pytest.raises(RecordTooWide) as refused:
        feed.refuse_too_wide(of_sizes(1, 10, 4 * MEGABYTE, 1))
    assert str(refused.value) == (
        "a record (id 9) of 4 MB, of which column 'doc' has 4 MB, is larger than `memory`, 2 MB: raise `memory` "
        "in the pipeline file, or leave the column out by `columns: {exclude: [doc]}`"
    )
    with pytest.raises(RecordTooWide, match=r"^a record of 4 MB, of which column 'l' has 4 MB, "):
        feed.refuse_too_wide(pa.record_batch({"l": [["x" * 2 * MEGABYTE] * 2]}))
    with pytest.raises(RecordTooWide, match=r"^a record of 4 MB is larger"):  # of a wire that has no columns
        feed.refuse_too_wide(bytes(4 * MEGABYTE))


def test_ranges_and_streams_that_wait_on_disk_refuse_it_as_well(tmp_path: Path) -> None:
    waiting = SpooledFeed("s", tmp_path, Budget(10, MEGABYTE), ["id"])
    with pytest.raises(RecordTooWide, match=r"^a record \(id 7\) of 4 MB"):
        waiting.refuse_too_wide(of_sizes(4 * MEGABYTE))
    waiting.close()
    opened: Any = SimpleNamespace(ranges=[Range(place=0, label="all")], read=lambda _: iter([of_sizes(4 * MEGABYTE)]))
    planned = SimpleNamespace(mapping=SimpleNamespace(convert=None), stream=SimpleNamespace(key_properties=("id",)))
    context = SimpleNamespace(budget=Budget(10, MEGABYTE))
    blocks = SimpleNamespace(note_read=lambda *_, **__: None)
    run: Any = SimpleNamespace(context=context, planned=planned, blocks=blocks)
    reads = StreamRanges(run, opened)
    with pytest.raises(RecordTooWide, match=r"^a record \(id 7\) of 4 MB") as refused:
        next(reads.read(opened.ranges[0]))
    assert reads.is_from_source(refused.value)
    feed = Feed("s", Budget(10, MEGABYTE), ["id"])
    start_reading_ranges(opened, 1, feed)
    with pytest.raises(RecordTooWide, match=r"range 1 of 1 \(all\): a record \(id 7\) of 4 MB"):
        list(feed)


def test_a_schema_counts_in_the_budget_and_one_without_records_is_not_kept() -> None:
    """A tap that sends thousands of schemas before its first record must not fill the memory with them."""
    wide = [Stream(name="s", schema=pa.schema([(f"c{n}", pa.int64()) for n in range(width)])) for width in (9, 8, 7)]
    batch = of_sizes(1)
    first, second, third = wide
    found: list[tuple[str, Any]] = [("s", each) for each in (first, second, batch, third, Checkpoint())]
    budget = Watched(MEGABYTE)
    source: Any = SimpleNamespace(read=lambda *_: iter(found))
    feeds = start_reading(source, [first], {}, "arrow", lambda name: Feed(name, budget))
    assert [item.event for item in feeds["s"]] == [second, batch, third, Checkpoint()]
    feed = Feed("s", budget)
    feed.put(Item(first))
    assert budget.used_bytes == 9_000


@pytest.mark.full
def test_a_run_says_which_record_memory_has_no_room_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.seed("t", [{"id": 1, "v": "a"}, {"id": 2, "v": "x" * 66 * MEGABYTE}])
    bench.document["memory"] = "64MB"
    bench.record(on=["load"])
    result = bench.run()
    assert result.exit_code == 1
    assert "a record (id 2) of 66 MB, of which column 'v' has 66 MB, is larger than `memory`, 64 MB" in str(
        result.streams[0].error
    )
    assert [call["error_block"] for call in bench.calls()] == ["load"]
    bench.seed("t", [{"id": 1, "v": "a"}, {"id": 2, "v": "x" * 64 * MEGABYTE}])
    assert bench.run().exit_code == 0


class Overlap(Progress):
    """Notes how many streams were ever open at once."""

    def __init__(self) -> None:
        self.open = self.most = 0

    def stream_started(self, stream: str, destination_table: str, bookmark: dict[str, Any] | None) -> None:
        self.open += 1
        self.most = max(self.most, self.open)

    def stream_ended(self, stream: str, status: str, *, records: int | None, error: str | None) -> None:
        self.open -= 1


@pytest.mark.parametrize("cap", [{}, {"memory": "64MB"}, {"source": 1}, {"destination": 1}])
def test_memory_and_either_end_cap_the_streams_at_once(cap: dict[str, Any], tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for number in range(6):
        bench.seed(f"t{number}", 3)
    bench.document["concurrency"] = 3
    for name, value in cap.items():
        if name == "memory":
            bench.document[name] = value
        else:
            bench.document[name]["concurrency"] = value
    overlap = Overlap()
    assert bench.run(progress=overlap).exit_code == 0
    if cap:
        assert overlap.most == 1
    else:
        assert overlap.most > 1


# ---------------------------------------------------------------- whole processes
def sync(
    folder: Path, source: dict[str, Any], stream: str, destination: dict[str, Any], memory: str, **how: Any
) -> int:
    """Run it in a process of its own and return that one's peak, in bytes."""
    document = {
        "pipeline": "wide",
        "memory": memory,
        "source": source,
        "destination": destination,
        "streams": [{"stream": stream, "destination_table": "copied", **how}],
    }
    path = folder / "pipeline.yaml"
    path.write_text(json.dumps(document))
    return peak_bytes([str(Path(sys.executable).with_name("syncblocks")), "run", str(path)], folder)


def seed(url: str, table: str, records: int, size_bytes: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(f"create table {table} (id bigint primary key, doc text)")
        connection.execute(
            f"insert into {table} select g, repeat(md5(g::text), %s) from generate_series(1, %s) g",
            (size_bytes // 32, records),
        )


def sums(url: str, sql: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(sql.encode()).fetchall()


DIGEST = "select id, length(doc), md5(doc) from {} order by id"
DUCKDB = {"connector": "duckdb", "config": {"path": "w.duckdb"}}
PARQUET = {"connector": "parquet", "config": {"path": "out"}}


@pytest.mark.full
@pytest.mark.postgres
def test_values_of_64_mb_reach_every_kind_of_destination(postgres_url: str, tmp_path: Path) -> None:
    import duckdb

    seed(postgres_url, "docs", 3, 64 * MEGABYTE)
    written = sums(postgres_url, DIGEST.format("docs"))
    assert [length for _, length, _ in written] == [64 * MEGABYTE] * 3
    source = to = {"connector": "postgres", "config": {"url": postgres_url}}
    # Beside the process's own 100 MB, each of drivers, format and database makes its copy of the record at work.
    assert sync(tmp_path, source, "public.docs", to, "256MB") < 900 * MEGABYTE
    assert sums(postgres_url, DIGEST.format("copied")) == written
    assert sync(tmp_path, source, "public.docs", PARQUET, "256MB") < 1000 * MEGABYTE
    with duckdb.connect() as reading:
        file = tmp_path / "out" / "copied.parquet"
        assert reading.execute(DIGEST.format(f"'{file}'")).fetchall() == written
    # DuckDB holds the wide records of a row group at once when it commits.
    assert sync(tmp_path, source, "public.docs", DUCKDB, "1GB") < 1600 * MEGABYTE
    with duckdb.connect(str(tmp_path / "w.duckdb"), read_only=True) as reading:
        assert reading.execute(DIGEST.format("copied")).fetchall() == written


@pytest.mark.full
@pytest.mark.postgres
def test_many_wide_records_take_no_more_than_a_few(postgres_url: str, tmp_path: Path) -> None:
    seed(postgres_url, "wide", 300, MEGABYTE)
    source = {"connector": "postgres", "config": {"url": postgres_url}}
    peak = sync(tmp_path, source, "public.wide", PARQUET, "64MB")
    assert peak < 250 * MEGABYTE  # of 300 MB of records, and 100 MB of process
    assert pyarrow.parquet.read_metadata(tmp_path / "out" / "copied.parquet").num_rows == 300


@pytest.mark.full
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_wide_values_of_files_take_no_more_than_memory(tmp_path: Path, suffix: str) -> None:
    def write(name: str, records: int, size_bytes: int) -> dict[str, Any]:
        lines = [f'{{"id":{n},"doc":"{"x" * size_bytes}"}}' for n in range(records)]
        if suffix == "csv":
            lines = ["id,doc", *(f'{n},"{"x" * size_bytes}"' for n in range(records))]
        (tmp_path / name).mkdir()
        path = tmp_path / name / f"docs.{suffix}"
        path.write_text("\n".join(lines) + "\n")
        return {"connector": suffix, "config": {"path": str(path)}}

    small = sync(tmp_path, write("small", 4, 10), "docs", PARQUET, "160MB")
    (tmp_path / "pipeline.yaml").unlink()
    wide = write("wide", 8, 16 * MEGABYTE)
    assert sync(tmp_path, wide, "docs", {**PARQUET, "config": {"path": "wide_out"}}, "160MB") - small < 160 * MEGABYTE
    read = pyarrow.parquet.read_table(tmp_path / "wide_out" / "copied.parquet")
    assert [len(text) for text in read["doc"].to_pylist()] == [16 * MEGABYTE] * 8


@pytest.mark.full
@pytest.mark.parametrize("disposition", ["append", "merge"])
def test_wide_records_take_no_more_in_a_table_of_duckdb_that_is_there(disposition: str, tmp_path: Path) -> None:
    import duckdb

    if not DuckDBInstance(tmp_path).cuts_pieces:
        pytest.skip("DuckDB before 1.5.3 does not cut row groups")
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("doc", pa.string())])
    (tmp_path / "in").mkdir()
    source = {"connector": "parquet", "config": {"path": "in"}}
    how = {"write_disposition": disposition, "key_properties": ["id"]}

    def run(records: int, size_bytes: int) -> int:
        with pyarrow.parquet.ParquetWriter(tmp_path / "in" / "docs.parquet", schema) as writer:
            for number in range(records):
                doc = md5(str(number).encode()).hexdigest() * (size_bytes // 32)
                writer.write_table(pa.table([[number], [doc]], schema=schema))
        return sync(tmp_path, source, "docs", DUCKDB, "256MB", **how)

    run(2, 32)
    # The process's own 100 MB, and the budget twice: what is read of a piece is beside DuckDB's own count.
    assert run(400, MEGABYTE) < 450 * MEGABYTE
    with duckdb.connect(str(tmp_path / "w.duckdb"), config={"memory_limit": "2GB"}) as reading:
        found = reading.execute("select id, length(doc), count(distinct md5(doc)) from copied group by all").fetchall()
    narrow = [] if disposition == "merge" else [(0, 32, 1), (1, 32, 1)]
    assert sorted(found) == sorted([*narrow, *((number, MEGABYTE, 1) for number in range(400))])


def test_duckdb_says_what_to_raise_where_the_budget_is_not_enough(tmp_path: Path) -> None:
    from syncblocks.connectors.duckdb import DuckDBDestination
    from syncblocks.connectors.errors import FatalConnectorError
    from syncblocks.connectors.stream import Checkpoint
    from syncblocks.connectors.write_spec import WriteDisposition
    from tests.connectors.duckdb.duckdb_files import load

    destination = DuckDBDestination({"path": "x.duckdb", "memory_limit": "20MB"}, tmp_path)
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("doc", pa.string())])
    wide = pa.RecordBatch.from_arrays([pa.array([1]), pa.array(["x" * 30 * MEGABYTE])], schema=schema)
    with pytest.raises(FatalConnectorError, match=r"raise `memory` .* or memory_limit"):
        load(destination, "t", WriteDisposition.REPLACE, iter([wide, Checkpoint(is_final=True)]), schema, ["id"])
    destination.close()
