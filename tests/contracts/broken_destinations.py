"""Destinations broken on purpose. The contract tests named by each (`caught_by`) must fail for it, and no others."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from syncblocks.connectors.errors import FatalConnectorError, TakenOver
from syncblocks.connectors.memory import MemoryDestination
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import (
    Bookmark,
    Checkpoint,
    Commit,
    Event,
    LedgerKey,
    LedgerRow,
    Load,
    RejectedRecord,
    Stream,
)
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition

Events = Iterator[tuple[str, Any]]
Bookmarks = Mapping[str, Bookmark | None]


class ForgetsToRemove(MemoryDestination):
    """Extra records stay after a repair."""

    caught_by = {"test_keys_to_remove_go_unless_they_arrive"}

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        return super().load(replace(load, removed=None), events, wire)


class CommitsDataBeforeTheLedger(MemoryDestination):
    """Writes the ledger row in a transaction of its own: a run that was taken over still leaves its data."""

    caught_by = {
        "test_rejected_records_that_are_not_committed_are_not_kept",
        "test_a_stale_token_commits_nothing",
        "test_a_takeover_between_two_commits_keeps_the_first_only",
        "test_without_a_ledger_row_nothing_is_committed",
    }

    def _commit(
        self,
        load: Load,
        schema: pa.Schema,
        staged: Sequence[pa.RecordBatch],
        checkpoint: Checkpoint,
        interrupted: threading.Event,
        written: int,
        rejected: Sequence[RejectedRecord],
    ) -> Commit:
        row = self._database.ledger.get(load.key)
        if row is not None and row.token == load.token:
            return super()._commit(load, schema, staged, checkpoint, interrupted, written, rejected)
        self._database.ledger[load.key] = LedgerRow(key=load.key, source="", token=load.token)
        super()._commit(load, schema, staged, checkpoint, interrupted, written, rejected)  # the data
        self._database.ledger.pop(load.key)
        if row is not None:
            self._database.ledger[load.key] = row
        raise TakenOver("too late: the data is there")


class IgnoresTheToken(MemoryDestination):
    """Commits whoever holds the ledger row."""

    caught_by = {
        "test_files_are_forgotten",
        "test_rejected_records_that_are_not_committed_are_not_kept",
        "test_a_stale_token_commits_nothing",
        "test_a_takeover_between_two_commits_keeps_the_first_only",
        "test_without_a_ledger_row_nothing_is_committed",
        "test_a_bookmark_set_by_hand_ends_the_run_under_way",
    }

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        def each() -> Iterator[Any]:
            for event in events:
                if isinstance(event, Checkpoint):
                    row = self._database.ledger.get(load.key) or LedgerRow(key=load.key, source="", token="")
                    self._database.ledger[load.key] = replace(row, token=load.token)
                yield event

        return super().load(load, each(), wire)


class MergesWithoutDeduplication(MemoryDestination):
    """Forgets that one batch may hold a key twice."""

    caught_by = {
        "test_a_record_never_takes_the_place_of_a_newer_one",
        "test_a_record_that_says_it_is_deleted_goes_with_the_tables",
        "test_the_last_record_of_a_key_wins_within_a_batch",
        "test_the_last_record_of_a_key_wins_across_batches_and_commits",
        "test_a_kept_column_stays_in_a_record_that_is_there",
        "test_merge_ignores_known_keys_where_told",
        "test_only_known_keys_are_updated_where_told",
    }

    def _commit(
        self,
        load: Load,
        schema: pa.Schema,
        staged: Sequence[pa.RecordBatch],
        checkpoint: Checkpoint,
        interrupted: threading.Event,
        written: int,
        rejected: Sequence[RejectedRecord],
    ) -> Commit:
        seen: set[int] = set()
        doubled = []
        for batch in staged if load.write.disposition is WriteDisposition.MERGE else ():
            for place, key in enumerate(batch.column(0).to_pylist()):
                doubled += [batch.slice(place, 1)] if key in seen else []
                seen.add(key)
        commit = super()._commit(load, schema, staged, checkpoint, interrupted, written, rejected)
        table = self._database.tables[load.key.destination_table]
        for extra in doubled if len(load.stream.key_properties) == 1 else ():
            table = pa.concat_tables([table, pa.Table.from_batches([extra]).cast(table.schema)])
        self._database.tables[load.key.destination_table] = table
        return commit


class CountsNoReplacedRecords(MemoryDestination):
    """Merges two records of one key, and reports that each of them is in the table."""

    caught_by = {"test_a_commit_counts_the_records_that_others_of_the_same_key_replace"}

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        return (replace(commit, replaced=0) for commit in super().load(load, events, wire))


class UpdatesWhereToldToIgnore(MemoryDestination):
    """Knows one conflict method only."""

    caught_by = {
        "test_a_commit_counts_the_records_that_others_of_the_same_key_replace",
        "test_merge_ignores_known_keys_where_told",
        "test_only_known_keys_are_updated_where_told",
    }

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        return super().load(
            replace(load, write=replace(load.write, conflict_method=ConflictMethod.UPDATE)), events, wire
        )


class LosesAColumn(MemoryDestination):
    """Writes only the columns that the table had when the load began."""

    caught_by = {"test_a_new_column_is_added_within_a_load"}

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        known = load.stream.schema.names

        def each() -> Iterator[Any]:
            for event in events:
                if isinstance(event, pa.RecordBatch):
                    yield event.select(known)
                elif not isinstance(event, Stream):
                    yield event

        return super().load(load, each(), wire)


class EmptiesBeforeItsCommit(MemoryDestination):
    """Replaces by emptying the table first: readers see the hole, and a failure leaves it."""

    caught_by = {
        "test_replace_shows_the_old_records_until_its_commit",
        "test_replace_refuses_two_records_of_one_key",
        "test_a_failing_source_leaves_the_former_state",
    }

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        table = self._database.tables.get(load.key.destination_table)
        if table is not None and load.write.disposition is WriteDisposition.REPLACE:
            self._database.tables[load.key.destination_table] = table.slice(0, 0)
        return super().load(load, events, wire)


class TakesAnyKey(MemoryDestination):
    """Replaces a table without a look at its key."""

    caught_by = {
        "test_replace_refuses_two_records_of_one_key",
        "test_a_key_without_a_value_is_refused",
        "test_a_null_in_the_key_is_rejected",
        "test_all_but_one_of_the_records_of_one_key_are_rejected_by_a_replace",
    }

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        if load.write.disposition is WriteDisposition.REPLACE:
            load = replace(load, stream=replace(load.stream, key_properties=()))
        return super().load(load, events, wire)


class KeepsRejectedAgain(MemoryDestination):
    """Keeps rejected records of a file as often as they are found."""

    caught_by = {"test_a_rejected_record_that_each_run_finds_is_kept_once"}

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        load = replace(
            load, stream=replace(load.stream, read=replace(load.stream.read, method=ReplicationMethod.FULL_TABLE))
        )
        return super().load(load, events, wire)


class SwallowsTheException(MemoryDestination):
    """Takes a failing source for one that has ended."""

    caught_by = {
        "test_rejected_records_that_are_not_committed_are_not_kept",
        "test_a_failing_source_leaves_the_former_state",
        "test_what_was_committed_before_a_failure_stays",
    }

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        def each() -> Iterator[Event]:
            try:
                yield from events
            except ZeroDivisionError:
                return

        return super().load(load, each(), wire)


class WrapsTheException(MemoryDestination):
    """Hides the source's exception behind its own, so that the wrong block is blamed."""

    caught_by = {
        "test_rejected_records_that_are_not_committed_are_not_kept",
        "test_a_failing_source_leaves_the_former_state",
        "test_what_was_committed_before_a_failure_stays",
    }

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        try:
            yield from super().load(load, events, wire)
        except ZeroDivisionError as error:
            raise FatalConnectorError("load failed") from error


