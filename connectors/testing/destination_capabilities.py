"""The optional capabilities of a destination, each as tests; a destination that lacks one skips them or shows it."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from ..arrow.fidelity import Fidelity, fidelity
from ..capabilities import capabilities_of
from ..errors import ConnectorError, FatalConnectorError, RetriableError, TakenOver
from ..log_based import DELETE, MARK, MARK_ALL, OPERATION, TRUNCATE, UPSERT, changes_stream
from ..protocols import Capability, Destination, KeepsFiles
from ..ranges import Range
from ..stream import (
    DELETED_AT,
    ENDS,
    NEWEST,
    VALID_FROM,
    VALID_TO,
    Block,
    Checkpoint,
    Commit,
    Event,
    FileRead,
    HistoryLoad,
    Load,
    TableState,
)
from ..struct_helpers import replace
from ..write_spec import WriteDisposition
from .capabilities import CapabilityPromises
from .destination_base import APPEND, FINAL, MERGE, PEOPLE, REPLACE, WIDER, DestinationPromises, people
from .values import COLUMN_NAMES, VALUES, Feature

#: Files that were read; two paths differ in case only.
FILES = (
    FileRead(path="met/a b.csv", size_bytes=1 << 40, modified="2024-02-29T10:00:00.000001+00:00", etag="x y-1"),
    FileRead(path="met/A.csv", size_bytes=0),
    FileRead(path="met/a.csv", size_bytes=3, modified="2024-02-29T10:00:00.000000+00:00"),
)

#: A table of versions.
HISTORY = pa.schema(
    [
        *WIDER,
        pa.field(VALID_FROM, pa.timestamp("us", "UTC"), nullable=False),
        pa.field(VALID_TO, pa.timestamp("us", "UTC")),
    ]
)


def files_of(keeps: KeepsFiles, load: Load) -> set[FileRead]:
    """Return what is kept, without what is for the commit only."""
    return {each._replace(is_changed=False) for each in keeps.files_read(load.key)}


@dataclass
class Reads:
    """The engine's side of a load by ranges: batches in memory, and errors on purpose."""

    parts: Sequence[Sequence[pa.RecordBatch]]
    #: Place of a range -> the errors that its first reads end with.
    failures: dict[int, list[Exception]] = field(default_factory=dict)
    #: How often a range that failed may be read again.
    repeats: int = 0
    moment: Mapping[str, Any] | None = None
    shape: str = "contract"
    is_given_up: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ranges(self) -> Sequence[Range]:
        return [Range(place=place, label=f"range {place}") for place in range(len(self.parts))]

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, tuple[int, int]]) -> bool:
        return False

    def is_kept(self, error: BaseException) -> bool:
        return False

    def read(self, part: Range) -> Generator[Event | Block, None, None]:
        with self.lock:
            failures = self.failures.get(part.place)
            error = failures.pop(0) if failures else None
        for number, batch in enumerate(self.parts[part.place]):
            if error is not None and number:
                raise error
            yield batch
        if error is not None:
            raise error

    def may_repeat(self, part: Range, error: ConnectorError) -> bool:
        with self.lock:
            self.repeats -= 1
            return self.repeats >= 0

    def give_up(self) -> None:
        self.is_given_up = True

    def final(self) -> Checkpoint:
        return FINAL


