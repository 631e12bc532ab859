"""A small table that looks the same is replaced by deleting its records; any other by another table."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError, RetriableError
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.stream import Checkpoint, Event, Stream
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.postgres.postgres_pair import batch_of, order, rows, script, write
from tests.connectors.postgres.postgres_pair import destination as destination

OLD = "create table t (id bigint primary key, v text); insert into t values (1, 'old'), (7, 'old')"
NEW = batch_of({"id": [1, 2], "v": ["new", "new"]})
LARGE = pa.RecordBatch.from_pydict({"id": [1, 2], "v": ["new", "x" * (1 << 20)]}, NEW.schema)


def replace_table(destination: PostgresDestination, *batches: pa.RecordBatch, key: str = "id") -> None:
    write(destination, list(batches), "t", WriteDisposition.REPLACE, key=[key])


def oid(url: str) -> object:
    return rows(url, "select 't'::regclass::oid")[0][0]


def held(url: str) -> list[tuple[object, ...]]:
    return rows(url, "select id, v from t order by id")


def test_nobody_who_reads_is_waited_for(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, OLD)
    before = oid(postgres_url)
    with psycopg.connect(postgres_url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        assert reader.execute("select count(*) from t").fetchone() == (2,)
        replace_table(destination, NEW)
        assert reader.execute("select id, v from t order by id").fetchall() == [(1, "old"), (7, "old")]
    assert held(postgres_url) == [(1, "new"), (2, "new")]
    assert oid(postgres_url) == before
    assert rows(postgres_url, "select relname from pg_class where starts_with(relname, '_syncblocks_stg')") == []


def test_whoever_writes_is_waited_for(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, f"{OLD}; alter database {postgres_url.rpartition('/')[2]} set lock_timeout = '200ms'")
    with psycopg.connect(postgres_url) as writer:
        writer.execute("insert into t values (9, 'not committed')")
        with pytest.raises(RetriableError, match="lock timeout"):
            replace_table(destination, NEW)
    replace_table(destination, NEW)
    assert held(postgres_url) == [(1, "new"), (2, "new")]


def test_a_look_at_a_table_waits_for_no_lock(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, f"{OLD}; alter database {postgres_url.rpartition('/')[2]} set lock_timeout = '200ms'")
    with psycopg.connect(postgres_url) as other:
        other.execute("lock table t in access exclusive mode")
        assert destination.describe(["t"])["t"].schema is not None


@pytest.mark.parametrize(
    "what",
    [
        "alter table t add more int",
        "alter table t drop column v; alter table t add v varchar(9)",
        "alter table t drop constraint t_pkey",
        "alter table t drop constraint t_pkey; alter table t add primary key (id, v)",
        "alter table t drop constraint t_pkey; alter table t add primary key (id) deferrable",
        "insert into t select n, 'x' from generate_series(10, 20000) n; analyze t",
    ],
)
def test_what_looks_different_or_is_large_is_another_table_from_then_on(
    postgres_url: str, destination: PostgresDestination, what: str
) -> None:
    script(postgres_url, f"{OLD}; {what}")
    before = oid(postgres_url)
    replace_table(destination, NEW)
    assert held(postgres_url) == [(1, "new"), (2, "new")]
    assert oid(postgres_url) != before
    named = "select string_agg(attname || ' ' || attnotnull, ', ' order by attnum) from pg_attribute"
    assert rows(postgres_url, f"{named} where attrelid = 't'::regclass and attnum > 0") == [("id true, v false",)]


def test_many_bytes_are_another_table(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, OLD)
    before = oid(postgres_url)
    replace_table(destination, LARGE)
    assert rows(postgres_url, "select id, length(v) from t order by id") == [(1, 3), (2, 1 << 20)]
    assert oid(postgres_url) != before


def test_several_small_batches_are_one_replacement(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, OLD)
    before = oid(postgres_url)
    replace_table(destination, NEW, batch_of({"id": [3], "v": ["new"]}), NEW.slice(0, 0))
    assert held(postgres_url) == [(1, "new"), (2, "new"), (3, "new")]
    assert oid(postgres_url) == before


def test_a_refused_replacement_says_what_it_always_says_and_keeps_the_table(
    postgres_url: str, destination: PostgresDestination
) -> None:
    twice = batch_of({"id": [1, 1], "v": ["a", "b"]})
    said = []
    for made in ("drop table if exists t", OLD):
        script(postgres_url, made)
        with pytest.raises(FatalConnectorError) as caught:
            replace_table(destination, twice)
        said.append(str(caught.value).partition("_syncblocks_stg")[0])
    assert said[0] == said[1]
    assert "(id)=(1)" in str(caught.value)
    assert held(postgres_url) == [(1, "old"), (7, "old")]


def test_an_error_of_the_source_behind_a_few_records_keeps_the_table(
    postgres_url: str, destination: PostgresDestination
) -> None:
    def events() -> Iterator[Event]:
        yield NEW
        raise ConnectionResetError("gone")

    script(postgres_url, OLD)
    stream = Stream(name="s", schema=NEW.schema, key_properties=("id",))
    load = order(destination, stream, "t", WriteDisposition.REPLACE)
    with pytest.raises(ConnectionResetError, match="gone"):
        list(destination.load(load, events()))
    assert held(postgres_url) == [(1, "old"), (7, "old")]
    list(destination.load(load, iter([NEW, Checkpoint(is_final=True)])))
    assert held(postgres_url) == [(1, "new"), (2, "new")]
