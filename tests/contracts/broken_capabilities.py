"""Capabilities broken on purpose. The contract tests named by each (`caught_by`) must fail for it, and no others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from syncblocks.connectors.arrow.fidelity import Kept
from syncblocks.connectors.compared_values import Digest, KeyRange, Row, Side
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.filters import matches
from syncblocks.connectors.memory import MemoryDestination, MemorySource
from syncblocks.connectors.ranges import Range, RangeReads
from syncblocks.connectors.stream import (
    VALID_FROM,
    VALID_TO,
    Block,
    Bookmark,
    Checkpoint,
    Commit,
    Event,
    FileRead,
    LedgerKey,
    Load,
    Stream,
    TableRecords,
    TableState,
)
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition
from tests.contracts.able import AbleDestination, AbleSource, Ranges

# -- what holds for every capability ---------------------------------------------------------------------------------


class SpellsAMethodOtherwise(MemorySource):
    """Has one method of two, so that the engine takes it for a source without the capability."""

    caught_by = {"test_a_capability_has_all_of_its_methods"}

    def shortcut(self) -> str:
        return "arrow"

    def prepares(self, wire: str, *, is_whole: bool) -> None:
        """The protocol calls it `prepare`."""


class SaysItByAnAttribute(MemoryDestination):
    """Says by a value what the protocol asks a method for."""

    caught_by = {
        "test_a_capability_has_all_of_its_methods",
        "test_the_methods_of_a_capability_take_the_arguments_of_the_protocol",
        "test_a_destination_says_whether_it_forgets_what_earlier_runs_wrote",
    }

    forgets_runs = "all of them"


class TakesOtherArguments(AbleSource):
    """Calls an argument otherwise than the engine does."""

    caught_by = {
        "test_the_methods_of_a_capability_take_the_arguments_of_the_protocol",
        "test_a_memory_limit_changes_no_record",
    }

    def limit_memory(self, size_bytes: int, *, strict: bool) -> None:  # type: ignore[override]
        """Wrong on purpose: the parameter has another name."""


# -- sources ---------------------------------------------------------------------------------------------------------


class TakesAllTimesForFine(AbleSource):
    """Names columns of nanoseconds that have none, so that they are refused."""

    caught_by = {"test_a_source_tells_columns_with_nanoseconds_from_those_without"}

    def nanoseconds(self, stream: Stream, columns: Sequence[str]) -> frozenset[str]:
        return frozenset(columns)


class FailsWhilePreparing(AbleSource):
    """Raises where only the first call may."""

    caught_by = {
        "test_preparing_raises_nothing_and_changes_no_record",
        "test_what_fails_while_preparing_is_said_by_the_first_call",
    }

    def prepare(self, wire: str, *, is_whole: bool) -> None:
        raise FatalConnectorError("nobody answers")


class LosesRecordsUnderALimit(AbleSource):
    """Keeps within its memory by leaving records out."""

    caught_by = {"test_a_memory_limit_changes_no_record"}
    is_limited = False

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        self.is_limited = True

    def read(self, group: Any, bookmarks: Any, wire: str = "arrow") -> Iterator[Any]:
        for name, event in super().read(group, bookmarks, wire):
            yield name, event.slice(1) if self.is_limited and isinstance(event, pa.RecordBatch) else event


class ReadsAnyWidth(AbleSource):
    """Takes the limit of a record for a wish."""

    caught_by = {"test_a_record_past_its_limit_is_refused"}

    def limit_record(self, size_bytes: int) -> None:
        """Forget it."""


class ForgetsAColumn(AbleSource):
    """Knows the types of fewer columns than the stream has."""

    caught_by = {"test_known_types_keep_the_columns_and_the_records"}

    def as_known(self, stream: Stream, bookmark: Bookmark | None) -> Stream:
        return replace(stream, schema=stream.schema.remove(1))


class ForgetsTheFormerName(AbleSource):
    """Lists streams under their present names, whatever it was told."""

    caught_by = {"test_a_stream_is_read_under_its_former_name"}

    def keep_former_names(self, names: Collection[str]) -> None:
        """Forget it."""


class ReadsThePlainTable(AbleSource):
    """Forgets which records a query is about."""

    caught_by = {"test_a_query_is_a_stream", "test_a_query_says_where_it_is_read_from"}

    def query_stream(
        self, name: str, query: str, values: Mapping[str, Any] | None = None, start: str | float | None = None
    ) -> Stream:
        return super().query_stream(name, query.partition(" where ")[0], values, start)


class AlwaysReadsFromTheStart(AbleSource):
    """Puts the start in the place of `:bookmark`, whatever the bookmark."""

    caught_by = {"test_a_query_says_where_it_is_read_from"}

    def _bounded(self, stream: Stream, bookmark: Bookmark | None) -> Stream:
        return super()._bounded(stream, None)


class StopsAtTheFirstLevel(AbleSource):
    """Flattens one level, whatever is said."""

    caught_by = {"test_objects_are_columns_down_to_the_levels_that_are_said"}

    def flatten(self, levels: Callable[[str], int]) -> None:
        super().flatten(lambda name: min(1, levels(name)))


class LetsNullIn(AbleSource):
    """Takes NULL for a value that differs."""

    caught_by = {"test_what_it_filters_is_what_the_engine_would"}

    def _table(self, stream: Stream) -> pa.Table:
        table = super()._table(replace(stream, read=replace(stream.read, where=())))
        for each in stream.read.where:
            mask = pc.fill_null(matches(table.combine_chunks().to_batches()[0], [each]), True)
            column = table.column(each.field.name)
            table = table.filter(pc.or_(mask, pc.is_null(column)) if each.operator == "!=" else mask)
        return table


class AnswersWithNothing(AbleSource):
    """Answers None for "no"."""

    caught_by = {
        "test_a_source_says_why_it_may_skip_late_records",
        "test_a_source_says_from_where_its_place_is_reached",
    }

    def place(self) -> Any:
        return None

    def skips_late(self, stream: Stream) -> str:
        return None  # type: ignore[return-value]


class OverlappingRanges(AbleSource):
    """Each range begins with the last record of the one before."""

    caught_by = {
        "test_ranges_are_the_stream_each_record_once",
        "test_ranges_are_the_stream_at_one_moment",
        "test_ranges_are_resumed_by_their_moment",
    }

    @contextmanager
    def open_ranges(self, stream: Stream, readers: int, wire: str) -> Iterator[Any]:
        class Overlapping(Ranges):
            def read(self, part: Range) -> Any:
                yield from super().read(part)
                if part.place:
                    yield self.table.slice(0, 1).combine_chunks().to_batches()[0]

        with super().open_ranges(stream, readers, wire) as opened:
            yield Overlapping(opened.source, opened.stream, opened.table, opened.count)


class RangesOfNow(AbleSource):
    """Reads each range of the table as it is by then."""

    caught_by = {"test_ranges_are_the_stream_at_one_moment"}

    @contextmanager
    def open_ranges(self, stream: Stream, readers: int, wire: str) -> Iterator[Any]:
        class OfNow(Ranges):
            def read(self, part: Range) -> Any:
                self.table = self.source._table(self.stream)
                yield from super().read(part)

        with super().open_ranges(stream, readers, wire) as opened:
            yield OfNow(opened.source, opened.stream, opened.table, opened.count)


class SplitsEverything(AbleSource):
    """Opens ranges for a single record."""

    caught_by = {"test_a_small_stream_is_read_as_a_whole"}

    @contextmanager
    def open_ranges(self, stream: Stream, readers: int, wire: str) -> Iterator[Any]:
        with super().open_ranges(stream, readers, wire) as opened:
            opened.count = max(2, opened.count)
            yield opened


class WrongChecksums:
    """Hands on what other checksums say, but for what a subclass changes."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def digests(self, ranges: Sequence[KeyRange]) -> list[Digest]:
        return list(self.inner.digests(ranges))

    def sample(self, records: int) -> Any:
        return self.inner.sample(records)

    def boundaries(self, ranges: Any) -> Any:
        return self.inner.boundaries(ranges)

    def rows(self, ranges: Sequence[KeyRange]) -> list[Row]:
        return list(self.inner.rows(ranges))


