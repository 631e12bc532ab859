"""The promises of `protocols.Source`, each as a test."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from connectors.bookmarks import values
from connectors.errors import ConnectorConfigError, ConnectorError, FatalConnectorError, Interrupted
from connectors.protocols import Source
from connectors.stream import Bookmark, Checkpoint, Event, NullBookmarks, ReplicationMethod, Stream

from .values import VALUES, Feature, Quirks, in_order

#: Columns of the table that most tests seed.
PEOPLE = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string()), ("version", pa.int64())])

#: Bookmark values in ascending order, by type.
BOOKMARKS: Mapping[str, tuple[pa.DataType, tuple[Any, ...]]] = {
    "integers": (pa.int64(), (-5, 0, 2**53 + 1, 2**53 + 2)),
    "texts": (pa.string(), ("a", "b", "b1", "c")),
    "aware datetimes": (
        pa.timestamp("us", "UTC"),
        tuple(datetime(2024, 1, 1, 12, 0, 0, micros, tzinfo=UTC) for micros in (1, 2, 999998, 999999)),
    ),
    "naive timestamps": (
        pa.timestamp("us"),
        tuple(datetime(2024, 3, 31, 2, 30, 0, micros) for micros in (1, 2, 999998, 999999)),  # noqa: DTZ001 -- naive
    ),
    "dates": (pa.date32(), tuple(date(2024, 2, day) for day in (1, 2, 28, 29))),
    "decimals": (pa.decimal128(20, 4), tuple(Decimal(text) for text in ("-1.5", "0.0001", "0.0002", "9999.9999"))),
}


@dataclass
class Reading:
    """What one read of one stream yielded."""

    records: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return [event for event in self.events if isinstance(event, Checkpoint)]

    @property
    def bookmark(self) -> Bookmark | None:
        """The last checkpoint's bookmark, as it comes back from a store."""
        return json.loads(json.dumps(self.checkpoints[-1].bookmark, allow_nan=False)) if self.checkpoints else None

    @property
    def ids(self) -> list[int]:
        return sorted(int(record["id"]) for record in self.records)


