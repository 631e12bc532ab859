"""What goes into a connector comes out of it, and of every other one behind it."""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.memory import databases
from syncblocks.connectors.registry import CONNECTORS, make_destination, make_source
from syncblocks.connectors.stream import Checkpoint, LedgerKey, Load, Stream
from syncblocks.connectors.testing import VALUES, Feature
from syncblocks.connectors.testing.values import in_order
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec

#: A Singer plugin keeps what it likes where it likes: those are held to what they promise in test_singer_*.py.
#: `mariadb` is another name of `mysql`; `sqlalchemy` is as many systems as there are dialects, with its own contracts.
OTHERS = ("singer", "mariadb", "sqlalchemy")
PAIRS = [name for name, (source, destination) in CONNECTORS.items() if source and destination and name not in OTHERS]

#: One column a kind of values, as long as the longest of them.
LENGTH = max(len(case.values) for case in VALUES.values())
SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), *((name, case.kind) for name, case in VALUES.items())])
RECORDS = [
    {"id": number, **{name: case.values[number % len(case.values)] for name, case in VALUES.items()}}
    for number in range(LENGTH)
]


@pytest.fixture
def places(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, Mapping[str, Any]]]:
    """The config of each connector, for a fresh place."""
    memory = uuid.uuid4().hex
    configs: dict[str, Mapping[str, Any]] = {
        "memory": {"database": memory},
        "duckdb": {"path": str(tmp_path / "pair.duckdb")},
        "sqlite": {"path": str(tmp_path / "pair.db")},
        **{name: {"path": str(tmp_path / name)} for name in ("csv", "jsonl", "parquet")},
    }
    if "postgres" in request.node.name:
        configs["postgres"] = {"url": request.getfixturevalue("postgres_url")}
    if "mysql" in request.node.name:
        configs["mysql"] = {"url": request.getfixturevalue("mariadb_url")}
    yield configs
    databases.pop(memory, None)


def write(name: str, config: Mapping[str, Any], stream: Stream, events: Iterator[Any]) -> str:
    """Load a stream, and return the name under which the same place offers it."""
    token = secrets.token_hex(16)
    key = LedgerKey(pipeline="pairs", stream=stream.name, destination_table="things")
    destination = make_destination(name, config, Path.cwd())
    destination.take_over(key, token=token, owner="pairs", source="pairs://")
    load = Load(key=key, stream=stream, write=WriteSpec(disposition=WriteDisposition.REPLACE), token=token, run="1:1")
    list(destination.load(load, events))
    offered = destination.describe(["things"])["things"].stream_name
    destination.close()
    return offered


def through(name: str, config: Mapping[str, Any], stream: Stream, events: Iterator[Any]) -> tuple[Stream, list[Any]]:
    """Write a stream into a place and read it back out of it."""
    offered = write(name, config, stream, events)
    source = make_source(name, config, Path.cwd())
    found = next(each for each in source.discover() if each.name == offered)
    read = [event for _, event in source.read([found], {}) if not isinstance(event, Checkpoint)]
    source.close()
    return found, [*read, Checkpoint(is_final=True)]


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize(("first", "second"), list(itertools.product(PAIRS, PAIRS)))
def test_values_come_out_as_they_went_in(places: dict[str, Mapping[str, Any]], first: str, second: str) -> None:
    # MySQL has no NaN and no infinities: it refuses them.
    lacking = {name for name, case in VALUES.items() if case.feature is Feature.SPECIAL_FLOATS}
    if "mysql" not in (first, second):
        lacking = set()
    schema = pa.schema([field for field in SCHEMA if field.name not in lacking])
    stream = Stream(name="things", schema=schema, key_properties=("id",))
    events: list[Any] = [pa.RecordBatch.from_pylist(RECORDS, schema=schema), Checkpoint(is_final=True)]
    stream, events = through(first, places[first], stream, iter(events))
    if first != second:
        stream, events = through(second, places[second], stream, iter(events))
    records = [record for event in events if isinstance(event, pa.RecordBatch) for record in event.to_pylist()]
    assert stream.schema.names == schema.names
    for name in schema.names:  # one column at a time, so that a failure names it
        assert in_order({"id": r["id"], name: r[name]} for r in records) == in_order(
            {"id": r["id"], name: r[name]} for r in RECORDS
        )