class CountsOnly(AbleSource):
    """Has one checksum for all records."""

    caught_by = {"test_checksums_of_ranges_add_up_and_differ_with_a_record"}

    @contextmanager
    def checksums(self, side: Side) -> Iterator[Any]:
        class Counts(WrongChecksums):
            def digests(self, ranges: Sequence[KeyRange]) -> list[Digest]:
                return [Digest(digest.records, 0) for digest in super().digests(ranges)]

        with super().checksums(side) as opened:
            yield Counts(opened)


class RowsOfItsOwnTexts(AbleSource):
    """Writes NULL as a text."""

    caught_by = {"test_rows_of_a_range_are_canonical_texts"}

    @contextmanager
    def checksums(self, side: Side) -> Iterator[Any]:
        class Texts(WrongChecksums):
            def rows(self, ranges: Sequence[KeyRange]) -> list[Row]:
                return [row._replace(values=tuple(str(v) for v in row.values)) for row in super().rows(ranges)]

        with super().checksums(side) as opened:
            yield Texts(opened)


class OnePiece(AbleSource):
    """Never splits a range."""

    caught_by = {"test_boundaries_split_a_range_into_pieces_of_a_size"}

    @contextmanager
    def checksums(self, side: Side) -> Iterator[Any]:
        class Whole(WrongChecksums):
            def boundaries(self, ranges: Any) -> Any:
                return [[] for _ in ranges]

        with super().checksums(side) as opened:
            yield Whole(opened)


