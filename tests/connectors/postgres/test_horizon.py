"""Nothing is skipped while others write: transactions that commit late, in any order, between any two reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from syncblocks.connectors.incremental.bookmarks import BOUNDARY, values
from syncblocks.connectors.incremental.checkpoints import PENDING
from syncblocks.connectors.postgres.adbc_session import AdbcSession
from syncblocks.connectors.postgres.horizon import settle
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.stream import Bookmark, Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace

WRITERS = 3

#: Kind of bookmark -> (columns with their defaults, bookmark_properties). `version` tells the states of a record apart.
KINDS = {
    "now": ("at timestamptz not null default now()", ("at",)),
    "clock": ("at timestamptz not null default clock_timestamp()", ("at",)),
    "naive": ("at timestamp not null default now()", ("at",)),
    "day": ("at date not null default now()", ("at",)),
    "sequence": ("at bigserial", ("at",)),
    "identity of the key": ("at bigint not null generated always as (id) stored", ("at",)),
    "time and key": ("at timestamptz not null default now()", ("at", "id")),
}


class Between:
    """A session that lets others act before each of its statements."""

    def __init__(self, session: AdbcSession, act: Callable[[], None]) -> None:
        self._session = session
        self._act = act

    def __getattr__(self, name: str) -> Any:
        if name in ("begin", "execute", "query", "fetch"):
            self._act()
        return getattr(self._session, name)


class WatchedSource(PostgresSource):
    """A source whose statements are waited for by others, who act before each of them."""

    act: Callable[[], None] = staticmethod(lambda: None)

    def connect(self) -> AdbcSession:
        return cast("AdbcSession", Between(super().connect(), lambda: self.act()))


@dataclass
class Table:
    """A table that several connections write, and what a destination has received of it."""

    url: str
    kind: str
    is_merge: bool
    role: str = "postgres"
    bookmark: Bookmark | None = None
    merged: dict[int, int] = field(default_factory=dict)
    appended: Counter[tuple[int, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.admin = psycopg.connect(self.url, autocommit=True)
        columns, self.properties = KINDS[self.kind]
        self.admin.execute("drop table if exists t")
        self.admin.execute(f"create table t (id bigserial primary key, version bigint not null default 0, {columns})")
        self.admin.execute("grant all on all tables in schema public to public")
        self.admin.execute("grant all on all sequences in schema public to public")
        self.writers = [psycopg.connect(self.url) for _ in range(WRITERS)]
        self.taken: dict[int, int] = {}
        config = {"url": self.url.replace("postgres@", f"{self.role}@"), "settle_s": 0, "checkpoint_records": 2}
        self.source = WatchedSource(config, Path.cwd())

    def close(self) -> None:
        self.source.close()
        for connection in (*self.writers, self.admin):
            connection.close()

    @property
    def stream(self) -> Stream:
        (found,) = [stream for stream in self.source.discover() if stream.name == "public.t"]
        return replace(
            found,
            read=replace(
                found.read,
                method=ReplicationMethod.INCREMENTAL,
                bookmark_properties=self.properties,
                null_bookmarks=NullBookmarks.FAIL,
                may_repeat=self.is_merge,
            ),
        )

    def begin(self, writer: int) -> None:
        self.writers[writer].execute("select 1")

    def take(self, writer: int) -> None:
        """Take a number of the key's sequence, for a record that is written later in the same transaction."""
        row = self.writers[writer].execute("select nextval('t_id_seq')").fetchone()
        assert row is not None
        self.taken[writer] = row[0]

    def insert(self, writer: int) -> None:
        number = self.taken.pop(writer, None)
        if number is None:
            self.writers[writer].execute("insert into t default values")
        else:
            self.writers[writer].execute("insert into t (id) values (%s)", (number,))

    def update(self, writer: int) -> None:
        free = self.writers[writer].execute("select id from t order by id for update skip locked limit 1").fetchone()
        if free is None:
            return
        stamp = "" if self.kind.startswith("identity") else ", at = default"
        self.writers[writer].execute(f"update t set version = version + 1{stamp} where id = %s", free)

    def commit(self, writer: int) -> None:
        self.taken.pop(writer, None)
        self.writers[writer].commit()

    def roll_back(self, writer: int) -> None:
        self.taken.pop(writer, None)
        self.writers[writer].rollback()

    def sync(self, checkpoints: int, stream: Stream | None = None) -> int:
        """Read, commit at checkpoints, and die after so many of them (0: never); return the records committed."""
        pending: list[tuple[int, int]] = []
        done = seen = 0
        with closing(self.source.read([stream or self.stream], {"public.t": self.bookmark})) as events:
            for _, event in events:
                if isinstance(event, pa.RecordBatch):
                    pending += zip(event["id"].to_pylist(), event["version"].to_pylist(), strict=True)
                    continue
                assert isinstance(event, Checkpoint)
                self.bookmark = json.loads(json.dumps(event.bookmark))
                self.merged.update(pending)
                self.appended.update(pending)
                done, pending = done + len(pending), []
                seen += 1
                if seen == checkpoints:
                    break
        return done

    def sync_between(self, others: list[tuple[int, str, int]]) -> None:
        """Sync, while others act before some of its statements."""
        stream, places = self.stream, iter(range(1000))

        def act() -> None:
            place = next(places)
            for when, step, number in others:
                if when == place:
                    getattr(self, step)(number)

        self.source.act = act  # type: ignore[method-assign]
        try:
            self.sync(0, stream)
        finally:
            del self.source.act

    def settle(self) -> None:
        for number in range(WRITERS):
            self.commit(number)
        self.sync(0)

    def records(self) -> dict[int, int]:
        return dict(self.admin.execute("select id, version from t").fetchall())


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["begin", "take", "insert", "insert", "update", "commit", "commit", "roll_back"]),
            st.integers(0, WRITERS - 1),
        ),
        st.tuples(st.just("sync"), st.sampled_from([0, 0, 0, 1])),
    ),
    min_size=4,
    max_size=24,
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    from tests.services import fresh_postgres_database

    with fresh_postgres_database() as url, psycopg.connect(url, autocommit=True) as admin:
        admin.execute("alter database " + admin.info.dbname + " set timezone = 'Asia/Tokyo'")
        admin.execute("create role " + admin.info.dbname + "_reader login")
        try:
            yield url
        finally:
            admin.execute("drop owned by " + admin.info.dbname + "_reader cascade")
            admin.execute("drop role " + admin.info.dbname + "_reader")


