"""The hooks of a source's contract, and the helpers of its tests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from ..protocols import Source
from ..read_spec import ReplicationMethod
from ..stream import Bookmark, Checkpoint, Event, Stream
from ..struct_helpers import replace
from .promises import Promises

#: Columns of the table that most tests seed.
PEOPLE = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string()), ("version", pa.int64())])


@dataclass
class ReadEvents:
    """The events of one read of one stream."""

    records: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return [event for event in self.events if isinstance(event, Checkpoint)]

    @property
    def bookmark(self) -> Bookmark | None:
        """The bookmark of the last checkpoint, after a round trip through JSON."""
        return json.loads(json.dumps(self.checkpoints[-1].bookmark, allow_nan=False)) if self.checkpoints else None

    @property
    def ids(self) -> list[int]:
        return sorted(int(record["id"]) for record in self.records)


class SourcePromises(Promises):
    """The hooks that a subclass fills in, and helpers."""

    def put(self, place: Any, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        """Create the table if it is not there, and add the records, without the connector under test."""
        raise NotImplementedError

    def stream_name(self, table: str) -> str:
        """Return the name under which a table is offered."""
        return table

    def open_connections(self, place: Any) -> int:
        """Return how many connections the system sees."""
        return 0

    # What the tests are made of

    @pytest.fixture
    def source(self, place: Any) -> Iterator[Source]:
        source: Source = self.make(place)
        yield source
        source.close()

    def find(self, source: Source, table: str) -> Stream:
        streams = {stream.name: stream for stream in source.discover()}
        assert self.stream_name(table) in streams, f"{table} is not among {sorted(streams)}"
        return streams[self.stream_name(table)]

    def incremental(self, source: Source, table: str, *properties: str) -> Stream:
        stream = self.find(source, table)
        return replace(
            stream, read=replace(stream.read, method=ReplicationMethod.INCREMENTAL, bookmark_properties=properties)
        )

    def read(self, source: Source, stream: Stream, bookmark: Bookmark | None = None) -> ReadEvents:
        reading, schema = ReadEvents(), stream.schema
        for name, event in source.read([stream], {stream.name: bookmark}):
            assert name == stream.name
            assert isinstance(event, pa.RecordBatch | Checkpoint | Stream), "only Arrow was asked for"
            reading.events.append(event)
            if isinstance(event, Stream):
                schema = event.schema
            elif isinstance(event, pa.RecordBatch):
                event.validate(full=True)
                assert event.schema.equals(schema), "a batch's schema equals the stream's"
                reading.records += event.to_pylist()
        return reading

    def people(self, *records: tuple[int, str | None, int | None]) -> pa.Table:
        return pa.Table.from_pylist([dict(zip(PEOPLE.names, record, strict=True)) for record in records], schema=PEOPLE)
