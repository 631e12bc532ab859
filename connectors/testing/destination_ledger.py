"""Promises about commits: tokens and the ledger, failures, several loads at once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from ..errors import ConnectorError, TakenOver
from ..protocols import Destination
from ..stream import Bookmark, Checkpoint, Event, LedgerKey, LedgerRow, Load
from ..write_spec import WriteDisposition, WriteSpec
from .destination_base import APPEND, FINAL, MERGE, PEOPLE, REPLACE, DestinationPromises, people
from .values import Feature


class LedgerPromises(DestinationPromises):
    """Tests of a destination's transactions."""

    # Commits, tokens, the ledger

    def test_the_ledger_row_is_made_by_the_takeover(self, destination: Destination) -> None:
        load = self.load_of(PEOPLE, APPEND)
        row = destination.take_over(load.key, token=load.token, owner="run 7 on host", source="contract://source")
        assert row == LedgerRow(key=load.key, source="contract://source", token=load.token, owner="run 7 on host")
        assert destination.take_over(load.key, token=load.token, owner="run 7 on host") == row, "source None keeps it"
        assert self.row(destination) == row

    def test_the_ledger_row_tells_of_the_load(self, place: Any, destination: Destination) -> None:
        bookmark: Bookmark = {
            "version": 2**53 + 1,
            "at": "2024-01-01T00:00:00+00:00",
            "_boundary": {"hashes": {"é": 1}},
        }
        load, start = self.load_of(PEOPLE, APPEND), datetime.now(UTC)
        commits = self.start(
            destination,
            load,
            [people((1, "a")), Checkpoint(bookmark={"version": 1}), people((2, "b"), (3, "c")), self._final(bookmark)],
        )
        first = next(commits)
        with closing(self.make(place)) as other:
            row = self.row(other)
        assert (first.checkpoint.bookmark, first.records) == ({"version": 1}, 1)
        assert (row.bookmark, row.completed_by, row.token) == ({"version": 1}, None, load.token)
        assert self.people(place) == [(1, "a")], "durable before the next record is asked for"
        (last,) = list(commits)
        with closing(self.make(place)) as other:
            row = self.row(other)
        assert (last.checkpoint, last.records) == (self._final(bookmark), 2)
        assert (row.bookmark, row.completed_by, row.rows, row.owner) == (bookmark, load.run, 3, "contract")
        assert row.committed_at is not None
        assert start - timedelta(minutes=1) <= row.committed_at <= datetime.now(UTC) + timedelta(minutes=1)
        assert self.people(place) == [(1, "a"), (2, "b"), (3, "c")]

    def _final(self, bookmark: Bookmark | None) -> Checkpoint:
        return Checkpoint(bookmark=bookmark, is_final=True)

    def test_each_table_has_the_ledger_rows_of_all_its_streams(self, destination: Destination) -> None:
        first, second = self.load_of(PEOPLE, APPEND), self.load_of(PEOPLE, APPEND, table="other")
        shared = LedgerKey(pipeline="another", stream="x", destination_table="people")
        for key in (first.key, second.key, shared):
            destination.take_over(key, token=secrets.token_hex(16), owner="contract", source="s")
        states = destination.describe(["people", "other"])
        assert {row.key for row in states["people"].ledger} == {first.key, shared}
        assert {row.key for row in states["other"].ledger} == {second.key}

    def test_a_stale_token_commits_nothing(self, place: Any, destination: Destination) -> None:
        stale = self.load_of(PEOPLE, APPEND)
        destination.take_over(stale.key, token=stale.token, owner="first", source="s")
        current = self.load_of(PEOPLE, APPEND)
        destination.take_over(current.key, token=current.token, owner="second", source="s")
        with pytest.raises(TakenOver):
            list(destination.load(stale, iter([people((1, "a")), FINAL])))
        assert not self.people(place)
        assert self.row(destination).token == current.token
        assert self.row(destination).completed_by is None

    def test_a_takeover_between_two_commits_keeps_the_first_only(self, place: Any, destination: Destination) -> None:
        load = self.load_of(PEOPLE, APPEND)
        events = [people((1, "a")), Checkpoint(bookmark={"n": 1}), people((2, "b")), self._final({"n": 2})]
        commits = self.start(destination, load, events)
        next(commits)
        other = self.make(place)
        row = other.take_over(load.key, token=secrets.token_hex(16), owner="other", source="s")
        other.close()
        with pytest.raises(TakenOver):
            next(commits)
        assert row.bookmark == {"n": 1}
        assert self.row(destination).bookmark == {"n": 1}
        assert self.people(place) == [(1, "a")]

    def test_without_a_ledger_row_nothing_is_committed(self, place: Any, destination: Destination) -> None:
        load = self.load_of(PEOPLE, APPEND)
        other = LedgerKey(pipeline="another", stream=load.key.stream, destination_table="people")
        destination.take_over(other, token=load.token, owner="another", source="s")
        with pytest.raises(TakenOver):
            list(destination.load(load, iter([people((1, "a")), FINAL])))
        assert not self.people(place)

    def test_a_bookmark_set_by_hand_ends_the_run_under_way(self, place: Any, destination: Destination) -> None:
        load = self.load_of(PEOPLE, APPEND)
        commits = self.start(
            destination, load, [people((1, "a")), Checkpoint(bookmark={"n": 1}), people((2, "b")), FINAL]
        )
        next(commits)
        other = self.make(place)
        other.set_bookmark(load.key, {"n": 0})
        other.close()
        with pytest.raises(TakenOver):
            next(commits)
        row = self.row(destination)
        assert (row.bookmark, row.source) == ({"n": 0}, "contract://source")
        assert row.token != load.token

    def test_a_bookmark_is_reset_and_forgotten(self, place: Any, destination: Destination) -> None:
        load = self.load_of(PEOPLE, APPEND)
        self.run(destination, load, people((1, "a")), self._final({"n": 1}))
        destination.set_bookmark(load.key, None)
        row = self.row(destination)
        assert (row.bookmark, row.rows) == (None, None), "an append reads from scratch where nothing was written"
        destination.set_bookmark(load.key, None, forget=True)
        assert self.state(destination).ledger == ()
        assert self.people(place) == [(1, "a")]

    # Failures

    @pytest.mark.parametrize("disposition", [APPEND, REPLACE, MERGE], ids=str)
    def test_a_failing_source_leaves_the_former_state(
        self, place: Any, destination: Destination, disposition: WriteDisposition
    ) -> None:
        if disposition is MERGE and self.lacks(Feature.MERGE):
            return
        self.run(destination, self.load_of(PEOPLE, disposition), people((1, "a")), self._final({"n": 1}))
        error = ZeroDivisionError("out of the events")

        def events() -> Iterator[Event]:
            yield people((1, "changed"), (2, "b"))
            raise error

        with pytest.raises(ZeroDivisionError) as caught:
            list(self.start(destination, self.load_of(PEOPLE, disposition), events()))
        assert caught.value is error
        assert self.people(place) == [(1, "a")]
        assert self.row(destination).bookmark == {"n": 1}
        destination.close()
        assert self.tables(place) == {"people"}

    def test_what_was_committed_before_a_failure_stays(self, place: Any, destination: Destination) -> None:
        def events() -> Iterator[Event]:
            yield people((1, "a"))
            yield Checkpoint(bookmark={"n": 1})
            yield people((2, "b"))
            raise ZeroDivisionError

        commits = self.start(destination, self.load_of(PEOPLE, APPEND), events())
        assert next(commits).records == 1
        with pytest.raises(ZeroDivisionError):
            next(commits)
        assert self.people(place) == [(1, "a")]
        assert (self.row(destination).bookmark, self.row(destination).completed_by) == ({"n": 1}, None)

    def test_events_that_end_without_a_final_checkpoint_complete_nothing(
        self, place: Any, destination: Destination
    ) -> None:
        commits = self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a")))
        assert commits == []
        assert not self.people(place)
        assert self.row(destination).completed_by is None

    def test_a_load_closed_early_leaves_no_staging(self, place: Any, destination: Destination) -> None:
        load = self.load_of(PEOPLE, APPEND)
        commits: Any = self.start(
            destination, load, [people((1, "a")), Checkpoint(bookmark={"n": 1}), people((2, "b")), FINAL]
        )
        next(commits)
        commits.close()
        with closing(self.make(place)) as other:
            other.drop_staging([load.token, "0" * 32])
        destination.close()
        assert self.tables(place) == {"people"}
        assert self.people(place) == [(1, "a")]

    def test_a_column_of_another_type_is_widened_or_refused(self, place: Any, destination: Destination) -> None:
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a")), FINAL)
        texts = pa.schema([pa.field("id", pa.string(), nullable=False), ("name", pa.string())])
        batch = pa.RecordBatch.from_pylist([{"id": "not a number", "name": "b"}], schema=texts)
        try:
            self.run(destination, self.load_of(texts, APPEND), batch, FINAL)
        except ConnectorError:
            assert self.people(place) == [(1, "a")]
        else:
            records = self.read_back(place, "people", texts) or []
            assert sorted(str(record["id"]) for record in records) == ["1", "not a number"]

    # Several at once, and the end

    def test_two_streams_load_at_once(self, place: Any, destination: Destination) -> None:
        def load(table: str) -> None:
            batches = [people((number, table)) for number in range(5)]
            self.run(destination, self.load_of(PEOPLE, APPEND, table=table), *batches, FINAL)

        with ThreadPoolExecutor(min(2, destination.max_loads or 2)) as pool:
            list(pool.map(load, ("left", "right")))
        for table in ("left", "right"):
            assert {record["name"] for record in self.read_back(place, table, PEOPLE) or []} == {table}

    def test_two_streams_merge_into_one_table_at_once(self, place: Any, destination: Destination) -> None:
        if self.lacks(Feature.MERGE):
            return
        self.run(destination, self.load_of(PEOPLE, MERGE), FINAL)

        def load(stream: str) -> None:
            base = self.load_of(PEOPLE, MERGE)
            key = LedgerKey(pipeline="contract", stream=stream, destination_table="people")
            mine = Load(key=key, stream=base.stream, write=WriteSpec(disposition=MERGE), token=base.token, run=base.run)
            self.run(destination, mine, *(people((number, stream)) for number in range(5)), FINAL)

        with ThreadPoolExecutor(min(2, destination.max_loads or 2)) as pool:
            list(pool.map(load, ("left", "right")))
        assert [record[0] for record in self.people(place) or []] == [0, 1, 2, 3, 4]

    def test_an_idle_interrupt_does_nothing(self, place: Any, destination: Destination) -> None:
        load = self.load_of(PEOPLE, APPEND)
        destination.interrupt(load.key.stream)
        self.run(destination, load, people((1, "a")), FINAL)
        destination.interrupt(load.key.stream)
        assert self.people(place) == [(1, "a")]

    def test_it_works_again_after_close(self, place: Any, destination: Destination) -> None:
        self.run(destination, self.load_of(PEOPLE, APPEND), people((1, "a")), FINAL)
        destination.close()
        destination.close()
        self.run(destination, self.load_of(PEOPLE, APPEND), people((2, "b")), FINAL)
        assert self.people(place) == [(1, "a"), (2, "b")]
        assert self.tables(place) == {"people"}

    def test_nothing_but_the_table_is_left(self, place: Any, destination: Destination) -> None:
        for disposition in (APPEND, REPLACE, APPEND if self.lacks(Feature.MERGE) else MERGE):
            self.run(destination, self.load_of(PEOPLE, disposition), people((1, "a")), people((2, "b")), FINAL)
        destination.close()
        assert self.tables(place) == {"people"}
