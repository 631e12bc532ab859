"""Ranges of a PostgreSQL table: together they are the table at one moment, and a load of them is all or nothing."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks.connectors.errors import FatalConnectorError, Interrupted, RetriableError, TakenOver
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.ranges import Range, SnapshotLost
from syncblocks.connectors.sql.identifiers import staging_name
from syncblocks.connectors.stream import Commit, Stream
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.postgres.postgres_pair import destination as destination
from tests.connectors.postgres.postgres_pair import find, order, rows, script
from tests.connectors.postgres.postgres_proxy import proxy
from tests.connectors.sql.range_reads import SUM, Reads, leftovers

FEW = "create table t (id bigint primary key, v text); insert into t select g, repeat('x', 500) from generate_series"

#: Tables of every kind that is split, or must not be; `{n}` records.
TABLES = {
    "no key": "create table t (v text); insert into t select repeat('x', 300) || g from generate_series(1, 500) g",
    "negative keys": f"{FEW}(-500, -1) g",
    "skewed keys": "create table t (id bigint primary key, v text); "
    "insert into t select case g when 500 then 9000000000000000000 else g end, repeat('y', 300) "
    "from generate_series(1, 500) g",
    "uuid": "create table t (id uuid primary key, v text); "
    "insert into t select md5(g::text)::uuid, repeat('z', 300) from generate_series(1, 500) g",
    "text keys": "create table t (id text primary key, v text); "
    "insert into t select E'k\\'\\n\\U0001F4E6' || g, repeat('z', 300) from generate_series(1, 500) g",
    "composite": "create table t (a int, b text, v text, primary key (a, b)); "
    "insert into t select g % 3, g, repeat('z', 300) from generate_series(1, 500) g",
    "holes": f"{FEW}(1, 500) g; delete from t where id between 50 and 450",
    "updated": f"{FEW}(1, 500) g; update t set v = v || 'new' where id % 7 = 0",
    "partitioned": "create table t (id bigint primary key, v text) partition by range (id); "
    "create table t1 partition of t for values from (0) to (100); "
    "create table t2 partition of t for values from (100) to (100000); "
    "insert into t select g, repeat('x', 500) from generate_series(1, 500) g",
    "children": f"{FEW}(1, 300) g; create table child () inherits (t); "
    "insert into child select g, 'child' from generate_series(1000, 1500) g",
}
SMALL = {"none": f"{FEW}(1, 0) g", "one": f"{FEW}(1, 1) g", "two": f"{FEW}(1, 2) g"}


@pytest.fixture
def source(postgres_url: str) -> Iterator[PostgresSource]:
    made = PostgresSource({"url": postgres_url, "range_bytes": 8192}, Path())
    yield made
    made.close()


def load(
    destination: PostgresDestination, stream: Stream, reads: Reads, wire: str = "pgcopy", loaders: int = 3
) -> list[Commit]:
    ordered = order(destination, stream, "copied", WriteDisposition.REPLACE)
    return list(destination.load_ranges(ordered, reads, loaders, wire))


@pytest.mark.thinned(1)
@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
@pytest.mark.parametrize("table", TABLES)
def test_the_ranges_together_are_the_table(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination, table: str, wire: str
) -> None:
    script(postgres_url, TABLES[table])
    stream = find(source, "public.t")
    with source.open_ranges(stream, 4, wire) as opened:
        assert len(opened.ranges) > 3
        (done,) = load(destination, stream, Reads(opened), wire)
    expected = rows(postgres_url, SUM.format("t"))
    assert rows(postgres_url, SUM.format("copied")) == expected
    assert (done.records, done.checkpoint.is_final) == (expected[0][0], True)
    assert rows(postgres_url, "select completed_by, rows from _syncblocks_ledger") == [("run:1", done.records)]
    assert leftovers(postgres_url) == []


@pytest.mark.parametrize("table", SMALL)
def test_a_small_table_is_not_split(postgres_url: str, source: PostgresSource, table: str) -> None:
    script(postgres_url, SMALL[table])
    with source.open_ranges(find(source, "public.t"), 4, "arrow") as opened:
        assert len(opened.ranges) < 2


def test_what_cannot_be_split_by_pages_is_read_as_a_whole(postgres_url: str, source: PostgresSource) -> None:
    script(postgres_url, f"{TABLES['no key']}; create view look as select * from t")
    script(postgres_url, "vacuum analyze t")
    number, why = source.plan_ranges(find(source, "public.look"), 4)
    assert (number, why) == (1, "a view or foreign table has no pages for a split")
    number, why = source.plan_ranges(find(source, "public.t"), 4)
    assert number is not None
    assert number > 4
    assert "by pages, about " in why


def test_all_ranges_are_of_one_moment_whatever_is_written_meanwhile(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination
) -> None:
    script(postgres_url, TABLES["negative keys"])
    before = rows(postgres_url, SUM.format("t"))

    writer = threading.Lock()

    def change(part: Range) -> None:
        with writer, psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("update t set v = v || 'changed'")
            connection.execute("delete from t where id % 5 = 0")
            connection.execute("insert into t select g, 'new' from generate_series(1, 300) g on conflict do nothing")
            connection.execute("vacuum t")

    stream = find(source, "public.t")
    with source.open_ranges(stream, 2, "pgcopy") as opened:
        load(destination, stream, Reads(opened, before=change))
        with psycopg.connect(postgres_url) as connection:
            connection.execute("set lock_timeout = 100")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                connection.execute("truncate t")
    assert rows(postgres_url, SUM.format("copied")) == before
    assert rows(postgres_url, SUM.format("t")) != before


def test_a_range_that_fails_fails_the_load_by_its_name_and_leaves_the_table_as_it_was(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination
) -> None:
    script(postgres_url, f"{TABLES['uuid']}; create table copied (id int); insert into copied values (7)")

    def fail(part: Range) -> None:
        if part.place == 2:
            raise FatalConnectorError("no such luck")

    stream = find(source, "public.t")
    with source.open_ranges(stream, 4, "pgcopy") as opened:
        reads = Reads(opened, before=fail)
        label = opened.ranges[2].label
        with pytest.raises(FatalConnectorError, match=rf"range 3 of \d+ \({label}\): no such luck"):
            load(destination, stream, reads)
    assert (reads.finals, reads.repeated) == (0, [])
    assert rows(postgres_url, "select * from copied") == [(7,)]
    assert leftovers(postgres_url) == []


@pytest.mark.parametrize("side", ["reader", "loader"])
@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
def test_a_range_whose_connection_is_cut_is_repeated_alone(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination, wire: str, side: str
) -> None:
    script(postgres_url, TABLES["composite"])
    begun: list[int] = []
    # A loader has locked its range; its COPY begins with the second block.
    what = "'copy%%(select%%'" if side == "reader" else "'update %%_syncblocks_stg%%'"
    cut = (
        f"select pg_terminate_backend(pid) from pg_stat_activity where query ilike {what} and pid <> pg_backend_pid() "
        "and datname = current_database()"  # tests run side by side
    )

    stream = find(source, "public.t")
    with source.open_ranges(stream, 2, wire) as opened:
        real = opened.read

        def read(part: Range) -> Generator[Any, None, None]:
            begun.append(part.place)
            events = real(part)
            yield next(events)
            if begun.count(1) == 1 and part.place == 1:
                with psycopg.connect(postgres_url, autocommit=True) as connection:
                    connection.execute(cut.replace("%%", "%"))  # type: ignore[arg-type]
                    while connection.execute(f"select 1 from ({cut.replace('%%', '%')}) x").fetchall():  # type: ignore[arg-type]
                        pass
                if side == "reader":
                    events.close()
                    raise RetriableError("the connection is gone")
            yield from events

        reads = Reads(opened, retries=2)
        reads.read = read  # type: ignore[method-assign]
        load(destination, stream, reads, wire, loaders=1)
    assert reads.repeated == [opened.ranges[1].label]
    assert begun.count(1) == 2
    assert sorted(set(begun)) == list(range(len(opened.ranges)))
    assert len(begun) == len(opened.ranges) + 1
    assert rows(postgres_url, SUM.format("copied")) == rows(postgres_url, SUM.format("t"))


@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
def test_a_range_whose_commit_was_never_answered_is_not_loaded_twice(
    postgres_url: str, source: PostgresSource, wire: str
) -> None:
    script(postgres_url, TABLES["no key"])
    stream = find(source, "public.t")
    with ExitStack() as stack:
        between = stack.enter_context(proxy(postgres_url))
        destination = PostgresDestination({"url": between.url}, Path())
        stack.callback(destination.close)
        ordered = order(destination, stream, "copied", WriteDisposition.REPLACE)
        opened = stack.enter_context(source.open_ranges(stream, 2, wire))
        reads = Reads(opened)
        # The first two are those of `drop_left` and of the staging table; the last one is the load's own.
        between.loses = {between.commits + 3, between.commits + 5}
        list(destination.load_ranges(ordered, reads, 2, wire))
        assert between.lost == 2
    assert reads.repeated == []
    assert rows(postgres_url, SUM.format("copied")) == rows(postgres_url, SUM.format("t"))


def test_a_lost_snapshot_says_so(postgres_url: str, source: PostgresSource, destination: PostgresDestination) -> None:
    script(postgres_url, TABLES["no key"])
    stream = find(source, "public.t")

    def kill_holder(part: Range) -> None:
        sql = "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_export_snapshot%'"
        here = "and datname = current_database()"
        rows(postgres_url, f"{sql} and state = 'idle in transaction' {here}")
        while rows(
            postgres_url, f"select 1 from pg_stat_activity where query like 'select pg_export_snapshot%' {here}"
        ):
            pass

    with source.open_ranges(stream, 2, "pgcopy") as opened:
        reads = Reads(opened, before=kill_holder, retries=0)
        with pytest.raises(SnapshotLost, match="is gone"):
            load(destination, stream, reads)
    assert leftovers(postgres_url) == []


def test_whoever_was_taken_over_loads_nothing_more(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination
) -> None:
    script(postgres_url, TABLES["no key"])
    stream = find(source, "public.t")
    other = PostgresDestination({"url": postgres_url}, Path())

    def take_over(part: Range) -> None:
        if part.place == 1:
            order(other, stream, "copied", WriteDisposition.REPLACE)

    with source.open_ranges(stream, 2, "pgcopy") as opened:
        reads = Reads(opened, before=take_over)
        with pytest.raises(TakenOver, match="was taken over by owner of"):
            load(destination, stream, reads, loaders=1)
    other.close()
    assert reads.finals == 0
    assert rows(postgres_url, "select to_regclass('copied')") == [(None,)]


def test_interrupting_ends_loaders_that_wait_for_a_lock(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination
) -> None:
    script(postgres_url, TABLES["no key"])
    stream = find(source, "public.t")
    with ExitStack() as stack:
        blocker = stack.enter_context(psycopg.connect(postgres_url))
        opened = stack.enter_context(source.open_ranges(stream, 2, "pgcopy"))
        ordered = order(destination, stream, "copied", WriteDisposition.REPLACE)
        once = threading.Lock()

        def block(part: Range) -> None:
            if once.acquire(blocking=False):
                blocker.execute(f"lock table {staging_name(ordered.token)} in exclusive mode")
                threading.Thread(target=interrupt, daemon=True).start()

        def interrupt() -> None:
            waiting = "select 1 from pg_locks where not granted"
            while not rows(postgres_url, waiting):
                pass
            blocker.rollback()
            destination.interrupt(stream.name)

        with pytest.raises(Interrupted):
            list(destination.load_ranges(ordered, Reads(opened, before=block), 2, "pgcopy"))
    assert leftovers(postgres_url) == []


def test_staging_of_the_dead_is_dropped_by_their_tokens_and_by_the_next_load_even_where_a_zombie_holds_it(
    postgres_url: str, source: PostgresSource, destination: PostgresDestination
) -> None:
    script(postgres_url, TABLES["no key"])
    stream = find(source, "public.t")
    left = ["f" * 32, "e" * 32]
    key = '["p", "public.t", "copied"]'
    for token in left:
        name = staging_name(token)
        script(postgres_url, f"create table {name} (v text)")
        script(
            postgres_url,
            f"create table {name}_r as select 0 as place, '{key}'::text as stream, '{token}'::text as token",
        )
    with psycopg.connect(postgres_url) as zombie, psycopg.connect(postgres_url) as second:
        zombie.execute(f"insert into {staging_name(left[0])} values ('late')")
        second.execute(f"insert into {staging_name(left[1])} values ('late')")
        destination.drop_staging([left[0]])
        assert leftovers(postgres_url) == [(staging_name(left[1]),), (f"{staging_name(left[1])}_r",)]
        with source.open_ranges(stream, 2, "pgcopy") as opened:
            load(destination, stream, Reads(opened))
        for dead in (zombie, second):
            with pytest.raises(psycopg.OperationalError):
                dead.execute("select 1")
    assert leftovers(postgres_url) == []


def test_pages_that_somebody_has_written_are_no_sql(source: PostgresSource, postgres_url: str) -> None:
    script(postgres_url, f"{FEW}(1, 500) g")
    (stream,) = source.discover()
    planted = Range(place=0, label="", locator={"pages": ["0,0)'::tid or true --", None]})
    with source.open_ranges(stream, 3, "arrow") as opened, pytest.raises(ValueError, match="invalid literal for int"):
        list(opened.read(planted))
