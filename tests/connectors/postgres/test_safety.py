"""Tokens and late commits, with real sessions that race."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.errors import (
    RetriableError,
    TakenOver,
)
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.stream import Checkpoint, Event, Load, Stream
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from tests.connectors.postgres.postgres_pair import PLAIN, batch_of, key_of, order, rows, script
from tests.connectors.postgres.postgres_pair import destination as destination

BATCH = batch_of({"id": [1, 2]})
STREAM = Stream(name="s", schema=BATCH.schema, key_properties=("id",))


@pytest.mark.parametrize("disposition", PLAIN)
def test_only_the_last_token_commits(
    postgres_url: str, destination: PostgresDestination, disposition: WriteDisposition
) -> None:
    old = order(destination, STREAM, "t", disposition)
    new = order(destination, STREAM, "t", disposition)
    with pytest.raises(TakenOver, match=f"owner of {new.token}"):
        list(destination.load(old, iter([BATCH, Checkpoint(is_final=True)])))
    assert rows(postgres_url, "select to_regclass('t')") == [(None,)]
    list(destination.load(new, iter([BATCH, Checkpoint(is_final=True)])))
    assert rows(postgres_url, "select count(*) from t") == [(2,)]


def test_a_token_taken_over_between_two_commits_stops_the_second(
    postgres_url: str, destination: PostgresDestination
) -> None:
    load = order(destination, STREAM, "t")
    commits = destination.load(load, iter([BATCH, Checkpoint(bookmark={"id": 2}), BATCH, Checkpoint(is_final=True)]))
    assert next(commits).checkpoint.bookmark == {"id": 2}
    other = PostgresDestination({"url": postgres_url}, Path())
    row = other.take_over(load.key, token="other", owner="me")
    other.close()
    assert (row.bookmark, row.token, row.source, row.completed_by) == ({"id": 2}, "other", "test://", None)
    with pytest.raises(TakenOver, match="by me"):
        next(commits)
    assert rows(postgres_url, "select count(*) from t") == [(2,)]


def test_a_ledger_row_that_was_deleted_stops_the_commit(postgres_url: str, destination: PostgresDestination) -> None:
    load = order(destination, STREAM, "t")
    destination.set_bookmark(load.key, None, forget=True)
    with pytest.raises(TakenOver):
        list(destination.load(load, iter([BATCH, Checkpoint(is_final=True)])))


def test_setting_a_bookmark_by_hand_ends_the_run_under_way(postgres_url: str, destination: PostgresDestination) -> None:
    load = order(destination, STREAM, "t")
    destination.set_bookmark(load.key, {"id": 7})
    with pytest.raises(TakenOver):
        list(destination.load(load, iter([BATCH, Checkpoint(is_final=True)])))
    (row,) = destination.describe(["t"])["t"].ledger
    assert (row.bookmark, row.source) == ({"id": 7}, "test://")


@pytest.mark.parametrize("disposition", [WriteDisposition.APPEND, WriteDisposition.MERGE])
def test_a_takeover_waits_for_a_commit_under_way(
    postgres_url: str, destination: PostgresDestination, disposition: WriteDisposition
) -> None:
    """A deferred trigger makes COMMIT itself last two seconds; the ledger row is locked all the while."""
    script(
        postgres_url,
        "create table t (id bigint primary key); "
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(2); return null; end'; "
        "create constraint trigger slowly after insert on t deferrable initially deferred "
        "for each row when (new.id = 1) execute function slow()",
    )
    load = order(destination, STREAM, "t", disposition)
    done: list[Any] = []

    def run() -> None:
        done.extend(destination.load(load, iter([BATCH, Checkpoint(is_final=True)])))

    writing = threading.Thread(target=run)
    writing.start()
    committing = "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'commit%' "
    while rows(postgres_url, committing + "and state = 'active'") == [(0,)]:
        assert writing.is_alive()
    row = destination.take_over(load.key, token="recovery", owner="recovery")
    assert row.completed_by == "run:1"
    writing.join(20)
    assert len(done) == 1
    assert rows(postgres_url, "select count(*) from t") == [(2,)]


def test_a_commit_whose_connection_is_cut_is_left_to_the_ledger(
    postgres_url: str, destination: PostgresDestination
) -> None:
    script(
        postgres_url,
        "create table t (id bigint primary key); "
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(5); return null; end'; "
        "create constraint trigger slowly after insert on t deferrable initially deferred "
        "for each row when (new.id = 1) execute function slow()",
    )
    load = order(destination, STREAM, "t")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: list(destination.load(load, iter([BATCH, Checkpoint(is_final=True)]))))
        cut = "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'commit%' and state = 'active' "
        while not rows(postgres_url, cut + "and datname = current_database()"):
            assert not writing.done()
        with pytest.raises(RetriableError):
            writing.result(20)
    assert destination.take_over(load.key, token="recovery", owner="").completed_by is None
    assert rows(postgres_url, "select count(*) from t") == [(0,)]


def test_eight_threads_create_schema_and_ledger_at_once(postgres_url: str) -> None:
    destinations = [PostgresDestination({"url": postgres_url, "schema": "new one"}, Path()) for _ in range(8)]
    ready = threading.Barrier(8)

    def run(number: int) -> str:
        destination = destinations[number]
        destination.check()
        ready.wait(20)
        write_key = key_of(f"t{number}", f"s{number}")
        row = destination.take_over(write_key, token=str(number), owner="")
        load = Load(
            key=write_key,
            stream=STREAM,
            write=WriteSpec(disposition=WriteDisposition.APPEND),
            token=str(number),
            run="r:1",
        )
        list(destination.load(load, iter([BATCH, Checkpoint(is_final=True)])))
        return row.token

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(run, range(8))) == [str(number) for number in range(8)]
    for each in destinations:
        each.close()
    assert rows(postgres_url, 'select count(*), min(rows) from "new one"._syncblocks_ledger') == [(8, 2)]


@pytest.mark.parametrize("disposition", [WriteDisposition.APPEND, WriteDisposition.MERGE])
def test_streams_may_share_a_table_that_none_of_them_has_seen(postgres_url: str, disposition: WriteDisposition) -> None:
    destination = PostgresDestination({"url": postgres_url}, Path())
    ready = threading.Barrier(4)

    def run(number: int) -> None:
        ids = list(range(number * 100, number * 100 + 100))
        stream = Stream(name=f"s{number}", schema=BATCH.schema, key_properties=("id",))
        load = order(destination, stream, "t", disposition)

        def events() -> Iterator[Event]:
            yield batch_of({"id": ids})
            ready.wait(20)
            yield Checkpoint(is_final=True)

        list(destination.load(load, events()))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    destination.close()
    assert rows(postgres_url, "select count(*), count(distinct id) from t") == [(400, 400)]


def test_two_merges_of_one_key_do_not_double_it(postgres_url: str) -> None:
    destination = PostgresDestination({"url": postgres_url}, Path())
    script(postgres_url, "create table t (id bigint)")
    ready = threading.Barrier(4)

    def run(number: int) -> None:
        stream = Stream(name=f"s{number}", schema=BATCH.schema, key_properties=("id",))
        load = order(destination, stream, "t", WriteDisposition.MERGE)

        def events() -> Iterator[Event]:
            yield BATCH
            ready.wait(20)
            yield Checkpoint(is_final=True)

        list(destination.load(load, events()))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    destination.close()
    assert rows(postgres_url, "select id from t order by id") == [(1,), (2,)]
