"""The transaction that makes a delivery due leases it to the queue that waits for it; nothing else changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from syncblocks.callbacks.protocols import Delivery
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.store import LostRun, Store, delivery_backoff
from syncblocks.sync.store.owner import Owner, current_owner
from tests.sync.store.store_helpers import (
    CALLBACKS,
    OK,
    RAISED,
    STORES,
    attempt_plan,
    begin,
    deliver_all,
    outcome,
    query,
    store_url_of,
    stream_plan,
)

A, B, C = stream_plan("a"), stream_plan("b"), stream_plan("c")


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as opened:
        yield opened


def started(store: Store, *streams: Any, **options: Any) -> int:
    """Begin a run whose streams are all under way; only their own events are listened to."""
    run = begin(store, attempt_plan(streams, ["stream"], **options))
    assert store.claim(run.id, [stream.stream for stream in streams])
    return run.id


def waiting(store: Store) -> Any:
    """Return an outbox whose queue has looked and found nothing."""
    outbox = store.outbox("p", CALLBACKS, is_served=True)
    assert not isinstance(outbox.lease("alerts"), Delivery)
    return outbox


def states(url: str) -> list[tuple[Any, ...]]:
    return query(url, "select stream, state, attempts, tries from _syncblocks_delivery order by run_id, seq")


def test_the_close_leases_what_it_makes_due_to_a_queue_that_waits(store: Store, store_url: str) -> None:
    run = started(store, A, B)
    outbox = waiting(store)
    store.close_stream(run, outcome(A))
    assert states(store_url) == [("a", "leased", 1, 1)]
    delivery = outbox.lease("alerts")
    assert (delivery.kwargs["stream"], delivery.attempt, delivery.kwargs["retry"]) == ("a", 1, {"attempts": 1})
    assert states(store_url) == [("a", "leased", 1, 1)]
    assert outbox.mark(delivery, OK) == "done"
    assert states(store_url) == [("a", "done", 1, 1)]


def test_a_queue_that_does_not_wait_is_left_alone(store: Store, store_url: str) -> None:
    run = started(store, A, B)
    outbox = store.outbox("p", CALLBACKS, is_served=True)  # it has not looked yet
    store.close_stream(run, outcome(A))
    assert states(store_url) == [("a", "ready", 0, 0)]
    calling = outbox.lease("alerts")
    store.close_stream(run, outcome(B))
    assert states(store_url) == [("a", "leased", 1, 1), ("b", "ready", 0, 0)]
    assert outbox.mark(calling, OK) == "done"


def test_a_queue_that_is_just_looking_is_not_waited_for(store: Store, store_url: str) -> None:
    run = started(store, A, B)
    outbox = waiting(store)
    slot = outbox._prefetch.slot("alerts")
    with slot.lock:  # as while it looks
        closing = threading.Thread(target=store.close_stream, args=(run, outcome(A)))
        closing.start()
        closing.join(30)
        assert not closing.is_alive()
    assert states(store_url) == [("a", "ready", 0, 0)]
    assert [delivery.kwargs["stream"] for delivery in deliver_all(outbox)] == ["a"]


def test_an_outbox_that_is_not_served_gets_nothing_ahead(store: Store, store_url: str) -> None:
    run = started(store, A, B)
    outbox = store.outbox("p", CALLBACKS)
    assert not isinstance(outbox.lease("alerts"), Delivery)
    store.close_stream(run, outcome(A))
    assert states(store_url) == [("a", "ready", 0, 0)]


def test_what_is_rolled_back_was_not_leased(store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(store, A, B)
    outbox = waiting(store)
    genuine = outbox._prefetch._lease

    def lease_and_lose(connection: Any, block: str) -> Any:
        assert genuine(connection, block) is not None
        raise KeyboardInterrupt

    monkeypatch.setattr(outbox._prefetch, "_lease", lease_and_lose)
    with pytest.raises(KeyboardInterrupt):
        store.close_stream(run, outcome(A))
    assert states(store_url) == []
    monkeypatch.undo()
    store.close_stream(run, outcome(A))
    assert [delivery.attempt for delivery in deliver_all(outbox)] == [1]


def test_a_lease_that_cannot_be_made_ahead_keeps_no_stream_from_closing(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(store, A, B)
    outbox = waiting(store)

    def fail(connection: Any, _: str) -> None:
        query_that_fails = "select * from no_such_table"
        connection.exec_driver_sql(query_that_fails)

    monkeypatch.setattr(outbox._prefetch, "_lease", fail)
    store.close_stream(run, outcome(A))
    assert states(store_url) == [("a", "ready", 0, 0)]
    assert [delivery.kwargs["stream"] for delivery in deliver_all(outbox)] == ["a"]


def test_closing_the_outbox_gives_back_what_was_leased_ahead(store: Store, store_url: str) -> None:
    run = started(store, A, B)
    outbox = waiting(store)
    store.close_stream(run, outcome(A))
    outbox.close()
    outbox.close()
    assert states(store_url) == [("a", "ready", 0, 0)]
    assert query(store_url, "select count(*) from _syncblocks_delivery_try") == [(0,)]
    store.close_stream(run, outcome(B))
    assert states(store_url) == [("a", "ready", 0, 0), ("b", "ready", 0, 0)]
    assert [delivery.attempt for delivery in deliver_all(store.outbox("p", CALLBACKS))] == [1]


def test_closing_the_outbox_leaves_a_call_under_way_its_lease(store: Store, store_url: str) -> None:
    run = started(store, A, B)
    outbox = waiting(store)
    store.close_stream(run, outcome(A))
    delivery = outbox.lease("alerts")
    outbox.close()
    assert states(store_url) == [("a", "leased", 1, 1)]
    assert outbox.mark(delivery, OK) == "done"


def test_a_process_that_died_after_a_lease_ahead_has_used_up_no_attempt(store: Store, store_url: str) -> None:
    gone = replace(current_owner(), pid=current_owner().pid + 1)

    def lives(owner: Owner, _: Owner) -> bool:
        return owner != gone

    with Store.open(store_url, owner=gone, liveness=lives) as dead:
        run = started(dead, A, B)
        waiting(dead)
        dead.close_stream(run, outcome(A))
        assert states(store_url) == [("a", "leased", 1, 1)]
        (key,) = (row[0] for row in query(store_url, "select idempotency_key from _syncblocks_delivery"))
    with Store.open(store_url, liveness=lives) as alive:
        delivery = alive.outbox("p", CALLBACKS).lease("alerts")
        assert isinstance(delivery, Delivery)
        assert (delivery.key, delivery.attempt) == (key, 1)
    assert query(store_url, "select outcome from _syncblocks_delivery_try") == [("lost",)]


def test_order_is_the_queue_s_own_also_ahead(store: Store, store_url: str) -> None:
    """What was due before comes first, and one that waits for its retry is passed over."""
    run = started(store, A, B, C)
    outbox = waiting(store)
    store.close_stream(run, outcome(A))
    first = outbox.lease("alerts")
    assert outbox.mark(first, RAISED) == "retry"
    later = datetime.now(UTC) + timedelta(minutes=4)  # the longest pause has five
    query(store_url, f"update _syncblocks_delivery set not_before = '{later:%Y-%m-%d %H:%M:%S}+00:00'")
    assert not isinstance(outbox.lease("alerts"), Delivery)
    store.close_stream(run, outcome(B))
    assert [row[:2] for row in states(store_url)] == [("a", "ready"), ("b", "leased")]


def test_the_last_event_is_leased_ahead_by_the_gate_and_not_before_the_others_are_told(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_backoff, "BACKOFF_FIRST_S", 0.0)
    run = started(store, A, B)
    outbox = waiting(store)
    store.close_stream(run, outcome(A))
    first = outbox.lease("alerts")
    store.close_stream(run, outcome(B))
    store.outbox("p", CALLBACKS).release_gate(run)  # the first one is being called: nothing is leased ahead
    assert [row[:2] for row in states(store_url)] == [("a", "leased"), ("b", "ready")]
    assert outbox.mark(first, RAISED) == "retry"
    told = deliver_all(outbox)
    assert [(one.kwargs["stream"], one.kwargs["is_last_block_run"]) for one in told] == [("a", False), ("b", True)]


def test_the_gate_leases_the_last_event_to_a_queue_that_waits_for_it(store: Store, store_url: str) -> None:
    run = started(store, A)
    outbox = waiting(store)
    store.close_stream(run, outcome(A))
    assert states(store_url) == [("a", "ready", 0, 0)]  # behind the gate
    assert not isinstance(outbox.lease("alerts"), Delivery)
    outbox.release_gate(run)
    assert states(store_url) == [("a", "leased", 1, 1)]
    assert outbox.lease("alerts").kwargs["is_last_block_run"] is True


def test_who_has_lost_the_run_leases_nothing_ahead(store: Store, store_url: str) -> None:
    run = started(store, A, B)
    waiting(store)
    store.close_stream(run, outcome(A))
    with pytest.raises(LostRun):
        store.close_stream(run, outcome(A))
    assert [row[:2] for row in states(store_url)] == [("a", "leased")]
