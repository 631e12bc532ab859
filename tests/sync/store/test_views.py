"""What pages read of a store, and that it costs the same after many runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncblocks.callbacks.protocols import Delivery
from syncblocks.sync.schedules import Schedule
from syncblocks.sync.store import Store
from syncblocks.sync.store.ticks import OrderedBy
from syncblocks.sync.store.views import BY_HAND, MOST_SEARCHED, Recent, RunFilter
from tests.sync.store.store_helpers import (
    RAISED,
    STORES,
    AnyCallbacks,
    FixedClock,
    attempt_plan,
    begin,
    outcome,
    query,
    store_url_of,
    stream_plan,
)
from tests.sync.store.test_growth import copy_rows, steps_of

ALL = RunFilter()


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url, clock=FixedClock()) as found:
        yield found


def ran(store: Store, pipeline: str = "p", *, failed: str | None = None, tick: int | None = None) -> int:
    """Let a run of two streams end; in one of them a block may fail."""
    plans = [stream_plan("a"), stream_plan("b")]
    run = begin(store, attempt_plan(plans, ("stream",)), pipeline, tick=tick).id
    store.claim(run, ["a", "b"])
    store.close_stream(run, outcome(plans[0]))
    store.close_stream(run, outcome(plans[1], failed_block=failed))
    store.end_attempt(run)
    store.finish_run(run)
    return run


def kill_first(store: Store) -> None:
    """Let the first delivery of the pipeline fail, which has one attempt."""
    outbox = store.outbox("p", AnyCallbacks(attempts=1))
    found = outbox.lease("alerts")
    assert isinstance(found, Delivery)
    assert outbox.mark(found, RAISED) == "dead"


def test_how_pipelines_went_of_late(store: Store) -> None:
    ran(store)
    run = ran(store, failed="export")
    kill_first(store)
    recent = store.views.recent(["p", "none"])
    assert recent["none"] == Recent()
    found = recent["p"]
    assert (found.statuses, found.run_id, found.rows) == (("success", "failure"), run, 6)
    assert (found.dead, found.open) == (1, 3)
    assert found.failure is not None
    assert found.failure.error is not None
    assert (found.failure.stream, found.failure.block, found.failure.error.message) == ("b", "export", "b broke")


def test_runs_are_found_by_status_kind_and_time_and_the_list_continues(store: Store, url: str) -> None:
    tick = store.order_tick("p", "k", trigger="api", causes=(), kind="api", by=OrderedBy(who="x"))
    store.claim_tick(tick.id)
    runs = [ran(store), ran(store, tick=tick.id), ran(store, failed="load"), ran(store)]
    ran(store, "q")
    for number, run in enumerate(runs):
        at = f"'2026-01-01 0{number}:00:00.000000{'' if url.startswith('sqlite') else '+00'}'"
        query(url, f"UPDATE _syncblocks_attempt SET started_at = {at} WHERE run_id = {run}")

    def found(wanted: RunFilter = ALL, **more: int) -> tuple[list[int], int | None]:
        lines = store.views.runs("p", wanted, **more)
        return [runs.index(line.id) for line in lines.runs], lines.before

    assert found() == ([3, 2, 1, 0], None)
    first = found(most=3)
    assert first == ([3, 2, 1], runs[1])
    assert found(most=3, before=runs[1]) == ([0], None)
    assert found(RunFilter(status="failure")) == ([2], None)
    assert (found(RunFilter(kind="api")), found(RunFilter(kind=BY_HAND))) == (([1], None), ([3, 2, 0], None))
    at = datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert found(RunFilter(since=at)) == ([3, 2, 1], None)
    assert found(RunFilter(until=at)) == ([0], None)
    assert found(RunFilter(since=at, until=at + timedelta(hours=1, seconds=1))) == ([2, 1], None)
    assert found(RunFilter(since=at + timedelta(days=1))) == ([], None)
    assert [line.rows for line in store.views.runs("p", ALL).runs] == [6, 6, 6, 6]
    assert store.views.begun_at("p", runs[1]) == at


def test_a_run_that_goes_is_running_or_dead(url: str) -> None:
    with Store.open(url, clock=FixedClock(), liveness=lambda _theirs, _mine: False) as store:
        begin(store, attempt_plan([stream_plan("a")]))
        assert [line.status for line in store.views.runs("p", ALL).runs] == ["dead"]
    with Store.open(url, clock=FixedClock(), liveness=lambda _theirs, _mine: True) as store:
        assert [line.status for line in store.views.runs("p", ALL).runs] == ["running"]


def test_what_lies_between_runs(store: Store) -> None:
    run = ran(store)
    schedules = store.schedules
    schedules.pause("p", "/p.yaml", Schedule(cron="* * * * *"), reason="no", who="page")
    between = store.views.between("p", None, None, [run])
    assert [(each.who, each.what, each.details) for each in between.actions] == [
        ("page", "pause", {"until": None, "reason": "no"})
    ]
    assert {(each.run_id, each.stream, each.changes[0]["column"]) for each in between.changes} == {
        (run, "a", "c"),
        (run, "b", "c"),
    }
    assert store.views.between("p", datetime(2100, 1, 1, tzinfo=UTC), None, []).actions == ()


def test_a_stream_over_time(store: Store) -> None:
    runs = [ran(store), ran(store, failed="load"), ran(store)]
    found, before = store.views.stream_runs("p", "b", most=2)
    assert ([each.run_id for each in found], before) == ([runs[2], runs[1]], runs[1])
    assert [(each.status, each.rows_read, each.rows_written) for each in found] == [
        ("success", 3, 3),
        ("failure", 3, 3),
    ]
    assert (found[0].bookmark_before, found[0].bookmark_after) == ({"id": 1}, {"id": 4})
    assert found[1].error is not None
    assert found[1].error.message == "b broke"
    rest, before = store.views.stream_runs("p", "b", before=before, most=2)
    assert ([each.run_id for each in rest], before) == ([runs[0]], None)
    assert store.views.stream_runs("q", "b") == ((), None)


def test_dead_and_due_deliveries_of_all_pipelines(store: Store) -> None:
    ran(store)
    ran(store, "q")
    kill_first(store)
    (dead,) = store.views.deliveries("dead")
    assert (dead.pipeline, dead.state, dead.outcome, dead.error) == ("p", "dead", "raised", "ValueError: no")
    assert len(store.views.deliveries("open")) == 3
    assert {each.pipeline for each in store.views.deliveries("open", pipeline="q")} == {"q"}
    assert store.views.deliveries("dead", offset=1) == ()


def test_pages_read_the_same_after_many_runs(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store.open(f"sqlite:///{path}") as store, closing(sqlite3.connect(path)) as connection:
        ran(store)
        views = store.views
        looks: list[Callable[[], object]] = [
            lambda: views.recent(["p"]),
            lambda: views.runs("p", ALL, most=5),
            lambda: views.runs("p", RunFilter(status="cancelled"), most=5),
            lambda: views.between("p", None, None, [1]),
            lambda: views.last_ticks(["p"], 5),
            lambda: views.waiting("p"),
            lambda: views.stream_runs("p", "a", most=5),
            lambda: views.deliveries("dead"),
            lambda: views.begun_at("p", 50),
        ]
        found = []
        for start, number in ((100, MOST_SEARCHED), (100_000, MOST_SEARCHED)):
            run = f"{start} + n"
            changes = {"id": run, "is_active": "false", "run_id": run, "run_key": f"'key' || ({run})"}
            for table in ("pipeline_run", "attempt", "stream_run", "block_run"):
                copy_rows(connection, f"_syncblocks_{table}", changes, number)
            connection.commit()
            with store._transactions.read() as reading:  # the store has one connection, which all of them use
                raw = reading._raw
            found.append([steps_of(raw, look) for look in looks])
    assert found[0][0] > 0
    assert [after <= before * 1.1 for before, after in zip(*found, strict=True)] == [True] * len(looks)