class CompletesWithoutTheEnd(MemoryDestination):
    """Commits what is left when the events end, although no final checkpoint came."""

    caught_by = {
        "test_columns_are_filled_in_records_that_are_there",
        "test_events_that_end_without_a_final_checkpoint_complete_nothing",
        "test_files_are_kept_with_the_records_of_their_commit",
    }

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        def each() -> Iterator[Event]:
            is_final = False
            for event in events:
                is_final = isinstance(event, Checkpoint) and event.is_final
                yield event
            if not is_final:
                yield Checkpoint(is_final=True)

        return super().load(load, each(), wire)


class CommitsOnceOnly(MemoryDestination):
    """Saves up all checkpoints for the last one: an interrupted load starts over."""

    caught_by = {
        "test_a_commit_counts_the_records_that_others_of_the_same_key_replace",
        "test_columns_are_filled_in_records_that_are_there",
        "test_files_are_kept_with_the_records_of_their_commit",
        "test_the_limit_holds_over_all_commits_of_a_load",
        "test_the_share_is_judged_for_each_commit_of_at_least_100_records",
        "test_the_ledger_row_tells_of_the_load",
        "test_a_takeover_between_two_commits_keeps_the_first_only",
        "test_a_bookmark_set_by_hand_ends_the_run_under_way",
        "test_what_was_committed_before_a_failure_stays",
        "test_a_load_closed_early_leaves_no_staging",
    }

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        wanted = (e for e in events if not isinstance(e, Checkpoint) or e.is_final)
        return super().load(load, wanted, wire)