class NarrowsNothing(AbleSource):
    """Reads the whole stream, whatever the ranges."""

    caught_by = {"test_a_narrowed_stream_has_the_records_of_its_ranges"}

    def narrowed(self, stream: Stream, side: Side, ranges: Sequence[KeyRange]) -> Stream:
        return stream


# -- destinations ----------------------------------------------------------------------------------------------------


class StatesAnotherType(AbleDestination):
    """States that numbers lose digits, and stores them whole."""

    caught_by = {"test_the_stated_types_are_those_of_the_table"}

    def keeps(self, stream: Stream, table: TableState, disposition: WriteDisposition) -> Sequence[Kept]:
        return [replace(kept, arrow=pa.int8()) for kept in super().keeps(stream, table, disposition)]


class ForgetsTheLeastValue(AbleDestination):
    """Takes 0 for the least value."""

    caught_by = {"test_the_limits_of_columns_are_those_of_all_records"}

    def limits(self, destination_table: str, columns: Sequence[str]) -> Mapping[str, tuple[Any, Any]]:
        return {name: (0, greatest) for name, (_, greatest) in super().limits(destination_table, columns).items()}


class TakesOneTableForTwo(AbleDestination):
    """Folds the case of names on writing, and says that they are two tables."""

    caught_by = {"test_names_of_one_table_are_known_as_one", "test_odd_table_names"}

    def take_over(self, key: LedgerKey, **others: Any) -> Any:
        return super().take_over(folded(key), **others)

    def load(self, load: Load, *others: Any) -> Iterator[Any]:
        yield from super().load(replace(load, key=folded(load.key)), *others)


def folded(key: LedgerKey) -> LedgerKey:
    return replace(key, destination_table=key.destination_table.lower())


class NamesColumnsOtherwise(AbleDestination):
    """Says one name and writes another."""

    caught_by = {"test_columns_are_called_as_the_destination_says"}

    def column_names(self, names: Sequence[str], table: TableState) -> Mapping[str, str]:
        return {name: name.lower() for name in names}


class CutsLongKeys(MemoryDestination):
    """Keeps what its ledger has room for of a name, and says nothing."""

    caught_by = {"test_a_long_key_is_kept_whole_or_refused_in_advance"}

    def take_over(self, key: LedgerKey, **others: Any) -> Any:
        return super().take_over(replace(key, stream=key.stream[:100]), **others)


class RefusesAndTakes(AbleDestination):
    """Refuses a key in the plan that its ledger takes."""

    caught_by = {"test_a_long_key_is_kept_whole_or_refused_in_advance"}

    def take_over(self, key: LedgerKey, **others: Any) -> Any:
        return MemoryDestination.take_over(self, key, **others)


class DeletesNoRange(AbleDestination):
    """Says that it replaces a range, and adds to it."""

    caught_by = {
        "test_a_range_is_written_anew_and_nothing_else",
        "test_an_empty_read_empties_its_range",
        "test_a_range_of_values_is_those_that_arrive",
        "test_a_record_outside_of_its_range_is_refused",
        "test_of_a_repeated_key_the_newest_record_is_in_its_range",
    }

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        is_range = load.write.disposition is WriteDisposition.REPLACE_RANGE
        appended = replace(load.write, disposition=WriteDisposition.APPEND)
        changed = replace(load, write=appended) if is_range else load
        return super().load(changed, events, wire)


