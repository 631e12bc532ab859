"""A stream that another run takes over while it is loaded: the run that lost it leaves the other run its token."""

from __future__ import annotations

from typing import Any

import pytest

from syncblocks.connectors.errors import RetriableError
from syncblocks.connectors.memory.destination import MemoryDestination
from syncblocks.connectors.stream import LedgerKey
from syncblocks.connectors.struct_helpers import replace
from tests.sync.pipelines import Bench, statuses
from tests.sync.pipelines import bench as bench
from tests.sync.run.test_lost_table import At

OTHER = "run 7 on host-2"


def take_over(bench: Bench, stream: str) -> None:
    """Write the token of a run that another store has started."""
    key = LedgerKey(pipeline="bench", stream=stream, destination_table=stream)
    bench.destination.ledger[key] = replace(bench.destination.ledger[key], token="other", owner=OTHER)


def tokens(bench: Bench) -> dict[str, bool]:
    """Return stream -> whether it still has the other run's token."""
    return {key.stream: row.token == "other" for key, row in bench.destination.ledger.items()}


@pytest.mark.parametrize("entry", [{}, {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}], ids=str)
def test_the_run_that_lost_names_the_other_run_and_leaves_its_token(bench: Bench, entry: dict[str, Any]) -> None:
    bench.seed("a", 3)
    bench.document["streams"] = [{"stream": "a", **entry}]
    result = bench.run(progress=At("advanced", lambda: take_over(bench, "a")))
    assert statuses(result) == {"a": "failure"}
    assert OTHER in str(result.streams[0].error)
    assert tokens(bench) == {"a": True}


def test_a_retry_does_not_take_a_stream_back(bench: Bench) -> None:
    bench.seed("a", 9)
    bench.document["source"]["config"] |= {"batch_size": 3, "fail_at": {"a": 3}, "fail_kind": "retriable"}
    bench.document |= {"retries": 2, "retry_delay_s": 0}
    result = bench.run(progress=At("advanced", lambda: take_over(bench, "a")))
    assert statuses(result) == {"a": "failure"}
    assert OTHER in str(result.streams[0].error)
    assert tokens(bench) == {"a": True}


@pytest.mark.parametrize("is_made", [True, False], ids=["the commit was made", "the commit was not made"])
@pytest.mark.parametrize("is_taken", [True, False], ids=["taken over", "not taken over"])
def test_a_final_commit_whose_answer_was_lost_is_recognized(
    bench: Bench, is_made: bool, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = MemoryDestination.load

    def load_without_answer(self: Any, *arguments: Any) -> Any:
        commits = load(self, *arguments)
        if is_made:
            list(commits)
        else:
            events = arguments[1]
            while not getattr(next(events), "is_final", False):
                pass
        if is_taken:
            take_over(bench, "a")
        raise RetriableError("the answer is lost", connector="memory")

    monkeypatch.setattr(MemoryDestination, "load", load_without_answer)
    bench.seed("a", 3)
    result = bench.run()
    assert statuses(result) == {"a": "success" if is_made else "failure"}
    assert tokens(bench) == {"a": is_taken}
    if not is_made:
        assert (OTHER if is_taken else "the answer is lost") in str(result.streams[0].error)


def test_of_two_runs_that_took_streams_from_each_other_the_one_with_the_first_stream_takes_the_others_back(
    bench: Bench,
) -> None:
    for name in ("a", "b"):
        bench.seed(name, 3)
    bench.document["streams"] = [{"stream": name} for name in ("a", "b")]

    class SecondStarts(At):
        def advanced(self, stream: str, **_: Any) -> None:
            if stream == "b":
                self._tell("b")

    result = bench.run(progress=SecondStarts("b", lambda: take_over(bench, "b")))
    assert statuses(result) == {"a": "success", "b": "success"}
    assert tokens(bench) == {"a": False, "b": False}


def test_a_run_that_lost_its_first_stream_takes_none_back(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.seed(name, 3)
    bench.document |= {"streams": [{"stream": name} for name in ("a", "b")], "allow_blocks_to_fail": True}

    class EachStarts(At):
        def advanced(self, stream: str, **_: Any) -> None:
            take_over(bench, stream)

    result = bench.run(progress=EachStarts("", lambda: None))
    assert statuses(result) == {"a": "failure", "b": "failure"}
    assert tokens(bench) == {"a": True, "b": True}