class ForgetsTheShare(MemoryDestination):
    """Does not judge the share of rejected records."""

    caught_by = {"test_the_share_is_judged_for_each_commit_of_at_least_100_records"}

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        return super().load(replace(load, write=replace(load.write, max_rejected_percent=None)), events, wire)


class LeavesStaging(MemoryDestination):
    """Keeps its staging table after the load."""

    caught_by = {
        "test_nothing_but_the_table_is_left",
        "test_it_works_again_after_close",
        "test_odd_table_names",
        "test_a_failing_source_leaves_the_former_state",
    }

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        try:
            yield from super().load(load, events, wire)
        finally:
            self._database.staging[(load.key.destination_table, load.token)] = []


class TakesEmptyTextForNull(MemoryDestination):
    """What Oracle does, and many a CSV file."""

    caught_by = {"test_values_arrive_unchanged"}

    def load(self, load: Load, events: Iterator[Any], wire: str = "arrow") -> Iterator[Commit]:
        def each() -> Iterator[Any]:
            for event in events:
                if isinstance(event, pa.RecordBatch):
                    records = [{k: None if v == "" else v for k, v in r.items()} for r in event.to_pylist()]
                    yield pa.RecordBatch.from_pylist(records, schema=event.schema)
                else:
                    yield event

        return super().load(load, each(), wire)


class CreatesOnLooking(MemoryDestination):
    """Makes the tables it is asked to describe."""

    caught_by = {"test_looking_creates_nothing"}

    def describe(self, tables: Sequence[str]) -> Mapping[str, Any]:
        states = super().describe(tables)
        for name in tables:
            self._database.tables.setdefault(name, pa.table({}))
        return states


class ForgetsItsSource(MemoryDestination):
    """Writes the source of recovery, which has none, over the one that the row had."""

    caught_by = {"test_the_ledger_row_is_made_by_the_takeover"}

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        return super().take_over(key, token=token, owner=owner, source=source or "")


DESTINATIONS = (
    ForgetsToRemove,
    CommitsDataBeforeTheLedger,
    IgnoresTheToken,
    MergesWithoutDeduplication,
    CountsNoReplacedRecords,
    UpdatesWhereToldToIgnore,
    LosesAColumn,
    EmptiesBeforeItsCommit,
    TakesAnyKey,
    KeepsRejectedAgain,
    SwallowsTheException,
    WrapsTheException,
    CompletesWithoutTheEnd,
    CommitsOnceOnly,
    LeavesStaging,
    TakesEmptyTextForNull,
    CreatesOnLooking,
    ForgetsItsSource,
)
