"""The memory pair's own knobs; its promises are tested by the contracts."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError, Interrupted, RetriableError
from syncblocks.connectors.memory import MemoryDestination, MemorySource, database, databases
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import Checkpoint, Event, LedgerKey, Load, Stream, TableState
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec

NUMBERS = pa.table({"n": pa.array(range(10), pa.int64())})


@pytest.fixture
def name() -> Iterator[str]:
    """A database of this test's own, with two tables of ten numbers."""
    name = uuid.uuid4().hex
    database(name).tables |= {"left": NUMBERS, "right": NUMBERS}
    yield name
    databases.pop(name)


def source(**config: Any) -> MemorySource:
    return MemorySource(config, Path.cwd())


def destination(**config: Any) -> MemoryDestination:
    return MemoryDestination(config, Path.cwd())


def find(of: MemorySource, stream: str) -> Stream:
    return next(each for each in of.discover() if each.name == stream)


def read(of: MemorySource, *streams: str) -> list[tuple[str, Any]]:
    return list(of.read([find(of, stream) for stream in streams], {}))


def load(to: MemoryDestination, events: Iterator[Event], wire: str = "arrow") -> list[Any]:
    key = LedgerKey(pipeline="p", stream="left", destination_table="copy")
    order = Load(
        key=key,
        stream=Stream(name="left", schema=NUMBERS.schema),
        write=WriteSpec(disposition=WriteDisposition.APPEND),
        token="t",
        run="r:1",
    )
    to.take_over(key, token="t", owner="test", source="s")
    return list(to.load(order, events, wire))


def test_a_table_is_written_down_in_the_config() -> None:
    columns = {"id": "int64", "at": "timestamp[us, tz=UTC]", "price": "decimal(10, 2)", "born": "date32", "ok": "bool"}
    record = {"id": 1, "at": "2024-01-01T00:00:00Z", "price": 1.5, "born": "2024-02-29", "ok": True}
    of = source(tables={"t": {"columns": columns, "records": [record, {}], "key": ["id"]}})
    ((_, batch),) = read(of, "t")
    assert [str(field.type) for field in batch.schema] == [
        "int64", "timestamp[us, tz=UTC]", "decimal128(10, 2)", "date32[day]", "bool",
    ]  # fmt: skip
    first, second = batch.to_pylist()
    assert (first["at"].isoformat(), str(first["price"]), str(first["born"])) == (
        "2024-01-01T00:00:00+00:00",
        "1.50",
        "2024-02-29",
    )
    assert set(second.values()) == {None}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"database": "x", "tables": {"t": {"columns": {}}}},
        {"tables": {"t": {"columns": {"id": "integer!"}}}},
        {"tables": {"t": {"columns": {"id": "int64"}, "records": [{"id": "x"}]}}},
        {"tables": {"t": {"columns": {"at": "date32"}, "records": [{"at": "29.2.2024"}]}}},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config: Mapping[str, Any]) -> None:
    with pytest.raises(ConnectorConfigError):
        source(**config)


def test_views_come_last_and_say_so(name: str) -> None:
    database(name).views.add("left")
    assert [(stream.name, stream.is_view) for stream in source(database=name).discover()] == [
        ("right", False),
        ("left", True),
    ]
    state = destination(database=name).describe(["left"])["left"]
    assert state == TableState(schema=NUMBERS.schema, is_table=False, stream_name="left")


def test_streams_of_a_group_come_interleaved(name: str) -> None:
    of = source(database=name, groups=[["left", "right"]], batch_size=5)
    (group,) = of.groups(of.discover())
    assert [stream for stream, _ in of.read(group, {})] == ["left", "right", "left", "right"]


@pytest.mark.parametrize(
    ("kind", "error"), [("retriable", RetriableError), ("fatal", FatalConnectorError), ("crash", RuntimeError)]
)
def test_a_source_fails_at_the_batch_named_and_then_works(name: str, kind: str, error: type[Exception]) -> None:
    config = {"database": name, "batch_size": 2, "fail_at": {"left": 3}, "fail_kind": kind, "fail_times": 2}
    for _ in range(2):
        of = source(**config)
        events: Any = of.read([find(of, "left")], {})
        assert [next(events)[1].num_rows for _ in range(2)] == [2, 2]
        with pytest.raises(error, match="on purpose"):
            next(events)
    assert len(read(source(**config), "left")) == 5


