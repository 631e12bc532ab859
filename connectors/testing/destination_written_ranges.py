"""The promises of a destination that replaces ranges; one that does not skips them."""

from __future__ import annotations

import secrets
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from ..protocols import Capability, Destination
from ..stream import Load
from ..struct_helpers import replace
from ..write_spec import WriteDisposition, WrittenRange
from .capabilities import CapabilityPromises
from .destination_base import FINAL, DestinationPromises

DATED = pa.schema([pa.field("id", pa.int64(), nullable=False), ("day", pa.date32())])


def dated(*records: tuple[int, int]) -> pa.RecordBatch:
    """Return a batch of `DATED`: ids, and days of January 2024."""
    rows = [{"id": number, "day": date(2024, 1, day)} for number, day in records]
    return pa.RecordBatch.from_pylist(rows, schema=DATED)


class WrittenRangePromises(CapabilityPromises, DestinationPromises):
    """Tests of REPLACE_RANGE."""

    def _of_days(self, *interval: int) -> Load:
        ends = [datetime(2024, 1, day, tzinfo=UTC) for day in interval]
        load, token = self.load_of(DATED, WriteDisposition.REPLACE_RANGE), secrets.token_hex(16)
        written = WrittenRange(column="day", interval=(ends[0], ends[1]) if ends else None)
        return replace(load, token=token, run=token, write=replace(load.write, written_range=written))

    def _days_ids(self, place: Any) -> list[int]:
        return sorted(int(record["id"]) for record in self.read_back(place, "people", DATED) or ())

    def test_a_range_is_written_anew_and_nothing_else(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.REPLACES_RANGES)
        self.run(destination, self._of_days(1, 4), dated((1, 1), (2, 2), (3, 2), (4, 3)), FINAL)
        self.run(destination, self._of_days(2, 3), dated((5, 2)), dated((2, 2)), FINAL)
        assert self._days_ids(place) == [1, 2, 4, 5]
        self.run(destination, self._of_days(7, 8), dated((1, 7)), FINAL)
        assert self._days_ids(place) == [1, 2, 4, 5], "a key that arrives is deleted wherever it stands"

    def test_an_empty_read_empties_its_range(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.REPLACES_RANGES)
        self.run(destination, self._of_days(1, 4), dated((1, 1), (2, 2)), FINAL)
        self.run(destination, self._of_days(2, 3), FINAL)
        assert self._days_ids(place) == [1]

    def test_a_record_outside_of_its_range_is_refused(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.REPLACES_RANGES)
        self.run(destination, self._of_days(1, 4), dated((1, 1)), FINAL)
        self.refused(destination, self._of_days(1, 2), dated((2, 1), (3, 2)), FINAL)
        assert self._days_ids(place) == [1]

    def test_a_range_of_values_is_those_that_arrive(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.REPLACES_RANGES)
        self.run(destination, self._of_days(), dated((1, 1), (2, 2), (3, 3)), FINAL)
        self.run(destination, self._of_days(), dated((4, 1), (5, 3)), FINAL)
        assert self._days_ids(place) == [2, 4, 5]

    def test_of_a_repeated_key_the_newest_record_is_in_its_range(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.REPLACES_RANGES)
        self.can(destination, "keeps_latest")
        load = self._of_days()
        schema = pa.schema([*DATED, ("age", pa.int64())])
        stream = replace(load.stream, schema=schema, key_properties=("id",))
        load = replace(load, stream=stream, write=replace(load.write, latest_by="age"))
        rows = [{"id": 1, "day": date(2024, 1, day), "age": age} for day, age in ((1, 5), (2, 7), (3, None))]
        batch = pa.RecordBatch.from_pylist(rows, schema=schema)
        self.run(destination, load, batch, FINAL)
        found = [(record["id"], record["age"]) for record in self.read_back(place, "people", schema) or []]
        assert found == [(1, 7)]


__all__ = ["WrittenRangePromises"]
