"""Promises about bookmarks: records at them, past them, below them and without them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from ..errors import ConnectorConfigError, FatalConnectorError
from ..filters import condition_of
from ..incremental.bookmarks import values
from ..protocols import Source
from ..read_spec import NullBookmarks
from ..stream import Checkpoint
from ..struct_helpers import replace
from .source_base import SourcePromises
from .values import Feature

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

#: `lookback` from the fourth value of a type to its third one.
LOOKBACKS = {"integers": 1, "aware datetimes": 1e-6, "naive timestamps": 1e-6, "dates": 86_400}


class BookmarkPromises(SourcePromises):
    """Tests of incremental reads."""

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
        stream = self.incremental(source, "people", "version")
        stream = replace(stream, read=replace(stream.read, null_bookmarks=NullBookmarks.ONCE))
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
        always = replace(stream, read=replace(stream.read, null_bookmarks=NullBookmarks.ALWAYS, may_repeat=True))
        never = replace(stream, read=replace(stream.read, null_bookmarks=NullBookmarks.NEVER))
        assert self.read(source, never).ids == [2]
        reading = self.read(source, always)
        assert reading.ids == [1, 2, 3]
        self.put(place, "people", self.people((4, "x", 1), (5, "x", None), (6, "x", 2)), ["id"])
        assert self.read(source, always, reading.bookmark).ids == [1, 3, 4, 5, 6]
        assert self.read(source, never, reading.bookmark).ids == [4, 6]

    def test_only_records_that_the_engine_lets_in_move_the_bookmark(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 1), (2, "x", 2), (3, "y", 3)), ["id"])
        stream = self.incremental(source, "people", "version")
        condition = condition_of(stream.schema.field("name"), "=", ["x"])
        reading = self.read(source, replace(stream, read=replace(stream.read, engine_where=(condition,))))
        assert reading.ids == [1, 2]
        assert values(reading.bookmark) == {"version": 2}

    def test_a_lookback_reads_again_what_is_below_the_bookmark(self, place: Any, source: Source) -> None:
        self.put(place, "people", self.people((1, "x", 10), (2, "x", 20), (3, "x", 30)), ["id"])
        stream = self.incremental(source, "people", "version")
        stream = replace(stream, read=replace(stream.read, lookback=15, may_repeat=True))
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
        reading = self.read(source, stream, reading.bookmark)
        assert reading.ids == [5, 6]
        if name in LOOKBACKS:
            stream = replace(stream, read=replace(stream.read, lookback=LOOKBACKS[name], may_repeat=True))
            reading = self.read(source, stream, reading.bookmark)
            assert set(reading.ids) == {2, 3, 5}, "the hash of record 6 shows that the record was read"

    def test_two_bookmark_properties_compare_in_order(self, place: Any, source: Source) -> None:
        schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("day", pa.int64()), ("hour", pa.int64())])

        def moments(*records: tuple[int, int | None, int | None]) -> pa.Table:
            return pa.Table.from_pylist([dict(zip(schema.names, each, strict=True)) for each in records], schema=schema)

        self.put(place, "moments", moments((1, 1, 9), (2, 2, 1), (3, 2, 5), (4, 3, None)), ["id"])
        stream = self.incremental(source, "moments", "day", "hour")
        stream = replace(stream, read=replace(stream.read, null_bookmarks=NullBookmarks.ONCE))
        reading = self.read(source, stream)
        assert reading.ids == [1, 2, 3, 4]
        assert values(reading.bookmark) == {"day": 2, "hour": 5}
        self.put(place, "moments", moments((5, 2, 5), (6, 2, 6), (7, 3, 0), (8, 2, 4), (9, 1, 10)), ["id"])
        assert self.read(source, stream, reading.bookmark).ids == [5, 6, 7]
