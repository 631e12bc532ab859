"""Replacing a table: what hangs on it stays, and readers see the old one until the commit."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.stream import Checkpoint, Event, Stream
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.postgres.postgres_pair import PLAIN, batch_of, order, rows, script, write
from tests.connectors.postgres.postgres_pair import destination as destination

OLD = "create table t (id bigint primary key, v text); insert into t values (1, 'old'), (7, 'old')"
NEW = batch_of({"id": [1, 2], "v": ["new", "new"]})
#: Takes another table; the one that is there would do for `NEW` (test_postgres_refill).
MORE = batch_of({"id": [1, 2], "v": ["new", "new"], "more": [1, 2]})


def replace_table(destination: PostgresDestination, batch: pa.RecordBatch = NEW) -> None:
    write(destination, [batch], "t", WriteDisposition.REPLACE, key=["id"])


def held(url: str) -> list[tuple[object, ...]]:
    return rows(url, "select id, v from t order by id")


def test_a_replaced_table_has_the_streams_columns_and_key(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, "create table t (id text, gone int); insert into t values ('x', 1)")
    write(destination, [NEW], "t", WriteDisposition.REPLACE, key=["id"])
    assert held(postgres_url) == [(1, "new"), (2, "new")]
    names = rows(postgres_url, "select conname from pg_constraint where conrelid = 't'::regclass and contype = 'p'")
    assert names == [("t_pkey",)]
    replace_table(destination)
    assert rows(postgres_url, "select conname from pg_constraint where conrelid = 't'::regclass and contype = 'p'") == [
        ("t_pkey",)
    ]


def test_another_tables_index_may_have_the_keys_name(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, "create table other (id bigint constraint t_pkey primary key)")
    replace_table(destination)
    assert held(postgres_url) == [(1, "new"), (2, "new")]


DEPENDENTS = {
    "view": ("create view look as select id, v from t", "select count(*) from look where v = 'new'"),
    "materialized view": ("create materialized view look as select id from t", "select 2 from look limit 1"),
    "index": ("create index t_v on t (v)", "select 2 from pg_indexes where indexname = 't_v'"),
    "check": ("alter table t add check (id > 0)", "select 2 from pg_constraint where contype = 'c' limit 1"),
    "default": ("alter table t add n int default 5", "select count(*) from t where n = 5"),
    "comment": ("comment on table t is 'mine'", "select 2 from pg_description where description = 'mine'"),
    "policy": ("alter table t enable row level security", "select 2 from pg_class where relrowsecurity"),
    "publication": ("create publication p for table t", "select 2 from pg_publication_rel"),
    "row type": ("create function f() returns setof t language sql as 'select * from t'", "select count(*) from f()"),
    "trigger": (
        "create function f() returns trigger language plpgsql as 'begin return new; end'; "
        "create trigger g before insert on t for each row execute function f()",
        "select 2 from pg_trigger where tgname = 'g'",
    ),
    "storage": ("alter table t set (fillfactor = 50)", "select 2 from pg_class where reloptions is not null limit 1"),
    "replica identity": ("alter table t replica identity full", "select 2 from pg_class where relreplident = 'f'"),
    "collation": (
        'alter table t alter v type text collate "C"',
        "select 2 from pg_attribute where attrelid = 't'::regclass and attcollation = '\"C\"'::regcollation",
    ),
    "inheritance": ("create table child () inherits (t)", "select 2 from pg_inherits"),
}


@pytest.mark.parametrize("dependent", DEPENDENTS)
def test_what_depends_on_a_table_survives(postgres_url: str, destination: PostgresDestination, dependent: str) -> None:
    made, proof = DEPENDENTS[dependent]
    script(postgres_url, f"{OLD}; {made}")
    before = rows(postgres_url, "select 't'::regclass::oid")
    replace_table(destination)
    assert held(postgres_url) == [(1, "new"), (2, "new")]
    assert rows(postgres_url, proof) == [(2,)]
    assert rows(postgres_url, "select 't'::regclass::oid") == before


def test_foreign_keys_that_point_here_survive(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, f"{OLD}; create table child (t bigint references t); insert into child values (1)")
    replace_table(destination)
    assert held(postgres_url) == [(1, "new"), (2, "new")]
    with pytest.raises(FatalConnectorError, match="foreign key"):
        replace_table(destination, batch_of({"id": [2], "v": ["x"]}))
    assert held(postgres_url) == [(1, "new"), (2, "new")]


def test_a_view_stands_in_the_way_of_a_new_type(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, f"{OLD}; create view look as select v from t")
    retyped = batch_of({"id": [1], "v": [1.5]})
    with pytest.raises(FatalConnectorError, match="'v'"):
        replace_table(destination, retyped)
    assert held(postgres_url) == [(1, "old"), (7, "old")]
    replace_table(destination, batch_of({"id": [1], "v": ["new"], "more": [1]}))
    assert rows(postgres_url, "select more from t") == [(1,)]


def test_privileges_and_owner_survive(postgres_url: str) -> None:
    role, owner = f"reader_{uuid.uuid4().hex[:8]}", f"owner \"{uuid.uuid4().hex[:8]}'"
    quoted = '"' + owner.replace('"', '""') + '"'
    script(postgres_url, f"create role {role}; create role {quoted}")
    try:
        script(
            postgres_url,
            f"{OLD}; alter table t owner to {quoted}; grant select on t to {role} with grant option; "
            f"grant update on t to public; alter default privileges grant delete on tables to {role}",
        )
        acl = "select relacl::text, pg_get_userbyid(relowner) from pg_class where oid = 't'::regclass"
        before, oid = rows(postgres_url, acl), rows(postgres_url, "select 't'::regclass::oid")
        destination = PostgresDestination({"url": postgres_url}, Path())
        replace_table(destination, MORE)
        destination.close()
        assert held(postgres_url) == [(1, "new"), (2, "new")]
        assert rows(postgres_url, "select 't'::regclass::oid") != oid
        privileges = (
            "select grantee::regrole::text, privilege_type, is_grantable from pg_class, aclexplode(relacl) "
            "where oid = 't'::regclass and grantee <> relowner order by 1, 2"
        )
        assert rows(postgres_url, privileges) == [("-", "UPDATE", False), (role, "SELECT", True)]
        assert rows(postgres_url, acl)[0][1] == before[0][1]
    finally:
        script(postgres_url, f"drop owned by {role}, {quoted}; drop role {role}, {quoted}")


def test_a_user_who_may_only_write_refills_the_table(postgres_url: str) -> None:
    role = f"writer_{uuid.uuid4().hex[:8]}"
    script(postgres_url, f"create role {role} login")
    try:
        script(
            postgres_url,
            f"{OLD}; create schema mine authorization {role}; alter table t set schema mine; "
            f"grant select, insert, update, delete on mine.t to {role}",
        )
        destination = PostgresDestination({"url": postgres_url, "user": role, "schema": "mine"}, Path())
        replace_table(destination)
        destination.close()
        assert rows(postgres_url, "select id, v from mine.t order by id") == [(1, "new"), (2, "new")]
    finally:
        script(postgres_url, f"drop schema mine cascade; drop owned by {role}; drop role {role}")


def test_readers_see_the_old_table_until_the_commit(postgres_url: str, destination: PostgresDestination) -> None:
    for extra in ("", "; create view look as select * from t"):
        script(postgres_url, f"drop table if exists t cascade; {OLD}{extra}")
        seen = []

        def events(seen: list[object] = seen) -> Iterator[Event]:
            yield NEW
            yield NEW.slice(0, 0)
            seen.append(held(postgres_url))
            yield Checkpoint(is_final=True)

        stream = Stream(name="s", schema=NEW.schema, key_properties=("id",))
        list(destination.load(order(destination, stream, "t", WriteDisposition.REPLACE), events()))
        assert seen == [[(1, "old"), (7, "old")]]
        assert held(postgres_url) == [(1, "new"), (2, "new")]


def test_a_replace_that_fails_leaves_the_old_table_and_nothing_else(
    postgres_url: str, destination: PostgresDestination
) -> None:
    script(postgres_url, OLD)
    with pytest.raises(FatalConnectorError, match="duplicate"):
        replace_table(destination, batch_of({"id": [3, 3], "v": ["a", "b"]}))
    assert held(postgres_url) == [(1, "old"), (7, "old")]

    class Boom(Exception):
        pass

    def events() -> Iterator[Event]:
        yield NEW
        raise Boom("from the source")

    stream = Stream(name="s", schema=NEW.schema, key_properties=("id",))
    for disposition in PLAIN:
        with pytest.raises(Boom, match="from the source"):
            list(destination.load(order(destination, stream, "t", disposition), events()))
        assert held(postgres_url) == [(1, "old"), (7, "old")]
    assert rows(postgres_url, "select relname from pg_class where relname like '\\_syncblocks\\_stg%'") == []


def test_a_reader_in_the_middle_is_waited_for(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, OLD)
    with psycopg.connect(postgres_url) as reader:
        reader.execute("select * from t")
        writing = threading.Thread(target=replace_table, args=(destination, MORE))
        writing.start()
        waits = "select count(*) from pg_locks where not granted"
        while rows(postgres_url, waits) == [(0,)]:
            assert writing.is_alive()
        reader.commit()
        writing.join(20)
    assert held(postgres_url) == [(1, "new"), (2, "new")]


def test_leftovers_of_dead_runs_are_dropped_by_token(postgres_url: str, destination: PostgresDestination) -> None:
    script(
        postgres_url,
        "create schema s; create table s._syncblocks_stg_abc1 (a int); create table _syncblocks_stg_abc1_c (a int); "
        "create table _syncblocks_stg_abc12 (a int)",
    )
    destination.drop_staging(["abc1", "unknown"])
    destination.drop_staging([])
    found = rows(postgres_url, "select relname from pg_class where relname like '\\_syncblocks\\_stg%'")
    assert found == [("_syncblocks_stg_abc12",)]
