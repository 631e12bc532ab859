"""Promises about data: write dispositions, batches, columns, values and names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ..capabilities import capabilities_of
from ..errors import ConnectorConfigError, ConnectorError
from ..protocols import Capability, Destination
from ..stream import Checkpoint, Event
from ..struct_helpers import replace
from ..write_spec import ConflictMethod, WriteDisposition
from .destination_base import APPEND, FINAL, MERGE, PEOPLE, REPLACE, WIDER, DestinationPromises, people
from .values import COLUMN_NAMES, TABLE_NAMES, VALUES, Feature, in_order


class DataPromises(DestinationPromises):
    """Tests of a destination's tables."""

    # Before a run

    def test_looking_creates_nothing(self, place: Any, destination: Destination) -> None:
        before = self._traces(place)
        states = destination.describe(["people", "other table"])
        assert {name: (state.schema, state.ledger, state.is_table) for name, state in states.items()} == {
            "people": (None, (), True),
            "other table": (None, (), True),
        }
        destination.check()
        destination.close()
        assert self._traces(place) == before

    def _traces(self, place: Any) -> Any:
        return sorted(map(str, place.rglob("*"))) if isinstance(place, Path) else self.tables(place)

    def test_an_unknown_config_key_is_named(self, place: Any) -> None:
        with pytest.raises(ConnectorConfigError, match="no_such_key"):
            self.connector({**self.config(place), "no_such_key": 1}, Path.cwd())

    def test_check_refuses_bad_settings_without_telling_secrets(self, place: Any) -> None:
        for config in self.bad_configs(place):
            destination = self.connector(config, Path.cwd())
            with pytest.raises(ConnectorError) as caught:
                destination.check()
            destination.close()
            assert not [secret for secret in self.secrets(place) if secret in str(caught.value)]

    def test_identity_is_stable_and_holds_no_credentials(self, place: Any, destination: Destination) -> None:
        assert destination.identity() == self.make(place).identity()
        assert not [secret for secret in self.secrets(place) if secret in destination.identity()]

    def test_accepts_end_in_arrow(self, destination: Destination) -> None:
        for disposition in (APPEND, REPLACE, MERGE):
            assert destination.accepts(self.load_of(PEOPLE, disposition).stream, disposition)[-1] == "arrow"

    def test_describes_what_is_there(self, destination: Destination) -> None:
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a")), FINAL)
        state = self.state(destination)
        assert state.schema is not None
        assert state.schema.names == PEOPLE.names
        assert state.is_table

    # Write dispositions

    def test_append_adds(self, place: Any, destination: Destination) -> None:
        for _ in range(2):
            self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a"), (2, None)), FINAL)
        assert self.people(place) == [(1, "a"), (1, "a"), (2, None), (2, None)]

    def test_replace_replaces(self, place: Any, destination: Destination) -> None:
        self.run(destination, self.load_of(PEOPLE, REPLACE), people((1, "a"), (2, "b")), FINAL)
        self.run(destination, self.load_of(PEOPLE, REPLACE), people((2, "B")), people((3, "c")), FINAL)
        assert self.people(place) == [(2, "B"), (3, "c")]

    def test_replace_shows_the_old_records_until_its_commit(self, place: Any, destination: Destination) -> None:
        self.run(destination, self.load_of(PEOPLE, REPLACE), people((1, "old")), FINAL)
        seen = []

        def events() -> Iterator[Event]:
            yield people((2, "new"))
            seen.append(self.people(place))
            yield people((3, "new"))
            seen.append(self.people(place))
            yield FINAL

        list(self.start(destination, self.load_of(PEOPLE, REPLACE), events()))
        assert seen == [[(1, "old")], [(1, "old")]]
        assert self.people(place) == [(2, "new"), (3, "new")]

    def test_replace_takes_another_schema(self, place: Any, destination: Destination) -> None:
        self.run(destination, self.load_of(WIDER, REPLACE), FINAL)
        other = pa.schema([pa.field("id", pa.string(), nullable=False), ("born", pa.date32())])
        batch = pa.RecordBatch.from_pylist([{"id": "x", "born": None}], schema=other)
        self.run(destination, self.load_of(other, REPLACE), batch, FINAL)
        assert self.read_back(place, "people", other) == [{"id": "x", "born": None}]

    def test_replace_by_nothing_empties(self, place: Any, destination: Destination) -> None:
        self.run(destination, self.load_of(PEOPLE, REPLACE), people((1, "a")), FINAL)
        self.run(destination, self.load_of(PEOPLE, REPLACE), FINAL)
        assert self.people(place) == []

    def test_replace_refuses_two_records_of_one_key(self, place: Any, destination: Destination) -> None:
        self.run(destination, self.load_of(PEOPLE, REPLACE), people((1, "old")), FINAL)
        load, events = self.load_of(PEOPLE, REPLACE), [people((1, "a"), (2, "b")), people((3, "c"), (2, "B")), FINAL]
        if self.lacks(Feature.UNIQUE_KEYS):
            self.run(destination, load, *events)
            assert self.people(place) == [(1, "a"), (2, "B"), (2, "b"), (3, "c")]
            return
        self.refused(destination, load, *events)
        assert self.people(place) == [(1, "old")]

    @pytest.mark.parametrize("disposition", [REPLACE, MERGE], ids=str)
    def test_a_key_without_a_value_is_refused(
        self, place: Any, destination: Destination, disposition: WriteDisposition
    ) -> None:
        schema = PEOPLE.set(0, pa.field("id", pa.int64()))
        batch = pa.RecordBatch.from_pylist([{"id": 1, "name": "a"}, {"id": None, "name": "b"}], schema=schema)
        self.refused(destination, self.load_of(schema, disposition), batch, FINAL)
        assert not self.people(place)

    def test_merge_updates_by_key(self, place: Any, destination: Destination) -> None:
        first, second = people((1, "a"), (2, "b")), people((2, "B"), (3, "c"))
        if self.lacks(Feature.MERGE):
            self.refused(destination, self.load_of(PEOPLE, MERGE), first, FINAL)
            return
        self.run(destination, self.load_of(PEOPLE, MERGE), first, FINAL)
        self.run(destination, self.load_of(PEOPLE, MERGE), second, FINAL)
        assert self.people(place) == [(1, "a"), (2, "B"), (3, "c")]

    def test_merging_twice_equals_once(self, place: Any, destination: Destination) -> None:
        if self.lacks(Feature.MERGE):
            return
        for _ in range(2):
            self.run(destination, self.load_of(PEOPLE, MERGE), people((1, "a"), (2, None)), FINAL)
        assert self.people(place) == [(1, "a"), (2, None)]

    def test_merge_ignores_known_keys_where_told(self, place: Any, destination: Destination) -> None:
        if self.lacks(Feature.MERGE):
            return
        self.run(destination, self.load_of(PEOPLE, MERGE), people((1, "a")), FINAL)
        load = self.load_of(PEOPLE, MERGE, conflict=ConflictMethod.IGNORE)
        events = [people((1, "A"), (2, "first"), (2, "b")), people((2, "c"), (3, "first"))]
        self.run(destination, load, *events, Checkpoint(bookmark={"n": 1}), people((3, "d")), FINAL)
        assert self.people(place) == [(1, "a"), (2, "first"), (3, "first")]

    @pytest.mark.parametrize("ascends", [False, True])
    def test_a_commit_counts_the_records_that_others_of_the_same_key_replace(
        self, place: Any, destination: Destination, ascends: bool
    ) -> None:
        if self.lacks(Feature.MERGE):
            return
        first = [people((1, "a"), (2, "a")), people((3, "a"))] if ascends else [people((3, "a"), (1, "a"), (2, "a"))]
        (commit,) = self.run(destination, self.load_of(PEOPLE, MERGE), *first, FINAL)
        if commit.replaced is None:  # a connector may leave the count out
            return
        assert (commit.records, commit.replaced) == (3, 0), "each key came once"
        events = [people((1, "b"), (4, "b")), people((1, "c"), (1, "d")), Checkpoint(bookmark={"n": 1})]
        *_, one, other = self.run(destination, self.load_of(PEOPLE, MERGE), *events, people((1, "e")), FINAL)
        assert (one.records, one.replaced) == (4, 2), "the records of the table do not count"
        assert (other.records, other.replaced) == (1, 0), "nor do those of another commit"
        assert self.people(place) == [(1, "e"), (2, "a"), (3, "a"), (4, "b")]
        load = self.load_of(PEOPLE, MERGE, conflict=ConflictMethod.IGNORE)
        (ignored,) = self.run(destination, load, people((5, "f"), (5, "g"), (1, "g")), FINAL)
        assert ignored.replaced == 0, "the first record stays, so none is replaced"

    def test_the_last_record_of_a_key_wins_within_a_batch(self, place: Any, destination: Destination) -> None:
        if self.lacks(Feature.MERGE):
            return
        batch = people((1, "first"), (2, "b"), (1, "second"), (1, "last"))
        self.run(destination, self.load_of(PEOPLE, MERGE), batch, FINAL)
        assert self.people(place) == [(1, "last"), (2, "b")]

    def test_the_last_record_of_a_key_wins_across_batches_and_commits(
        self, place: Any, destination: Destination
    ) -> None:
        if self.lacks(Feature.MERGE):
            return
        events = [people((1, "a"), (2, "a")), people((1, "b")), Checkpoint(bookmark={"n": 1}), people((2, "c")), FINAL]
        self.run(destination, self.load_of(PEOPLE, MERGE), *events)
        assert self.people(place) == [(1, "b"), (2, "c")]

    def test_merge_by_several_keys(self, place: Any, destination: Destination) -> None:
        if self.lacks(Feature.MERGE):
            return
        schema = pa.schema([pa.field("a", pa.int64(), False), pa.field("b", pa.string(), False), ("v", pa.int64())])
        for values in ([(1, "x", 1), (1, "y", 2)], [(1, "y", 3), (2, "x", 4)]):
            batch = pa.RecordBatch.from_pylist([dict(zip("abv", each, strict=True)) for each in values], schema=schema)
            self.run(destination, self.load_of(schema, MERGE, key=("a", "b")), batch, FINAL)
        records = self.read_back(place, "people", schema) or []
        assert sorted((r["a"], r["b"], r["v"]) for r in records) == [(1, "x", 1), (1, "y", 3), (2, "x", 4)]

    def test_keys_to_remove_go_unless_they_arrive(self, place: Any, destination: Destination) -> None:
        if self.lacks(Feature.MERGE) or Capability.REMOVES_RECORDS not in capabilities_of(destination):
            return
        self.run(destination, self.load_of(PEOPLE, MERGE), people((1, "a"), (2, "b"), (3, "c"), (4, "d")), FINAL)
        removed = pa.table({"id": pa.array([1, 2, 9], pa.int64())})
        load = replace(self.load_of(PEOPLE, MERGE), removed=removed)
        self.run(destination, load, people((2, "B"), (5, "e")), FINAL)
        assert self.people(place) == [(2, "B"), (3, "c"), (4, "d"), (5, "e")]
        load = replace(self.load_of(PEOPLE, MERGE), removed=removed.slice(1))
        commits = self.run(destination, load, FINAL)
        assert self.people(place) == [(3, "c"), (4, "d"), (5, "e")]
        assert sum(commit.removed for commit in commits) == 1, "key 9 is in no record"

    # Batches and columns

    @pytest.mark.parametrize("sizes", [(0,), (1,), (1000,), (0, 1, 0, 1000, 0)], ids=str)
    def test_batches_of_any_size(self, place: Any, destination: Destination, sizes: Sequence[int]) -> None:
        ids = iter(range(sum(sizes)))
        batches = [people(*((next(ids), "x") for _ in range(size))) for size in sizes]
        commits = self.run(destination, self.load_of(PEOPLE, APPEND), *batches, FINAL)
        assert [record[0] for record in self.people(place) or []] == sorted(
            range(sum(sizes)), key=lambda n: repr((n, "x"))
        )
        assert sum(commit.records for commit in commits) == sum(sizes)

    @pytest.mark.parametrize("disposition", [APPEND, REPLACE, MERGE], ids=str)
    def test_an_empty_stream_creates_the_table(
        self, place: Any, destination: Destination, disposition: WriteDisposition
    ) -> None:
        if disposition is MERGE and self.lacks(Feature.MERGE):
            return
        load = self.load_of(PEOPLE, disposition)
        (commit,) = self.run(destination, load, FINAL)
        assert (commit.checkpoint, commit.records) == (FINAL, 0)
        assert self.people(place) == []
        assert self.row(destination).completed_by == load.run

    def test_a_new_column_is_added_between_runs(self, place: Any, destination: Destination) -> None:
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a")), FINAL)
        batch = pa.RecordBatch.from_pylist([{"id": 2, "name": "b", "age": 7}], schema=WIDER)
        commits = self.run(destination, self.load_of(WIDER, APPEND), batch, FINAL)
        assert in_order(self.read_back(place, "people", WIDER)) == in_order(
            [
                {"id": 1, "name": "a", "age": None},
                {"id": 2, "name": "b", "age": 7},
            ]
        )
        assert [change["column"] for commit in commits for change in commit.schema_changes] == ["age"]

    def test_a_schema_change_is_announced_before_it_is_committed(self, place: Any, destination: Destination) -> None:
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a")), FINAL)
        batch = pa.RecordBatch.from_pylist([{"id": 2, "name": "b", "age": 7}], schema=WIDER)

        def refuse(_: Checkpoint | None, __: Sequence[Mapping[str, Any]]) -> None:
            raise RuntimeError("nobody can be told")

        before = self.row(destination)
        with pytest.raises(RuntimeError, match="nobody can be told"):
            self.run(destination, replace(self.load_of(WIDER, APPEND), announce=refuse), batch, FINAL)
        assert self.people(place) == [(1, "a")]
        assert self.row(destination).completed_by == before.completed_by
        told: list[tuple[Checkpoint | None, Sequence[Mapping[str, Any]]]] = []
        load = replace(self.load_of(WIDER, APPEND), announce=lambda *change: told.append(change))
        (commit,) = self.run(destination, load, batch, FINAL)
        (announced,) = told
        assert announced[0] in (FINAL, None)
        assert announced[1] == commit.schema_changes

    @pytest.mark.parametrize("disposition", [APPEND, REPLACE, MERGE], ids=str)
    def test_a_new_column_is_added_within_a_load(
        self, place: Any, destination: Destination, disposition: WriteDisposition
    ) -> None:
        if disposition is MERGE and self.lacks(Feature.MERGE):
            return
        wider = self.load_of(WIDER, disposition).stream
        batch = pa.RecordBatch.from_pylist([{"id": 2, "name": "b", "age": 7}], schema=WIDER)
        self.run(destination, self.load_of(PEOPLE, disposition), people((1, "a")), wider, batch, FINAL)
        assert in_order(self.read_back(place, "people", WIDER)) == in_order(
            [
                {"id": 1, "name": "a", "age": None},
                {"id": 2, "name": "b", "age": 7},
            ]
        )

    def test_a_column_that_no_longer_arrives_stays(self, place: Any, destination: Destination) -> None:
        batch = pa.RecordBatch.from_pylist([{"id": 1, "name": "a", "age": 7}], schema=WIDER)
        self.run(destination, self.load_of(WIDER, APPEND), batch, FINAL)
        self.run(destination, self.load_of(PEOPLE, APPEND), people((2, "b")), FINAL)
        assert in_order(self.read_back(place, "people", WIDER)) == in_order(
            [
                {"id": 1, "name": "a", "age": 7},
                {"id": 2, "name": "b", "age": None},
            ]
        )

    def test_columns_go_by_name_whatever_their_order(self, place: Any, destination: Destination) -> None:
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a")), FINAL)
        turned = pa.schema([PEOPLE.field("name"), PEOPLE.field("id")])
        batch = pa.RecordBatch.from_pylist([{"id": 2, "name": "b"}], schema=turned)
        self.run(destination, self.load_of(turned, APPEND), batch, FINAL)
        assert self.people(place) == [(1, "a"), (2, "b")]

    @pytest.mark.parametrize("name", VALUES)
    def test_values_arrive_unchanged(self, place: Any, destination: Destination, name: str) -> None:
        case = VALUES[name]
        schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("v", case.kind)])
        records = [{"id": number, "v": value} for number, value in enumerate(case.values)]
        batch = pa.RecordBatch.from_pylist(records, schema=schema)
        load = self.load_of(schema, APPEND, table="valued")
        if self.lacks(case.feature):
            self.refused(destination, load, batch, FINAL)
            return
        self.run(destination, load, batch, FINAL)
        assert in_order(self.read_back(place, "valued", schema)) == in_order(records)

    @pytest.mark.parametrize("disposition", [APPEND, MERGE], ids=str)
    def test_odd_column_names(self, place: Any, destination: Destination, disposition: WriteDisposition) -> None:
        if disposition is MERGE and self.lacks(Feature.MERGE):
            return
        key = COLUMN_NAMES[0]
        schema = pa.schema([pa.field(name, pa.string(), nullable=name != key) for name in COLUMN_NAMES])
        record = {name: f"value of {name}" for name in COLUMN_NAMES}
        batch = pa.RecordBatch.from_pylist([record], schema=schema)
        self.run(destination, self.load_of(schema, disposition, key=[key]), batch, FINAL)
        self.run(destination, self.load_of(schema, disposition, key=[key]), FINAL)
        assert self.read_back(place, "people", schema) == [record]
        described = self.state(destination).schema
        assert described is not None
        assert described.names == list(COLUMN_NAMES)

    def test_columns_that_differ_in_case_only(self, place: Any, destination: Destination) -> None:
        schema = pa.schema([("Id", pa.int64()), ("ID", pa.int64())])
        batch = pa.RecordBatch.from_pylist([{"Id": 1, "ID": 2}], schema=schema)
        load = self.load_of(schema, APPEND, key=())
        if not self.lacks(Feature.CASE_PAIRS):
            self.run(destination, load, batch, FINAL)
            assert self.read_back(place, "people", schema) == [{"Id": 1, "ID": 2}]
            return
        try:
            self.run(destination, load, batch, FINAL)
        except ConnectorError:
            return
        (record,) = self.read_back(place, "people", schema) or [{}]
        assert list(record.values()) == [1, 2], "no value is lost"
        assert len({name.lower() for name in record}) == 2, "declared, but it tells them apart"

    @pytest.mark.parametrize("table", TABLE_NAMES)
    def test_odd_table_names(self, place: Any, destination: Destination, table: str) -> None:
        for disposition in (APPEND, REPLACE, APPEND if self.lacks(Feature.MERGE) else MERGE):
            self.run(destination, self.load_of(PEOPLE, disposition, table=table), people((1, "a")), FINAL)
        assert self.read_back(place, table, PEOPLE)
        assert self.tables(place) == {table}
