"""Classes of singer-sdk in this process: same streams, records, states and errors as their programs."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError, Interrupted
from syncblocks.connectors.read_spec import ReadSpec, ReplicationMethod
from syncblocks.connectors.registry import make_destination, make_source
from syncblocks.connectors.stream import Checkpoint, Event, LedgerKey, Load, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec

TAP = "tests.connectors.singer.sdk_plugins:TapShop"
TARGET = "tests.connectors.singer.sdk_plugins:TargetLines"


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def source(folder: Path, **config: Any) -> Any:
    return make_source("singer", {"class": TAP, "config": config}, folder)


def orders(tap: Any) -> Stream:
    (stream,) = tap.discover()
    read = ReadSpec(method=ReplicationMethod.INCREMENTAL, bookmark_properties=("updated_at",))
    return replace(stream, read=read)


def read(tap: Any, stream: Stream, bookmark: Mapping[str, Any] | None = None) -> tuple[list[dict[str, Any]], Any]:
    records: list[dict[str, Any]] = []
    for _, event in tap.read([stream], {stream.name: bookmark}):
        if isinstance(event, pa.RecordBatch):
            records += event.to_pylist()
        elif isinstance(event, Checkpoint):
            bookmark = event.bookmark
    return records, bookmark


def test_a_tap_class_is_discovered_and_read_exactly(tmp_path: Path) -> None:
    tap = source(tmp_path, rows=100)
    stream = orders(tap)
    assert stream.key_properties == ("id",)
    records, _ = read(tap, stream)
    assert [record["id"] for record in records] == list(range(1, 101))
    assert records[0]["amount"] == Decimal("0.01")
    assert records[9]["tags"] == ["a", "b"]


def test_a_tap_class_goes_on_from_its_state(tmp_path: Path) -> None:
    _, bookmark = read(source(tmp_path, rows=5), orders(source(tmp_path, rows=5)))
    tap = source(tmp_path, rows=8)
    records, _ = read(tap, orders(tap), json.loads(json.dumps(bookmark)))
    assert [record["id"] for record in records] == [6, 7, 8]


def test_what_a_tap_class_raises_is_the_streams_error(tmp_path: Path) -> None:
    tap = source(tmp_path, rows=5, fails_at=3)
    with pytest.raises(FatalConnectorError, match="TapShop raised RuntimeError: the shop is closed"):
        read(tap, orders(tap))


def test_a_tap_class_ends_when_nobody_wants_more(tmp_path: Path) -> None:
    tap = source(tmp_path, rows=3000)
    events = tap.read([orders(tap)], {})
    next(events)
    tap.interrupt("orders")
    with pytest.raises(Interrupted):
        list(events)


def load(target: Any, folder: Path, batches: int = 3) -> list[Any]:
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("amount", pa.decimal128(12, 2))])
    stream = Stream(name="orders", schema=schema, key_properties=("id",))
    key = LedgerKey(pipeline="p", stream="orders", destination_table="orders")
    order = Load(key=key, stream=stream, write=WriteSpec(disposition=WriteDisposition.APPEND), token="t", run="r:1")

    def events() -> Iterator[Event]:
        for number in range(batches):
            yield pa.RecordBatch.from_pylist([{"id": number, "amount": Decimal("1.10")}], schema=schema)
        yield Checkpoint(bookmark={"id": 9}, is_final=True)

    return list(target.load(order, events()))


def test_a_target_class_keeps_records_and_echoes_the_state(tmp_path: Path) -> None:
    target = make_destination("singer", {"class": TARGET, "config": {"path": str(tmp_path / "out")}}, tmp_path)
    target.check()
    (commit,) = load(target, tmp_path)
    assert (commit.records, commit.is_confirmed, commit.checkpoint.bookmark) == (3, True, {"id": 9})
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [(line["id"], line["amount"]) for line in lines] == [(0, "1.10"), (1, "1.10"), (2, "1.10")]


def test_what_a_target_class_raises_is_the_loads_error(tmp_path: Path) -> None:
    config = {"class": TARGET, "config": {"path": str(tmp_path / "out"), "fails": True}}
    with pytest.raises(FatalConnectorError, match="disk full"):
        load(make_destination("singer", config, tmp_path), tmp_path)


@pytest.mark.parametrize(
    "path", ["no.such.module:Tap", "tests.connectors.singer.sdk_plugins:Nothing", "json:JSONDecoder"]
)
def test_a_class_that_is_none_is_a_mistake_in_the_settings(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConnectorConfigError):
        make_destination("singer", {"class": path}, tmp_path).check()
    with pytest.raises(ConnectorConfigError):
        make_source("singer", {"class": path}, tmp_path).discover()


def test_a_class_may_be_in_a_file_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text((Path(__file__).parent / "sdk_plugins.py").read_text() + "\n\nplain = 1\n")
    tap = make_source("singer", {"class": "./own.py:TapShop", "config": {"rows": 3}}, tmp_path)
    records, _ = read(tap, orders(tap))
    assert [record["id"] for record in records] == [1, 2, 3]
    target = make_destination("singer", {"class": "own.py:TargetLines", "config": {"path": "x"}}, tmp_path)
    target.check()
    for wrong, message in {
        "gone.py:TapShop": "gone.py cannot be read",
        "own.py:TapShopp": "has no class 'TapShopp'.*did you mean 'TapShop'",
        "own.py:plain": "has no class 'plain'",
        "own.py:Path": "neither a Tap nor a Target",
    }.items():
        with pytest.raises(ConnectorConfigError, match=message):
            make_source("singer", {"class": wrong}, tmp_path).discover()
