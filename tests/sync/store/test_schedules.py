"""Schedules in force: each time is decided once, in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from syncblocks.sync.errors import StateError
from syncblocks.sync.schedules import Schedule
from syncblocks.sync.store import Store, schedules, ticks
from syncblocks.sync.store.schedules import Pause
from tests.sync.store.store_helpers import STORES, query, store_url_of

#: Due each minute, and never within the test.
EACH, NEVER = Schedule(cron="* * * * *", missed="all"), Schedule(cron="0 0 29 2 mon")


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return store_url_of(request, tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as found:
        yield found


def move(store: Store, url: str, minutes: int) -> None:
    """Let a schedule have been looked at some minutes earlier, or later."""
    at = store.schedules.known()[0].looked_at - timedelta(minutes=minutes)
    query(
        url, f"UPDATE _syncblocks_schedule SET looked_at = '{at.isoformat(' ', 'microseconds').removesuffix('+00:00')}'"
    )


def states(url: str) -> list[tuple[str, str | None, int | None]]:
    rows = query(url, "SELECT state, why, skipped_count FROM _syncblocks_tick ORDER BY id")
    return [(state, why, count) for state, why, count in rows]


def test_a_schedule_is_seen_looked_at_paused_reset_and_forgotten(store: Store, url: str) -> None:
    if not url.startswith("sqlite"):
        name = url.rsplit("/", 1)[1]
        query(url, f"ALTER DATABASE \"{name}\" SET timezone TO 'UTC'")
    assert store.schedules.see({"p": ("/p.yaml", EACH), "q": ("/q.yaml", None)}) == {}
    move(store, url, 3)
    assert len(store.schedules.look({"p": EACH, "q": NEVER})["p"].ticks) in (2, 3)
    assert store.schedules.look({"p": EACH}) == {}
    assert store.schedules.look({"p": NEVER}) == {}
    first, *others = store.standing().ticks
    assert first.is_startable
    assert (store.offer_tick(first.tick.id, 30), store.offer_tick(first.tick.id, 30)) == (True, False)
    assert [each.is_startable for each in store.standing().ticks] == [False] + [True] * len(others)
    store.schedules.pause("p", "/p.yaml", EACH, reason="why")
    assert store.standing().paused == {"p"}
    assert store.fact_reads().facts("p").pause == Pause(None, "why")
    move(store, url, 10)
    assert store.schedules.look({"p": EACH}) == {}
    assert store.schedules.resume("p")
    assert states(url)[-1][:2] == ("skipped", "paused: why")
    facts = store.fact_reads().facts("p")
    assert facts.pause is None
    assert facts.resumed_at is not None
    move(store, url, -60)
    assert store.standing().ahead.keys() == {"p"}
    assert store.schedules.reset("p") == 1 + len(others)
    assert store.standing().ahead == {}
    move(store, url, 5)
    assert store.schedules.see({"p": ("/other.yaml", NEVER)}) == {}
    assert states(url)[-1][:2] == ("skipped", "schedule changed")
    assert store.schedules.known()[0].file == "/other.yaml"
    assert store.schedules.forget("p") == 0
    for lost in (store.schedules.forget, store.schedules.reset):
        with pytest.raises(StateError, match="knows no schedule of a pipeline 'p'"):
            lost("p")
    assert store.due_pipelines(["p", "q"]) == frozenset()


def test_servers_report_what_they_take(store: Store) -> None:
    assert not store.renew_server()
    store.report_server("/folder", {"p": EACH, "q": None})
    assert store.renew_server()
    assert [store.is_served(name) for name in "pqr"] == [True, True, False]
    with pytest.raises(StateError, match="the server of folder /folder"):
        store.schedules.forget("q")
    store.leave_server()
    assert not store.is_served("p")


def test_open_ticks_are_found_by_their_index(tmp_path: Path) -> None:
    """Else each look reads all ticks that the pipeline's schedule ever had."""
    statements = (schedules._QUEUED.format(is_one="pipeline = :pipeline"), ticks._OPEN, schedules._SKIP)
    values = {"pipeline": "p", "kind": "schedule", "state": "skipped", "why": None}
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store, store._transactions.read() as connection:
        for statement in statements:
            steps = [row.detail for row in connection.rows(f"EXPLAIN QUERY PLAN {statement}", values)]
            assert any("_syncblocks_open_ticks (pipeline=? AND state=? AND kind=?)" in step for step in steps), steps