class MergesByTheKeyNevertheless(AbleDestination):
    """Says that it merges by unique columns, and does not."""

    caught_by = {"test_records_are_merged_by_the_unique_columns_and_not_by_the_key"}

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Any:
        stream = replace(load.stream, unique_properties=())
        return super().load(replace(load, stream=stream), events, wire)


class KeepsTheLastNevertheless(AbleDestination):
    """Says that it keeps the latest record of a key, and keeps the last one."""

    caught_by = {
        "test_a_record_never_takes_the_place_of_a_newer_one",
        "test_of_a_repeated_key_the_newest_record_is_in_its_range",
    }

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Any:
        write = replace(load.write, latest_by="")
        return super().load(replace(load, write=write), events, wire)


class KeepsDeletedNevertheless(AbleDestination):
    """Says that it drops the records that say they are deleted, and merges them."""

    caught_by = {"test_a_record_that_says_it_is_deleted_goes_with_the_tables"}

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Any:
        write = replace(load.write, deleted_when=None)
        return super().load(replace(load, write=write), events, wire)


class FillsByMerging(AbleDestination):
    """Adds the records that are not there when it is to fill columns."""

    caught_by = {"test_columns_are_filled_in_records_that_are_there"}

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Any:
        return super().load(replace(load, fills=False), events, wire)


class MarksOtherColumnsToo(AbleDestination):
    """Writes the marked keys as if they were records."""

    caught_by = {
        "test_marks_are_written_and_taken_away_and_nothing_else_changes",
        "test_versions_of_keys_that_are_gone_end_and_begin_again",
    }

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Any:
        if load.marked is None:
            return super().load(load, events, wire)
        schema, keys = load.stream.schema, load.marked
        columns = [
            keys.column(field.name) if field.name in keys.schema.names else pa.nulls(keys.num_rows, field.type)
            for field in schema
        ]
        batches = pa.table(columns, schema=schema).to_batches()
        return super().load(replace(load, marked=None), chain(batches, events), wire)


class KeepsNothing(AbleDestination):
    """Says that it keeps columns, and sets them."""

    caught_by = {"test_a_kept_column_stays_in_a_record_that_is_there"}

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        return super().load(replace(load, write=replace(load.write, kept=())), events, wire)


class LeavesVersionsOpen(AbleDestination):
    """Says that it keeps a history, and closes no version."""

    caught_by = {
        "test_a_version_is_closed_by_the_next_one",
        "test_a_late_version_goes_between_its_neighbours",
        "test_versions_of_keys_that_are_gone_end_and_begin_again",
    }

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        yield from super().load(load, events, wire)
        table = self._database.tables.get(load.key.destination_table)
        if load.history is not None and table is not None:
            rows = [{**row, VALID_TO: None} for row in table.to_pylist()]
            self._database.tables[load.key.destination_table] = pa.Table.from_pylist(rows, schema=table.schema)


class EndsNoVersions(AbleDestination):
    """Says that it marks records and keeps a history, and ends no version of keys that are gone."""

    caught_by = {"test_versions_of_keys_that_are_gone_end_and_begin_again"}

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        yield from super().load(load if load.history is None else replace(load, marked=None), events, wire)


class TakesLateVersionsForNew(AbleDestination):
    """Compares a late version with the current one, as if it came after it."""

    caught_by = {"test_a_late_version_goes_between_its_neighbours"}

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        if load.history is not None and load.history.has_versions:
            newest = max((row[VALID_FROM] for row in self._rows(load)), default=None)
            events = (_from(event, newest) if isinstance(event, pa.RecordBatch) else event for event in events)
        yield from super().load(load, events, wire)

    def _rows(self, load: Load) -> list[dict[str, Any]]:
        table = self._database.tables.get(load.key.destination_table)
        return [] if table is None else table.to_pylist()


def _from(batch: pa.RecordBatch, newest: Any) -> pa.RecordBatch:
    if newest is None:
        return batch
    rows = [{**row, VALID_FROM: max(row[VALID_FROM], newest)} for row in batch.to_pylist()]
    return pa.RecordBatch.from_pylist(rows, schema=batch.schema)


class SaysNothingOfRejected(AbleDestination):
    """Answers None for "nothing"."""

    caught_by = {"test_a_destination_says_which_rejected_records_it_cannot_keep"}

    def keeps_rejected(self) -> str:
        return None  # type: ignore[return-value]