@pytest.mark.full
@pytest.mark.thinned(1)
@pytest.mark.parametrize("is_merge", [True, False], ids=["merge", "append"])
@pytest.mark.parametrize("kind", KINDS)
@example([("insert", 0), ("insert", 1), ("commit", 1), ("sync", 0)], False)
@example([("begin", 0), ("insert", 1), ("commit", 1), ("sync", 0), ("insert", 0)], True)
@example([("take", 0), ("insert", 1), ("commit", 1), ("sync", 0), ("insert", 0), ("sync", 1)], False)
@example([("insert", 0), ("insert", 1), ("commit", 1), ("sync", 1), ("commit", 0), ("insert", 2), ("sync", 0)], True)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, is_privileged=st.booleans())
def test_nothing_is_skipped_or_doubled(
    url: str, kind: str, is_merge: bool, steps: list[tuple[str, int]], is_privileged: bool
) -> None:
    role = "postgres" if is_privileged else url.rpartition("/")[2] + "_reader"
    with closing(Table(url, kind, is_merge, role)) as table:
        for step, number in steps:
            getattr(table, step)(number)
        table.settle()
        if is_merge:
            assert table.merged == table.records()
        else:
            assert set(table.records().items()) <= set(table.appended)
            assert set(table.appended.values()) <= {1}
        assert table.sync(0) == 0, "once nobody writes any more, the bookmark stands at the newest record"


ACTS = st.tuples(
    st.integers(0, 12), st.sampled_from(["begin", "take", "insert", "insert", "commit", "commit"]), st.integers(0, 2)
)


@pytest.mark.parametrize("kind", ["now", "clock", "sequence"])
@example([("insert", 0)], [[(0, "insert", 1), (0, "commit", 1)]])
@example([], [[(4, "insert", 0), (4, "insert", 1), (4, "commit", 1), (5, "commit", 0)]])
@example([], [[(4, "take", 0), (4, "insert", 1), (4, "commit", 1), (6, "insert", 0), (6, "commit", 0)]])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.tuples(st.sampled_from(["begin", "take", "insert"]), st.integers(0, 2)), max_size=3),
    syncs=st.lists(st.lists(ACTS, max_size=8), min_size=1, max_size=3),
)
@pytest.mark.full
def test_nothing_is_skipped_whatever_happens_between_two_statements(
    url: str, kind: str, before: list[tuple[str, int]], syncs: list[list[tuple[int, str, int]]]
) -> None:
    with closing(Table(url, kind, is_merge=False)) as table:
        for step, number in before:
            getattr(table, step)(number)
        for others in syncs:
            table.sync_between(others)
        table.settle()
        assert set(table.appended) == set(table.records().items())
        assert set(table.appended.values()) <= {1}


