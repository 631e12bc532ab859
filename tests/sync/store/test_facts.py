"""What the run store knows of a pipeline that must be known to say whether it is late."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.schedules import Schedule
from syncblocks.sync.schedules.expect import Expect, Volume
from syncblocks.sync.store import Store
from syncblocks.sync.store.freshness_facts import Asked, Facts, RunRows
from syncblocks.sync.store.owner import current_owner
from syncblocks.sync.store.schedules import Pause
from tests.sync.store.store_helpers import (
    STORES,
    AnyCallbacks,
    FixedClock,
    attempt_plan,
    begin,
    outcome,
    store_url_of,
    stream_plan,
)

A, B = stream_plan("a"), stream_plan("b")
VOLUME = Expect(rows=Volume(1))


class Bench:
    """A store whose clock is moved by hand (PostgreSQL's own goes on by itself)."""

    def __init__(self, store: Store, clock: FixedClock) -> None:
        self.store, self.clock = store, clock

    def run(
        self,
        *names: str,
        failed: str = "",
        is_partial: bool = False,
        is_known: bool = True,
        missing: Iterable[str] = (),
    ) -> int:
        """Run streams to their end; return the run."""
        extra = {**({"is_partial": True} if is_partial else {}), **({"missing_streams": [*missing]} if missing else {})}
        plan = replace(attempt_plan([stream_plan(name) for name in names], parents=()), extra=extra)
        run = begin(self.store, plan)
        self.clock.move(60)
        self.store.claim(run.id, [*names])
        for name in names:
            ended = outcome(stream_plan(name), "failure" if name == failed else "success")
            if not is_known:
                ended = replace(ended, blocks=tuple(replace(block, rows=None) for block in ended.blocks))
            self.store.close_stream(run.id, ended)
        self.store.finish_run(run.id)
        return run.id

    def facts(self, expect: Expect | None = None, **expects: Expect) -> Facts:
        return self.store.fact_reads().facts("p", expect, lambda _names: dict(expects))


@pytest.fixture(params=STORES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    clock = FixedClock()
    with Store.open(store_url_of(request, tmp_path), clock=clock) as store:
        yield Bench(store, clock)


def ends(facts: Facts) -> dict[str, datetime | None]:
    return {name: each.succeeded_at for name, each in facts.streams.items()}


def test_a_pipeline_that_never_ran_has_no_facts(bench: Bench) -> None:
    facts = bench.facts(VOLUME, x=Expect(rows=Volume(1, 3600)))
    assert (facts.run, facts.selected, facts.last_rows, facts.waiting) == (None, (), None, None)
    assert (list(facts.streams), facts.windows) == (["x"], {("x", 3600): 0})


def test_partial_runs_count_for_their_streams_and_select_nothing(bench: Bench) -> None:
    bench.run("a", "b")
    first = bench.facts(VOLUME)
    assert (first.selected, first.last_rows) == (("a", "b"), RunRows(ends(first)["b"], 6))  # type: ignore[arg-type]
    bench.run("b", is_partial=True)
    second = bench.facts(VOLUME)
    assert (second.selected, second.last_rows) == (("a", "b"), first.last_rows)
    assert ends(second)["a"] == ends(first)["a"]
    assert (ends(second)["b"] or second.now) > (ends(first)["b"] or second.now)


def test_a_stream_that_fails_keeps_its_last_success(bench: Bench) -> None:
    bench.run("a", "b")
    before = ends(bench.facts())
    bench.run("a", "b", failed="b")
    facts = bench.facts()
    assert ends(facts)["b"] == before["b"] != ends(facts)["a"]
    assert facts.run is not None
    assert (facts.run.status, facts.run.is_active) == ("failure", False)


def test_a_stream_without_success_has_the_time_of_its_first_plan(bench: Bench) -> None:
    bench.run("a")
    planned = bench.store.run(bench.run("a", "new", failed="new")).started_at
    bench.run("a", "new", failed="new")
    new = bench.facts().streams["new"]
    assert (new.succeeded_at, new.planned_at) == (None, planned)


def test_a_success_is_found_however_many_runs_have_failed_since(bench: Bench) -> None:
    bench.run("a", "b")
    before = ends(bench.facts())
    for _ in range(22):
        bench.run("b", failed="b", is_partial=True)
    bench.run("a", is_partial=True)
    facts = bench.facts()
    assert (facts.selected, ends(facts)["b"]) == (("a", "b"), before["b"])
    assert (ends(facts)["a"] or facts.now) > (before["a"] or facts.now)


def test_unknown_figures_are_unknown_sums(bench: Bench) -> None:
    in_hour = Expect(rows=Volume(1, 3600))
    bench.run("a", "b")
    assert bench.facts(in_hour, a=in_hour).windows == {("", 3600): 6, ("a", 3600): 3}
    bench.run("b", is_known=False)
    facts = bench.facts(in_hour, a=in_hour)
    assert facts.windows == {("", 3600): None, ("a", 3600): 3}
    last = bench.facts(VOLUME).last_rows
    assert last is not None
    assert last.rows is None


def test_backfills_count_for_nothing(bench: Bench) -> None:
    bench.run("a")
    before = bench.facts(VOLUME, a=Expect(rows=Volume(1, 3600)))
    tick = bench.store.order_tick("p", "1", trigger="0", causes=(), kind="backfill")
    assert bench.store.claim_tick(tick.id)
    run = begin(bench.store, attempt_plan([A, B], parents=()), tick=tick.id)
    bench.clock.move(60)
    bench.store.claim(run.id, ["a", "b"])
    for plan in (A, B):
        bench.store.close_stream(run.id, outcome(plan))
    bench.store.finish_run(run.id)
    after = bench.facts(VOLUME, a=Expect(rows=Volume(1, 3600)))
    assert (after.selected, after.last_rows, ends(after)) == (("a",), before.last_rows, ends(before))
    assert after.windows == before.windows == {("a", 3600): 3}


def test_missing_streams_are_those_of_the_last_run_of_all_streams(bench: Bench) -> None:
    bench.run("a", "b")
    bench.run("a", missing=["b"])
    bench.run("a", is_partial=True)
    assert bench.facts().missing == ("b",)
    bench.run("a", "b")
    assert bench.facts().missing == ()


def test_deliveries_are_due_unless_a_living_process_has_them(bench: Bench) -> None:
    run = begin(bench.store, attempt_plan([A]))
    bench.store.claim(run.id, ["a"])
    bench.store.close_stream(run.id, outcome(A))
    bench.store.finish_run(run.id)
    due = bench.facts().due_deliveries
    assert due > 1
    bench.store.outbox("p", AnyCallbacks()).lease("alerts")
    assert (bench.facts().due_deliveries, bench.facts().dead_deliveries) == (due - 1, 0)


def test_a_run_of_a_dead_process_is_dead(bench: Bench) -> None:
    begin(bench.store, attempt_plan([A]))
    facts = bench.facts()
    assert facts.is_running
    gone = replace(current_owner(), started=1)
    with Store.open(bench.store.url, clock=bench.clock, owner=gone) as other:
        other.begin_run("q", execution_date=facts.now)
    dead = bench.store.fact_reads().facts("q")
    assert dead.run is not None
    assert (dead.run.is_active, dead.run.is_alive, dead.is_running) == (True, False, False)


def test_an_expectation_is_seen_once(bench: Bench) -> None:
    first = bench.store.fact_reads().see("p", {("", "late")})
    bench.clock.move(600)
    both = bench.store.fact_reads().see("p", {("", "late"), ("a", "volume")})
    assert both[("", "late")] == first[("", "late")]
    assert both[("a", "volume")] > first[("", "late")]
    assert bench.store.fact_reads().see("q", {("", "late")})[("", "late")] >= both[("a", "volume")]
    assert bench.store.fact_reads().see("p", ()) == {}


def test_a_pause_is_a_fact_and_so_is_its_end(bench: Bench) -> None:
    schedules, hourly, now = bench.store.schedules, Schedule(every_s=3600), bench.facts().now
    until = (now + timedelta(days=1)).replace(microsecond=0)
    schedules.pause("p", "/p.yaml", hourly, until=until, reason="a move")
    assert (bench.facts().pause, bench.facts().resumed_at) == (Pause(until, "a move"), None)
    assert bench.store.fact_reads().facts("q").pause is None
    schedules.resume("p")
    assert bench.facts().pause is None
    assert (bench.facts().resumed_at or until) < until
    schedules.pause("p", "/p.yaml", hourly, until=now)  # no server has looked since it ended
    assert (bench.facts().pause, bench.facts().resumed_at) == (None, now - timedelta(microseconds=1))


def test_a_changed_schedule_and_one_that_begins_anew_count_from_then(bench: Bench) -> None:
    schedules, before = bench.store.schedules, bench.facts().now
    for schedule in (Schedule(every_s=3600), Schedule(every_s=3600)):
        schedules.see({"p": ("/p.yaml", schedule)})
        assert bench.facts().resumed_at is None
    bench.clock.move(60)
    schedules.see({"p": ("/p.yaml", Schedule(every_s=60))})
    changed = bench.facts().resumed_at
    assert changed is not None
    assert changed > before
    bench.clock.move(60)
    schedules.reset("p")
    assert (bench.facts().resumed_at or changed) > changed


def test_a_refused_start_is_a_fact_until_a_run_has_begun(bench: Bench) -> None:
    for kind in ("api", "schedule", "callback"):
        tick = bench.store.order_tick("p", kind, trigger="0", causes=(), kind=kind).id
        bench.store.claim_tick(tick)
        bench.store.refuse_tick(tick, f"no {kind}")
        assert bench.facts().refused == f"no {kind}"
        bench.clock.move(60)
        bench.run("a")
        assert bench.facts().refused is None
        bench.clock.move(60)


def test_starts_fail_when_the_most_delayed_tick_has_waited_for_ten_minutes(tmp_path: Path) -> None:
    clock = FixedClock()
    with Store.open(f"sqlite:///{tmp_path}/store.db", clock=clock) as store:
        bench, start = Bench(store, clock), clock.now()
        store.order_tick("p", "first", trigger="0", causes=(), kind="api")
        tick = store.order_tick("p", "second", trigger="0", causes=(), kind="api").id
        while not bench.facts().starts_fail:
            assert clock.now() - start < timedelta(hours=1)
            if store.claim_tick(tick) is not None:
                store.give_back_tick(tick, "down")
            clock.move(5)
        assert timedelta(minutes=10) < clock.now() - start < timedelta(minutes=11)
        assert bench.facts().waiting == "down"


def test_facts_of_many_pipelines_are_those_of_each(bench: Bench) -> None:
    in_hour = Expect(rows=Volume(1, 3600))
    bench.run("a", "b")
    for name in ("q", "r"):
        bench.store.order_tick(name, name, trigger="api", causes=(), kind="api")
        run = begin(bench.store, attempt_plan([A]), name)
        bench.store.claim(run.id, ["a"])
        bench.store.close_stream(run.id, outcome(A, "failure" if name == "r" else "success"))
        bench.store.finish_run(run.id)
    bench.store.schedules.pause("q", "q.yaml", Schedule(every_s=3600))
    reads = bench.store.fact_reads()
    asked = [Asked(pipeline=name, expect=expect) for name in "pqrs" for expect in [in_hour if name == "p" else VOLUME]]
    together = reads.facts_of(asked)
    for each in asked:
        alone = reads.facts(each.pipeline, each.expect)
        assert replace(together[each.pipeline], now=alone.now) == alone
    assert [together[name].run is not None for name in "pqrs"] == [True, True, True, False]
    assert together["p"].windows == {("", 3600): 6}
    assert (together["q"].pause, together["r"].pause) == (Pause(), None)
    assert together["r"].due_deliveries > 0
    expected = {"p": {("", "late")}, "q": (), "r": {("a", "late")}}
    assert {name: list(found) for name, found in reads.see_all(expected).items()} == {
        "p": [("", "late")],
        "q": [],
        "r": [("a", "late")],
    }


def test_a_window_leaves_out_what_ended_before_it(bench: Bench) -> None:
    if not bench.store.url.startswith("sqlite"):
        pytest.skip("PostgreSQL has its own clock")
    bench.run("a")
    bench.clock.move(4000)
    bench.run("a", "b")
    assert bench.facts(Expect(rows=Volume(1, 3600))).windows == {("", 3600): 6}
