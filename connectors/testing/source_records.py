"""Promises about the catalog, settings, records, and the end of a read."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ..errors import ConnectorConfigError, ConnectorError, Interrupted
from ..protocols import Source
from ..struct_helpers import replace
from .source_base import PEOPLE, SourcePromises
from .values import VALUES, Feature, in_order


class RecordPromises(SourcePromises):
    """Tests of what a source reads."""

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