def test_nothing_is_looked_up_where_nobody_writes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "syncblocks.connectors.postgres.horizon._written", lambda lease: "0/0"
    )  # other tests write all the time
    with closing(Table(url, "now", is_merge=False)) as table:
        table.insert(0)
        table.commit(0)
        table.sync(0)
        table.insert(0)
        table.commit(0)
        with table.source.sessions("arrow").lease() as lease:
            lease.begin()
            assert settle(table.source, lease, table.stream, table.bookmark, wait_s=0) is None
            table.insert(1)
            horizon = settle(table.source, lease, table.stream, table.bookmark, wait_s=0)
            assert horizon is not None
            assert horizon.pending is not None


def test_a_transaction_that_ends_soon_is_waited_for(url: str) -> None:
    with closing(Table(url, "sequence", is_merge=False)) as table:
        table.insert(0)
        table.insert(1)
        table.commit(1)
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                table.commit(0)

        with table.source.sessions("arrow").lease() as lease:
            lease.begin()
            horizon = settle(table.source, lease, table.stream, None, wait_s=60, sleep=sleep)
        assert horizon is not None
        assert [value.as_py() for value in horizon.settled or ()] == [2]
        assert len(waits) == 3


@pytest.mark.parametrize("kind", ["now", "sequence"])
def test_readers_and_other_databases_keep_nothing_back(url: str, kind: str) -> None:
    elsewhere = url.rpartition("/")[0] + "/postgres"
    with closing(Table(url, kind, is_merge=False)) as table, closing(psycopg.connect(elsewhere)) as other:
        other.execute("create temporary table x (id bigserial)").execute("insert into x default values")
        table.insert(0)
        table.commit(0)
        reader = PostgresSource({"url": url}, Path.cwd())
        with closing(reader), closing(reader.read([table.stream], {})) as events:
            next(events)
            table.sync(0)
        assert table.bookmark is not None
        assert values(table.bookmark) != {"at": None}
        assert PENDING not in table.bookmark[BOUNDARY]


def test_one_that_only_reads_keeps_times_back_but_no_numbers(url: str) -> None:
    for kind, is_held in (("now", True), ("sequence", False)):
        with closing(Table(url, kind, is_merge=False)) as table:
            table.writers[0].execute("select count(*) from t")
            table.insert(1)
            table.commit(1)
            table.sync(0)
            assert table.bookmark is not None
            assert (PENDING in table.bookmark[BOUNDARY]) is is_held


def test_writers_of_a_partition_are_seen(url: str) -> None:
    with closing(Table(url, "sequence", is_merge=False)) as table:
        table.admin.execute("drop table t")
        table.admin.execute("create table t (id bigint, version bigint default 0, at bigint) partition by range (at)")
        table.admin.execute("create table t_1 partition of t for values from (0) to (100)")
        table.writers[0].execute("insert into t_1 values (1, 0, 1)")
        table.admin.execute("insert into t values (2, 0, 2)")
        table.sync(0)
        table.commit(0)
        table.sync(0)
        assert table.appended == Counter({(1, 0): 1, (2, 0): 1})
        table.admin.execute("drop table t")


@pytest.mark.parametrize("kind", ["now", "sequence"])
def test_a_prepared_transaction_keeps_the_bookmark_back(kind: str) -> None:
    from tests.services import fresh_postgres_database, preparing_postgres_server

    with (
        fresh_postgres_database(preparing_postgres_server()) as url,
        closing(Table(url, kind, is_merge=False)) as table,
    ):
        table.insert(0)
        table.insert(1)
        table.commit(1)
        table.sync(0)
        table.writers[0].execute("prepare transaction 'late'")
        table.writers[0].rollback()
        table.insert(1)
        table.commit(1)
        table.sync(0)
        assert table.bookmark is not None
        assert any(name.startswith("prepared/") for name in table.bookmark[BOUNDARY][PENDING]["running"])
        table.admin.execute("commit prepared 'late'")
        table.sync(0)
        assert table.appended == Counter({(1, 0): 1, (2, 0): 1, (3, 0): 1})
        assert PENDING not in table.bookmark[BOUNDARY]
