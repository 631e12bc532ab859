"""Schema changes are held before their commit, and told or forgotten after it; what is repeated is told alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.callbacks.protocols import NothingOpen
from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.stream import Checkpoint, LedgerKey, LedgerRow, Load, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from syncblocks.sync.run.recovery.fencing import commit_mark, run_reference, was_made
from syncblocks.sync.store import LostRun, Store
from syncblocks.sync.store.model import AttemptPlan, PipelineRun, Subscription
from tests.sync.store.store_helpers import (
    CALLBACKS,
    EXPORTER,
    STORES,
    attempt_plan,
    begin,
    deliver_all,
    error_info,
    lease,
    outcome,
    store_url_of,
    stream_plan,
)

A = stream_plan("a")
CHANGES: Sequence[dict[str, Any]] = ({"column": "extra", "change": "added", "before": None, "after": "bigint"},)
MARK = {"is_final": True}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with Store.open(store_url_of(request, tmp_path)) as opened:
        yield opened


def plan_for(*statuses: str) -> AttemptPlan:
    wanted = tuple(
        Subscription(callback_block="alerts", function="tell", parent="stream", status=status, needs_data=False)
        for status in statuses
    )
    return replace(attempt_plan([A]), subscriptions=wanted)


def started(store: Store, *statuses: str) -> PipelineRun:
    run = begin(store, plan_for(*statuses))
    assert store.claim(run.id, ["a"])
    return run


def test_what_is_held_is_not_delivered_until_it_is_released(store: Store) -> None:
    run = started(store, "schema_changed")
    assert store.hold(run.id, "a", EXPORTER, CHANGES, MARK)
    assert store.held(run.id, "a") == (MARK, list(CHANGES))
    assert store.outbox("p", CALLBACKS).lease("alerts") == NothingOpen()
    store.release_held(run.id, "a", is_committed=True)
    assert store.held(run.id, "a") is None
    (told,) = deliver_all(store.outbox("p", CALLBACKS))
    assert told.status == "schema_changed"
    assert told.kwargs["block_run"]["schema_changes"] == list(CHANGES)
    store.release_held(run.id, "a", is_committed=True)
    assert deliver_all(store.outbox("p", CALLBACKS)) == []


def test_what_was_not_committed_is_forgotten_and_its_number_used_again(store: Store) -> None:
    run = started(store, "schema_changed")
    for is_true in (False, True, True):
        store.hold(run.id, "a", EXPORTER, CHANGES, MARK)
        store.release_held(run.id, "a", is_committed=is_true)
    assert len({told.key for told in deliver_all(store.outbox("p", CALLBACKS))}) == 2


def test_nothing_is_held_where_nobody_wants_to_hear_of_it(store: Store) -> None:
    run = started(store, "success")
    assert not store.hold(run.id, "a", EXPORTER, CHANGES, MARK)
    assert store.held(run.id, "a") is None


@pytest.mark.parametrize("is_true", [True, False])
def test_the_close_of_a_stream_settles_what_is_held(store: Store, is_true: bool) -> None:
    run = started(store, "schema_changed", "failure")
    store.hold(run.id, "a", EXPORTER, CHANGES, MARK)
    store.close_stream(run.id, replace(outcome(A, "failure"), is_held_committed=is_true))
    store.outbox("p", CALLBACKS).release_gate(run.id)
    told = [delivery.status for delivery in deliver_all(store.outbox("p", CALLBACKS))]
    assert told == (["schema_changed"] if is_true else []) + ["failure"]


def test_a_stream_that_was_closed_holds_nothing_more(store: Store) -> None:
    run = started(store, "schema_changed")
    store.close_stream(run.id, outcome(A))
    with pytest.raises(LostRun, match="another process closed it"):
        store.hold(run.id, "a", EXPORTER, CHANGES, MARK)


def test_a_numbered_event_that_is_told_again_after_the_end_is_told_in_the_same_words(store: Store) -> None:
    run = started(store, "retry")
    store.tell(run.id, "a", EXPORTER, "retry", error=error_info("a", EXPORTER))
    before = lease(store)
    assert (before.kwargs["block_run"]["status"], before.kwargs["block_run"]["rows"]) == ("running", None)
    store.close_stream(run.id, outcome(A))
    again = store.outbox("p", CALLBACKS).deliveries.recorded(before.key)
    assert again.kwargs["block_run"] == before.kwargs["block_run"]


# -- which commit was made -------------------------------------------------------------------------------------------

KEY = LedgerKey(pipeline="p", stream="a", destination_table="a")
PEOPLE = pa.schema([pa.field("id", pa.int64())])


@pytest.mark.parametrize("column", ["id", "extra"])
def test_a_change_that_waits_for_no_commit_is_looked_for_in_the_table(tmp_path: Path, column: str) -> None:
    destination = make_destination("sqlite", {"path": "there.db"}, tmp_path)
    row = destination.take_over(KEY, token="t", owner="test", source="test")
    load = Load(
        key=KEY,
        stream=Stream(name="a", schema=PEOPLE),
        write=WriteSpec(disposition=WriteDisposition.APPEND),
        token="t",
        run="r",
    )
    list(destination.load(load, iter([Checkpoint(is_final=True)])))
    changes = [{"column": column, "change": "added"}]
    run: Any = None  # no run is asked for
    assert was_made(commit_mark(None), changes, row, run, destination) == (column == "id")
    destination.close()


def test_a_commit_is_known_again_by_its_bookmark_or_as_the_run_s_last_one(store: Store) -> None:
    run, destination = begin(store, attempt_plan([A])), make_destination("memory", {"database": "commits"}, Path.cwd())
    at = LedgerRow(key=KEY, source="", token="", bookmark={"id": 4, "_boundary": ["x"]})
    assert was_made(commit_mark(Checkpoint(bookmark={"_boundary": ["x"], "id": 4})), CHANGES, at, run, destination)
    assert not was_made(commit_mark(Checkpoint(bookmark={"id": 4, "_boundary": ["y"]})), CHANGES, at, run, destination)
    last = commit_mark(Checkpoint(bookmark=at.bookmark, is_final=True))
    assert not was_made(last, CHANGES, at, run, destination)
    done = replace(at, completed_by=run_reference(run))
    assert was_made(last, CHANGES, done, run, destination)
