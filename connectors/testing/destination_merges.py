"""The promises of destinations that merge by more than the key; one that does not skips them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from ..protocols import Capability, Destination
from ..read_spec import Condition
from ..stream import Checkpoint
from ..struct_helpers import replace
from ..write_spec import ConflictMethod, WriteDisposition
from .capabilities import CapabilityPromises
from .destination_base import FINAL, MERGE, PEOPLE, DestinationPromises, people


class MergePromises(CapabilityPromises, DestinationPromises):
    """Tests of what decides which record of a key counts, and whether it stays."""

    def test_records_are_merged_by_the_unique_columns_and_not_by_the_key(
        self, place: Any, destination: Destination
    ) -> None:
        self.needs(destination, Capability.MERGES_BY_UNIQUE)
        columns = [pa.field(name, pa.int64(), nullable=False) for name in ("id", "a", "b")]
        schema = pa.schema([*columns, ("name", pa.string())])
        whole = self.load_of(schema, MERGE)
        load = replace(whole, stream=replace(whole.stream, unique_properties=("a", "b")))

        def batch(*rows: tuple[int, int, int, str]) -> pa.RecordBatch:
            return pa.RecordBatch.from_pylist(
                [dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema
            )

        self.run(destination, load, batch((1, 1, 1, "a"), (2, 1, 2, "b"), (3, 2, 1, "c")), FINAL)
        self.run(destination, load, batch((7, 1, 1, "first"), (8, 1, 1, "A"), (9, 2, 2, "d")), FINAL)
        records = sorted(tuple(record.values()) for record in self.read_back(place, "people", schema) or [])
        assert records == [(2, 1, 2, "b"), (3, 2, 1, "c"), (8, 1, 1, "A"), (9, 2, 2, "d")]

    @pytest.mark.parametrize(
        ("kind", "low", "high"),
        [
            (pa.int64(), 9, 10),
            (pa.float64(), -1.5, 0.25),
            (pa.float64(), 0.25, -1.5),
            (pa.string(), "a", "Z"),
            (
                pa.timestamp("us", "UTC"),
                datetime(2024, 2, 29, tzinfo=UTC),
                datetime(2024, 2, 29, 0, 0, 0, 1000, tzinfo=UTC),
            ),
            (pa.date32(), date(2024, 2, 29), date(2024, 3, 1)),
            (pa.string(), "Z", "a"),
        ],
        ids=str,
    )
    def test_a_record_never_takes_the_place_of_a_newer_one(
        self, place: Any, destination: Destination, kind: pa.DataType, low: Any, high: Any
    ) -> None:
        keeps = self.can(destination, "keeps_latest")
        if not keeps.keeps_latest(pa.field("age", kind)):
            pytest.skip(f"it does not order {kind}")
        schema = pa.schema([*PEOPLE, pa.field("age", kind)])
        whole = self.load_of(schema, MERGE)
        # Where the former is above the latter, the lowest value counts.
        load = replace(whole, write=replace(whole.write, latest_by="age", latest_is_lowest=low > high))

        def batch(*rows: tuple[int, str, Any]) -> pa.RecordBatch:
            return pa.RecordBatch.from_pylist(
                [dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema
            )

        first = batch((1, "new", high), (1, "old", low), (2, "null", None), (3, "high", high), (4, "low", low))
        again = batch((1, "old", low), (2, "last", None), (5, "first", None))
        self.run(destination, load, first, Checkpoint(), again, FINAL)
        second = batch((1, "late", low), (2, "any", low), (3, "equal", high), (4, "up", high), (4, "down", low))
        self.run(destination, load, second, batch((5, "second", None), (1, "later", None)), FINAL)
        records = {record["id"]: record["name"] for record in self.read_back(place, "people", schema) or []}
        assert records == {1: "new", 2: "any", 3: "equal", 4: "up", 5: "second"}

    def test_only_known_keys_are_updated_where_told(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.UPDATES_ONLY)
        load = self.load_of(PEOPLE, MERGE, conflict=ConflictMethod.UPDATE_ONLY)
        self.run(destination, load, people((9, "z")), FINAL)
        assert not self.people(place)
        self.run(destination, self.load_of(PEOPLE, MERGE), people((1, "a"), (2, "b"), (3, "c")), FINAL)
        middle = Checkpoint(bookmark={"n": 1})
        batches = [people((4, "d"), (1, "A")), middle, people((4, "e"), (2, "first"), (5, "f"), (2, "B"))]
        self.run(destination, load, *batches, FINAL)
        assert self.people(place) == [(1, "A"), (2, "B"), (3, "c")]

    @pytest.mark.parametrize(
        ("kind", "mark", "values"),
        [
            (pa.bool_(), True, (True,)),
            (pa.int64(), -1, (-1, 7)),
            (pa.string(), "D", ("x", "D")),
            (pa.timestamp("us"), datetime(2024, 2, 29), ()),  # noqa: DTZ001 a column without a zone
        ],
        ids=str,
    )
    def test_a_record_that_says_it_is_deleted_goes_with_the_tables(
        self, place: Any, destination: Destination, kind: pa.DataType, mark: Any, values: tuple[Any, ...]
    ) -> None:
        field, drops = pa.field("age", kind), self.can(destination, "drops_deleted")
        operator = "in" if values else "is_not_null"
        scalars = tuple(pa.scalar(value, kind) for value in values)
        condition = Condition(field=field, operator=operator, values=scalars, given=values)
        if not drops.drops_deleted(condition):
            pytest.skip(f"it does not compare {kind}")
        schema = pa.schema([*PEOPLE, field])
        whole = self.load_of(schema, MERGE)
        load = replace(whole, write=replace(whole.write, deleted_when=condition))
        other = {"D": "d", True: False, -1: 1}.get(mark)

        def batch(*rows: tuple[int, str, Any]) -> pa.RecordBatch:
            return pa.RecordBatch.from_pylist(
                [dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema
            )

        self.run(destination, load, batch((1, "a", other), (2, "b", None), (3, "c", other), (4, "d", mark)), FINAL)
        again = batch((1, "a", mark), (2, "b", mark), (2, "back", other), (3, "new", None), (3, "gone", mark))
        self.run(destination, load, again, batch((5, "e", mark), (5, "f", None), (6, "g", mark)), FINAL)
        records = {record["id"]: record["name"] for record in self.read_back(place, "people", schema) or []}
        assert records == {2: "back", 5: "f"}
        rewrite = replace(load, write=replace(load.write, disposition=WriteDisposition.REPLACE))
        self.run(destination, rewrite, batch((1, "a", mark), (2, "b", other)), FINAL)
        assert [record["id"] for record in self.read_back(place, "people", schema) or []] == [2]
