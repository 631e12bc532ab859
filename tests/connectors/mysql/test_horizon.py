"""Nothing is skipped while others write to MariaDB: transactions that commit late, in any order, between two reads."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from syncblocks.connectors.incremental.bookmarks import BOUNDARY, values
from syncblocks.connectors.incremental.checkpoints import PENDING, Horizon
from syncblocks.connectors.mysql.horizon import settle
from syncblocks.connectors.mysql.source import MySQLSource
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import Bookmark, Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.mysql.mysql_databases import connect, database, run

WRITERS = 3

#: Kind of bookmark -> (columns beside the key and the version, bookmark_properties).
KINDS = {
    "microseconds": ("at datetime(6) not null default now(6)", ("at",)),
    "seconds": ("at timestamp not null default current_timestamp", ("at",)),
    "number": ("at int", ("id",)),
}


@dataclass
class Table:
    """A table that several connections write, and what a destination has received of it."""

    url: str
    kind: str
    is_merge: bool
    bookmark: Bookmark | None = None
    merged: dict[int, int] = field(default_factory=dict)
    appended: Counter[tuple[int, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        columns, self.properties = KINDS[self.kind]
        created = f"create table t (id bigint auto_increment primary key, version bigint not null default 0, {columns})"
        run(self.url, "drop table if exists t", created)
        self.writers = [connect(self.url) for _ in range(WRITERS)]
        for number, writer in enumerate(self.writers):
            writer.autocommit(False)
            # No gaps are locked: one writer would wait for another.
            self.execute(number, "set session transaction isolation level read committed")
        self.source = MySQLSource({"url": self.url, "settle_s": 0, "checkpoint_records": 2}, Path.cwd())

    def close(self) -> None:
        self.source.close()
        for connection in self.writers:
            connection.close()

    @property
    def stream(self) -> Stream:
        (found,) = self.source.discover()
        return replace(
            found,
            read=replace(
                found.read,
                method=ReplicationMethod.INCREMENTAL,
                bookmark_properties=self.properties,
                may_repeat=self.is_merge,
            ),
        )

    def execute(self, writer: int, sql: str) -> list[tuple[Any, ...]]:
        with self.writers[writer].cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def begin(self, writer: int) -> None:
        self.execute(writer, "select count(*) from t")

    def insert(self, writer: int) -> None:
        self.execute(writer, "insert into t () values ()")

    def update(self, writer: int) -> None:
        if self.kind == "number":
            return  # the key of a record that changes stays
        free = self.execute(writer, "select id from t order by id limit 1 for update skip locked")
        if free:
            self.execute(writer, f"update t set version = version + 1, at = default where id = {free[0][0]}")

    def commit(self, writer: int) -> None:
        self.writers[writer].commit()

    def roll_back(self, writer: int) -> None:
        self.writers[writer].rollback()

    def sync(self, checkpoints: int, stream: Stream | None = None) -> None:
        """Read, commit at checkpoints, and die after so many of them (0: never)."""
        pending: list[tuple[int, int]] = []
        seen = 0
        stream = stream or self.stream
        with closing(self.source.read([stream], {stream.name: self.bookmark})) as events:
            for _, event in events:
                if isinstance(event, pa.RecordBatch):
                    pending += zip(event["id"].to_pylist(), event["version"].to_pylist(), strict=True)
                    continue
                assert isinstance(event, Checkpoint)
                self.bookmark = json.loads(json.dumps(event.bookmark))
                self.merged.update(pending)
                self.appended.update(pending)
                pending, seen = [], seen + 1
                if seen == checkpoints:
                    break

    def records(self) -> dict[int, int]:
        with connect(self.url) as admin, admin.cursor() as cursor:
            cursor.execute("select id, version from t")
            return dict(cursor.fetchall())

    def thread(self, writer: int) -> str:
        return str(self.writers[writer].thread_id())

    def horizon(self, **options: Any) -> Horizon | None:
        with self.source.sessions("arrow").lease() as lease:
            lease.begin()
            return settle(self.source, lease, self.stream, None, **options)


def threads(horizon: Horizon | None) -> set[str]:
    """Connections that keep a bookmark back; those of other tests are among them."""
    pending = horizon.pending if horizon is not None else None
    return {name.partition(":")[0] for name in (pending or {}).get("running", ())}


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["begin", "insert", "insert", "update", "commit", "commit", "roll_back"]),
            st.integers(0, WRITERS - 1),
        ),
        st.tuples(st.just("sync"), st.sampled_from([0, 0, 0, 1])),
    ),
    min_size=4,
    max_size=20,
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    from tests.services import fresh_mariadb_database

    with fresh_mariadb_database() as url:
        yield url


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("is_merge", [True, False], ids=["merge", "append"])
@pytest.mark.parametrize("kind", KINDS)
@example([("insert", 0), ("insert", 1), ("commit", 1), ("sync", 0)])
@example([("begin", 0), ("insert", 1), ("commit", 1), ("sync", 0), ("insert", 0)])
@example([("insert", 0), ("insert", 1), ("commit", 1), ("sync", 1), ("commit", 0), ("insert", 2), ("sync", 0)])
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_nothing_is_skipped_or_doubled(url: str, kind: str, is_merge: bool, steps: list[tuple[str, int]]) -> None:
    with closing(Table(url, kind, is_merge)) as table:
        for step, number in steps:
            getattr(table, step)(number)
        for number in range(WRITERS):
            table.commit(number)
        table.sync(0)
        if is_merge:
            assert table.merged == table.records()
        else:
            assert set(table.records().items()) <= set(table.appended)
            assert set(table.appended.values()) <= {1}


def test_a_transaction_that_ends_soon_is_waited_for(url: str) -> None:
    with closing(Table(url, "number", is_merge=False)) as table:
        table.insert(0)
        table.insert(1)
        table.commit(1)
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            # The server's list is as old as its last reader has it, so that the time has to pass.
            threading.Event().wait(seconds)
            waits.append(seconds)
            if len(waits) == 3:
                table.commit(0)

        assert table.thread(0) not in threads(table.horizon(wait_s=60, sleep=sleep))
        assert len(waits) >= 3


def test_who_only_reads_keeps_nothing_back(url: str) -> None:
    with closing(Table(url, "microseconds", is_merge=False)) as table:
        table.begin(0)
        table.execute(2, "start transaction read only")
        table.begin(2)
        table.insert(1)
        found = threads(table.horizon(wait_s=0))
        assert found == set() or not found & {table.thread(0), table.thread(2)}
        table.commit(1)
        found = threads(table.horizon(wait_s=0))
        assert not found & {table.thread(0), table.thread(1), table.thread(2)}


def test_a_list_that_the_server_has_made_before_is_not_believed(url: str) -> None:
    with closing(Table(url, "number", is_merge=False)) as table, connect(url) as other, other.cursor() as cursor:
        table.insert(1)
        table.commit(1)
        cursor.execute("select count(*) from information_schema.innodb_trx")
        table.insert(0)
        cursor.execute("select count(*) from information_schema.innodb_trx")
        table.insert(1)
        table.commit(1)
        assert table.thread(0) in threads(table.horizon(wait_s=0))


def test_many_readers_at_once_take_turns_again_and_again(url: str) -> None:
    with closing(Table(url, "number", is_merge=False)) as table, ThreadPoolExecutor(6) as pool:
        table.insert(0)
        table.insert(1)
        table.commit(1)
        found = list(pool.map(lambda _: table.horizon(wait_s=0), range(18)))
        assert all(table.thread(0) in threads(horizon) for horizon in found)


def test_one_that_runs_on_keeps_the_bookmark_back_until_it_ends(url: str) -> None:
    with closing(Table(url, "number", is_merge=False)) as table:
        table.insert(0)
        table.insert(1)
        table.commit(1)
        table.sync(0)
        assert table.bookmark is not None
        assert values(table.bookmark) == {"id": None}
        running = table.bookmark[BOUNDARY][PENDING]["running"]
        assert table.thread(0) in {name.partition(":")[0] for name in running}
        table.commit(0)
        table.source.close()
        # Those of other tests have to end as well.
        table.source = MySQLSource({"url": url, "settle_s": 60}, Path.cwd())
        table.sync(0)
        assert table.appended == Counter({(1, 0): 1, (2, 0): 1})
        assert values(table.bookmark) == {"id": 2}


def test_without_the_privilege_to_see_others_it_says_what_may_be_skipped(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"u{uuid.uuid4().hex[:12]}"
    run(url, f"create user {name} identified by 'pass'", f"grant select on {database(url)}.* to {name}")
    try:
        with closing(Table(url, "number", is_merge=False)) as table:
            table.source.close()
            table.source = MySQLSource({"url": url.replace("root@", f"{name}:pass@")}, Path.cwd())
            table.insert(1)
            table.commit(1)
            assert "PROCESS" in table.source.skips_late(table.stream) + table.source.skips_late(table.stream)
            with caplog.at_level(logging.WARNING, "syncblocks"):
                table.sync(0)
            assert "PROCESS" in caplog.text
            assert values(table.bookmark) == {"id": 1}
            run(url, f"grant process on *.* to {name}")
            table.source.close()
            assert table.source.skips_late(table.stream) == ""
    finally:
        run(url, f"drop user {name}")


@pytest.mark.parametrize("kind", ["microseconds", "seconds"])
def test_a_transaction_keeps_back_no_time_long_before_its_begin(url: str, kind: str) -> None:
    with closing(Table(url, kind, is_merge=True)) as table:
        table.execute(
            1, "insert into t (at) values ('2020-01-01'), ('2020-01-02'), (utc_timestamp() - interval 1 hour)"
        )
        table.commit(1)
        table.insert(0)
        table.insert(1)
        table.commit(1)
        horizon = table.horizon(wait_s=0)
        assert table.thread(0) in threads(horizon)
        assert horizon is not None
        assert horizon.settled is not None
        assert horizon.settled[0].as_py().year > 2020
        table.sync(0)
        assert table.bookmark is not None
        assert str(values(table.bookmark)["at"]).startswith("2020-01-02"), "what is an hour old may be held back still"
        assert len(table.merged) == 4
