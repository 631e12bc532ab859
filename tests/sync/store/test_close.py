"""Claims, closes, stops: index, is_last_block_run, statuses and events."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncblocks.sync.errors import StateError
from syncblocks.sync.store import LostRun, Store
from syncblocks.sync.store.model import AttemptPlan, BlockOutcome, BlockRun, StateCopy, StreamOutcome, Subscription
from tests.sync.store.store_helpers import (
    CALLBACKS,
    DATE,
    EXPORTER,
    LOADER,
    STORES,
    attempt_plan,
    begin,
    deliver_all,
    error_info,
    lease,
    outcome,
    query,
    store_url_of,
    stream_plan,
)


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as opened:
        yield opened


A, B, C = stream_plan("a"), stream_plan("b"), stream_plan("c")


def flags(store: Store, run_id: int) -> dict[str, tuple[int | None, bool | None]]:
    return {run.uuid: (run.index, run.is_last_block_run) for run in store.block_runs(run_id)}


def assert_flags_hold(block_runs: list[BlockRun]) -> None:
    """Per block type: indexes count from 0, and the last one has the flag, nobody else."""
    by_type = defaultdict(list)
    for run in block_runs:
        by_type[run.block_type].append((run.index, run.is_last_block_run))
    for found in by_type.values():
        number = len(found)
        assert sorted(found, key=lambda pair: pair[0] or 0) == [(i, i == number - 1) for i in range(number)]


def test_a_flag_waits_until_the_next_claim_or_the_end(store: Store) -> None:
    run = begin(store, attempt_plan([A, B]))
    assert store.claim(run.id, ["a"])
    assert not store.close_stream(run.id, outcome(A)).run_ended
    assert flags(store, run.id) == {"load:a": (0, None), "export:a": (0, None)}
    assert store.claim(run.id, ["b"])
    assert flags(store, run.id)["export:a"] == (0, False)
    closed = store.close_stream(run.id, outcome(B))
    assert (closed.run_ended, closed.status) == (True, "success")
    assert flags(store, run.id) == {
        "load:a": (0, False),
        "export:a": (0, False),
        "load:b": (1, True),
        "export:b": (1, True),
    }


def test_a_close_claims_what_takes_the_streams_place(store: Store) -> None:
    run = begin(store, attempt_plan([A, B]))
    store.claim(run.id, ["a"])
    closed = store.close_stream(run.id, outcome(A), claim=["b"])
    assert (closed.has_claimed, closed.run_ended) == (True, False)
    assert store.open_streams(run.id) == ("b",)
    assert flags(store, run.id) == {
        "load:a": (0, False),
        "export:a": (0, False),
        "load:b": (None, None),
        "export:b": (None, None),
    }
    closed = store.close_stream(run.id, outcome(B), claim=[])
    assert (closed.has_claimed, closed.run_ended) == (False, True)
    assert flags(store, run.id)["export:b"] == (1, True)


@pytest.mark.parametrize("status", ["failure", "cancelled"])
def test_a_close_that_stops_the_run_claims_nothing(store: Store, status: str) -> None:
    run = begin(store, attempt_plan([A, B]))
    store.claim(run.id, ["a"])
    ended = outcome(A, failed_block=EXPORTER) if status == "failure" else outcome(A, status)
    closed = store.close_stream(run.id, ended, claim=["b"])
    assert (closed.has_claimed, closed.run_ended, closed.status) == (False, True, status)
    assert flags(store, run.id) == {"load:a": (0, True), "export:a": (0, True)}
    assert store.never_started(run.id) == ("b",)


def test_a_close_whose_claim_is_refused_closes_nothing(store: Store) -> None:
    run = begin(store, attempt_plan([A, B]))
    store.claim(run.id, ["a", "b"])
    with pytest.raises(StateError, match="cannot claim"):
        store.close_stream(run.id, outcome(A), claim=["b"])
    assert store.open_streams(run.id) == ("a", "b")


def test_a_flag_is_false_at_once_while_another_stream_is_open(store: Store) -> None:
    run = begin(store, attempt_plan([A, B]))
    assert store.claim(run.id, ["a", "b"])
    store.close_stream(run.id, outcome(B))
    assert flags(store, run.id)["load:b"] == (0, False)
    store.close_stream(run.id, outcome(A))
    assert flags(store, run.id)["load:a"] == (1, True)


def test_a_stop_decides_who_was_last(store: Store) -> None:
    run = begin(store, attempt_plan([A, B]))
    store.claim(run.id, ["a"])
    store.close_stream(run.id, outcome(A))
    store.request_stop(run.id)
    store.request_stop(run.id)
    assert flags(store, run.id) == {"load:a": (0, True), "export:a": (0, True)}
    assert not store.claim(run.id, ["b"])
    ended = store.end_attempt(run.id)
    assert ended.status == "cancelled"
    assert store.never_started(run.id) == ("b",)


def test_two_transformers_of_one_stream_are_counted_in_pipeline_order(store: Store) -> None:
    plan = stream_plan("a", "clean", "mask")
    run = begin(store, attempt_plan([plan]))
    store.claim(run.id, ["a"])
    shuffled = StreamOutcome(stream="a", blocks=tuple(reversed(outcome(plan).blocks)))
    store.close_stream(run.id, shuffled)
    found = flags(store, run.id)
    assert found["clean:a"] == (0, False)
    assert found["mask:a"] == (1, True)


def test_the_last_stream_with_a_transformer_is_its_last_while_others_run(store: Store) -> None:
    with_it = stream_plan("a", "clean")
    run = begin(store, attempt_plan([with_it, B]))
    store.claim(run.id, ["a"])
    store.close_stream(run.id, outcome(with_it))
    assert flags(store, run.id) == {"load:a": (0, None), "clean:a": (0, True), "export:a": (0, None)}


def test_a_failure_stops_further_claims_and_the_one_in_flight_is_last(store: Store) -> None:
    run = begin(store, attempt_plan([A, B, C]))
    store.claim(run.id, ["a"])
    store.claim(run.id, ["b"])
    closed = store.close_stream(run.id, outcome(A, failed_block=EXPORTER))
    assert (closed.run_ended, closed.is_stopping) == (False, True)
    assert not store.claim(run.id, ["c"])
    assert flags(store, run.id)["export:a"] == (0, False)
    closed = store.close_stream(run.id, outcome(B, "cancelled"))
    assert (closed.run_ended, closed.status) == (True, "failure")
    assert_flags_hold(store.block_runs(run.id))
    error = store.run(run.id).error
    assert error is not None
    assert (error.stream, error.block) == ("a", EXPORTER)
    assert store.never_started(run.id) == ("c",)


def test_a_failure_with_nothing_else_open_is_the_last_close(store: Store) -> None:
    run = begin(store, attempt_plan([A, B]))
    store.claim(run.id, ["a"])
    closed = store.close_stream(run.id, outcome(A, failed_block=LOADER))
    assert (closed.run_ended, closed.status) == (True, "failure")
    assert flags(store, run.id) == {"load:a": (0, True), "export:a": (0, True)}
    statuses = {block.uuid: block.status for block in store.block_runs(run.id)}
    assert statuses == {"load:a": "failure", "export:a": "cancelled"}


def test_failures_that_are_allowed_stop_nothing_and_still_fail_the_run(store: Store) -> None:
    run = begin(store, attempt_plan([A, B], allow_blocks_to_fail=True))
    store.claim(run.id, ["a"])
    assert not store.close_stream(run.id, outcome(A, failed_block=EXPORTER)).is_stopping
    assert store.claim(run.id, ["b"])
    assert store.close_stream(run.id, outcome(B)).status == "failure"
    assert store.unfinished_streams(run.id) == ("a",)


@pytest.mark.parametrize(
    ("statuses", "stop", "expected"),
    [
        (["success", "success", "success"], None, "success"),
        (["success", "success", "success"], "cancelled", "success"),
        (["success", "cancelled", "success"], None, "cancelled"),
        (["failure", "cancelled", "success"], None, "failure"),
        (["success", None, None], "cancelled", "cancelled"),
        (["success", None, None], "failure", "failure"),
        (["success", None, None], None, "cancelled"),
        ([None, None, None], "cancelled", "cancelled"),
    ],
)
def test_the_status_of_a_run_follows_from_its_streams(
    store: Store, statuses: list[str | None], stop: str | None, expected: str
) -> None:
    run = begin(store, attempt_plan([A, B, C], allow_blocks_to_fail=True))
    ended = [(plan, status) for plan, status in zip((A, B, C), statuses, strict=True) if status]
    if ended:
        store.claim(run.id, [plan.stream for plan, _ in ended])
    if stop:
        store.request_stop(run.id, stop)
    for plan, status in ended:
        store.close_stream(run.id, outcome(plan, status))
    assert store.end_attempt(run.id).status == expected
    assert store.end_attempt(run.id, error=error_info()).status == expected


def test_a_cancel_request_refuses_the_next_claim_and_makes_the_open_close_the_last(store: Store) -> None:
    run = begin(store, attempt_plan([A, B]))
    store.claim(run.id, ["a"])
    store.request_cancel(run.id)
    assert store.cancel_requested(run.id)
    assert store.standings([run.id])[run.id].cancel_requested
    closed = store.close_stream(run.id, outcome(A, "cancelled"))
    assert (closed.run_ended, closed.status) == (True, "cancelled")
    assert not store.claim(run.id, ["b"])


def test_a_run_that_fails_before_its_first_stream_tells_pipeline(store: Store) -> None:
    run = begin(store, attempt_plan([]))
    ended = store.end_attempt(run.id, error=error_info())
    assert (ended.status, ended.error) == ("failure", error_info())
    assert ended.ended_at is not None
    store.outbox("p", CALLBACKS).release_gate(run.id)
    delivery = lease(store)
    assert delivery.kwargs["__error"]["message"] == "None broke"
    assert delivery.kwargs["block_runs"] == []


def test_a_run_without_streams_succeeds(store: Store) -> None:
    run = begin(store, attempt_plan([]))
    assert store.end_attempt(run.id).status == "success"


def test_an_attempt_with_open_streams_cannot_be_ended(store: Store) -> None:
    run = begin(store, attempt_plan([A]))
    store.claim(run.id, ["a"])
    with pytest.raises(StateError, match="1 open"):
        store.end_attempt(run.id)
    with pytest.raises(StateError, match="has not ended"):
        store.finish_run(run.id)
    assert store.open_streams(run.id) == ("a",)


def test_a_claim_is_whole_or_not_at_all(store: Store) -> None:
    run = begin(store, attempt_plan([A, B]))
    store.claim(run.id, ["a"])
    for names in (["b", "a"], ["b", "x"]):
        with pytest.raises(StateError, match="cannot claim"):
            store.claim(run.id, names)
    assert store.open_streams(run.id) == ("a",)
    assert store.never_started(run.id) == ("b",)


def test_a_stream_is_closed_once(store: Store) -> None:
    run = begin(store, attempt_plan([A, B]))
    store.claim(run.id, ["a"])
    store.close_stream(run.id, outcome(A))
    for plan in (A, B):
        with pytest.raises(LostRun):
            store.close_stream(run.id, outcome(plan))


def test_an_outcome_must_have_the_streams_blocks(store: Store) -> None:
    run = begin(store, attempt_plan([A]))
    store.claim(run.id, ["a"])
    for blocks in (
        (BlockOutcome(block=LOADER, status="success"),),
        (BlockOutcome(block=LOADER, status="success"), BlockOutcome(block="other", status="success")),
        (BlockOutcome(block=LOADER, status="success"), BlockOutcome(block=EXPORTER, status="running")),
    ):
        with pytest.raises(StateError):
            store.close_stream(run.id, StreamOutcome(stream="a", blocks=blocks))
    assert store.open_streams(run.id) == ("a",)


def test_a_close_keeps_figures_and_the_copy_of_the_state(store: Store) -> None:
    run = begin(store, attempt_plan([A]))
    store.claim(run.id, ["a"])
    copy = StateCopy(stream="a", destination_table="table_a", source="postgres://x", bookmark={"id": 4}, rows=3)
    store.close_stream(run.id, outcome(A, state=copy))
    block = store.block_runs(run.id, 1)[-1]
    assert (block.rows, block.size_bytes, block.bookmark_after) == (3, 40, {"id": 4})
    assert block.schema_changes == ({"column": "c", "change": "added"},)
    assert block.destination_table == "table_a"
    assert block.ended_at is not None
    assert block.ended_at >= block.started_at
    state = store.state("p", "a", "table_a")
    assert state is not None
    assert (state.bookmark, state.rows, state.run_id, state.version) == ({"id": 4}, 3, run.id, 1)


def test_events_that_nobody_wants_have_no_row(store: Store, store_url: str) -> None:
    subscription = Subscription(
        callback_block="alerts", function="f", parent=EXPORTER, status="success", streams=("b",)
    )
    plan = AttemptPlan(streams=(A, B), subscriptions=(subscription, subscription), callbacks=attempt_plan([]).callbacks)
    run = begin(store, plan)
    store.claim(run.id, ["a", "b"])
    store.close_stream(run.id, outcome(A))
    store.close_stream(run.id, outcome(B))
    assert query(store_url, "SELECT stream, parent, status FROM _syncblocks_event") == [("b", EXPORTER, "success")]
    assert query(store_url, "SELECT count(*) FROM _syncblocks_delivery") == [(1,)]


def test_names_of_streams_are_never_taken_apart(store: Store) -> None:
    names = ["order", "orders", "a:b", "export:a", "q\"'`;--", "é\u202e☃", "%s", "x\ny"]
    plans = [stream_plan(name) for name in names]
    run = begin(store, attempt_plan(plans))
    store.claim(run.id, names)
    for plan in plans:
        store.close_stream(run.id, outcome(plan))
    assert {block.stream for block in store.block_runs(run.id)} == set(names)
    assert_flags_hold(store.block_runs(run.id))
    outbox = store.outbox("p", CALLBACKS)
    outbox.release_gate(run.id)
    assert {delivery.kwargs.get("stream") for delivery in deliver_all(outbox)} == {*names, None}


def test_the_plan_comes_back_as_it_was_given(store: Store) -> None:
    plan = attempt_plan([stream_plan("a", "clean"), B])
    run = store.begin_run("p", execution_date=DATE)
    assert store.attempt_plan(run.id, 1) is None
    store.begin_attempt(run.id, attempt_plan([C]))
    store.begin_attempt(run.id, plan)
    assert store.attempt_plan(run.id, 1) == plan
    assert store.never_started(run.id) == ("a", "b")
    store.claim(run.id, ["a"])
    with pytest.raises(StateError, match="its plan cannot change"):
        store.begin_attempt(run.id, plan)


@pytest.mark.one_of
@pytest.mark.parametrize("seed", range(3))
def test_eight_workers_and_fifty_streams_have_one_last_block_run_a_type(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    plans = [stream_plan(f"s{i}", *chance.choice([(), ("clean",), ("clean", "mask")])) for i in range(50)]
    run = begin(store, attempt_plan(plans, ("stream", "pipeline"), allow_blocks_to_fail=seed == 2))
    todo = list(plans)
    lock = threading.Lock()
    closes = []
    errors: list[BaseException] = []

    def work(own: random.Random) -> None:
        try:
            while True:
                with lock:
                    group = [todo.pop() for _ in range(min(len(todo), own.choice([1, 1, 2])))]
                if not group or not store.claim(run.id, [plan.stream for plan in group]):
                    return
                for plan in group:
                    is_failure = seed > 0 and own.random() < 0.05
                    ended = outcome(plan, failed_block=EXPORTER) if is_failure else outcome(plan)
                    closed = store.close_stream(run.id, ended)
                    with lock:
                        closes.append(closed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(random.Random(100 * seed + i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    store.end_attempt(run.id)
    assert [closed.run_ended for closed in closes].count(True) == 1
    assert_flags_hold(store.block_runs(run.id))
    outbox = store.outbox("p", CALLBACKS)
    outbox.release_gate(run.id)
    delivered = deliver_all(outbox)
    assert len(delivered) == len(closes) + 1
    assert [delivery.kwargs["index"] for delivery in delivered[:-1]] == list(range(len(closes)))
    assert delivered[-1].kwargs["parent_block_uuid"] == "pipeline"
