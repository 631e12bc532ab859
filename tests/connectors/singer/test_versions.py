"""ACTIVATE_VERSION into our target: records of older versions go, in every destination, with and without keys."""

from __future__ import annotations

import io
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError, FatalConnectorError
from syncblocks.connectors.registry import make_reader
from syncblocks.connectors.singer.as_target import target_class
from syncblocks.connectors.singer.plugin_config import plugins
from syncblocks.connectors.singer.target import SingerDestination
from syncblocks.connectors.stream import Checkpoint, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from tests.connectors.singer.test_sdk_targets import config_of

PROPERTIES = {"id": {"type": "integer"}, "v": {"type": ["string", "null"]}}

Message = dict[str, Any]


def schema(*keys: str, **more: Any) -> Message:
    return {
        "type": "SCHEMA",
        "stream": "t",
        "schema": {"properties": {**PROPERTIES, **more}},
        "key_properties": list(keys),
    }


def record(number: int, version: int | None = None, **values: Any) -> Message:
    found = {"type": "RECORD", "stream": "t", "record": {"id": number, "v": f"r{number}", **values}}
    return found if version is None else {**found, "version": version}


def activate(version: Any) -> Message:
    return {"type": "ACTIVATE_VERSION", "stream": "t", "version": version}


def feed(connector: str, config: dict[str, Any], *messages: Message) -> None:
    target = target_class(connector)(config=config)
    target.listen(io.StringIO("".join(json.dumps(message) + "\n" for message in messages)))


def ids(connector: str, config: dict[str, Any]) -> list[int]:
    known = {name: value for name, value in config.items() if name in ("url", "path", "database")}
    with closing(make_reader(connector, known, Path.cwd())) as source:
        (stream,) = [each for each in source.discover() if each.name.rpartition(".")[2] == "t"]
        events = [event for _, event in source.read([stream], {stream.name: None})]
    return sorted(number for each in events if isinstance(each, pa.RecordBatch) for number in each["id"].to_pylist())


@pytest.fixture(params=sorted(set(plugins("destination")) - {"mariadb"}))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    return request.param, config_of(request.param, tmp_path, request)


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("keys", [("id",), ()], ids=["keyed", "keyless"])
def test_older_versions_go_and_those_under_way_stay(place: tuple[str, dict[str, Any]], keys: tuple[str, ...]) -> None:
    shape = schema(*keys)
    feed(*place, shape, record(1), record(2, 10), record(3, 10), activate(10))
    assert ids(*place) == [2, 3], "a record without a version is older than any"
    # A run that is cut short, and one that goes on with its version, which does not send 4 again.
    feed(*place, shape, record(4, 20))
    assert ids(*place) == [2, 3, 4]
    feed(*place, shape, record(5, 20), activate(20))
    assert ids(*place) == [4, 5]
    feed(*place, shape, record(6, 20), activate(20), record(7, 20))
    assert ids(*place) == [4, 5, 6, 7]
    feed(*place, shape, activate(30))
    assert ids(*place) == []


def sqlite(folder: Path, **config: Any) -> tuple[str, dict[str, Any]]:
    return "sqlite", {"path": str(folder / "out.db"), **config}


def test_a_version_that_is_activated_before_its_records_removes_the_former(tmp_path: Path) -> None:
    feed(*sqlite(tmp_path), schema("id"), record(1), record(2))
    feed(*sqlite(tmp_path), schema("id"), activate(10), record(2, 10), activate(10))
    assert ids(*sqlite(tmp_path)) == [2]


def test_records_of_an_earlier_schema_are_written_before(tmp_path: Path) -> None:
    feed(*sqlite(tmp_path), schema("id"), record(1, 5))
    wider = schema("id", w={"type": ["integer", "null"]})
    feed(*sqlite(tmp_path), schema("id"), record(2, 10), wider, record(3, 10, w=1), activate(10))
    assert ids(*sqlite(tmp_path)) == [2, 3]


def test_a_version_that_is_activated_before_the_schema_waits_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    feed(*sqlite(tmp_path), schema("id"), record(1), record(2, 10))
    feed(*sqlite(tmp_path), activate(5), {**activate(7), "stream": "other"}, activate(10), schema("id"), record(3, 10))
    assert ids(*sqlite(tmp_path)) == [2, 3]
    (said,) = [each.getMessage() for each in caplog.records if "ACTIVATE_VERSION" in each.getMessage()]
    assert said == "ACTIVATE_VERSION 7 of other: the stream has no SCHEMA; skipped"


def test_a_table_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    feed(*sqlite(tmp_path), schema("id"), activate(10))
    with closing(make_reader(*sqlite(tmp_path), tmp_path)) as source, pytest.raises(ConnectorError):
        source.discover()


@pytest.mark.parametrize(
    "config", [{"process_activate_version_messages": False}, {"load_method": "append-only"}], ids=str
)
def test_all_is_kept_where_the_config_says_so(tmp_path: Path, config: dict[str, Any]) -> None:
    feed(*sqlite(tmp_path, **config), schema("id"), record(1, 10))
    feed(*sqlite(tmp_path, **config), schema("id"), record(2, 20), activate(20))
    assert ids(*sqlite(tmp_path)) == [1, 2]


def test_an_overwrite_keeps_what_it_has_written(tmp_path: Path) -> None:
    feed(*sqlite(tmp_path), schema("id"), record(1, 10))
    feed(*sqlite(tmp_path, load_method="overwrite"), schema("id"), record(2), record(3, 20), activate(20))
    assert ids(*sqlite(tmp_path)) == [2, 3]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([activate("new")], "version 'new', which is not an integer"),
        ([schema("id"), activate("new")], "version 'new', which is not an integer"),
        ([schema("id"), activate(None)], "version None, which is not an integer"),
    ],
)
def test_a_message_that_says_nothing_is_an_error(tmp_path: Path, messages: list[Message], reason: str) -> None:
    with pytest.raises(FatalConnectorError, match=reason):
        feed(*sqlite(tmp_path), *messages)


def test_a_stream_that_is_left_out_has_no_versions(tmp_path: Path) -> None:
    feed(*sqlite(tmp_path, stream_maps={"t": "__NULL__"}), schema("id"), record(1, 10), activate(10))


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("keys", [("id",), ()], ids=["keyed", "keyless"])
@pytest.mark.parametrize("connector", ["sqlite", "duckdb", "jsonl"])
@pytest.mark.full
def test_a_replace_by_our_singer_destination_removes_what_is_gone(
    connector: str, keys: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = config_of(connector, tmp_path, request)
    program = Path(sys.executable).with_name(f"target-syncblocks-{connector}")
    target = SingerDestination({"executable": str(program), "config": config}, tmp_path)
    for numbers in ([1, 2, 3], [2, 4], []):
        batch = pa.record_batch({"id": pa.array(numbers, pa.int64()), "v": pa.array(["x"] * len(numbers), pa.string())})
        load = Load(
            key=LedgerKey(pipeline="p", stream="t", destination_table="t"),
            stream=Stream(name="t", schema=batch.schema, key_properties=keys),
            write=WriteSpec(disposition=WriteDisposition.REPLACE),
            token="t",
            run="1:1",
        )
        list(target.load(load, iter([batch, Checkpoint(is_final=True)])))
        assert ids(connector, config) == numbers


def test_a_target_of_files_refuses_the_name_of_one(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(ConnectorConfigError, match="looks like one file"):
        feed("jsonl", {"path": str(path)}, schema("id"), record(1))
    path.mkdir()
    feed("jsonl", {"path": str(path)}, schema("id"), record(1))