class CommitsEachRange(AbleDestination):
    """Commits every range by itself: readers see a part of the stream."""

    caught_by = {
        "test_ranges_are_committed_once_all_together",
        "test_a_range_that_failed_is_loaded_again_and_once",
        "test_a_range_that_fails_for_good_leaves_the_former_state",
    }

    def load_ranges(self, load: Load, reads: RangeReads, loaders: int, wire: str) -> Iterator[Commit]:
        for part in reads.ranges:
            yield from self.load(load, iter([*self.range_batches(reads, part), Checkpoint()]), wire)
        yield from self.load(load, iter([reads.final()]), wire)


class KeepsHalfARange(AbleDestination):
    """Loads a range again without dropping what it had of it."""

    caught_by = {"test_a_range_that_failed_is_loaded_again_and_once"}

    def range_batches(self, reads: RangeReads, part: Range) -> list[Event | Block]:
        found: list[Event | Block] = []
        for attempt in (0, 1):
            try:
                for batch in reads.read(part):
                    found.append(batch)
                return found
            except Exception as error:
                if attempt or not reads.may_repeat(part, error):  # type: ignore[arg-type]
                    raise
        return found


class DropsTheTable(AbleDestination):
    """Drops more than what loads by ranges have left."""

    caught_by = {"test_dropping_ranges_that_are_not_there_does_nothing"}

    def drop_ranges(self, pipeline: str, is_wanted: Callable[[LedgerKey], bool]) -> None:
        self._database.tables.clear()


class OpensOthersToo(AbleSource):
    """Opens every stream, whatever was asked for."""

    caught_by = {"test_listed_streams_are_those_of_discover_and_are_opened_alone"}

    def open_streams(self, names: Collection[str]) -> Sequence[Stream]:
        return self.discover()


class TakesTheFirstForTheNewest(AbleDestination):
    """Looks at the first record only."""

    caught_by = {"test_the_records_of_a_table_are_examined_and_stay"}

    def examine(self, table: str, key: Sequence[str], bookmark: Sequence[str]) -> TableRecords:
        found = super().examine(table, key, bookmark)
        first = self._database.tables[table].to_pylist()[0]
        return replace(found, newest=tuple(first[name] for name in bookmark))


class WritesParametersIntoTheStatement(AbleDestination):
    """Binds nothing."""

    caught_by = {"test_parameters_are_bound_and_constants_stay"}

    def execute(self, statement: str, parameters: Mapping[str, Any], *, name: str = "") -> int:
        for key, value in parameters.items():
            statement = statement.replace(f":{key}", "null" if value is None else repr(value))
        return self.run_sql(statement, [])


class KnowsTheNewestFileOnly(AbleDestination):
    """Forgets the files of earlier commits."""

    caught_by = {"test_files_are_kept_with_the_records_of_their_commit", "test_files_are_forgotten"}

    def files_read(self, key: LedgerKey) -> Sequence[FileRead]:
        return super().files_read(key)[-1:]


class ForgetsNoFile(AbleDestination):
    """Knows files for ever."""

    caught_by = {"test_files_are_forgotten"}

    def forget_files(self, key: LedgerKey, paths: Collection[str]) -> None:
        super().forget_files(key, ())


class CountsNothing(AbleDestination):
    """Does not say how many records a statement changed."""

    caught_by = {
        "test_a_fenced_statement_runs_only_while_the_row_has_the_token",
        "test_a_statement_is_committed_and_says_how_many_records_it_changed",
        "test_a_statement_that_fails_changes_nothing",
    }

    def execute(self, statement: str, parameters: Mapping[str, Any], *, name: str = "") -> int:
        super().execute(statement, parameters, name=name)
        return -1


class RunsForAnybody(AbleDestination):
    """Runs a statement, whoever has taken the stream over."""

    caught_by = {"test_a_fenced_statement_runs_only_while_the_row_has_the_token"}

    def execute_fenced(self, key: LedgerKey, token: str, statement: str, parameters: Mapping[str, Any]) -> int:
        return self.execute(statement, parameters)


def _broken(role: type[Any]) -> tuple[type[Any], ...]:
    """Return the classes of this file that say by which tests they are caught: none is forgotten."""
    classes = [each for each in globals().values() if isinstance(each, type) and "caught_by" in vars(each)]
    return tuple(each for each in classes if issubclass(each, role))


SOURCES, DESTINATIONS = _broken(MemorySource), _broken(MemoryDestination)