class SourceContract:
    """Subclass it as `TestMySource`; see `connectors.testing`."""

    connector: ClassVar[type[Any]]
    quirks: ClassVar[Quirks] = Quirks()

    @pytest.fixture
    def place(self) -> Any:
        """Where this test's data lives: fresh, and empty."""
        raise NotImplementedError

    def config(self, place: Any) -> Mapping[str, Any]:
        """Return the connector's `config` for that place."""
        raise NotImplementedError

    def put(self, place: Any, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        """Create the table if it is not there, and add the records, without the connector under test."""
        raise NotImplementedError

    def stream_name(self, table: str) -> str:
        """Return the name under which a table is offered."""
        return table

    def secrets(self, place: Any) -> Sequence[str]:
        """Return the credentials in the config of `place`."""
        return ()

    def bad_configs(self, place: Any) -> Sequence[Mapping[str, Any]]:
        """Return configs with which `check` must raise: a file that is not there, a wrong password."""
        return ()

    def open_connections(self, place: Any) -> int:
        """Return how many connections the system sees."""
        return 0

    # What the tests below are made of

    def make(self, place: Any) -> Source:
        source: Source = self.connector(self.config(place), place if isinstance(place, Path) else Path.cwd())
        return source

    @pytest.fixture
    def source(self, place: Any) -> Iterator[Source]:
        source = self.make(place)
        yield source
        source.close()

    def find(self, source: Source, table: str) -> Stream:
        streams = {stream.name: stream for stream in source.discover()}
        assert self.stream_name(table) in streams, f"{table} is not among {sorted(streams)}"
        return streams[self.stream_name(table)]

    def incremental(self, source: Source, table: str, *properties: str) -> Stream:
        stream = self.find(source, table)
        return replace(stream, replication_method=ReplicationMethod.INCREMENTAL, bookmark_properties=properties)

    def read(self, source: Source, stream: Stream, bookmark: Bookmark | None = None) -> Reading:
        reading, schema = Reading(), stream.schema
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

    def lacks(self, feature: Feature | None) -> bool:
        return feature is not None and feature in self.quirks.lacks

    # The catalog

    def test_names_are_unique_and_come_in_a_stable_order(self, place: Any, source: Source) -> None:
        for table in ("b", "a", "c"):
            self.put(place, table, self.people((1, "x", 1)), ["id"])
        names = [stream.name for stream in source.discover()]
        assert len(set(names)) == len(names)
        assert {self.stream_name(table) for table in "abc"} <= set(names)
        assert [stream.name for stream in source.discover()] == names

    def test_keys_are_found_and_not_nullable(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1), (2, None, 1)), ["id"])
        stream = self.find(source, "people")
        assert stream.key_properties == (() if self.lacks(Feature.KEYS) else ("id",))
        assert all(not stream.schema.field(name).nullable for name in stream.key_properties)
        keys = [tuple(record[name] for name in stream.key_properties) for record in self.read(source, stream).records]
        assert self.lacks(Feature.KEYS) or len(set(keys)) == 2

    def test_columns_come_in_order(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        assert self.find(source, "people").schema.names == PEOPLE.names

    def test_offers_end_in_arrow(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        assert source.offers(self.find(source, "people"))[-1] == "arrow"

    def test_groups_hold_each_stream_once(self, place: Any, source: Source) -> None:
        for table in ("a", "b"):
            self.put(place, table, self.people((1, "x", 1)), ["id"])
        streams = [self.find(source, table) for table in ("a", "b")]
        grouped = [stream.name for group in source.groups(streams) for stream in group]
        assert sorted(grouped) == sorted(stream.name for stream in streams)

    def test_counts_the_records(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people(*((number, "x", 1) for number in range(7))), ["id"])
        assert source.count(self.find(source, "people")) == 7

    # Settings

    def test_an_unknown_config_key_is_named(self, place: Any) -> None:
        with pytest.raises(ConnectorConfigError, match="no_such_key"):
            self.connector({**self.config(place), "no_such_key": 1}, Path.cwd())

    def test_checks_a_good_place(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        source.check()

    def test_check_refuses_bad_settings_without_telling_secrets(self, place: Any) -> None:
        for config in self.bad_configs(place):
            source = self.connector(config, Path.cwd())
            with pytest.raises(ConnectorError) as caught:
                source.check()
            source.close()
            assert not [secret for secret in self.secrets(place) if secret in str(caught.value)]

    def test_identity_is_stable_and_holds_no_credentials(self, place: Any, source: Source) -> None:
        assert source.identity() == self.make(place).identity()
        assert not [secret for secret in self.secrets(place) if secret in source.identity()]

    # Records

    def test_records_arrive_as_seeded(self, place: Any, source: Source) -> None:
        seeded = self.people((1, "x", 1), (2, None, None), (3, "ü", -1))
        self.put(place, "people", seeded, ["id"])
        assert in_order(self.read(source, self.find(source, "people")).records) == in_order(seeded.to_pylist())

    @pytest.mark.parametrize("name", VALUES)
    def test_values_arrive_unchanged(self, place: Any, source: Source, name: str) -> None:
        case = VALUES[name]
        records = [{"id": number, "v": value} for number, value in enumerate(case.values)]
        schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("v", case.kind)])
        if self.lacks(Feature.TYPES) or self.lacks(case.feature):
            return
        self.put(place, "valued", pa.Table.from_pylist(records, schema=schema), ["id"])
        assert in_order(self.read(source, self.find(source, "valued")).records) == in_order(records)

    def test_full_table_has_no_bookmark_and_no_final_checkpoint(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1), (2, "y", 2)), ["id"])
        reading = self.read(source, self.find(source, "people"))
        assert all(c.bookmark is None and not c.is_final for c in reading.checkpoints)

    def test_reading_twice_is_equal(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people(*((number, str(number), number % 3) for number in range(50))), ["id"])
        stream = self.find(source, "people")
        assert in_order(self.read(source, stream).records) == in_order(self.read(source, stream).records)

    def test_only_the_columns_asked_for_in_their_order(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 5), (2, "y", 6)), ["id"])
        stream = self.find(source, "people")
        schema = pa.schema([stream.schema.field(name) for name in ("version", "id")])
        reading = self.read(source, replace(stream, schema=schema))
        assert [list(record.items()) for record in sorted(reading.records, key=lambda record: record["id"])] == [
            [("version", 5), ("id", 1)],
            [("version", 6), ("id", 2)],
        ]

    def test_an_empty_stream_ends_without_records(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people(), ["id"])
        if self.lacks(Feature.EMPTY_STREAMS):
            assert not [s for s in source.discover() if s.name == self.stream_name("people") and s.schema.names]
            return
        stream = self.find(source, "people")
        assert stream.schema.names == PEOPLE.names
        assert self.read(source, stream).records == []
        assert source.count(stream) == 0

    def test_streams_are_read_at_once(self, place: Any, source: Source) -> None:
        for table in ("a", "b"):
            self.put(place, table, self.people(*((number, table, number) for number in range(20))), ["id"])
        streams = [self.find(source, table) for table in ("a", "b")]
        with ThreadPoolExecutor(2) as pool:
            readings = list(pool.map(lambda stream: self.read(source, stream), streams))
        assert [{record["name"] for record in reading.records} for reading in readings] == [{"a"}, {"b"}]
        assert [len(reading.records) for reading in readings] == [20, 20]

    # Bookmarks

    def test_a_bookmark_survives_json(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1), (2, "y", 2)), ["id"])
        reading = self.read(source, self.incremental(source, "people", "version"))
        assert reading.checkpoints, "an incremental read ends with a checkpoint"
        last = reading.checkpoints[-1].bookmark
        assert reading.bookmark == last
        assert values(reading.bookmark) == {"version": 2}

    def test_checkpoints_come_after_their_records(self, place: Any, source: Source) -> None:
        """What came before a checkpoint and what a read from it yields are all records, each once."""
        self.put(place, "people", self.people(*((number, "x", number // 4) for number in range(20))), ["id"])
        stream = self.incremental(source, "people", "version")
        before: list[int] = []
        for event in self.read(source, stream).events:
            if isinstance(event, pa.RecordBatch):
                before += event.column("id").to_pylist()
            elif isinstance(event, Checkpoint):
                assert not event.is_final
                assert sorted(before + self.read(source, stream, event.bookmark).ids) == list(range(20))

    def test_from_a_bookmark_nothing_comes_twice(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1), (2, "x", 2), (3, "x", 2)), ["id"])
        stream = self.incremental(source, "people", "version")
        bookmark = self.read(source, stream).bookmark
        again = self.read(source, stream, bookmark)
        assert again.ids == []
        assert self.read(source, stream, again.bookmark).ids == []

    def test_ties_at_the_boundary_are_not_lost(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1), (2, "x", 2), (3, "x", 2)), ["id"])
        stream = self.incremental(source, "people", "version")
        bookmark = self.read(source, stream).bookmark
        self.put(place, "people", self.people((4, "x", 2), (5, "x", 3), (6, "x", 1)), ["id"])
        assert self.read(source, stream, bookmark).ids == [4, 5], "4 is new at the boundary, 6 is below it"

    def test_a_bookmark_set_by_hand_reads_what_is_at_it(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1), (2, "x", 2), (3, "x", 3)), ["id"])
        stream = self.incremental(source, "people", "version")
        assert self.read(source, stream, {"version": 2}).ids == [2, 3]

    def test_a_bookmark_of_another_property_is_refused(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        stream = self.incremental(source, "people", "version")
        with pytest.raises(ConnectorConfigError, match="version"):
            self.read(source, stream, {"other": 2})

    def test_records_without_a_bookmark_come_from_scratch_only(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", None), (2, "x", 1), (3, "x", None)), ["id"])
        stream = replace(self.incremental(source, "people", "version"), null_bookmarks=NullBookmarks.ONCE)
        reading = self.read(source, stream)
        assert reading.ids == [1, 2, 3]
        assert self.read(source, stream, reading.bookmark).ids == []

    def test_records_without_a_bookmark_are_an_error_that_counts_them(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        stream = self.incremental(source, "people", "version")
        bookmark = self.read(source, stream).bookmark
        self.put(place, "people", self.people((2, "x", None), (3, "x", 2), (4, "x", None)), ["id"])
        for start in (None, bookmark):
            with pytest.raises(FatalConnectorError, match=r"2 in 'version'.*`null_bookmarks: once`") as caught:
                self.read(source, stream, start)
            assert stream.name in str(caught.value)

    def test_records_without_a_bookmark_come_in_every_run_or_never(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", None), (2, "x", 1), (3, "x", None)), ["id"])
        stream = self.incremental(source, "people", "version")
        always = replace(stream, null_bookmarks=NullBookmarks.ALWAYS, may_repeat=True)
        never = replace(stream, null_bookmarks=NullBookmarks.NEVER)
        assert self.read(source, never).ids == [2]
        reading = self.read(source, always)
        assert reading.ids == [1, 2, 3]
        self.put(place, "people", self.people((4, "x", 1), (5, "x", None), (6, "x", 2)), ["id"])
        assert self.read(source, always, reading.bookmark).ids == [1, 3, 4, 5, 6]
        assert self.read(source, never, reading.bookmark).ids == [4, 6]

    def test_a_lookback_reads_again_what_is_below_the_bookmark(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 10), (2, "x", 20), (3, "x", 30)), ["id"])
        stream = replace(self.incremental(source, "people", "version"), lookback=15, may_repeat=True)
        bookmark = self.read(source, stream).bookmark
        self.put(place, "people", self.people((4, "x", 14), (5, "x", 15), (6, "x", 16)), ["id"])
        reading = self.read(source, stream, bookmark)
        assert set(reading.ids) == {2, 5, 6}, "the record at the bookmark is told by its hash"
        assert values(reading.bookmark) == values(bookmark)
        self.put(place, "people", self.people((7, "x", 40)), ["id"])
        reading = self.read(source, stream, reading.bookmark)
        assert set(reading.ids) == {2, 5, 6, 7}
        assert values(reading.bookmark) == {"version": 40}

    def test_an_empty_stream_starts_from_scratch_next_time(self, place: Any, source: Source) -> None:
        if self.lacks(Feature.EMPTY_STREAMS):
            return
        self.put(place, "people", self.people(), ["id"])
        bookmark = self.read(source, self.incremental(source, "people", "version")).bookmark
        self.put(place, "people", self.people((1, "x", 1), (2, "x", 1)), ["id"])
        assert self.read(source, self.incremental(source, "people", "version"), bookmark).ids == [1, 2]

    @pytest.mark.parametrize("name", BOOKMARKS)
    def test_bookmarks_of_every_type(self, place: Any, source: Source, name: str) -> None:
        kind, (first, second, third, fourth) = BOOKMARKS[name]
        schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("at", kind)])

        def moments(*records: tuple[int, Any]) -> pa.Table:
            return pa.Table.from_pylist([{"id": number, "at": at} for number, at in records], schema=schema)

        self.put(place, "moments", moments((1, second), (2, third), (3, third), (4, first)), ["id"])
        stream = self.incremental(source, "moments", "at")
        reading = self.read(source, stream)
        assert reading.ids == [1, 2, 3, 4]
        self.put(place, "moments", moments((5, third), (6, fourth), (7, second)), ["id"])
        assert self.read(source, stream, reading.bookmark).ids == [5, 6]

    def test_two_bookmark_properties_compare_in_order(self, place: Any, source: Source) -> None:
        schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("day", pa.int64()), ("hour", pa.int64())])

        def moments(*records: tuple[int, int | None, int | None]) -> pa.Table:
            return pa.Table.from_pylist([dict(zip(schema.names, each, strict=True)) for each in records], schema=schema)

        self.put(place, "moments", moments((1, 1, 9), (2, 2, 1), (3, 2, 5), (4, 3, None)), ["id"])
        stream = replace(self.incremental(source, "moments", "day", "hour"), null_bookmarks=NullBookmarks.ONCE)
        reading = self.read(source, stream)
        assert reading.ids == [1, 2, 3, 4]
        assert values(reading.bookmark) == {"day": 2, "hour": 5}
        self.put(place, "moments", moments((5, 2, 5), (6, 2, 6), (7, 3, 0), (8, 2, 4), (9, 1, 10)), ["id"])
        assert self.read(source, stream, reading.bookmark).ids == [5, 6, 7]

    # Ends

    def test_closing_early_leaves_nothing_open(self, place: Any) -> None:
        self.put(place, "people", self.people(*((number, "x", number) for number in range(500))), ["id"])
        self._open_and_leave(place)  # once, so that what a library keeps for good is there before we count
        before = self._open_things(place)
        for _ in range(3):
            self._open_and_leave(place)
        assert self._open_things(place) <= before

    def _open_and_leave(self, place: Any) -> None:
        source = self.make(place)
        for stream in (self.find(source, "people"), self.incremental(source, "people", "version")):
            events: Any = iter(source.read([stream], {}))
            next(events)
            events.close()
        source.close()

    def _open_things(self, place: Any) -> tuple[int, int]:
        gc.collect()
        files = Path("/proc/self/fd")
        return (len(list(files.iterdir())) if files.exists() else 0) + self.open_connections(
            place
        ), threading.active_count()

    def test_an_interrupted_read_ends_and_the_next_one_works(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people(*((number, "x", number) for number in range(50))), ["id"])
        stream = self.find(source, "people")
        events = source.read([stream], {})
        next(iter(events))
        source.interrupt(stream.name)
        with suppress(Interrupted):
            list(events)
        assert len(self.read(source, stream).records) == 50

    def test_an_idle_interrupt_does_nothing(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        stream = self.find(source, "people")
        source.interrupt(stream.name)
        source.interrupt("no such stream")
        assert self.read(source, stream).ids == [1]

    def test_it_works_again_after_close(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        stream = self.find(source, "people")
        source.close()
        source.close()
        assert self.read(source, stream).ids == [1]