def test_a_destination_fails_on_the_batch_named_and_then_works(name: str) -> None:
    to = destination(database=name, fail_on={"left": 2})
    batches = NUMBERS.to_batches(max_chunksize=5)
    with pytest.raises(RetriableError):
        load(to, iter([*batches, Checkpoint(is_final=True)]))
    assert "copy" not in database(name).tables
    load(to, iter([*batches, Checkpoint(is_final=True)]))
    assert database(name).tables["copy"].num_rows == 10


def test_batches_cross_as_ipc_blocks(name: str) -> None:
    of, to = source(database=name, wires=["ipc"]), destination(database=name, wires=["ipc"])
    stream = find(of, "left")
    assert of.offers(stream) == to.accepts(stream, WriteDisposition.APPEND) == ("ipc", "arrow")
    blocks = [event for _, event in of.read([stream], {}, "ipc")]
    assert all(isinstance(block, bytes) for block in blocks)
    load(to, iter([*blocks, Checkpoint(is_final=True)]), "ipc")
    assert database(name).tables["copy"].to_pylist() == NUMBERS.to_pylist()


def test_a_slow_read_is_interrupted_while_it_waits(name: str) -> None:
    of = source(database=name, delay_s=60)
    stream, start = find(of, "left"), time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(lambda: list(of.read([stream], {})))
        while not future.done():  # an interrupt before the call is under way has no effect
            of.interrupt("left")
        with pytest.raises(Interrupted):
            future.result()
    assert time.monotonic() - start < 30


def test_a_slow_commit_is_interrupted_and_keeps_nothing(name: str) -> None:
    to = destination(database=name, delay_commit_s=60)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(load, to, iter([*NUMBERS.to_batches(), Checkpoint(is_final=True)]))
        while not future.done():
            to.interrupt("left")
        with pytest.raises(Interrupted):
            future.result()
    assert "copy" not in database(name).tables
    assert database(name).staging == {}


def test_a_table_that_changed_since_discovery_says_so(name: str) -> None:
    of = source(database=name)
    stream = find(of, "left")
    database(name).tables["left"] = pa.table({"n": ["text"], "new": [1]})
    events: list[Any] = [event for _, event in of.read([stream], {})]
    changed, batch = events
    assert isinstance(changed, Stream)
    assert changed.schema == batch.schema == pa.schema([("n", pa.string())])
    database(name).tables["left"] = pa.table({"other": [1]})
    with pytest.raises(FatalConnectorError, match="no column 'n' any more"):
        list(of.read([stream], {}))
    del database(name).tables["left"]
    with pytest.raises(FatalConnectorError, match="table 'left' does not exist"):
        list(of.read([stream], {}))


def test_checkpoints_come_as_often_as_told(name: str) -> None:
    of = source(database=name, batch_size=2, checkpoint_records=4)
    stream = replace(
        offered := find(of, "left"),
        read=replace(offered.read, method=ReplicationMethod.INCREMENTAL, bookmark_properties=("n",)),
    )
    bookmarks = [event.bookmark["n"] for _, event in of.read([stream], {}) if isinstance(event, Checkpoint)]  # type: ignore[index]
    assert bookmarks == [3, 7, 9]


def test_a_record_without_a_key_is_not_merged(name: str) -> None:
    schema = pa.schema([("n", pa.int64())])
    key = LedgerKey(pipeline="p", stream="left", destination_table="copy")
    stream = Stream(name="left", schema=schema, key_properties=("n",))
    order = Load(key=key, stream=stream, write=WriteSpec(disposition=WriteDisposition.MERGE), token="t", run="r:1")
    to = destination(database=name)
    to.take_over(key, token="t", owner="test")
    with pytest.raises(FatalConnectorError, match="no key"):
        list(to.load(order, iter([pa.record_batch({"n": pa.array([None], pa.int64())}), Checkpoint(is_final=True)])))
