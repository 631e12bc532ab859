"""Runs past the limits of a pipeline's history go with all their rows; what something needs stays."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks.callbacks.protocols import Delivery, NothingOpen
from syncblocks.sync.store import Store, prune
from syncblocks.sync.store.table_names import RUN_LOG, TABLES
from syncblocks.sync.store.ticks import OrderedBy, TickOptions
from tests.sync.store.prune_engine import ROWS
from tests.sync.store.store_helpers import (
    CALLBACKS,
    RAISED,
    STORES,
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
from tests.zygote import Zygote

_OF_NO_RUN = ("version", "state", "range_claim", "expectation", "alert", "schedule", "server")
_OF_SERVERS = ("token", "session", "action")
OF_RUN = [table for table in TABLES if not table.endswith((*_OF_NO_RUN, *_OF_SERVERS))]
DAY_S = 86_400


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def store(tmp_path: Path, clock: FixedClock) -> Iterator[Store]:
    """A SQLite store whose time the test moves."""
    with Store.open(f"sqlite:///{tmp_path}/store.db", clock=clock) as opened:
        yield opened


def run_once(
    store: Store, pipeline: str = "p", *, delivers: bool = True, tick: int | None = None, **streams: str
) -> int:
    """Run a pipeline to its end; `streams`: how each ends."""
    plans = [stream_plan(name) for name in streams or {"a": "success"}]
    run = begin(store, attempt_plan(plans, ["stream"]), pipeline, tick=tick)
    store.claim(run.id, [plan.stream for plan in plans])
    for plan in plans:
        status = streams.get(plan.stream, "success")
        store.close_stream(run.id, outcome(plan, failed_block="load" if status == "failure" else None))
    store.end_attempt(run.id)
    outbox = store.outbox(pipeline, CALLBACKS)
    outbox.release_gate(run.id)
    if delivers:
        deliver_all(outbox)
    store.save_log(run.id, run.attempt, "a line\n", {"streams": []})
    store.finish_run(run.id)
    return run.id


def prune_all(store: Store, pipeline: str = "p", **limits: Any) -> int:
    """Prune as the engine does; return how many runs stay although they are past the limits."""
    limits = {"keep": None, "keep_runs": None, **limits}
    held = after = 0
    while True:
        past = store.past_runs(pipeline, after=after, **limits)
        store.remove_runs(past.runs)
        held += past.held
        if past.last is None:
            break
        after = past.last
    while ticks := store.ticks_without_run(pipeline, **limits):
        store.remove_ticks(ticks)
    while store.remove_actions(pipeline, **limits):
        pass
    return held


def bury(store: Store, clock: FixedClock) -> None:
    """Let each due delivery fail until it is dead."""
    outbox = store.outbox("p", CALLBACKS)
    while not isinstance(found := outbox.lease("alerts"), NothingOpen):
        if isinstance(found, Delivery):
            outbox.mark(found, RAISED)
        else:
            clock.move(4000)


def left(store: Store, pipeline: str = "p") -> list[int]:
    return [run.id for run in reversed(store.runs(pipeline, limit=10_000))]


def row_counts(url: str) -> dict[str, int]:
    return {table: query(url, f"SELECT count(*) FROM {table}")[0][0] for table in OF_RUN}


def orphans(url: str) -> dict[str, int]:
    """Rows whose run or delivery is gone."""
    found = {
        table: query(url, f"SELECT count(*) FROM {table} WHERE run_id NOT IN (SELECT id FROM _syncblocks_pipeline_run)")
        for table in OF_RUN
        if not table.endswith(("pipeline_run", "delivery_try"))
    }
    found["tries"] = query(
        url,
        "SELECT count(*) FROM _syncblocks_delivery_try "
        "WHERE idempotency_key NOT IN (SELECT idempotency_key FROM _syncblocks_delivery)",
    )
    return {name: number for name, ((number,),) in found.items() if number}


def test_the_newest_runs_stay_and_the_others_go_with_every_row(url: str) -> None:
    with Store.open(url) as store:
        first = row_counts(url)
        kept = [run_once(store, "other"), *[run_once(store) for _ in range(6)][-2:]]
        assert prune_all(store, keep_runs=2) == 0
        assert [*left(store, "other"), *left(store)] == kept
        assert orphans(url) == {}
        pruned = row_counts(url)
        for _ in range(3):
            run_once(store)
            prune_all(store, keep_runs=2)
        assert row_counts(url) == pruned
        assert store.runs("p")[0].id == kept[-1] + 3  # a number is not given to another run
        assert all(pruned[table] > number for table, number in first.items() if "tick" not in table)


def test_a_run_of_many_rows_goes_in_several_transactions(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "MOST_ROWS", 7)
    with Store.open(url) as store:
        many = {f"s{number}": "success" for number in range(4)}
        for _ in range(3):
            run_once(store, **many)
        past = store.past_runs("p", keep=None, keep_runs=1)
        assert len(past.runs) == 2
        assert store.remove_runs(past.runs) == 2
        assert (len(left(store)), orphans(url)) == (1, {})


def test_a_run_goes_when_it_is_past_either_limit(store: Store, clock: FixedClock) -> None:
    runs = []
    for _ in range(6):
        runs.append(run_once(store))
        clock.move(DAY_S)
    prune_all(store, keep=timedelta(days=30), keep_runs=5)
    assert left(store) == runs[1:]
    prune_all(store, keep=timedelta(days=3), keep_runs=5)
    assert left(store) == runs[-3:]
    clock.move(100 * DAY_S)
    prune_all(store, keep=timedelta(days=3))
    assert left(store) == runs[-1:]


def test_the_newest_success_and_the_newest_end_of_each_stream_stay(store: Store) -> None:
    success = run_once(store, a="success", b="success")
    run_once(store, a="success", b="failure")
    failed = run_once(store, a="success", b="failure")
    run_once(store, "other", b="success")
    newest = [run_once(store, a="success") for _ in range(4)]
    assert prune_all(store, keep_runs=1) == 2
    assert left(store) == [success, failed, newest[-1]]
    run_once(store, b="success")
    assert prune_all(store, keep_runs=1) == 1
    assert left(store) == [newest[-1], newest[-1] + 1]


def test_due_deliveries_hold_their_run_and_dead_ones_for_a_year(store: Store, clock: FixedClock) -> None:
    old, newest = (run_once(store, delivers=False) for _ in range(2))
    assert prune_all(store, keep_runs=1) == 1
    bury(store, clock)
    assert store.outbox("p").deliveries.counts([old])["dead"] == 1
    assert prune_all(store, keep_runs=1) == 1
    clock.move(366 * DAY_S)
    assert prune_all(store, keep_runs=1) == 0
    assert left(store) == [newest]


def test_a_dead_delivery_that_is_made_due_meanwhile_keeps_its_run(
    store: Store, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first transaction of a prune: what is left of the run still tells of it."""
    run_id = run_once(store, delivers=False, a="success", b="success")
    outbox = store.outbox("p", CALLBACKS)
    bury(store, clock)
    run_once(store, a="success", b="success")
    clock.move(400 * DAY_S)
    monkeypatch.setattr(prune, "MOST_ROWS", 2)
    past = store.past_runs("p", keep=None, keep_runs=1)
    assert [run.id for run in past.runs] == [run_id]
    assert outbox.deliveries.retry() == 2
    assert store.remove_runs(past.runs) == 0
    assert {delivery.kwargs["pipeline_run_id"] for delivery in deliver_all(outbox)} == {run_id}


