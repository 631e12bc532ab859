"""The optional capabilities of a source, each as tests; a source that lacks one skips them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest

from ..arrow.record_size import RecordTooWide
from ..compared_values import EVERYTHING, ComparedColumn, Digest, KeyRange, Row, Side, TextForm
from ..errors import ConnectorError, FatalConnectorError
from ..filters import condition_of
from ..protocols import Source
from ..ranges import OpenRanges, Range
from ..read_spec import ChangedFiles, ReplicationMethod
from ..stream import FILES, Checkpoint, Stream
from ..struct_helpers import replace
from .capabilities import CapabilityPromises
from .source_base import SourcePromises
from .values import in_order

#: More memory than any record of these tests has.
AMPLE_BYTES = 64 << 20


class SourceCapabilityPromises(CapabilityPromises, SourcePromises):
    """Tests of what a source can do beyond `protocols.Source`."""

    def range_config(self, place: Any) -> Mapping[str, Any] | None:
        """Return a config with which the table `people`, just seeded, is read by several ranges.

        Only for a source that `ReadsRanges`. None: the records of one table cannot be split (one file a range).
        """
        raise NotImplementedError

    # Prepares, HoldsMemory, BoundsRecords

    def test_preparing_raises_nothing_and_changes_no_record(self, place: Any, source: Source) -> None:
        prepares = self.can(source, "prepares")
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        assert prepares.shortcut() in source.offers(self.find(self.make(place), "people"))
        for wire in (prepares.shortcut(), "arrow"):  # the second guess is wrong, or the first
            prepares.prepare(wire, is_whole=True)
            assert self.read(source, self.find(source, "people")).ids == [1]
            source.close()

    def test_what_fails_while_preparing_is_said_by_the_first_call(self, place: Any, source: Source) -> None:
        self.can(source, "prepares")
        for config in self.bad_configs(place):
            unreachable = self.make(place, config)
            unreachable.prepare("arrow", is_whole=True)
            with pytest.raises(ConnectorError):
                unreachable.check()
            unreachable.close()

    def test_a_memory_limit_changes_no_record(self, place: Any, source: Source) -> None:
        self.can(source, "holds_memory").limit_memory(AMPLE_BYTES, is_strict=True)
        seeded = self.people(*((number, "x" * 1000, number) for number in range(1000)))
        self.put(place, "people", seeded, ["id"])
        assert in_order(self.read(source, self.find(source, "people")).records) == in_order(seeded.to_pylist())

    def test_a_record_past_its_limit_is_refused(self, place: Any, source: Source) -> None:
        bounds = self.can(source, "bounds_records")
        bounds.limit_record(AMPLE_BYTES)
        self.put(place, "people", self.people((1, "x", 1), (2, "x" * (24 << 20), 2), (3, "x", 3)), ["id"])
        assert self.read(source, self.find(source, "people")).ids == [1, 2, 3]
        bounds.limit_record(6 << 20)
        with pytest.raises(RecordTooWide):
            self.read(source, self.find(source, "people"))

    # ListsStreams, FindsStreams, HasFormerNames, FindsTypes, TracksFiles, LooksAtTimes, SkipsLate, HasOneNull

    def test_listed_streams_are_those_of_discover_and_are_opened_alone(self, place: Any, source: Source) -> None:
        lists = self.can(source, "lists_streams")
        for name in ("people", "others"):
            self.put(place, name, self.people((1, "x", 1)), ["id"])
        found = {stream.name: stream for stream in source.discover()}
        assert list(lists.list_streams()) == list(found)
        name = self.find(source, "people").name
        assert lists.open_streams([name]) == [found[name]]

    def test_streams_are_found_by_name_as_discover_describes_them(self, place: Any, source: Source) -> None:
        finds = self.can(source, "finds_streams")
        for name in ("people", "others"):
            self.put(place, name, self.people((1, "x", 1)), ["id"])
        people, others = (self.find(source, name) for name in ("people", "others"))
        assert list(finds.find_streams([people.name])) == [people]
        assert {stream.name for stream in finds.find_streams([people.name, others.name])} == {people.name, others.name}
        assert list(finds.find_streams([f"{people.name}_gone"])) == []

    def test_of_tables_that_may_be_read_none_is_called_unreadable(self, place: Any, source: Source) -> None:
        lists = self.can(source, "lists_unreadable")
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        assert {stream.name for stream in source.discover()}.isdisjoint(lists.unreadable_tables())
        assert list(lists.unreadable_tables()) == sorted(lists.unreadable_tables())

    def test_a_stream_is_read_under_its_former_name(self, place: Any, source: Source) -> None:
        names, lists = self.can(source, "has_former_names"), self.can(source, "lists_streams")
        self.put(place, "day.1", self.people((1, "x", 1)), ["id"])
        present = list(lists.list_streams())
        former = names.former_names()
        assert set(former) <= set(present)
        assert not set(former.values()) & set(present)
        names.keep_former_names(former)
        assert sorted(lists.list_streams()) == sorted(former.get(name, name) for name in present)
        for name in former.values():
            (stream,) = lists.open_streams([name])
            assert self.read(source, stream).ids == [1]

    def test_known_types_keep_the_columns_and_the_records(self, place: Any, source: Source) -> None:
        finds = self.can(source, "finds_types")
        self.put(place, "people", self.people((1, "x", 1), (2, None, 2)), ["id"])
        stream = self.incremental(source, "people", "version")
        reading = self.read(source, stream)
        for bookmark in (None, reading.bookmark):
            known = finds.as_known(stream, bookmark)
            assert known == replace(stream, schema=known.schema), "nothing changes but types"
            assert known.schema.names == stream.schema.names
            assert in_order(self.read(source, known).records) == in_order(reading.records)

    def test_a_source_tells_columns_with_nanoseconds_from_those_without(self, place: Any, source: Source) -> None:
        looks = self.can(source, "looks_at_times")
        whole, fine = (pa.array([1_000, None, each], pa.timestamp("ns")) for each in (2_000, 2_001))
        self.put(place, "people", pa.table({"id": [1, 2, 3], "whole": whole, "fine": fine}), ["id"])
        stream = self.find(source, "people")
        assert looks.nanoseconds(stream, ["whole", "fine"]) == {"fine"}
        assert looks.nanoseconds(stream, ["whole"]) == frozenset()

    def test_new_and_changed_files_are_found_once(self, place: Any, source: Source) -> None:
        tracks, name = self.can(source, "tracks_files"), self.stream_name("people")

        def tracked(stream: Stream, changed: ChangedFiles) -> Stream:
            method = ReplicationMethod.INCREMENTAL
            return replace(
                stream,
                read=replace(stream.read, method=method, tracks_files=True, changed_files=changed),
            )

        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        first = self.read(source, tracked(self.find(source, "people"), ChangedFiles.FAIL))
        read = [each for checkpoint in first.checkpoints for each in checkpoint.files]
        assert (first.ids, len(read), first.bookmark is None) == ([1], 1, False)
        assert isinstance(first.events[-1], Checkpoint), "nothing comes after the checkpoint that names the file"
        bookmark = {**(first.bookmark or {}), FILES: read}
        known = tracks.open_tracked(name, read, first.bookmark)
        assert known.schema.names == self.find(source, "people").schema.names
        assert self.read(source, tracked(known, ChangedFiles.FAIL), bookmark).events == []
        self.put(place, "people", self.people((2, "y", 2)), ["id"])
        changed = tracks.open_tracked(name, read, first.bookmark)
        with pytest.raises(FatalConnectorError, match="has changed since it was read"):
            self.read(source, tracked(changed, ChangedFiles.FAIL), bookmark)
        assert self.read(source, tracked(changed, ChangedFiles.IGNORE), bookmark).ids == []
        again = self.read(source, tracked(changed, ChangedFiles.READ), bookmark)
        (file,) = again.checkpoints[-1].files
        assert (again.ids, file.path, file.is_changed) == ([1, 2], read[0].path, True)

    def test_a_source_says_why_it_may_skip_late_records(self, place: Any, source: Source) -> None:
        skips = self.can(source, "skips_late")
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        stream = self.incremental(source, "people", "version")
        why = skips.skips_late(stream)
        assert isinstance(why, str)
        assert skips.skips_late(stream) == why

    def test_a_source_says_whether_it_verifies_its_server(self, place: Any, source: Source) -> None:
        assert isinstance(self.can(source, "verifies_server").unverified_server(), str)

    def test_a_source_shows_its_address_without_credentials(self, place: Any, source: Source) -> None:
        shown = self.can(source, "shows_address").shown_address()
        assert not [secret for secret in self.secrets(place) if secret in shown]

    def test_a_source_says_which_limits_may_end_a_run(self, place: Any, source: Source) -> None:
        knows = self.can(source, "knows_limits")
        assert all(isinstance(each, str) for each in knows.limit_warnings(1))
        assert knows.limit_warnings(1) == knows.limit_warnings(1)

    def test_a_source_says_from_where_its_place_is_reached(self, place: Any, source: Source) -> None:
        assert self.can(source, "knows_place").place() in ("anywhere", "host", "process")

    # ReadsQueries

    #: A query over `people`; a system whose SQL has another form says its own.
    people_query = "select id, name as called, version + 1 as next from people where id > 1"

    def test_a_query_is_a_stream(self, place: Any, source: Source) -> None:
        reads = self.can(source, "reads_queries")
        self.put(place, "people", self.people((1, "x", 1), (2, "y", 2), (3, None, 3)), ["id"])
        stream = reads.query_stream("grown", self.people_query)
        assert (stream.name, stream.schema.names, stream.key_properties) == ("grown", ["id", "called", "next"], ())
        found = {int(r["id"]): (r["called"], int(r["next"])) for r in self.read(source, stream).records}
        assert found == {2: ("y", 3), 3: (None, 4)}
        assert source.count(stream) == 2
        followed = replace(
            stream,
            read=replace(stream.read, method=ReplicationMethod.INCREMENTAL, bookmark_properties=("next",)),
        )
        reading = self.read(source, followed)
        assert reading.ids == [2, 3]
        assert self.read(source, followed, reading.bookmark).ids == []

    #: A query over `people` that says from where it is read.
    bounded_query = "select id, version + 1 as next, :bookmark + 0 as since from people where version + 1 >= :bookmark"

    def test_a_query_says_where_it_is_read_from(self, place: Any, source: Source) -> None:
        reads = self.can(source, "reads_queries")
        assert isinstance(reads.may_write(), str)
        self.put(place, "people", self.people((1, "x", 1), (2, "y", 2), (3, None, 5)), ["id"])
        stream = reads.query_stream("grown", self.bounded_query, start=3)
        assert stream.is_query_bounded
        assert not reads.query_stream("grown", self.people_query).is_query_bounded
        read = replace(
            stream.read,
            method=ReplicationMethod.INCREMENTAL,
            bookmark_properties=("next",),
            bookmark_start=condition_of(stream.schema.field("next"), ">=", [3]),
            lookback=1,
            may_repeat=True,
        )
        followed = replace(stream, read=read)
        assert source.count(followed) == 2
        whole = replace(stream, read=replace(read, method=ReplicationMethod.FULL_TABLE, bookmark_properties=()))
        assert self.read(source, whole).ids == [2, 3]
        reading = self.read(source, followed)
        assert {int(r["since"]) for r in reading.records} == {3}
        again = self.read(source, followed, reading.bookmark)
        assert [(int(r["id"]), int(r["since"])) for r in again.records] == [(3, 5)]

    def test_what_is_no_query_is_refused_when_it_is_described(self, place: Any, source: Source) -> None:
        reads = self.can(source, "reads_queries")
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        for query in ("select nothing from people", "delete from people", "select id, id from people", "not sql"):
            with pytest.raises(FatalConnectorError):
                reads.query_stream("odd", query)
        assert self.read(source, self.find(source, "people")).ids == [1], "nothing was run"

    # FlattensObjects

    def test_objects_are_columns_down_to_the_levels_that_are_said(self, place: Any, source: Source) -> None:
        flattens = self.can(source, "flattens_objects")
        inner = pa.array([{"b": 1, "c": {"d": 2}}, None, {"b": 3, "c": None}])
        self.put(place, "people", pa.table({"id": [1, 2, 3], "a": inner}), ["id"])
        names = {0: ["id", "a"], 1: ["id", "a__b", "a__c"], 2: ["id", "a__b", "a__c__d"]}
        for levels, expected in names.items():
            flattens.flatten({self.find(source, "people").name: levels}.__getitem__)
            assert self.find(source, "people").schema.names == expected
        stream = self.find(source, "people")
        found = {record["id"]: (record["a__b"], record["a__c__d"]) for record in self.read(source, stream).records}
        assert found == {1: (1, 2), 2: (None, None), 3: (3, None)}

    # FiltersRecords

    #: Conditions on `people` that name a version or a name, each with the ids that meet it.
    filters: Sequence[tuple[str, str, Sequence[Any], Sequence[int]]] = (
        ("version", "=", [2], [2]),
        ("version", "!=", [2], [1, 4]),
        ("version", ">=", [2], [2, 4]),
        ("name", "=", ["y"], [2]),
        ("name", "in", ["x", "Y"], [1, 4]),
        ("name", "<", ["y"], [1, 4]),
        ("version", "is_null", [], [3]),
        ("name", "is_not_null", [], [1, 2, 4]),
    )

    def test_what_it_filters_is_what_the_engine_would(self, place: Any, source: Source) -> None:
        can = self.can(source, "filters_records")
        self.put(place, "people", self.people((1, "x", 1), (2, "y", 2), (3, None, None), (4, "Y", 4)), ["id"])
        stream = self.find(source, "people")
        alone = replace(stream, schema=pa.schema([stream.schema.field("id")]))
        for name, operator, given, ids in self.filters:
            condition = condition_of(stream.schema.field(name), operator, given)
            if can.filters(stream, condition):
                found = replace(alone, read=replace(alone.read, where=(condition,)))
                assert sorted(self.read(source, found).ids) == ids, f"{condition}: the column itself is not read"
                assert source.count(found) == len(ids)

    # ReadsRanges

    def _ranged(self, place: Any, source: Source) -> tuple[Any, Stream, list[dict[str, Any]]]:
        """Return a source that splits `people`, its stream, and the records; skip where it cannot be split."""
        self.can(source, "reads_ranges")
        seeded = self.people(*((number, "x" * 200, number) for number in range(2000)))
        self.put(place, "people", seeded, ["id"])
        config = self.range_config(place)
        if config is None:
            pytest.skip("one table is one range")
        made = self.make(place, config)
        return made, self.find(made, "people"), seeded.to_pylist()

    def _range_records(self, opened: OpenRanges, part: Range) -> list[dict[str, Any]]:
        batches = list(opened.read(part))
        assert all(isinstance(batch, pa.RecordBatch) for batch in batches), "a range has no checkpoints"
        return [record for batch in batches for record in batch.to_pylist()]  # type: ignore[union-attr]

    def test_a_plan_of_ranges_says_how_many_and_why(self, place: Any, source: Source) -> None:
        can = self.can(source, "reads_ranges")
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        number, why = can.plan_ranges(self.find(source, "people"), 4)
        assert number is None or number >= 1
        assert why

    def test_a_small_stream_is_read_as_a_whole(self, place: Any, source: Source) -> None:
        can = self.can(source, "reads_ranges")
        self.put(place, "people", self.people((1, "x", 1)), ["id"])
        stream = self.find(source, "people")
        with can.open_ranges(stream, 4, "arrow") as opened:
            assert len(opened.ranges) <= 1
        assert self.read(source, stream).ids == [1]

    def test_ranges_are_the_stream_each_record_once(self, place: Any, source: Source) -> None:
        made, stream, seeded = self._ranged(place, source)
        number, _ = made.plan_ranges(stream, 4)
        assert number is None or number > 1
        with made.open_ranges(stream, 4, "arrow") as opened:
            assert len(opened.ranges) > 1
            assert [part.place for part in opened.ranges] == list(range(len(opened.ranges)))
            assert all(part.label for part in opened.ranges)
            with ThreadPoolExecutor(4) as pool:
                parts = list(pool.map(lambda part: self._range_records(opened, part), opened.ranges))
            again = self._range_records(opened, opened.ranges[0])
        made.close()
        assert in_order(record for part in parts for record in part) == in_order(seeded)
        assert in_order(again) == in_order(parts[0])

    def test_ranges_are_the_stream_at_one_moment(self, place: Any, source: Source) -> None:
        """What is added while they are read is in none of them, or their read fails."""
        made, stream, seeded = self._ranged(place, source)
        with suppress(ConnectorError), made.open_ranges(stream, 4, "arrow") as opened:
            first = self._range_records(opened, opened.ranges[0])
            self.put(place, "people", self.people((5000, "late", 5000)), ["id"])
            rest = [record for part in opened.ranges[1:] for record in self._range_records(opened, part)]
            assert in_order([*first, *rest]) == in_order(seeded)
        made.close()

    def test_ranges_are_resumed_by_their_moment(self, place: Any, source: Source) -> None:
        made, stream, seeded = self._ranged(place, source)
        with made.open_ranges(stream, 4, "arrow") as opened:
            first = self._range_records(opened, opened.ranges[0])
            moment = opened.moment
        if moment is None:
            return
        moment = json.loads(json.dumps(moment, allow_nan=False))
        with made.open_ranges(stream, 4, "arrow") as opened:
            is_resumed = opened.resume(moment, {0: len(first)})
            rest = opened.ranges[1:] if is_resumed else opened.ranges
            records = [record for part in rest for record in self._range_records(opened, part)]
        made.close()
        assert in_order([*(first if is_resumed else ()), *records]) == in_order(seeded)

    # ComputesChecksums

    def _side(self, place: Any, source: Any, *records: tuple[int, str | None, int | None]) -> Side:
        self.can(source, "computes_checksums")
        self.put(place, "people", self.people(*records), ["id"])
        stream = self.find(source, "people")
        forms = {"id": TextForm.INTEGER, "name": TextForm.TEXT, "version": TextForm.INTEGER}
        every = {
            name: ComparedColumn(name=name, field=stream.schema.field(name), form=form) for name, form in forms.items()
        }
        return Side(stream=stream, key=(every["id"],), columns=tuple(every.values()))

    def _digests(self, source: Any, side: Side, ranges: Sequence[KeyRange]) -> list[Digest]:
        with source.checksums(side) as checksums:
            found: list[Digest] = checksums.digests(ranges)
        return found

    def test_checksums_of_ranges_add_up_and_differ_with_a_record(self, place: Any, source: Any) -> None:
        side = self._side(place, source, *((number, "x", number) for number in range(100)))
        assert source.checksum_system() in ("duckdb", "mysql", "postgres")
        halves = [KeyRange(None, ("40",)), KeyRange(("40",), None)]
        (whole,), parts = self._digests(source, side, [EVERYTHING]), self._digests(source, side, halves)
        assert [part.records for part in parts] == [40, 60]
        assert (whole.records, whole.checksum) == (100, sum(part.checksum for part in parts))
        assert self._digests(source, side, [EVERYTHING]) == [whole], "the same records have the same checksum"
        self.put(place, "people", self.people((200, "y", 200)), ["id"])
        (other,) = self._digests(source, side, [EVERYTHING])
        assert other.records == 101
        assert other.checksum != whole.checksum

    def test_boundaries_split_a_range_into_pieces_of_a_size(self, place: Any, source: Any) -> None:
        side = self._side(place, source, *((number, "x", number) for number in range(100)))
        with source.checksums(side) as checksums:
            (keys,) = checksums.boundaries([(EVERYTHING, 25)])
            ends = [None, *keys, None]
            pieces = [KeyRange(*pair) for pair in itertools.pairwise(ends)]
            sizes = [digest.records for digest in checksums.digests(pieces)]
        assert keys == sorted(keys, key=lambda key: int(key[0] or 0))
        assert sum(sizes) == 100
        assert max(sizes) <= 25

    def test_rows_of_a_range_are_canonical_texts(self, place: Any, source: Any) -> None:
        side = self._side(place, source, (1, "x", 1), (2, None, -5), (30, "ü", None))
        with source.checksums(side) as checksums:
            rows: list[Row] = checksums.rows([KeyRange(None, ("2",)), KeyRange(("2",), ("30",))])
        assert sorted((row.place, row.key, row.values, row.is_past) for row in rows) == [
            (0, ("1",), ("1", "x", "1"), False),
            (1, ("2",), ("2", None, "-5"), False),
        ]

    def test_a_narrowed_stream_has_the_records_of_its_ranges(self, place: Any, source: Any) -> None:
        side = self._side(place, source, *((number, "x", number) for number in range(100)))
        ranges = [KeyRange(None, ("3",)), KeyRange(("10",), ("12",)), KeyRange(("99",), None)]
        with source.checksums(side):
            narrowed = source.narrowed(side.stream, side, ranges)
        assert self.read(source, narrowed).ids == [0, 1, 2, 10, 11, 99]

    def test_a_source_says_how_it_reads_json_and_arrays(self, place: Any, source: Any) -> None:
        side = self._side(place, source, (1, "x", 1))
        assert source.keeps_json() in (True, False)
        assert source.array_item(side.stream.schema.field("version")) is None


__all__ = ["SourceCapabilityPromises"]
