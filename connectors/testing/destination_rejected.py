"""Promises of destinations that keep rejected records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from ..capabilities import capabilities_of
from ..errors import TakenOver
from ..protocols import Destination
from ..read_spec import ReplicationMethod
from ..rejected.limits import TooManyRejected
from ..rejected.records import REJECTED_TABLE, rejection
from ..stream import Checkpoint, Event, Load, Rejected
from ..struct_helpers import replace
from ..write_spec import WriteDisposition
from .destination_base import APPEND, FINAL, MERGE, PEOPLE, REPLACE, DestinationPromises, people
from .values import Feature

_COLUMNS = ("pipeline", "stream", "destination_table", "run", "record", "reason", "place", "rejected_at")
_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in _COLUMNS])

#: Records that a table of texts must give back unchanged.
HOSTILE = ("\0", "\ud800", "\U0001f600 'quoted' \"twice\" \\ %s $1 ;--", "x" * 100_000, "line\r\nbreak")


class RejectedPromises(DestinationPromises):
    """Tests of rejected records; the engine sends none to a destination that cannot keep them."""

    def read_rejected(self, place: Any) -> list[tuple[str, str, str]]:
        """Return run, record and reason of each rejected record, read without the connector under test."""
        found = self.read_back(place, REJECTED_TABLE, _SCHEMA) or []
        return [(each["run"], each["record"], each["reason"]) for each in found]

    def _load(self, destination: Destination, disposition: WriteDisposition, limit: int) -> Load:
        if capabilities_of(destination).keeps_rejected is None:
            pytest.skip("keeps no rejected records")
        load = self.load_of(PEOPLE.set(0, pa.field("id", pa.int64())), disposition)
        return replace(load, write=replace(load.write, max_rejected=limit))

    def _nulls(self, *ids: int | None) -> pa.RecordBatch:
        return pa.RecordBatch.from_pylist(
            [{"id": number, "name": f"n{number}"} for number in ids],
            schema=pa.schema([("id", pa.int64()), ("name", pa.string())]),
        )

    def _rejected(self, *texts: str) -> Rejected:
        return Rejected(records=tuple(rejection({"text": text}, f"bad {text[:9]!r}", "f.csv:1") for text in texts))

    @pytest.mark.parametrize("disposition", [MERGE, REPLACE, APPEND], ids=str)
    def test_rejected_records_are_kept_beside_the_others(
        self, place: Any, destination: Destination, disposition: WriteDisposition
    ) -> None:
        load = self._load(destination, disposition, len(HOSTILE) + 1)
        events: list[Event] = [people((1, "n1")), self._rejected(*HOSTILE), people((2, "n2")), FINAL]
        (commit,) = self.run(destination, load, *events)
        assert (commit.records, commit.rejected, commit.refused) == (2, len(HOSTILE), ())
        assert self.people(place) == [(1, "n1"), (2, "n2")]
        found = self.read_rejected(place)
        assert sorted(json.loads(record)["text"] for _, record, _ in found) == sorted(HOSTILE)
        assert {run for run, _, _ in found} == {load.run}

    def test_many_rejected_records_and_long_ones_are_all_kept(self, place: Any, destination: Destination) -> None:
        texts = [f"{number}{'x' * (400_000 if number % 40 == 0 else number)}" for number in range(130)]
        (commit,) = self.run(destination, self._load(destination, APPEND, 130), self._rejected(*texts), FINAL)
        assert (commit.records, commit.rejected) == (0, 130)
        assert sorted(json.loads(record)["text"] for _, record, _ in self.read_rejected(place)) == sorted(texts)

    @pytest.mark.parametrize("disposition", [MERGE, REPLACE], ids=str)
    def test_a_null_in_the_key_is_rejected(
        self, place: Any, destination: Destination, disposition: WriteDisposition
    ) -> None:
        load = self._load(destination, disposition, 2)
        commits = self.run(destination, load, self._nulls(1, None, 3), self._nulls(None), self._nulls(4), FINAL)
        assert [(commit.records, commit.rejected) for commit in commits] == [(3, 2)]
        refused = [json.loads(each.record) for commit in commits for each in commit.refused]
        assert refused == [{"id": None, "name": "nNone"}] * 2
        assert self.people(place) == [(1, "n1"), (3, "n3"), (4, "n4")]
        assert [json.loads(record) for _, record, _ in self.read_rejected(place)] == [{"id": None, "name": "nNone"}] * 2

    def test_all_but_one_of_the_records_of_one_key_are_rejected_by_a_replace(
        self, place: Any, destination: Destination
    ) -> None:
        load = self._load(destination, REPLACE, 2)
        if self.lacks(Feature.UNIQUE_KEYS):
            return
        (commit,) = self.run(destination, load, people((1, "a"), (2, "b"), (2, "b")), people((3, "c"), (2, "b")), FINAL)
        assert (commit.records, commit.rejected, len(commit.refused)) == (3, 2, 2)
        assert self.people(place) == [(1, "a"), (2, "b"), (3, "c")]
        assert [json.loads(record) for _, record, _ in self.read_rejected(place)] == [{"id": 2, "name": "b"}] * 2

    def test_a_rejected_record_that_each_run_finds_is_kept_once(self, place: Any, destination: Destination) -> None:
        def send(method: ReplicationMethod, *texts: str) -> int:
            load = self._load(destination, APPEND, 5)
            load = replace(load, stream=replace(load.stream, read=replace(load.stream.read, method=method)))
            return self.run(destination, load, self._rejected(*texts), FINAL)[0].rejected

        assert send(ReplicationMethod.INCREMENTAL, "x", "'y'") == 2
        assert send(ReplicationMethod.INCREMENTAL, "x", "'y'", "z") == 1
        assert send(ReplicationMethod.INCREMENTAL, "x") == 0
        assert send(ReplicationMethod.FULL_TABLE, "x") == 1, "read from scratch, and its good records come again too"
        found = [json.loads(record)["text"] for _, record, _ in self.read_rejected(place)]
        assert sorted(found) == ["'y'", "x", "x", "z"]

    def test_the_limit_holds_over_all_commits_of_a_load(self, place: Any, destination: Destination) -> None:
        load = self._load(destination, MERGE, 2)
        commits = self.start(
            destination,
            load,
            [self._nulls(1, None), Checkpoint(bookmark={"n": 1}), self._nulls(None, 2), self._rejected("x"), FINAL],
        )
        assert next(commits).rejected == 1
        with pytest.raises(TooManyRejected, match="more than 2 rejected records"):
            next(commits)
        assert self.people(place) == [(1, "n1")]
        assert len(self.read_rejected(place)) == 1

    def test_the_share_is_judged_for_each_commit_of_at_least_100_records(
        self, place: Any, destination: Destination
    ) -> None:
        def commit_of(good: int, bad: int, start: int) -> list[Event]:
            records = people(*((number, "a") for number in range(start, start + good)))
            return [records, self._rejected(*(f"{start + number}" for number in range(bad)))]

        load = self._load(destination, MERGE, 1000)
        load = replace(load, write=replace(load.write, max_rejected_percent=5.0))
        few, fits = Checkpoint(bookmark={"n": 1}), Checkpoint(bookmark={"n": 2})
        events = [*commit_of(79, 20, 0), few, *commit_of(95, 5, 200), fits, *commit_of(94, 6, 400), FINAL]
        commits = self.start(destination, load, events)
        assert [next(commits).rejected, next(commits).rejected] == [20, 5]
        with pytest.raises(TooManyRejected, match="6 of 100 records of a commit"):
            next(commits)
        assert len(self.people(place) or ()) == 79 + 95
        assert len(self.read_rejected(place)) == 25

    def test_rejected_records_that_are_not_committed_are_not_kept(self, place: Any, destination: Destination) -> None:
        load = self._load(destination, APPEND, 5)

        def failing() -> Iterator[Event]:
            yield people((1, "a"))
            yield self._rejected("x")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            list(self.start(destination, load, failing()))
        stale = self.start(destination, load, [people((1, "a")), self._rejected("x"), FINAL])
        destination.take_over(load.key, token="0" * 32, owner="another")
        with pytest.raises(TakenOver):
            list(stale)
        assert self.read_rejected(place) == []
        assert not self.people(place)


__all__ = ["RejectedPromises"]