def test_an_active_run_stays_though_its_process_is_dead(store: Store) -> None:
    run_once(store)
    active = begin(store, attempt_plan([stream_plan("a")]))
    assert prune_all(store, keep_runs=1) == 1  # the newest success
    assert left(store) == [active.id - 1, active.id]


def test_ticks_go_with_their_runs_and_orders_are_known_for_a_week(store: Store, clock: FixedClock) -> None:
    def ordered(kind: str, key: str) -> int:
        tick = store.order_tick("p", key, kind=kind, trigger="0", causes=(), options=TickOptions())  # type: ignore[arg-type]
        assert store.claim_tick(tick.id) is not None
        return tick.id

    scheduled = [ordered("schedule", f"2026-01-0{day}") for day in (1, 2)]
    of_schedule = [run_once(store, tick=tick) for tick in scheduled]
    order = ordered("api", "key")
    of_order = run_once(store, tick=order)
    refused = ordered("api", "refused")
    store.refuse_tick(refused, "no")
    clock.move(1)
    newest = [run_once(store) for _ in range(3)][-1]
    waiting = store.order_tick("p", "waits", trigger="0", causes=())
    assert prune_all(store, keep_runs=1) == 2
    assert left(store) == [of_schedule[1], of_order, newest]
    assert store.order_tick("p", "key", kind="api", trigger="0", causes=()).run_id == of_order
    clock.move(8 * DAY_S)
    assert prune_all(store, keep_runs=1) == 1
    assert left(store) == [of_schedule[1], newest]  # the next tick's interval begins there
    url = store.url if store.url.startswith("sqlite") else f"sqlite:///{store.url}"
    assert query(url, "SELECT id FROM _syncblocks_tick ORDER BY id") == [(scheduled[1],), (waiting.id,)]


def test_actions_go_with_the_runs_of_their_time(store: Store, clock: FixedClock) -> None:
    by = OrderedBy(who="x")
    for key in "abc":
        store.order_tick(key if key == "c" else "p", key, trigger="", causes=(), kind="api", by=by)
        clock.move(60)
    prune_all(store, keep_runs=1)
    assert len(store.actions.of_pipeline("p")) == 2
    clock.move(86_400)
    store.order_tick("p", "d", trigger="", causes=(), kind="api", by=by)
    prune_all(store, keep=timedelta(hours=1))
    assert [action.id for action in store.actions.of_pipeline("p")] == [4]
    assert len(store.actions.of_pipeline("c")) == 1


