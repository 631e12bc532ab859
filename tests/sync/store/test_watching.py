"""What a run tells in the run store: figures while somebody watches, and the log of each attempt."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from syncblocks.sync.run import lease as leases
from syncblocks.sync.run.lease import RunLease
from syncblocks.sync.store import Store
from tests.sync.store.round_trips import counted
from tests.sync.store.store_helpers import STORES, attempt_plan, begin, query, store_url_of

FIGURES = "SELECT progress FROM _syncblocks_progress"


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "POLL_S", 0.01)
    monkeypatch.setattr(leases, "WATCHED_S", 0.01)


class Figures:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> dict[str, Any]:
        self.asked += 1
        return {"asked": self.asked}


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_look_is_one_statement_and_nothing_is_written_until_somebody_watches(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures, looks = Figures(), 0
    with counted(postgres_url) as proxy, Store.open(proxy.url) as store:
        run, standings = begin(store, attempt_plan([])), store.standings

        def counted_standings(run_ids: Any) -> Any:
            nonlocal looks
            looks += 1
            return standings(run_ids)

        monkeypatch.setattr(store, "standings", counted_standings)
        before = proxy.trips
        with RunLease(store, run.id, figures=figures):
            until(lambda: looks > 20)
        assert proxy.trips - before <= looks + 1  # the statement is prepared once
    assert figures.asked == 0
    assert query(postgres_url, FIGURES) == []


def test_figures_are_written_while_somebody_watches(url: str) -> None:
    figures = Figures()
    with Store.open(url) as store:
        run = begin(store, attempt_plan([]))
        with RunLease(store, run.id, figures=figures):
            store.watch(run.id, 600)
            until(lambda: figures.asked > 3)
            store.watch(run.id, -1)
            asked = 0
            while asked != figures.asked:  # until the look that sees it
                asked = figures.asked
                time.sleep(0.1)
        ((told,),) = query(url, FIGURES)
    assert told == f'{{"asked":{asked}}}'


def test_a_store_that_takes_no_figures_disturbs_no_lease(url: str, caplog: pytest.LogCaptureFixture) -> None:
    figures = Figures()
    with Store.open(url) as store:
        run = begin(store, attempt_plan([]))
        query(url, "DROP TABLE _syncblocks_progress")
        store.watch(run.id, 600)
        with RunLease(store, run.id, figures=figures) as lease:
            until(lambda: figures.asked > 3)
            store.request_cancel(run.id)
            until(lambda: lease.is_cancelled)
            assert not lease.is_lost
    assert "the run store does not answer" in caplog.text


def test_an_attempt_has_one_log_and_a_run_that_is_gone_has_none(url: str) -> None:
    with Store.open(url) as store:
        run = begin(store, attempt_plan([]))
        store.save_log(run.id, 1, "one\n")
        store.save_log(run.id, 1, "one\ntwo\n", {"streams": []})
        store.save_log(run.id + 1, 1, "nobody's\n", {"streams": []})
        assert store.run_log(run.id, 1) == "one\ntwo\n"
        assert (store.run_log(run.id, 2), store.run_log(run.id + 1, 1)) == (None, None)
    assert query(url, FIGURES) == [('{"streams":[]}',)]
