"""Deliveries: order of the queue, leases, tries, the gate, and what is dead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncblocks.callbacks.kwargs import hydrate
from syncblocks.callbacks.protocols import Delivery, NotDue, NothingOpen, Outcome
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.store import LostRun, Store, delivery_backoff
from syncblocks.sync.store import outbox as outbox_module
from syncblocks.sync.store.model import AttemptPlan, PipelineRun
from syncblocks.sync.store.owner import Owner, current_owner
from tests.sync.store.store_helpers import (
    CALLBACKS,
    DATE,
    EXPORTER,
    LOADER,
    OK,
    RAISED,
    STORES,
    AnyCallbacks,
    FixedClock,
    attempt_plan,
    begin,
    deliver_all,
    lease,
    outcome,
    query,
    store_url_of,
    stream_plan,
)

A, B, C = stream_plan("a"), stream_plan("b"), stream_plan("c")
INTERRUPTED = Outcome(ok=False, error=None, output="", duration_s=0.0, kind="interrupted")


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as opened:
        yield opened


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_backoff, "BACKOFF_FIRST_S", 0.0)


def done_run(store: Store, plan: AttemptPlan, *, release: bool = True) -> PipelineRun:
    """Run all streams of a plan to their success, side by side, closed in order."""
    run = begin(store, plan)
    assert store.claim(run.id, [stream.stream for stream in plan.streams])
    for stream in plan.streams:
        store.close_stream(run.id, outcome(stream))
    if release:
        store.outbox("p", CALLBACKS).release_gate(run.id)
    return run


def labels(deliveries: list[Delivery]) -> list[str]:
    return [f"{delivery.function}@{delivery.label}" for delivery in deliveries]


def dead_owner(number: int = 1) -> Owner:
    """A process of this machine that is not there any more: this pid, but started at another time."""
    return replace(current_owner(), started=number)


def test_while_retries_are_held_no_delivery_gets_a_second_try(tmp_path: Path) -> None:
    clock = FixedClock()
    with Store.open(f"sqlite:///{tmp_path}/store.db", clock=clock) as store:
        done_run(store, attempt_plan([A, B], parents=["stream"]))
        outbox = store.outbox("p", CALLBACKS)
        first = outbox.lease("alerts")
        assert isinstance(first, Delivery)
        outbox.mark(first, RAISED)
        clock.move(2)
        outbox.hold_retries()
        again = outbox.lease("alerts")
        assert isinstance(again, Delivery), "its retry was due before"
        assert (again.key, outbox.mark(again, RAISED)) == (first.key, "retry")
        clock.move(10)
        assert isinstance(outbox.lease("alerts"), NotDue)
        outbox.hold_retries()
        third = outbox.lease("alerts")
        assert isinstance(third, Delivery)
        assert (third.key, third.attempt) == (first.key, 3)


def test_a_delivery_carries_the_kwargs_of_the_contract(store: Store) -> None:
    run = store.begin_run(
        "p", execution_date=DATE, trigger="207", event={"k": [1]}, variables={"region": "eu", "index": "lost"}
    )
    store.begin_attempt(run.id, attempt_plan([A, B], ["stream"]))
    store.claim(run.id, ["a", "b"])
    store.close_stream(run.id, outcome(A))
    delivery = lease(store)
    assert (delivery.file, delivery.timeout_s, delivery.attempt, delivery.attempts) == (
        "/somewhere/alerts.py",
        7.0,
        1,
        3,
    )
    assert (delivery.data, delivery.label) == ("/spool/a/export.arrow", "export:a")
    kwargs = dict(delivery.kwargs)
    block_run = kwargs.pop("block_run")
    pipeline_run = kwargs.pop("pipeline_run")
    assert kwargs == {
        "block_uuid": "alerts",
        "parent_block_uuid": EXPORTER,
        "ds": "2023-04-26",
        "hr": "20",
        "execution_date": DATE.isoformat(),
        "execution_partition": "207/20230426T202817",
        "event": {"k": [1]},
        "pipeline_run_id": run.id,
        "trigger_name": "207",
        "env": "dev",
        "configuration": {},
        "interval_start_datetime": None,
        "interval_end_datetime": None,
        "interval_seconds": None,
        "interval_start_datetime_previous": None,
        "pipeline_uuid": "p",
        "stream": "a",
        "destination_table": "table_a",
        "index": 0,
        "is_last_block_run": False,
        "retry": {"attempts": 1},
        "idempotency_key": delivery.key,
        "region": "eu",
    }
    assert len(delivery.key) == 32
    assert block_run["uuid"] == "export:a"
    assert (block_run["status"], block_run["rows"], block_run["bytes"]) == ("success", 3, 40)
    assert (block_run["bookmark_before"], block_run["bookmark_after"]) == ({"id": 1}, {"id": 4})
    assert (pipeline_run["id"], pipeline_run["status"], pipeline_run["attempt"]) == (run.id, "running", 1)
    assert repr(hydrate(delivery.kwargs)["pipeline_run"]) == (
        f"PipelineRun(id={run.id}, pipeline_uuid=p, execution_date={DATE})"
    )
    assert store.run_kwargs(run)["region"] == "eu"
    assert store.run_kwargs(run)["execution_date"] == DATE.isoformat()


def test_the_streams_event_fails_with_any_block_and_names_it(store: Store) -> None:
    run = begin(store, attempt_plan([A, B], ["stream"], allow_blocks_to_fail=True))
    store.claim(run.id, ["a", "b"])
    store.close_stream(run.id, outcome(A, failed_block=LOADER))
    store.close_stream(run.id, outcome(B, "cancelled"))
    store.outbox("p", CALLBACKS).release_gate(run.id)
    failed, cancelled = deliver_all(store.outbox("p", CALLBACKS))
    assert failed.kwargs["__error"]["block"] == LOADER
    assert failed.kwargs["parent_block_uuid"] == EXPORTER
    assert (failed.kwargs["index"], failed.kwargs["block_run"]["status"]) == (0, "cancelled")
    assert failed.data is None
    assert "__error" not in cancelled.kwargs
    assert cancelled.kwargs["is_last_block_run"] is True


def test_events_come_in_the_order_of_ending_and_functions_in_firing_order(store: Store) -> None:
    run = done_run(store, attempt_plan([B, A], [LOADER, "stream", "pipeline"], functions=("one", "two")))
    assert labels(deliver_all(store.outbox("p", CALLBACKS))) == [
        *("one@load:b", "two@load:b", "one@export:b", "two@export:b"),
        *("one@load:a", "two@load:a", "one@export:a", "two@export:a"),
        *("one@pipeline", "two@pipeline"),
    ]
    assert store.outbox("p", CALLBACKS).lease("alerts") == NothingOpen()
    assert store.outbox("p", CALLBACKS).deliveries.counts([run.id]) == {"due": 0, "done": 10, "dead": 0}


def test_the_last_events_know_the_final_status(store: Store) -> None:
    run = begin(store, attempt_plan([A, B], [EXPORTER, "pipeline"]))
    store.claim(run.id, ["a", "b"])
    store.close_stream(run.id, outcome(A))
    assert lease(store).kwargs["pipeline_run"]["status"] == "running"
    store.close_stream(run.id, outcome(B))
    outbox = store.outbox("p", CALLBACKS)
    outbox.release_gate(run.id)
    # The first lease was never marked; another outbox has to wait for it, so read past the queue.
    query(store.url, "UPDATE _syncblocks_delivery SET state = 'ready'")
    statuses = [delivery.kwargs["pipeline_run"]["status"] for delivery in deliver_all(outbox)]
    assert statuses == ["success"] * 3


def test_the_last_events_wait_behind_the_gate(store: Store) -> None:
    run = done_run(store, attempt_plan([A, B], [LOADER, EXPORTER, "pipeline"]), release=False)
    outbox = store.outbox("p", CALLBACKS)
    assert labels(deliver_all(outbox)) == ["tell@load:a", "tell@export:a"]
    assert outbox.lease("alerts") == NotDue(outbox_module.LOOK_AGAIN_S)
    outbox.release_gate(run.id)
    outbox.release_gate(run.id)
    assert labels(deliver_all(outbox)) == ["tell@load:b", "tell@export:b", "tell@pipeline"]


@pytest.mark.parametrize("parent", ["pipeline", "clean"])
def test_the_gate_holds_what_nothing_else_would_hold(store: Store, parent: str) -> None:
    # Alone in its queue the event of `pipeline` waits for nobody; "clean" is in the last close, but not the last.
    run = done_run(store, attempt_plan([stream_plan("a", "clean", "mask")], [parent]), release=False)
    outbox = store.outbox("p", CALLBACKS)
    assert outbox.lease("alerts") == NotDue(outbox_module.LOOK_AGAIN_S)
    outbox.release_gate(run.id)
    assert len(deliver_all(outbox)) == 1


def test_a_last_flag_before_the_end_waits_behind_the_gate_too(store: Store) -> None:
    with_it = stream_plan("a", "clean")
    run = begin(store, attempt_plan([with_it, B], ["clean"]))
    store.claim(run.id, ["a"])
    store.close_stream(run.id, outcome(with_it))
    outbox = store.outbox("p", CALLBACKS)
    assert outbox.lease("alerts") == NotDue(outbox_module.LOOK_AGAIN_S)
    store.claim(run.id, ["b"])
    store.close_stream(run.id, outcome(B))
    outbox.release_gate(run.id)
    assert lease(store).kwargs["is_last_block_run"] is True


def test_an_event_whose_flag_is_not_certain_is_not_delivered(store: Store) -> None:
    run = begin(store, attempt_plan([A, B], ["stream"]))
    store.claim(run.id, ["a"])
    store.close_stream(run.id, outcome(A))
    outbox = store.outbox("p", CALLBACKS)
    assert outbox.lease("alerts") == NotDue(outbox_module.LOOK_AGAIN_S)
    store.claim(run.id, ["b"])
    assert lease(store).kwargs["is_last_block_run"] is False


def test_a_failed_try_is_passed_over_by_others_and_waited_for_by_the_last(store_url: str, tmp_path: Path) -> None:
    clock = FixedClock()
    with Store.open(f"sqlite:///{tmp_path}/clocked.db", clock=clock) as store:
        done_run(store, attempt_plan([A, B, C], ["stream", "pipeline"]))
        outbox = store.outbox("p", CALLBACKS)
        first = outbox.lease("alerts")
        assert isinstance(first, Delivery)
        assert outbox.mark(first, RAISED) == "retry"
        while isinstance(second := outbox.lease("alerts"), Delivery) and second.key == first.key:
            outbox.mark(second, RAISED)  # full jitter may be no pause at all
        assert isinstance(second, Delivery)
        assert second.label == "export:b"
        outbox.mark(second, OK)
        again = outbox.lease("alerts")
        if not isinstance(again, Delivery):
            assert isinstance(again, NotDue)
            assert 0 <= again.wait_s <= 300
            clock.move(300)
            again = outbox.lease("alerts")
        assert isinstance(again, Delivery)
        assert again.key == first.key
        assert again.kwargs["idempotency_key"] == first.kwargs["idempotency_key"]
        assert again.kwargs["retry"]["attempts"] > 1
        outbox.mark(again, OK)
        assert labels(deliver_all(outbox)) == ["tell@export:c", "tell@pipeline"]


def test_a_retry_waits_no_longer_because_the_clock_went_back(tmp_path: Path) -> None:
    clock = FixedClock()
    with Store.open(f"sqlite:///{tmp_path}/clocked.db", clock=clock) as store:
        clock.move(30 * 86400)  # of a machine that has started with a wrong one
        done_run(store, attempt_plan([A], ["stream"]))
        outbox = store.outbox("p", CALLBACKS)
        first = outbox.lease("alerts")
        assert isinstance(first, Delivery)
        outbox.mark(first, RAISED)
        clock.move(-30 * 86400)
        again = outbox.lease("alerts")
        assert isinstance(again, Delivery)
        assert again.key == first.key


def test_the_last_event_goes_ahead_once_the_others_are_dead(store: Store, no_backoff: None) -> None:
    run = done_run(store, attempt_plan([A, B], ["stream"]))
    outbox = store.outbox("p", AnyCallbacks(2))
    for number, verdict in ((1, "retry"), (2, "dead")):
        delivery = outbox.lease("alerts")
        assert isinstance(delivery, Delivery)
        assert (delivery.label, delivery.attempt) == ("export:a", number)
        # Another outbox of this process marks nothing that it has not leased.
        assert store.outbox("p", CALLBACKS).mark(delivery, OK) == "retry"
        assert outbox.mark(delivery, RAISED) == verdict
    assert labels(deliver_all(outbox)) == ["tell@export:b"]
    (dead,) = outbox.deliveries.records(run_id=run.id, states=["dead"])
    assert (dead.stream, dead.state, dead.status) == ("a", "dead", "success")
    assert [(one.outcome, one.error, one.output) for one in dead.tries] == [
        ("raised", "ValueError: no", "printed\n")
    ] * 2
    assert outbox.deliveries.counts([run.id]) == {"due": 0, "done": 1, "dead": 1}


def test_dead_deliveries_are_retried_by_run_or_by_key(store: Store, no_backoff: None) -> None:
    run = done_run(store, attempt_plan([A, B], ["stream"]))
    outbox = store.outbox("p", AnyCallbacks(1))
    while isinstance(delivery := outbox.lease("alerts"), Delivery):
        assert outbox.mark(delivery, RAISED) == "dead"
    assert outbox.deliveries.retry(run_id=run.id + 1) == 0
    assert outbox.deliveries.retry(key=outbox.deliveries.records(states=["dead"])[0].key) == 1
    (again,) = deliver_all(outbox)
    assert (again.label, again.attempt) == ("export:a", 1)
    assert outbox.deliveries.retry(run_id=run.id) == 1
    assert labels(deliver_all(outbox)) == ["tell@export:b"]
    assert outbox.deliveries.records(states=["dead"]) == []
    assert [len(one.tries) for one in outbox.deliveries.records(run_id=run.id)] == [2, 2]


def test_queues_of_callback_blocks_do_not_wait_for_each_other(store: Store) -> None:
    done_run(store, attempt_plan([A, B], ["stream"], callback_blocks=("alerts", "finish")))
    outbox = store.outbox("p", CALLBACKS)
    stuck = lease(store, "alerts")
    assert labels(deliver_all(outbox, "finish")) == ["tell@export:a", "tell@export:b"]
    assert outbox.lease("alerts") == NotDue(outbox_module.LOOK_AGAIN_S)
    assert outbox.deliveries.open_blocks() == ("alerts",)
    assert outbox.lease("unknown") == NothingOpen()
    assert stuck.label == "export:a"


def test_the_lease_of_a_dead_owner_is_void_at_once_and_not_counted_up_to_ten(store: Store, store_url: str) -> None:
    done_run(store, attempt_plan([A], ["stream"]))
    for number in range(1, 12):
        with Store.open(store_url, owner=dead_owner(number)) as other:
            delivery = other.outbox("p", AnyCallbacks(2)).lease("alerts")
            assert isinstance(delivery, Delivery), number
            # The ones before the tenth use up no attempt; the tenth does.
            assert delivery.attempt == (1 if number <= 10 else 2)
    assert store.outbox("p", AnyCallbacks(2)).lease("alerts") == NothingOpen()
    (dead,) = store.outbox("p", CALLBACKS).deliveries.records(states=["dead"])
    assert [one.outcome for one in dead.tries] == ["lost"] * 11
    assert store.outbox("p", CALLBACKS).deliveries.retry(key=dead.key) == 1
    assert lease(store).attempt == 1


def test_a_lease_of_a_living_owner_stands_until_it_is_over(tmp_path: Path) -> None:
    clock = FixedClock()
    url = f"sqlite:///{tmp_path}/store.db"
    elsewhere = replace(current_owner(), boot_id="another", host="other")
    with Store.open(url, clock=clock) as store, Store.open(url, clock=clock, owner=elsewhere) as other:
        done_run(store, attempt_plan([A], ["stream"]))
        theirs = other.outbox("p", CALLBACKS).lease("alerts")
        assert isinstance(theirs, Delivery)
        outbox = store.outbox("p", CALLBACKS)
        clock.move(theirs.timeout_s + outbox_module.LEASE_GRACE_S - 1)
        assert outbox.lease("alerts") == NotDue(outbox_module.LOOK_AGAIN_S)
        clock.move(2)
        mine = outbox.lease("alerts")
        assert isinstance(mine, Delivery)
        assert mine.key == theirs.key
        assert outbox.mark(mine, OK) == "done"
        assert other.outbox("p", CALLBACKS).mark(theirs, RAISED) == "done"


def test_a_lease_of_a_clock_that_was_ahead_is_void(tmp_path: Path) -> None:
    """Its queue stood until that time had come, if its process could not be seen to be dead."""
    clock = FixedClock()
    url = f"sqlite:///{tmp_path}/store.db"
    elsewhere = replace(current_owner(), boot_id="another", host="other")
    with Store.open(url, clock=clock) as store, Store.open(url, clock=clock, owner=elsewhere) as other:
        clock.move(86400)
        done_run(store, attempt_plan([A], ["stream"]))
        theirs = other.outbox("p", CALLBACKS).lease("alerts")
        assert isinstance(theirs, Delivery)
        clock.move(-86400)
        mine = store.outbox("p", CALLBACKS).lease("alerts")
        assert isinstance(mine, Delivery)
        assert mine.key == theirs.key


def test_a_call_that_the_engine_cuts_short_uses_up_no_attempt(store: Store) -> None:
    done_run(store, attempt_plan([A], ["stream"]))
    outbox = store.outbox("p", AnyCallbacks(1))
    for _ in range(3):
        delivery = outbox.lease("alerts")
        assert isinstance(delivery, Delivery)
        assert delivery.attempt == 1
        assert outbox.mark(delivery, INTERRUPTED) == "retry"
    assert len(deliver_all(outbox)) == 1


def test_a_lease_that_was_never_marked_is_void_for_its_own_outbox(store: Store) -> None:
    done_run(store, attempt_plan([A], ["stream"]))
    outbox = store.outbox("p", CALLBACKS)
    first = outbox.lease("alerts")
    second = outbox.lease("alerts")
    assert isinstance(first, Delivery)
    assert isinstance(second, Delivery)
    assert (first.key, first.attempt, second.key, second.attempt) == (second.key, 1, first.key, 2)


def test_output_that_no_database_takes_is_kept_escaped(store: Store) -> None:
    run = done_run(store, attempt_plan([A], ["stream"]))
    outbox = store.outbox("p", CALLBACKS)
    delivery = outbox.lease("alerts")
    assert isinstance(delivery, Delivery)
    outbox.mark(delivery, replace(OK, output="a\0b\udce9"))
    (record,) = outbox.deliveries.records(run_id=run.id)
    assert record.tries[0].output == "a\\0b\\udce9"


def test_only_the_owner_opens_the_gate(store: Store, store_url: str) -> None:
    run = done_run(store, attempt_plan([A], ["stream"]), release=False)
    with Store.open(store_url, owner=dead_owner()) as other, pytest.raises(LostRun):
        other.outbox("p", CALLBACKS).release_gate(run.id)


def test_a_finished_run_holds_no_gate(store: Store) -> None:
    run = done_run(store, attempt_plan([A], ["stream", "pipeline"]), release=False)
    store.finish_run(run.id)
    assert len(deliver_all(store.outbox("p", CALLBACKS))) == 2


def test_events_of_an_earlier_run_come_first(store: Store) -> None:
    first = done_run(store, attempt_plan([A], ["stream"]))
    store.finish_run(first.id)
    second = done_run(store, attempt_plan([B], ["stream"]))
    found = [delivery.kwargs["pipeline_run"]["id"] for delivery in deliver_all(store.outbox("p", CALLBACKS))]
    assert found == [first.id, second.id]


def test_a_later_attempt_has_other_keys(store: Store) -> None:
    run = done_run(store, attempt_plan([A], ["stream"]))
    first = deliver_all(store.outbox("p", CALLBACKS))
    store.finish_run(run.id)
    store.begin_retry(run.id, plan=attempt_plan([A], ["stream"]))
    store.claim(run.id, ["a"])
    store.close_stream(run.id, outcome(A))
    store.outbox("p", CALLBACKS).release_gate(run.id)
    second = deliver_all(store.outbox("p", CALLBACKS))
    assert len({delivery.key for delivery in [*first, *second]}) == 2
    assert second[0].kwargs["pipeline_run"]["attempt"] == 2


def test_data_is_needed_until_its_last_delivery(store: Store) -> None:
    run = done_run(store, attempt_plan([A], [LOADER, "stream", "pipeline"]))
    outbox = store.outbox("p", CALLBACKS)
    assert outbox.deliveries.open_data() == {"/spool/a/load.arrow", "/spool/a/export.arrow"}
    delivery = outbox.lease("alerts")
    assert isinstance(delivery, Delivery)
    outbox.mark(delivery, OK)
    assert outbox.deliveries.open_data() == {"/spool/a/export.arrow"}
    deliver_all(outbox)
    assert outbox.deliveries.open_data() == frozenset()
    assert run.id


def test_backoff_doubles_up_to_five_minutes() -> None:
    for attempt, limit in ((1, 1.0), (2, 2.0), (5, 16.0), (9, 256.0), (10, 300.0), (1000, 300.0)):
        pauses = [delivery_backoff.backoff_s(attempt) for _ in range(300)]
        assert 0 <= min(pauses) < limit / 4
        assert limit / 2 < max(pauses) <= limit
