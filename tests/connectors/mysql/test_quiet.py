"""A table of MariaDB without an index on its bookmark is read once where nobody writes, and nothing is skipped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from syncblocks.connectors.mysql import horizon
from syncblocks.connectors.mysql.session import MySQLSession
from syncblocks.connectors.mysql.source import MySQLSource
from syncblocks.connectors.sql.session import SessionLease
from tests.connectors.mysql.mysql_databases import numbers, run
from tests.connectors.mysql.test_horizon import Table
from tests.connectors.mysql.test_horizon import url as url


class WatchedSource(MySQLSource):
    """A source whose statements are waited for by others, who act before each of them."""

    act: Callable[[], None] = staticmethod(lambda: None)

    def connect(self) -> MySQLSession:
        session = super().connect()
        for name in ("begin", "query", "fetch"):
            setattr(session, name, self._watched(getattr(session, name)))
        return session

    def _watched(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.act()
            return method(*arguments, **options)

        return call


def watched(table: Table) -> WatchedSource:
    table.source.close()
    table.source = WatchedSource({"url": table.url, "settle_s": 0, "checkpoint_records": 2}, Path.cwd())
    return table.source


def sync_between(table: Table, source: WatchedSource, others: list[tuple[int, str, int]]) -> None:
    """Sync, while others act before some of its statements."""
    stream, places = table.stream, iter(range(1000))

    def act() -> None:
        place = next(places)
        for when, step, number in others:
            if when == place:
                getattr(table, step)(number)

    source.act = act  # type: ignore[method-assign]
    try:
        table.sync(0, stream)
    finally:
        source.act = lambda: None  # type: ignore[method-assign]


ACTS = st.tuples(
    st.integers(0, 20), st.sampled_from(["begin", "insert", "insert", "update", "commit", "commit"]), st.integers(0, 2)
)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["microseconds", "seconds"])
@example([("insert", 0)], [[(0, "insert", 1), (0, "commit", 1)]])
@example([], [[(place, "insert", 0), (place, "insert", 1), (place, "commit", 1)] for place in range(8, 12)])
@example([("begin", 0)], [[(9, "insert", 0), (9, "insert", 1), (9, "commit", 1), (11, "commit", 0)]])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.tuples(st.sampled_from(["begin", "insert"]), st.integers(0, 2)), max_size=3),
    syncs=st.lists(st.lists(ACTS, max_size=8), min_size=1, max_size=3),
)
def test_nothing_is_skipped_whatever_happens_between_two_statements(
    url: str, kind: str, before: list[tuple[str, int]], syncs: list[list[tuple[int, str, int]]]
) -> None:
    with closing(Table(url, kind, is_merge=False)) as table:
        source = watched(table)
        for step, number in before:
            getattr(table, step)(number)
        for others in syncs:
            sync_between(table, source, others)
        for number in range(3):
            table.commit(number)
        table.sync(0)
        assert set(table.records().items()) <= set(table.appended)
        assert set(table.appended.values()) <= {1}


def only_own(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out whoever else writes to the server: other tests do so all the time."""
    whole = horizon._writing
    threads = {table.thread(number) for number in range(3)}

    def writing(lease: SessionLease, sleep: Callable[[float], None]) -> dict[str, int]:
        return {name: age for name, age in whole(lease, sleep).items() if name.partition(":")[0] in threads}

    monkeypatch.setattr(horizon, "_writing", writing)


def test_nothing_is_looked_up_where_nobody_writes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Table(url, "microseconds", is_merge=False)) as table:
        only_own(table, monkeypatch)
        numbers = iter([*"11", *"2", *"34"])
        monkeypatch.setattr(horizon, "_next_number", lambda session: next(numbers))
        asked: list[str] = []
        monkeypatch.setattr(horizon, "ask", lambda *_: asked.append("newest"))
        table.insert(0)
        table.commit(0)
        assert table.horizon(wait_s=0) is None
        assert not asked
        table.insert(0)
        assert table.horizon(wait_s=0) is not None, "a transaction is open"
        table.commit(0)
        assert table.horizon(wait_s=0) is not None, "one has begun meanwhile"
        assert asked == ["newest", "newest"]
        run(url, "create index at on t (at)")
        assert table.horizon(wait_s=0) is not None, "the index has it"
        run(url, "drop index at on t", "alter table t engine=myisam")
        assert table.horizon(wait_s=0) is not None, "no transactions, no numbers"
        assert len(asked) == 4


def test_each_change_and_each_commit_takes_a_number(url: str) -> None:
    with closing(Table(url, "microseconds", is_merge=False)) as table:
        table.begin(1)
        with table.source.sessions("arrow").lease() as lease:
            lease.begin()
            found = [int(horizon._next_number(lease.session) or 0)]
            for step in (table.insert, table.commit, table.update, table.commit):
                step(0)
                found.append(int(horizon._next_number(lease.session) or 0))
        assert found == sorted(set(found))
        assert horizon._next_number(Silent()) is None  # type: ignore[arg-type]  # a session that says nothing of it


class Silent:
    """A server that says nothing of its transactions."""

    def query(self, sql: str) -> list[tuple[str, ...]]:
        """Answer something else."""
        return [("InnoDB", "", f"no answer to {sql}")]


def test_a_table_that_nobody_writes_is_read_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Table(url, "microseconds", is_merge=False)) as table:
        only_own(table, monkeypatch)
        monkeypatch.setattr(horizon, "_next_number", lambda session: "1")
        table.execute(0, f"insert into t (at) select now(6) from {numbers(1000)}")
        table.commit(0)
        table.sync(0)
        with table.source.sessions("arrow").lease() as lease:
            before = read_so_far(lease)
        table.sync(0)
        with table.source.sessions("arrow").lease() as lease:
            assert 1000 <= read_so_far(lease) - before < 1500
        assert sum(table.appended.values()) == 1000


def read_so_far(lease: SessionLease) -> int:
    """Return how many records the lease's connection has read by scans."""
    ((_, number),) = lease.session.query("show session status like 'Handler_read_rnd_next'")
    return int(number)