def test_a_run_that_a_callback_ordered_is_known_until_the_delivery_is_done(store: Store, clock: FixedClock) -> None:
    """Delivered again, the callback starts nothing twice."""
    run_once(store, "caller", delivers=False)
    delivery = lease(store, pipeline="caller")
    tick = store.order_tick("p", f"{delivery.key}:1", trigger="0", causes=("caller",))
    assert store.claim_tick(tick.id) is not None
    ordered = run_once(store, tick=tick.id)
    newest = run_once(store)
    clock.move(8 * DAY_S)
    assert prune_all(store, keep_runs=1) == 1
    assert left(store) == [ordered, newest]
    deliver_all(store.outbox("caller", CALLBACKS))
    assert prune_all(store, keep_runs=1) == 0
    assert left(store) == [newest]


@pytest.mark.parametrize("point", ["inside", "after"])
def test_a_prune_that_is_killed_leaves_a_sound_store(point: str, url: str, zygote: Zygote) -> None:
    """In the middle of a run, and between two transactions."""
    with Store.open(url) as store:
        for _ in range(4):
            run_once(store, a="success", b="success")
        before = sum(row_counts(url).values())
    killed = zygote.module("tests.sync.store.prune_engine", url, failpoint=f"store.prune.{point}:3:kill")
    assert killed.returncode == -signal.SIGKILL
    committed = 3 if point == "after" else 2
    assert 0 < before - sum(row_counts(url).values()) <= committed * (ROWS + 2)  # and the last rows of a run
    with Store.open(url) as store:
        assert store.mend("p") == ()
        runs = left(store)
        assert runs[-1] == 4
        for run_id in runs:
            store.block_runs(run_id)
            store.attempt_plan_of(run_id)
        run_once(store, a="success", b="success")
        prune_all(store, keep_runs=1)
        assert (left(store), orphans(url)) == ([5], {})


def test_a_prune_waits_for_no_lock_of_a_run(postgres_url: str) -> None:
    """It passes over what another prune has locked, and looks at no row that an active run locks."""
    with Store.open(postgres_url) as store, psycopg.connect(postgres_url) as other:
        runs = [run_once(store) for _ in range(3)]
        active = begin(store, attempt_plan([stream_plan("a")]))
        for table in ("attempt", "stream_run", "delivery", "event", "block_run"):
            other.execute(f"SELECT 1 FROM _syncblocks_{table} WHERE run_id = {active.id} FOR UPDATE")
        other.execute(f"SELECT 1 FROM _syncblocks_pipeline_run WHERE id IN ({active.id}, {runs[0]}) FOR UPDATE")
        assert prune_all(store, keep_runs=1) == 1
        assert left(store) == [runs[0], runs[2], active.id]
        other.rollback()
        prune_all(store, keep_runs=1)
        assert left(store) == [runs[2], active.id]


@pytest.mark.full
def test_hundreds_of_short_runs_leave_a_store_of_one_size(url: str) -> None:
    with Store.open(url) as store:
        counts = []
        for number in range(1, 401):
            run_once(store)
            prune_all(store, keep_runs=50)
            if number % 80 == 0:
                counts.append(row_counts(url))
        assert counts == [counts[0]] * 5
        assert len(left(store)) == 50
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            assert connection.execute("pragma page_count").fetchone()[0] < 500


def test_what_holds_a_run_is_found_by_the_index_of_its_streams(store: Store) -> None:
    statement = f"EXPLAIN QUERY PLAN {prune._HELD.format(is_one='r.id = :run_id')}"
    with store._transactions.read() as connection:
        steps = [row.detail for row in connection.rows(statement, {"run_id": 1, "ended_at": None, "due_at": None})]
    newest = "SEARCH n USING INDEX _syncblocks_runs_of_stream (pipeline=? AND stream=?)"
    assert [step for step in steps if step.startswith(("SCAN", "SEARCH n USING INDEX _syncblocks_runs"))] == [
        newest
    ] * 2


def test_logs_go_in_small_parts_and_leave_none_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "MOST_ROWS", 25)
    monkeypatch.setattr(prune, "LOG_ROWS", 20)
    with Store.open(url) as store:
        first, _ = run_once(store), run_once(store)
        for attempt in range(1, 6):
            store.save_log(first, attempt, "x")
        past = store.past_runs("p", keep=None, keep_runs=1)
        assert store.remove_runs(past.runs) == 1
        assert (len(left(store)), orphans(url)) == (1, {})
        assert query(url, f"SELECT * FROM {RUN_LOG} WHERE run_id = {first}") == []