class DestinationCapabilityPromises(CapabilityPromises, DestinationPromises):
    """Tests of what a destination can do beyond `protocols.Destination`."""

    # Prepares, HoldsMemory

    def test_preparing_raises_nothing_and_changes_no_record(self, place: Any, destination: Destination) -> None:
        prepares = self.can(destination, "prepares")
        assert prepares.shortcut()
        for wire, ids in ((prepares.shortcut(), [1]), ("arrow", [1, 2])):  # the first guess is wrong
            prepares.prepare(wire, is_whole=True)
            self.run(destination, self.load_of(PEOPLE, APPEND), people((ids[-1], "x")), FINAL)
            assert [record[0] for record in self.people(place) or []] == ids
            destination.close()

    def test_what_fails_while_preparing_is_said_by_the_first_call(self, place: Any, destination: Destination) -> None:
        self.can(destination, "prepares")
        for config in self.bad_configs(place):
            unreachable = self.make(place, config)
            unreachable.prepare("arrow", is_whole=True)
            with pytest.raises(ConnectorError):
                unreachable.check()
            unreachable.close()

    def test_a_memory_limit_changes_no_record(self, place: Any, destination: Destination) -> None:
        self.can(destination, "holds_memory").limit_memory(64 << 20, is_strict=True)
        batches = [people(*((number + start, "x" * 1000) for number in range(500))) for start in (0, 500)]
        self.run(destination, self.load_of(PEOPLE, MERGE), *batches, FINAL)
        destination.close()
        assert sorted(record[0] for record in self.people(place) or []) == list(range(1000))

    # KeepsFiles

    def load_of_files(self, **changes: Any) -> Load:
        load = self.load_of(PEOPLE, APPEND)
        return replace(load, stream=replace(load.stream, read=replace(load.stream.read, tracks_files=True)), **changes)

    def test_files_are_kept_with_the_records_of_their_commit(self, place: Any, destination: Destination) -> None:
        keeps, load = self.can(destination, "keeps_files"), self.load_of_files(forgets_files=True)
        assert not keeps.files_read(load.key)
        middle = Checkpoint(bookmark={"n": 1}, files=(FILES[0],))
        self.run(destination, load, people((1, "a")), middle, people((2, "b")))
        assert (self.people(place), files_of(keeps, load)) == ([(1, "a")], {FILES[0]})
        self.run(destination, self.load_of_files(), people((2, "b")), replace(FINAL, files=FILES[1:]))
        assert (self.people(place), files_of(keeps, load)) == ([(1, "a"), (2, "b")], set(FILES))
        changed = FILES[1]._replace(size_bytes=7, is_changed=True)
        self.run(destination, self.load_of_files(), replace(FINAL, files=(changed,)))
        assert files_of(keeps, load) == {FILES[0], changed._replace(is_changed=False), *FILES[2:]}
        other = replace(load.key, stream="SOURCE.people")
        assert not keeps.files_read(other)

    def test_files_are_forgotten(self, place: Any, destination: Destination) -> None:
        keeps, load = self.can(destination, "keeps_files"), self.load_of_files()
        self.run(destination, load, people((1, "a")), Checkpoint(bookmark={"n": 1}, is_final=True, files=FILES))
        frozen = self.load_of_files()
        commits = self.start(destination, frozen, [people((3, "c")), replace(FINAL, files=FILES[:1])])
        keeps.forget_files(load.key, [FILES[1].path])
        with pytest.raises(TakenOver):
            list(commits)
        assert files_of(keeps, load) == {FILES[0], *FILES[2:]}
        assert self.row(destination).bookmark == {"n": 1}
        self.run(destination, self.load_of_files(forgets_files=True), replace(FINAL, files=FILES[1:2]))
        assert files_of(keeps, load) == {FILES[1]}
        for forget in (False, True):
            self.run(destination, self.load_of_files(), replace(FINAL, files=FILES[:1]))
            destination.set_bookmark(load.key, None, forget=forget)
            assert not keeps.files_read(load.key)

    # StatesTypes

    @pytest.mark.parametrize("name", VALUES)
    def test_the_stated_types_are_those_of_the_table(self, place: Any, destination: Destination, name: str) -> None:
        states, case = self.can(destination, "states_types"), VALUES[name]
        schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("v", case.kind)])
        load = self.load_of(schema, REPLACE)
        state = self.state(destination)
        tables = self.tables(place)
        before = states.keeps(load.stream, state, REPLACE)
        assert self.tables(place) == tables, "to state types creates nothing"
        assert len(before) == len(schema), "one column each, in order"
        if self.lacks(case.feature):
            return
        found = [fidelity(column, kept) for column, kept in zip(schema, before, strict=True)]
        assert Fidelity.LOSSY not in found, "the contract demands that these values arrive unchanged"
        self.run(destination, load, FINAL)
        state = self.state(destination)
        after = states.keeps(load.stream, state, APPEND)
        assert state.schema is not None
        assert [kept.column for kept in before] == [kept.column for kept in after] == state.schema.names
        assert [kept.held for kept in before] == [None, None]
        assert [kept.held is not None for kept in after] == [True, True]
        assert [fidelity(column, kept) for column, kept in zip(schema, after, strict=True)] == found

    # ReadsLimits

    def test_the_limits_of_columns_are_those_of_all_records(self, destination: Destination) -> None:
        reads = self.can(destination, "reads_limits")
        schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("low", pa.int64()), ("none", pa.string())])
        for ids, lows in (([1, 2], [3, None]), ([2**53 + 1], [-(2**53) - 1])):
            batch = pa.record_batch([pa.array(ids), pa.array(lows), pa.nulls(len(ids), pa.string())], schema=schema)
            self.run(destination, self.load_of(schema, APPEND), batch, FINAL)
        expected = {"id": (1, 2**53 + 1), "low": (-(2**53) - 1, 3)}
        assert reads.limits("people", ["id", "low", "none"]) == expected
        assert reads.limits("people", ["none"]) == {}

    # NamesTables, NamesColumns: without them, names mean what they say

    def test_names_of_one_table_are_known_as_one(self, place: Any, destination: Destination) -> None:
        names = capabilities_of(destination).names_tables
        for table in ("people", "PEOPLE"):
            self.run(destination, self.load_of(PEOPLE, APPEND, table=table), people((1, "a")), FINAL)
        tables = {table for table in self.tables(place) if table.casefold() == "people"}
        if names is None:
            assert len(tables) == 2, "without the capability, other names are other tables"
            return
        # Two tables that are taken for one are refused together; one table under two names would lose records.
        assert len({names.one_name("people"), names.one_name("PEOPLE")}) <= len(tables)
        assert names.one_name("people") == names.one_name("people")
        assert names.one_name("people") != names.one_name("other")
        described = self.state(destination).stream_name
        assert not described or names.one_name(described) == names.one_name("people")

    def test_columns_are_called_as_the_destination_says(self, place: Any, destination: Destination) -> None:
        names = capabilities_of(destination).names_columns
        given = [*COLUMN_NAMES, "Name", "NAME"]
        if names is not None:
            called = names.column_names(given, TableState())
            assert list(called) == given
        if self.lacks(Feature.CASE_PAIRS):
            given = list(COLUMN_NAMES)
        schema = pa.schema([(name, pa.string()) for name in given])
        self.run(destination, self.load_of(schema, APPEND, key=()), FINAL)
        state = self.state(destination)
        assert state.schema is not None
        if names is None:
            assert state.schema.names == given, "without the capability, columns have the stream's names"
        else:
            called = names.column_names(given, state)
            assert [called[name] for name in given] == state.schema.names

    # RefusesKeys

    def test_a_long_key_is_kept_whole_or_refused_in_advance(self, place: Any, destination: Destination) -> None:
        refuses = capabilities_of(destination).refuses_keys
        short = self.load_of(PEOPLE, APPEND)
        assert refuses is None or refuses.refusal(short.key) == ""
        key = replace(short.key, stream="source." + "".join(chr(97 + n * n % 26) for n in range(600)))
        if refuses is not None and refuses.refusal(key):
            with pytest.raises(ConnectorError):
                destination.take_over(key, token=short.token, owner="contract", source="s")
            return
        assert destination.take_over(key, token=short.token, owner="contract", source="s").key == key
        assert [row.key for row in self.state(destination).ledger] == [key]

    def test_marks_are_written_and_taken_away_and_nothing_else_changes(
        self, place: Any, destination: Destination
    ) -> None:
        self.needs(destination, Capability.MARKS_RECORDS)
        self.run(destination, self.load_of(PEOPLE, MERGE), people((1, "a"), (2, "b"), (3, "c")), FINAL)
        mark, moment = pa.field(DELETED_AT, pa.timestamp("us", "UTC")), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        schema = pa.schema([*PEOPLE, mark])
        for marks, expected, count in (
            ([(1, moment), (9, moment)], {1}, None),
            ([(1, None), (2, moment)], {2}, 1),
            ([(2, None)], set(), 0),
        ):
            columns = list(zip(*marks, strict=True))
            keys = pa.table(
                [pa.array(columns[0], pa.int64()), pa.array(columns[1], mark.type)], names=["id", DELETED_AT]
            )
            load = replace(self.load_of(schema, MERGE), marked=keys, compared_at=moment)
            commits = self.run(destination, load, FINAL)
            records = self.read_back(place, "people", schema) or []
            assert sorted((record["id"], record["name"]) for record in records) == [(1, "a"), (2, "b"), (3, "c")]
            assert {record["id"] for record in records if record[DELETED_AT] is not None} == expected
            assert count is None or sum(commit.removed for commit in commits) == count
            assert self.row(destination).compared_at == moment
        self.run(destination, replace(self.load_of(schema, MERGE), marked=keys.slice(0, 0)), FINAL)
        # What arrives is no longer missing.
        gone = pa.table({"id": pa.array([2], pa.int64()), DELETED_AT: pa.array([moment], mark.type)})
        self.run(destination, replace(self.load_of(schema, MERGE), marked=gone), FINAL)
        self.run(destination, self.load_of(PEOPLE, MERGE), people((2, "B")), FINAL)
        records = self.read_back(place, "people", schema) or []
        assert [record[DELETED_AT] for record in records] == [None] * 3

    def test_columns_are_filled_in_records_that_are_there(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.FILLS_COLUMNS)
        before, narrow = Checkpoint(bookmark={"n": 1}), pa.schema([PEOPLE.field("id"), ("age", pa.int64())])
        self.run(destination, self.load_of(PEOPLE, MERGE), people((1, "a"), (2, "b"), (3, "c")), before, FINAL)
        load = replace(self.load_of(narrow, MERGE), fills=True, filling=("age",))
        (first,) = self.run(destination, load, before)
        assert self.row(destination).filling == ("age",)
        assert self.state(destination).schema is not None
        assert first.schema_changes == (), "the ledger tells of it before the table changes"
        ages = [
            pa.RecordBatch.from_pylist(rows, schema=narrow) for rows in ([{"id": 1, "age": 7}], [{"id": 9, "age": 8}])
        ]
        commits = self.run(destination, load, before, ages[0], before, ages[1], before)
        assert [commit.records for commit in commits] == [0, 0, 0]
        records = self.read_back(place, "people", WIDER) or []
        assert sorted(map(repr, map(tuple, (each.values() for each in records)))) == [
            "(1, 'a', 7)",
            "(2, 'b', None)",
            "(3, 'c', None)",
        ]
        assert (self.row(destination).filling, self.row(destination).bookmark) == (("age",), {"n": 1})
        self.run(destination, self.load_of(WIDER, MERGE), FINAL)
        assert self.row(destination).filling == ()

    def test_changes_are_applied_in_order(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.APPLIES_CHANGES)
        self.run(destination, self.load_of(PEOPLE, MERGE), people((1, "a"), (2, "b"), (3, "c")), FINAL)
        load = self.load_of(PEOPLE, MERGE)
        stream = changes_stream(load.stream)
        load = replace(load, stream=stream, write=replace(load.write, changes=True))

        def changes(*rows: tuple[Any, ...]) -> pa.RecordBatch:
            names = stream.schema.names
            records = [dict(zip(names, (*row, *[None] * (len(names) - len(row))), strict=True)) for row in rows]
            return pa.RecordBatch.from_pylist(records, schema=stream.schema)

        # 1 becomes 4 and keeps its name, which the log leaves out; 2 goes, 3 goes and comes again.
        moved = changes((1, None, DELETE), (4, None, UPSERT, '["name"]', 1))
        events = (changes((2, None, DELETE), (3, None, DELETE)), moved, changes((3, "C", UPSERT)))
        self.run(destination, load, *events, Checkpoint(bookmark={"n": 1}), FINAL)
        assert self.people(place) == [(3, "C"), (4, "a")]
        commits = self.run(destination, load, changes((5, "e", UPSERT)), changes((None, None, TRUNCATE)), FINAL)
        assert self.people(place) == []
        assert commits[-1].checkpoint.is_final
        with pytest.raises(ConnectorError, match="the table has no record of this key"):
            self.run(destination, load, changes((7, None, UPSERT, '["name"]', 7)), FINAL)

    def test_changes_mark_records_that_stay(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.APPLIES_CHANGES)
        moments = [datetime(2026, 1, day, 3, 4, 5, tzinfo=UTC) for day in (1, 2)]
        schema = PEOPLE.append(pa.field(DELETED_AT, pa.timestamp("us", "UTC")))
        self.run(destination, self.load_of(PEOPLE, MERGE), people((1, "a"), (2, "b"), (3, "c")), FINAL)
        load = self.load_of(schema, MERGE)
        stream = changes_stream(load.stream)
        load = replace(load, stream=stream, write=replace(load.write, changes=True))

        def changes(*rows: tuple[Any, ...]) -> pa.RecordBatch:
            records = [dict(zip(("id", "name", DELETED_AT, OPERATION), row, strict=True)) for row in rows]
            return pa.RecordBatch.from_pylist(records, schema=stream.schema)

        # 1 is marked, 2 is changed and marked, 3 is marked and comes again, 4 is made and marked.
        written = [(2, "B", None, UPSERT), (4, "d", None, UPSERT)]
        marked = [(each, None, moments[0], MARK) for each in (1, 2, 3, 4)]
        self.run(destination, load, changes(*written, *marked, (3, "C", None, UPSERT)), FINAL)
        records = self.read_back(place, "people", schema) or []
        found = sorted((each["id"], each["name"], each[DELETED_AT]) for each in records)
        assert found == [(1, "a", moments[0]), (2, "B", moments[0]), (3, "C", None), (4, "d", moments[0])]
        self.run(destination, load, changes((None, None, moments[1], MARK_ALL)), FINAL)
        records = self.read_back(place, "people", schema) or []
        assert {each["id"] for each in records if each[DELETED_AT] == moments[1]} == {3}

    def test_the_ledger_keeps_what_is_noted_of_a_log(self, destination: Destination) -> None:
        notes = self.can(destination, "notes_log")
        load, log = self.load_of(PEOPLE, WriteDisposition.APPEND), {"slot": "s", "columns": {"id": [1, 20]}}
        destination.take_over(load.key, token=load.token, owner="contract", source="contract")
        notes.note_log(load.key, load.token, log)
        assert self.row(destination).log == log
        self.run(destination, replace(load, log=log), people((1, "a")), FINAL)
        assert self.row(destination).log == log
        destination.set_bookmark(load.key, None)
        assert self.row(destination).log == log, "a reset forgets the place in it, not whose it is"
        with pytest.raises(TakenOver):
            notes.note_log(load.key, load.token, {})

    def test_a_kept_column_stays_in_a_record_that_is_there(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.KEEPS_FIRST)
        self.run(destination, self.load_of(PEOPLE, MERGE), people((1, "first"), (2, None)), FINAL)
        load = self.load_of(PEOPLE, MERGE)
        load = replace(load, write=replace(load.write, kept=("name",)))
        self.run(destination, load, people((1, "second"), (2, "second"), (3, "second"), (3, "third")), FINAL)
        assert self.people(place) == [(1, "first"), (2, None), (3, "third")]

    # KeepsHistory

    def _keep_versions(
        self,
        destination: Destination,
        day: int,
        *records: tuple[int, str | None, int],
        has_versions: bool = False,
        ends: bool = False,
    ) -> int:
        """Write records of a key, a name and a day; return how many the commit has counted."""
        base, staged = self.load_of(HISTORY, WriteDisposition.HISTORY, key=("id", VALID_FROM)), []
        known = {NEWEST: str(day)} | ({ENDS: True} if ends else {})
        history = HistoryLoad(has_versions=has_versions, in_place=frozenset({"age"}), known=known)
        for number, name, at in records:
            begun = datetime(2026, 1, at if has_versions else day, tzinfo=UTC)
            staged.append({"id": number, "name": name, "age": at, VALID_FROM: begun, VALID_TO: None})
        batch = pa.RecordBatch.from_pylist(staged, schema=HISTORY)
        (commit,) = self.run(destination, replace(base, history=history), batch, FINAL)
        return commit.records

    def _versions(self, place: Any) -> list[tuple[Any, ...]]:
        def day(moment: Any) -> int | None:
            return None if moment is None else int(str(moment)[8:10])

        rows = self.read_back(place, "people", HISTORY) or ()
        return sorted((r["id"], day(r[VALID_FROM]), day(r[VALID_TO]), r["name"], r["age"]) for r in rows)

    def test_a_version_is_closed_by_the_next_one(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.KEEPS_HISTORY)
        assert self._keep_versions(destination, 2, (1, "a", 1), (2, "b", 1), (2, "c", 2)) == 3
        self._keep_versions(destination, 4, (1, "x", 3), (2, "c", 3), (3, "d", 3))
        rest = [(2, 2, None, "c", 3), (3, 4, None, "d", 3)]
        assert self._versions(place) == [(1, 2, 4, "a", 1), (1, 4, None, "x", 3), *rest]
        self._keep_versions(destination, 4, (1, "y", 4))
        assert self._versions(place) == [(1, 2, 4, "a", 1), (1, 4, None, "y", 4), *rest]
        assert dict(self.row(destination).history) == {NEWEST: "4"}

    def _end_versions(self, destination: Destination, day: int, gone: Sequence[int], back: Sequence[int]) -> int:
        """End the versions of keys, and let others be back; return how many the commit has counted."""
        moment = datetime(2026, 1, day, tzinfo=UTC)
        rows = [{"id": key, VALID_FROM: None, VALID_TO: moment} for key in gone]
        rows += [{"id": key, VALID_FROM: moment, VALID_TO: None} for key in back]
        keys = pa.Table.from_pylist(rows, schema=pa.schema([HISTORY.field(n) for n in ("id", VALID_FROM, VALID_TO)]))
        load = self.load_of(HISTORY, WriteDisposition.HISTORY, key=("id", VALID_FROM))
        history = HistoryLoad(has_versions=False, known={NEWEST: str(day), ENDS: True})
        (commit,) = self.run(destination, replace(load, history=history, marked=keys), FINAL)
        return commit.removed

    def test_versions_of_keys_that_are_gone_end_and_begin_again(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.KEEPS_HISTORY)
        self.needs(destination, Capability.MARKS_RECORDS)
        self._keep_versions(destination, 2, (1, "a", 1), (2, "b", 1), (3, "c", 1))
        assert self._end_versions(destination, 4, [1, 2], []) == 2
        rest = [(2, 2, 4, "b", 1), (3, 2, None, "c", 1)]
        assert self._versions(place) == [(1, 2, 4, "a", 1), *rest]
        self._keep_versions(destination, 6, (1, "a", 1), ends=True)
        assert self._versions(place) == [(1, 2, 4, "a", 1), (1, 6, None, "a", 1), *rest]
        self._end_versions(destination, 6, [1], [2, 3])
        rest.insert(1, (2, 6, None, "b", 1))
        assert self._versions(place) == [(1, 2, 4, "a", 1), (1, 6, 6, "a", 1), *rest]
        self._keep_versions(destination, 6, (1, "x", 1), ends=True)
        assert self._versions(place) == [(1, 2, 4, "a", 1), (1, 6, None, "x", 1), *rest]

    def test_a_late_version_goes_between_its_neighbours(self, place: Any, destination: Destination) -> None:
        self.needs(destination, Capability.KEEPS_HISTORY)
        self._keep_versions(destination, 9, (1, "a", 2), (1, "b", 6), has_versions=True)
        late = [(1, "a", 4), (1, "b", 7), (1, "c", 8), (1, "first", 1)]
        self._keep_versions(destination, 9, *late, has_versions=True)
        found = [(1, 1, 2, "first", 1), (1, 2, 4, "a", 2), (1, 4, 6, "a", 4), (1, 6, 8, "b", 7), (1, 8, None, "c", 8)]
        assert self._versions(place) == found
        self._keep_versions(destination, 9, (1, "other", 2), has_versions=True)
        assert self._versions(place) == [found[0], (1, 2, 4, "other", 2), *found[2:]]

    def test_a_destination_says_whether_it_verifies_its_server(self, destination: Destination) -> None:
        assert isinstance(self.can(destination, "verifies_server").unverified_server(), str)

    def test_a_destination_shows_its_address_without_credentials(self, place: Any, destination: Destination) -> None:
        shown = self.can(destination, "shows_address").shown_address()
        assert not [secret for secret in self.secrets(place) if secret in shown]

    def test_a_destination_says_which_limits_may_end_a_run(self, destination: Destination) -> None:
        knows = self.can(destination, "knows_limits")
        assert all(isinstance(each, str) for each in knows.limit_warnings(1))
        assert knows.limit_warnings(1) == knows.limit_warnings(1)

    def test_a_destination_says_from_where_its_place_is_reached(self, destination: Destination) -> None:
        assert self.can(destination, "knows_place").place() in ("anywhere", "host", "process")

    def test_a_destination_says_whether_it_forgets_what_earlier_runs_wrote(self, destination: Destination) -> None:
        assert isinstance(self.can(destination, "forgets_runs").forgets_runs(), str)

    def test_a_destination_says_which_rejected_records_it_cannot_keep(self, destination: Destination) -> None:
        assert isinstance(self.can(destination, "keeps_rejected").keeps_rejected(), str)

    # LoadsRanges

    def _by_ranges(self, destination: Any, load: Load, reads: Reads, loaders: int = 2) -> Iterator[Commit]:
        row = destination.take_over(load.key, token=load.token, owner="contract", source="contract://source")
        commits: Iterator[Commit] = destination.load_ranges(replace(load, columns=row.columns), reads, loaders, "arrow")
        return commits

    def _parts(self) -> list[list[pa.RecordBatch]]:
        return [[people((number, "x")), people((number + 100, "y"))] for number in range(5)]

    @pytest.mark.parametrize("disposition", [REPLACE, MERGE], ids=str)
    def test_ranges_are_committed_once_all_together(
        self, place: Any, destination: Destination, disposition: WriteDisposition
    ) -> None:
        self.can(destination, "loads_ranges")
        self.run(destination, self.load_of(PEOPLE, disposition), people((0, "old")), FINAL)
        load = self.load_of(PEOPLE, disposition)
        (commit,) = self._by_ranges(destination, load, Reads(self._parts()))
        assert (commit.checkpoint, commit.records) == (FINAL, 10)
        assert [record[0] for record in sorted(self.people(place) or [])] == [*range(5), *range(100, 105)]
        row = self.row(destination)
        assert (row.completed_by, row.rows) == (load.run, 10)
        destination.close()
        assert self.tables(place) == {"people"}

    def test_a_range_that_failed_is_loaded_again_and_once(self, place: Any, destination: Destination) -> None:
        self.can(destination, "loads_ranges")
        reads = Reads(self._parts(), failures={3: [RetriableError("once")]}, repeats=1)
        (commit,) = self._by_ranges(destination, self.load_of(PEOPLE, REPLACE), reads)
        assert commit.records == 10
        assert [record[0] for record in sorted(self.people(place) or [])] == [*range(5), *range(100, 105)]

    def test_a_range_that_fails_for_good_leaves_the_former_state(self, place: Any, destination: Destination) -> None:
        self.can(destination, "loads_ranges")
        self.run(destination, self.load_of(PEOPLE, REPLACE), people((0, "old")), FINAL)
        before, error = self.row(destination).completed_by, FatalConnectorError("for good")
        reads = Reads(self._parts(), failures={3: [error]})
        with pytest.raises(FatalConnectorError, match="for good"):
            list(self._by_ranges(destination, self.load_of(PEOPLE, REPLACE), reads))
        assert self.people(place) == [(0, "old")]
        assert self.row(destination).completed_by == before
        destination.close()
        assert self.tables(place) == {"people"}

    def test_ranges_of_a_stale_token_are_not_committed(self, place: Any, destination: Destination) -> None:
        self.can(destination, "loads_ranges")
        load = self.load_of(PEOPLE, REPLACE)
        commits = self._by_ranges(destination, load, Reads(self._parts()))
        with closing(self.make(place)) as other:
            other.take_over(load.key, token="0" * 32, owner="other", source="s")
        with pytest.raises(TakenOver):
            list(commits)
        assert not self.people(place)

    def test_dropping_ranges_that_are_not_there_does_nothing(self, place: Any, destination: Destination) -> None:
        loads = self.can(destination, "loads_ranges")
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a")), FINAL)
        loads.drop_ranges("contract", lambda key: False)
        assert self.people(place) == [(1, "a")]

    # ExaminesTables

    def test_the_records_of_a_table_are_examined_and_stay(self, place: Any, destination: Destination) -> None:
        examines = self.can(destination, "examines_tables")
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a"), (3, "c"), (2, "b")), FINAL)
        found = examines.examine("people", ["id"], ["id"])
        assert (found.newest, found.has_index, found.ambiguous, found.unique) == ((3,), False, None, ())
        assert found.statement or not found.needs_index
        self.run(destination, self.load_of(PEOPLE, APPEND), people((2, "b")), FINAL)
        assert examines.examine("people", ["id"], []).ambiguous == (2,)
        assert examines.examine("people", [], ["name", "id"]).newest == ("c", 3)
        assert len(self.people(place) or []) == 4

    # ListsLedger

    def test_the_ledger_lists_the_rows_of_a_pipeline(self, destination: Destination) -> None:
        lists = self.can(destination, "lists_ledger")
        load = self.load_of(PEOPLE, APPEND)
        assert list(lists.rows_of(load.key.pipeline, ["other"])) == []
        self.run(destination, load, people((1, "a")), FINAL)
        (row,) = lists.rows_of(load.key.pipeline, ["other"])
        assert (row.key, row.rows) == (load.key, 1), "of whatever table"
        assert list(lists.rows_of("nobody's", ["other"])) == []
        destination.set_bookmark(load.key, None)
        assert [(row.bookmark, row.rows) for row in lists.rows_of(load.key.pipeline, ["other"])] == [(None, None)]
        destination.set_bookmark(load.key, None, forget=True)
        assert list(lists.rows_of(load.key.pipeline, ["other"])) == []

    # ListsLeftovers

    def test_files_that_a_commit_names_are_no_leftovers(self, place: Any, destination: Destination) -> None:
        lists = self.can(destination, "lists_leftovers")
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a")), FINAL)
        later = datetime.now(UTC) + timedelta(days=2)
        assert not lists.leftovers(later)
        assert not lists.leftovers(later, is_removing=True)
        self.run(destination, self.load_of(PEOPLE, APPEND), people((2, "b")), FINAL)
        assert self.people(place) == [(1, "a"), (2, "b")]

    # KnowsPrivileges

    def test_a_user_who_may_write_lacks_no_privilege(self, place: Any, destination: Destination) -> None:
        knows = self.can(destination, "knows_privileges")
        dispositions = (APPEND, MERGE, REPLACE, WriteDisposition.HISTORY)
        none = [list[str]() for _ in dispositions]
        assert [list(knows.missing_privileges({"people": each})) for each in dispositions] == none
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a")), FINAL)
        assert [list(knows.missing_privileges({"people": each})) for each in dispositions] == none

    # RunsStatements

    def test_a_statement_is_committed_and_says_how_many_records_it_changed(
        self, place: Any, destination: Destination
    ) -> None:
        runs = self.can(destination, "runs_statements")
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a"), (2, "b"), (3, "c")), FINAL)
        assert runs.execute("delete from people where id >= :first", {"first": 2}) == 2
        assert runs.execute("delete from people where id >= :first", {"first": 2}, name="again") == 0
        destination.close()
        assert self.people(place) == [(1, "a")]

    def test_parameters_are_bound_and_constants_stay(self, place: Any, destination: Destination) -> None:
        runs = self.can(destination, "runs_statements")
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a"), (2, "b"), (3, "c")), FINAL)
        hostile = "'; delete from people; -- \\ :id $1 %s"
        runs.execute("update people set name = :name where id = :id", {"name": hostile, "id": 1})
        runs.execute("update people set name = ':id' where id = :id", {"id": 2})
        runs.execute("update people set name = :name where id = :id", {"name": None, "id": 3})
        assert self.people(place) == sorted([(1, hostile), (2, ":id"), (3, None)], key=repr)

    def test_a_statement_that_fails_changes_nothing(self, place: Any, destination: Destination) -> None:
        runs = self.can(destination, "runs_statements")
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a")), FINAL)
        with pytest.raises(ConnectorError):
            runs.execute("delete from no_such_table where id = :id", {"id": 1})
        assert self.people(place) == [(1, "a")]
        assert runs.execute("delete from people where id = :id", {"id": 1}) == 1

    # FencesStatements

    def test_a_fenced_statement_runs_only_while_the_row_has_the_token(
        self, place: Any, destination: Destination
    ) -> None:
        fences = self.can(destination, "fences_statements")
        load = self.load_of(PEOPLE, APPEND)
        self.run(destination, load, people((1, "a"), (2, "b")), FINAL)
        delete = "delete from people where id = :id"
        assert fences.execute_fenced(load.key, load.token, delete, {"id": 2}) == 1
        destination.take_over(load.key, token="another", owner="another run")
        with pytest.raises(TakenOver):
            fences.execute_fenced(load.key, load.token, delete, {"id": 1})
        destination.close()
        assert self.people(place) == [(1, "a")]


__all__ = ["DestinationCapabilityPromises", "Reads"]
