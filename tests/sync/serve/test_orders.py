"""What is ordered through a server: a tick once, or a refusal that says why; and who has ordered it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.errors import AlreadyRunning, NotLatest
from syncblocks.sync.serve.files import PipelineFiles
from syncblocks.sync.serve.orders import MOST_WAITING, OrderRefused, Orders
from syncblocks.sync.store import Store
from syncblocks.sync.store.documents import whole_run
from syncblocks.sync.store.ticks import LostTick, OrderedBy, OtherOrder, TickOptions
from tests.sync.serve.serve_helpers import Place, begin, end
from tests.sync.store.store_helpers import (
    STORES,
    attempt_plan,
    outcome,
    query,
    store_url_of,
    stream_plan,
)

PLAIN = TickOptions()


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    found = Place(tmp_path, store_url_of(request, tmp_path))
    found.write()
    found.write("plain", cron=None)
    return found


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.store() as found:
        yield found


@pytest.fixture
def orders(place: Place, store: Store) -> Orders:
    files = PipelineFiles(place.folder, place.url, place.clock)
    files.look()
    place.clock.move(2)
    files.look()
    return Orders(store, files, place.clock)


def fail(store: Store, run: int) -> None:
    """End a run whose only stream fails, and which has a callback to deliver."""
    plan = stream_plan("a")
    store.begin_attempt(run, attempt_plan([plan], parents=("stream",)))
    store.claim(run, ["a"])
    store.close_stream(run, outcome(plan, "failure"))
    store.finish_run(run)


def refusal(order: object, *args: object, **kwargs: object) -> int:
    assert callable(order)
    with pytest.raises(OrderRefused) as found:
        order(*args, **kwargs)
    return found.value.status


def actions(store: Store, pipeline: str = "crm") -> list[tuple[object, ...]]:
    return [(each.who, each.what, each.run_id, each.stream) for each in reversed(store.actions.of_pipeline(pipeline))]


def test_a_key_counts_for_who_orders_and_for_a_pipeline_and_one_order(store: Store, orders: Orders) -> None:
    options = TickOptions(event={"a": 1}, variables={"day": "x"})
    tick = orders.run("crm", options, who="token ci", key="k", order_hash="h")
    assert (tick.kind, tick.state, tick.ordered_by, tick.options) == ("api", "waiting", "token ci", options)
    assert orders.run("crm", options, who="token ci", key="k", order_hash="h") == tick
    assert refusal(orders.run, "crm", PLAIN, who="token ci", key="k", order_hash="other") == 409
    others = [
        orders.run("crm", PLAIN, who="token b", key="k", order_hash="h"),
        orders.run("plain", PLAIN, who="token ci", key="k", order_hash="h"),
        orders.run("crm", PLAIN, who="token ci"),
        orders.run("crm", PLAIN, who="token ci"),
    ]
    assert len({each.id for each in (tick, *others)}) == 5
    assert refusal(orders.run, "crn", PLAIN, who="x") == 404
    assert actions(store) == [(who, "run", None, None) for who in ("token ci", "token b", "token ci", "token ci")]
    assert store.actions.of_pipeline("crm", limit=1, before=4)[0].details == {"tick": 2}


def test_a_hundred_ticks_of_a_pipeline_may_wait(store: Store, orders: Orders) -> None:
    for number in range(MOST_WAITING):
        orders.run("crm", PLAIN, who="x", key=str(number))
    assert refusal(orders.run, "crm", PLAIN, who="x") == 429
    assert orders.run("crm", PLAIN, who="x", key="0").id == 1
    assert orders.run("plain", PLAIN, who="x").state == "waiting"


def test_the_stream_that_is_read_anew_is_no_glob(store: Store, orders: Orders) -> None:
    tick = orders.read_anew("crm", "a[*]?", who="page")
    assert (tick.options.streams, tick.options.full_refresh) == (("a[[][*]][?]",), True)
    assert actions(store) == [("page", "read anew", None, "a[*]?")]


def test_a_retry_is_a_tick_which_the_next_attempt_carries_out(store: Store, orders: Orders) -> None:
    first = orders.run("crm", PLAIN, who="x")
    run = begin(store, first.id)
    assert refusal(orders.retry, run, who="x") == 409
    fail(store, run)
    tick = orders.retry(run, who="x")
    assert (tick.kind, tick.retries, tick.run_id) == ("retry", run, None)
    assert orders.retry(run, who="x") == tick
    with pytest.raises(LostTick):
        store.begin_retry(run, tick=tick.id)
    assert store.claim_tick(tick.id)
    assert store.begin_retry(run, tick=tick.id).attempt == 2
    assert (store.tick(tick.id).state, store.tick(tick.id).run_id) == ("run", run)
    assert store.causes_of(run) == ()
    assert store.fact_reads().facts("crm").run is not None
    fail(store, run)
    second = orders.retry(run, who="x")
    assert second.id != tick.id
    store.claim_tick(second.id)
    store.refuse_tick(second.id, "why")
    third = orders.retry(run, who="x")
    assert third.id != second.id
    later = begin(store, orders.run("crm", PLAIN, who="x").id)
    store.claim_tick(third.id)
    with pytest.raises(AlreadyRunning):
        store.begin_retry(run, tick=third.id)
    end(store, later)
    with pytest.raises(NotLatest):
        store.begin_retry(run, tick=third.id)
    assert refusal(orders.retry, run, who="x") == 409
    assert refusal(orders.retry, later, who="x") == 409  # it has succeeded
    assert refusal(orders.retry, 77, who="x") == 404
    assert actions(store) == [
        ("x", "run", None, None),
        *[("x", "retry", run, None)] * 3,
        ("x", "run", None, None),
    ]


def test_a_run_is_cancelled_while_it_goes(store: Store, orders: Orders) -> None:
    run = begin(store, orders.run("crm", PLAIN, who="x").id)
    assert orders.cancel(run, who="y").cancel_requested
    end(store, run)
    assert refusal(orders.cancel, run, who="y") == 409
    assert refusal(orders.cancel, 77, who="y") == 404
    assert actions(store)[1:] == [("y", "cancel", run, None)]


def test_a_dead_delivery_is_due_again(store: Store, orders: Orders, place: Place) -> None:
    run = begin(store, orders.run("crm", PLAIN, who="x").id)
    fail(store, run)
    key = store.outbox("crm").deliveries.records()[0].key
    assert refusal(orders.deliver, "crm", key, who="x") == 409
    query(place.url, "UPDATE _syncblocks_delivery SET state = 'dead', is_open = FALSE")
    assert refusal(orders.deliver, "crm", key[:-1], who="x") == 404
    assert refusal(orders.deliver, "plain", key, who="x") == 404
    orders.deliver("crm", key, who="x")
    assert store.outbox("crm").deliveries.counts()["due"] == 1
    assert actions(store)[1:] == [("x", "deliver", run, None)]
    assert store.actions.of_pipeline("crm", limit=1)[0].details == {"key": key}


def test_a_schedule_is_paused_and_resumed(store: Store, orders: Orders, place: Place) -> None:
    assert refusal(orders.pause, "plain", who="x") == 409
    assert refusal(orders.resume, "crm", who="x") == 409
    assert refusal(orders.pause, "crm", until=place.clock.now(), who="x") == 400
    until = place.clock.now() + timedelta(days=3_650)
    orders.pause("crm", until=until, reason="db moves", who="x")
    pause = store.fact_reads().facts("crm").pause
    assert pause is not None
    assert (pause.until, pause.reason) == (until, "db moves")
    orders.resume("crm", who="y")
    assert store.fact_reads().facts("crm").pause is None
    assert actions(store) == [("x", "pause", None, None), ("y", "resume", None, None)]


def test_one_key_that_servers_get_at_the_same_moment_is_one_tick(place: Place, store: Store) -> None:
    """And with another order under it, all but the first are refused."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(8))
        stores = [stack.enter_context(place.store()) for _ in range(4)]

        def order(number: int, key: str, order_hash: str) -> int | None:
            begin_together.wait()
            by = OrderedBy(who="x", order_hash=order_hash)
            try:
                return stores[number % 4].order_tick("crm", key, trigger="api", causes=(), kind="api", by=by).id
            except OtherOrder:
                return None

        for turn in range(5):
            begin_together = threading.Barrier(8)
            assert len(set(pool.map(order, range(8), [f"same {turn}"] * 8, ["h"] * 8))) == 1
            begin_together = threading.Barrier(8)
            found = list(pool.map(order, range(8), [f"other {turn}"] * 8, "abcdefgh"))
            assert len([each for each in found if each is not None]) == 1
    assert len(actions(store)) == len(store.startable_ticks("crm", "api")) == 10


def test_the_plan_of_a_run_under_way_is_read_each_time(place: Place, store: Store) -> None:
    """A server that had looked while the run was planned showed no missing streams until it ended."""
    run = store.begin_run("crm", execution_date=place.clock.now())
    with place.store() as server:
        assert whole_run(server, server.run(run.id))["missing_streams"] == []
        plan = replace(attempt_plan([stream_plan("a")]), extra={"missing_streams": ["gone"]})
        store.begin_attempt(run.id, plan)
        assert whole_run(server, server.run(run.id))["missing_streams"] == ["gone"]
