"""A column that changes its type on the way into our target, in one input and between two."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.registry import make_reader
from syncblocks.connectors.singer import as_target
from syncblocks.connectors.singer.plugin_config import plugins
from tests.connectors.singer.test_sdk_targets import config_of
from tests.connectors.singer.test_versions import Message, activate, feed, record, sqlite

INTEGER = {"type": ["integer", "null"]}
TEXT = {"type": ["string", "null"]}


def schema(kind: Message, key: Message = INTEGER) -> Message:
    return {
        "type": "SCHEMA",
        "stream": "t",
        "schema": {"properties": {"id": key, "v": kind}},
        "key_properties": ["id"],
    }


def values(connector: str, config: dict[str, Any]) -> dict[Any, Any]:
    known = {name: value for name, value in config.items() if name in ("url", "path", "database")}
    with closing(make_reader(connector, known, Path.cwd())) as source:
        (stream,) = [each for each in source.discover() if each.name.rpartition(".")[2] == "t"]
        events = [event for _, event in source.read([stream], {stream.name: None})]
    records = [row for each in events if isinstance(each, pa.RecordBatch) for row in each.to_pylist()]
    return {row["id"]: row["v"] for row in records}


@pytest.fixture(params=sorted(set(plugins("destination")) - {"mariadb", "memory"}))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    return request.param, config_of(request.param, tmp_path, request)


@pytest.mark.thinned(1)
@pytest.mark.parametrize("is_one_input", [True, False])
def test_an_integer_enters_a_text_column_as_its_text(place: tuple[str, dict[str, Any]], is_one_input: bool) -> None:
    before = [schema(TEXT), record(1, v="a"), record(2, v="b")]
    after = [schema(INTEGER), record(2, v=5), record(3, v=None)]
    for messages in [[*before, *after]] if is_one_input else [before, after]:
        feed(*place, *messages)
    assert values(*place) == {1: "a", 2: "5", 3: None}


def test_a_text_key_takes_integers_and_loses_their_older_versions(tmp_path: Path) -> None:
    feed(*sqlite(tmp_path), schema(TEXT, TEXT), record(1, 10, id="1"), record(1, 10, id="x"))
    feed(*sqlite(tmp_path), schema(TEXT), record(1, 20, v="new"), activate(20))
    assert values(*sqlite(tmp_path)) == {"1": "new"}


def test_records_are_written_in_the_order_of_their_schemas(tmp_path: Path) -> None:
    """The sink of the second schema is full while the sink of the first one still holds a record."""
    more = [schema(INTEGER), record(1, v=2), record(2, v=2)]
    feed(*sqlite(tmp_path, batch_size_rows=2), schema(TEXT), record(1, v="old"), *more)
    assert values(*sqlite(tmp_path)) == {1: "2", 2: "2"}


def test_the_advice_for_a_type_that_does_not_fit_is_for_a_target(tmp_path: Path) -> None:
    place = sqlite(tmp_path)
    feed(*place, schema(TEXT), record(1, v="a"))
    with pytest.raises(FatalConnectorError, match="leave it out with `stream_maps`, or run once with") as caught:
        feed(*place, schema({"type": ["boolean", "null"]}), record(1, v=True))
    assert str(caught.value).endswith("`load_method: overwrite` and without a state of the tap")
    assert "--full-refresh" not in str(caught.value)
    feed(place[0], {**place[1], "load_method": "overwrite"}, schema(INTEGER), record(1, v=1))
    assert values(*place) == {1: 1}


def test_records_of_many_schemas_do_not_wait_for_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_target, "MAX_EARLIER_SINKS", 2)
    place = sqlite(tmp_path)
    shapes = [schema(TEXT)]
    for number in range(4):
        shapes.append(schema(TEXT))
        shapes[-1]["schema"]["properties"][f"c{number}"] = INTEGER
    messages = [each for number, shape in enumerate(shapes) for each in (shape, record(number % 3, v=str(number)))]
    with pytest.raises(FatalConnectorError, match="unknown type"):
        feed(*place, *messages, {"type": "STOP"})
    assert values(*place) == {0: "3", 1: "1", 2: "2"}, "of all schemas but the last one"
    feed(*place, *messages)
    assert values(*place) == {0: "3", 1: "4", 2: "2"}
