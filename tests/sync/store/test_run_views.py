"""What a page shows of one run, read from the store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from syncblocks.callbacks.protocols import Delivery
from syncblocks.sync.store import Store
from syncblocks.sync.store.run_views import PART, TAIL, Figures
from syncblocks.sync.store.ticks import OrderedBy
from tests.sync.store.store_helpers import (
    CALLBACKS,
    RAISED,
    STORES,
    attempt_plan,
    begin,
    outcome,
    query,
    store_url_of,
    stream_plan,
)
from tests.sync.store.test_growth import copy_rows, steps_of


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


def told(stream: str, **figures: object) -> dict[str, object]:
    known = {"records": 70, "committed": 50, "rejected": 1, "records_per_s": 7, "percent": 12, "size_bytes": 800}
    more = {"bookmark_before": {"id": 1}, "bookmark_after": {"id": 9}, "retries": 2, "still_s": 0, "error": "gone"}
    return {"stream": stream, "state": "retrying", **known, **more, **figures}


def test_a_run_under_way_has_what_has_ended_and_what_its_process_tells(url: str) -> None:
    plans = [stream_plan(name) for name in ("ended", "going", "waiting", "failed")]
    with Store.open(url) as store:
        run = begin(store, attempt_plan(plans, ["stream"], allow_blocks_to_fail=True))
        store.claim(run.id, ["ended", "going", "failed"])
        store.close_stream(run.id, outcome(plans[0]))
        store.close_stream(run.id, outcome(plans[3], failed_block="load"))
        # What it told of a stream that has ended since is not counted twice.
        store.write_progress({run.id: {"attempt": 1, "is_remote": False, "streams": [told("going"), told("ended")]}})
        view = store.run_views.view(run.id)
        assert view is not None
        assert [(line.stream, line.state) for line in view.streams] == [
            ("failed", "failure"),
            ("going", "retrying"),
            ("waiting", "waiting"),
            ("ended", "success"),
        ]
        going, ended = view.streams[1], view.streams[3]
        assert (going.rows, going.rejected, going.retries, going.bookmark_after) == (70, 1, 2, {"id": 9})
        assert (ended.rows, ended.size_bytes, ended.retries, ended.bookmark_before) == (3, 40, 2, {"id": 1})
        assert view.figures == Figures(read=3 + 3 + 70, written=3 + 3 + 50, deleted=None, rejected=1)
        assert view.counts == {"success": 1, "failure": 1, "running": 1, "unclaimed": 1}
        assert view.failure is not None
        assert (view.failure.stream, view.failure.block) == ("failed", "load")
        assert (view.is_over, view.can_retry, view.is_alive) == (False, False, True)
        assert [block.index for block in view.block_runs if block.block_type == "data_loader"] == [0, 1, None]
        store.write_progress({run.id: {"attempt": 2, "is_remote": False, "streams": [told("going")]}})
        other = store.run_views.view(run.id)
        assert other is not None
        assert (other.streams[1].state, other.streams[1].rows) == ("running", None)


def test_an_ended_run_has_its_calls_its_log_and_its_orders(url: str) -> None:
    plans = [stream_plan("a")]
    with Store.open(url) as store:
        tick = store.order_tick("p", "k", kind="api", trigger="0", causes=(), by=OrderedBy(who="token ci"))
        store.claim_tick(tick.id)
        run = begin(store, attempt_plan(plans, ["stream", "pipeline"]), tick=tick.id, event={"a": [1]})
        store.claim(run.id, ["a"])
        store.request_cancel(run.id, who="page")
        store.close_stream(run.id, outcome(plans[0], failed_block="export"))
        store.end_attempt(run.id)
        outbox = store.outbox("p", CALLBACKS)
        outbox.release_gate(run.id)
        first = outbox.lease("alerts")
        assert isinstance(first, Delivery)
        outbox.mark(first, RAISED)
        store.save_log(run.id, 1, "x" * TAIL + "end")
        store.finish_run(run.id)
        view = store.run_views.view(run.id)
        assert view is not None
        assert (view.is_over, view.can_retry) == (False, True)  # callbacks are due
        assert view.delivery_counts == {1: {"ready": 2}}
        call, of_pipeline = view.deliveries
        assert (call.stream, call.block, call.status, call.state) == ("a", "export", "failure", "ready")
        assert [(each.outcome, each.error, each.output) for each in call.tries] == [
            ("raised", "ValueError: no", "printed\n")
        ]
        query(url, f"UPDATE _syncblocks_delivery_try SET output = '{'x' * 3 * PART}'")
        cut = store.run_views.view(run.id)
        assert cut is not None
        assert len(cut.deliveries[0].tries[0].output) == PART
        assert (of_pipeline.parent, of_pipeline.block, of_pipeline.tries) == ("pipeline", None, ())
        assert view.log is not None
        assert (len(view.log), view.log[-4:], view.is_log_cut) == (TAIL, "xend", True)
        about = store.run_views.about(view)
        assert (about.event, [each.ordered_by for each in about.ticks]) == ({"a": [1]}, ["token ci"])
        assert [(each.who, each.what) for each in about.actions] == [("page", "cancel")]
        assert [(each.stream, each.blocks) for each in about.planned] == [("a", ("load", "export"))]
        store.order_retry(run.id, OrderedBy(who="page", what="retry"))
        ordered = store.run_views.view(run.id)
        assert ordered is not None
        assert (ordered.is_retry_due, ordered.can_retry) == (True, False)
        assert (store.run_views.view(run.id, 2), store.run_views.view(run.id + 1)) == (None, None)


def test_a_look_costs_the_same_after_many_runs(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store.open(f"sqlite:///{path}") as store:
        run = begin(store, attempt_plan([stream_plan("a")], ["stream"]))
        store.claim(run.id, ["a"])
        store.close_stream(run.id, outcome(stream_plan("a")))
        store.end_attempt(run.id)
        store.finish_run(run.id)
        costs = []
        for number in (0, 2000):
            with closing(sqlite3.connect(path)) as connection:
                if number:
                    active = {"id": "1000 + n", "run_key": "n", "is_active": "0"}
                    copy_rows(connection, "_syncblocks_pipeline_run", active, number)
                    for table in ("attempt", "stream_run", "block_run", "event"):
                        copy_rows(connection, f"_syncblocks_{table}", {"run_id": "1000 + n"}, number)
                    keys = {"run_id": "1000 + n", "idempotency_key": "'k' || n"}
                    copy_rows(connection, "_syncblocks_delivery", keys, number)
                connection.commit()
            with store._transactions.read() as connection:
                raw = connection._raw
            costs.append(steps_of(raw, lambda: store.run_views.view(run.id)))
        assert costs[1] <= costs[0] * 1.5
