"""How often a process waits for the server of its run store: latency costs what it multiplies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from syncblocks.callbacks.protocols import Delivery
from syncblocks.sync.store import Store
from syncblocks.sync.store.freshness_facts import Asked
from syncblocks.sync.store.model import StateCopy, StreamOutcome, StreamPlan
from syncblocks.sync.store.owner import current_owner
from tests.sync.store.round_trips import counted
from tests.sync.store.store_helpers import CALLBACKS, OK, attempt_plan, begin, outcome, stream_plan

NAMES = [f"s{number}" for number in range(12)]
STREAMS = 10


def ended(plan: StreamPlan) -> StreamOutcome:
    bookmark = StateCopy(stream=plan.stream, destination_table="t", source="s", bookmark={"id": 4}, rows=3)
    return outcome(plan, state=bookmark)


@pytest.mark.parametrize("parents", [(), ("stream",)])
def test_a_stream_costs_few_round_trips_and_one_of_them_under_the_lock(
    postgres_url: str, parents: Sequence[str]
) -> None:
    plans = [stream_plan(name) for name in NAMES]
    with counted(postgres_url) as proxy, Store.open(proxy.url) as store:
        run = begin(store, attempt_plan(plans, parents))
        store.claim(run.id, NAMES[:1])
        store.close_stream(run.id, ended(plans[0]), claim=NAMES[1:2])
        trips, locked = proxy.trips, proxy.locked
        for number in range(1, STREAMS + 1):
            assert store.is_owner(run.id)
            store.close_stream(run.id, ended(plans[number]), claim=[NAMES[number + 1]])
        assert (proxy.trips - trips) / STREAMS <= 3.3  # a statement is prepared at its sixth use
        assert (proxy.locked - locked) / STREAMS <= 1.1


def test_a_callback_costs_a_few_more(postgres_url: str) -> None:
    plans = [stream_plan(name) for name in NAMES]
    with counted(postgres_url) as proxy, Store.open(proxy.url) as store:
        run = begin(store, attempt_plan(plans, ["stream"]))
        outbox = store.outbox("p", CALLBACKS, is_served=True)
        store.claim(run.id, NAMES[:1])
        outbox.lease("alerts")  # a queue that waits: the close leases for it
        trips, locked = proxy.trips, proxy.locked
        for number in range(STREAMS):
            store.close_stream(run.id, ended(plans[number]), claim=[NAMES[number + 1]])
            delivery = outbox.lease("alerts")
            assert isinstance(delivery, Delivery)
            assert outbox.mark(delivery, OK) == "done"
            outbox.lease("alerts")
        assert (proxy.trips - trips) / STREAMS <= 6.3
        assert (proxy.locked - locked) / STREAMS <= 2.2


def test_a_stream_of_a_worker_costs_as_few_since_its_close_takes_the_next_one(postgres_url: str) -> None:
    plans, me = [stream_plan(name) for name in NAMES], current_owner()
    with counted(postgres_url) as proxy, Store.open(proxy.url) as store:
        run = begin(store, attempt_plan(plans, ()))
        store.claim(run.id, NAMES, nonce="n")
        store.take_claim(run.id, 1, NAMES[:1], "n", me)
        store.close_stream(run.id, ended(plans[0]), nonce="n", take=NAMES[1], worker=me)
        trips, locked = proxy.trips, proxy.locked
        for number in range(1, STREAMS + 1):
            assert store.holds_claim(run.id, NAMES[number], "n")
            closed = store.close_stream(run.id, ended(plans[number]), nonce="n", take=NAMES[number + 1], worker=me)
            assert closed.has_taken
        assert (proxy.trips - trips) / STREAMS <= 3.3
        assert (proxy.locked - locked) / STREAMS <= 1.1


def test_how_pipelines_stand_costs_as_few_for_many_as_for_two(postgres_url: str) -> None:
    names = [f"p{number}" for number in range(50)]
    asked = [Asked(pipeline=name) for name in names]
    with counted(postgres_url) as proxy, Store.open(proxy.url) as store:
        for name in names[:10]:
            run = begin(store, attempt_plan([stream_plan("a")]), name)
            store.claim(run.id, ["a"])
            store.close_stream(run.id, ended(stream_plan("a")))
        reads = store.fact_reads()
        reads.facts_of(asked[:2])
        took = []
        for some in (asked[:2], asked):
            before = proxy.trips
            reads.facts_of(some)
            took.append(proxy.trips - before)
        assert took[0] == took[1] <= 12
