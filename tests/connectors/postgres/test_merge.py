"""Merging into PostgreSQL: by any set of indexes, by keys as they become, and only by keys."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition
from tests.connectors.postgres.postgres_pair import batch_of, can, rows, script, write
from tests.connectors.postgres.postgres_pair import destination as destination


def test_merge_keeps_the_last_record_of_a_key(postgres_url: str, destination: PostgresDestination) -> None:
    first = batch_of({"id": [1, 2, 1], "v": ["a", "b", "c"]})
    second = batch_of({"id": [2, 3], "v": ["d", "e"]})
    write(destination, [first, second], "t", WriteDisposition.MERGE, key=["id"])
    assert rows(postgres_url, "select id, v from t order by id") == [(1, "c"), (2, "d"), (3, "e")]
    assert rows(
        postgres_url,
        "select conname, contype::text from pg_constraint where conrelid = 't'::regclass and contype <> 'n'",
    ) == [("t_pkey", "p")]
    write(
        destination,
        [batch_of({"id": [3, 4], "v": ["x", "f"]})],
        "t",
        WriteDisposition.MERGE,
        key=["id"],
        method=ConflictMethod.IGNORE,
    )
    assert rows(postgres_url, "select id, v from t where id > 2 order by id") == [(3, "e"), (4, "f")]


SITUATIONS = {
    "ours": "create table t (id bigint primary key, v text, extra text)",
    "no key": "create table t (id bigint, v text, extra text)",
    "trigger": "create table t (id bigint primary key, v text, extra text); create table log (what text); "
    "create function note() returns trigger language plpgsql as "
    "'begin insert into log values (tg_op); return null; end'; "
    "create trigger noting after insert or update or delete on t for each row execute function note()",
    "referenced": "create table t (id bigint primary key, v text, extra text); "
    "create table child (t bigint references t)",
    "default": "create table t (id bigint primary key, v text, extra text default 'made', "
    "n int generated always as identity)",
    "partitioned": "create table t (id bigint primary key, v text, extra text) partition by hash (id); "
    "create table t0 partition of t for values with (modulus 1, remainder 0)",
    "generated": "create table t (id bigint generated always as identity primary key, v text, extra text, "
    "loud text generated always as (upper(v)) stored)",
}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("method", list(ConflictMethod))
def test_merge_picks_a_way_that_every_table_allows(
    postgres_url: str, destination: PostgresDestination, situation: str, method: ConflictMethod
) -> None:
    script(postgres_url, SITUATIONS[situation])
    script(
        postgres_url, "insert into t (id, v, extra) overriding system value values (1, 'old', 'kept'), (9, 'x', 'y')"
    )
    if situation == "referenced":
        script(postgres_url, "insert into child values (1)")
    batch = batch_of({"id": [1, 2, 2], "v": ["new", "no", "two"]})
    write(destination, [batch], "t", WriteDisposition.MERGE, key=["id"], method=method)
    expected_v = "old" if method is ConflictMethod.IGNORE else "new"
    second = [] if method is ConflictMethod.UPDATE_ONLY else [(2, "no" if method is ConflictMethod.IGNORE else "two")]
    assert rows(postgres_url, "select id, v from t order by id") == [(1, expected_v), *second, (9, "x")]
    extra = rows(postgres_url, "select extra from t where id = 1")
    keeps = method is ConflictMethod.IGNORE or situation == "default"
    assert extra == [("kept",) if keeps else (None,)]
    if situation == "trigger":
        operations = {"INSERT"} if method is ConflictMethod.IGNORE else {"UPDATE", "INSERT"}
        assert {what for (what,) in rows(postgres_url, "select what from log")} - {"INSERT"} == operations - {"INSERT"}


def test_a_merge_of_new_records_only_inserts_however_large_the_table(postgres_url: str) -> None:
    role = f"inserter_{uuid.uuid4().hex[:8]}"
    script(postgres_url, f"create role {role} login; create schema mine authorization {role}")
    destination = PostgresDestination({"url": postgres_url, "user": role, "schema": "mine"}, Path())

    def merge(ids: list[int], values: list[str]) -> None:
        write(destination, [batch_of({"id": ids, "v": values})], "t", WriteDisposition.MERGE, key=["id"])

    try:
        merge([1, 2], ["a", "b"])
        script(postgres_url, f"revoke delete on mine.t from {role}")
        merge([3, 4], ["c", "d"])
        with pytest.raises(FatalConnectorError, match="permission denied") as caught:
            merge([5, 4], ["e", "f"])
        assert "delete from" not in str(caught.value), "an error says no SQL"
        script(postgres_url, f"grant delete on mine.t to {role}")
        merge([5, 4], ["e", "f"])
        held = rows(postgres_url, "select id, v from mine.t order by id")
        assert held == [(1, "a"), (2, "b"), (3, "c"), (4, "f"), (5, "e")]
    finally:
        destination.close()
        script(postgres_url, f"drop schema mine cascade; drop owned by {role}; drop role {role}")


def test_a_merge_that_breaks_another_constraint_says_which(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, "create table t (id bigint primary key, v text constraint short check (length(v) < 3))")
    write(destination, [batch_of({"id": [1], "v": ["a"]})], "t", WriteDisposition.MERGE, key=["id"])
    for number in (1, 2):
        with pytest.raises(FatalConnectorError, match='"short"') as caught:
            write(destination, [batch_of({"id": [number], "v": ["long"]})], "t", WriteDisposition.MERGE, key=["id"])
        assert "insert into" not in str(caught.value)
    assert rows(postgres_url, "select id, v from t") == [(1, "a")]


def test_a_null_in_a_merges_key_is_refused(postgres_url: str, destination: PostgresDestination) -> None:
    write(destination, [batch_of({"id": [1], "v": ["a"]})], "t", WriteDisposition.MERGE, key=["id"])
    with pytest.raises(FatalConnectorError, match="NULL"):
        write(destination, [batch_of({"id": [1, None], "v": ["b", "c"]})], "t", WriteDisposition.MERGE, key=["id"])
    assert rows(postgres_url, "select id, v from t") == [(1, "a")]


@pytest.mark.parametrize("key", [[], ["nope"]])
def test_a_merge_without_its_key_is_refused(
    postgres_url: str, destination: PostgresDestination, key: list[str]
) -> None:
    with pytest.raises(FatalConnectorError, match="key_properties"):
        write(destination, [batch_of({"id": [1]})], "t", WriteDisposition.MERGE, key=key)
    assert rows(postgres_url, "select to_regclass('t')") == [(None,)]


def test_keys_are_compared_as_what_they_become(postgres_url: str, destination: PostgresDestination) -> None:
    upper = "123E4567-E89B-12D3-A456-426614174000"
    field = pa.field("id", pa.string(), False, {b"native_type": b"uuid", b"native_system": b"postgres"})
    schema = pa.schema([field, ("v", pa.int64())])
    batch = batch_of({"id": [upper, upper.lower()], "v": [1, 2]}, schema)
    write(destination, [batch], "t", WriteDisposition.MERGE, key=["id"])
    assert rows(postgres_url, "select id::text, v from t") == [(upper.lower(), 2)]


#: Type of a key -> what makes it, where the server was built with that.
FOLDED = {
    "citext": "create extension citext",
    "text collate folding": (
        "create collation folding (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"
    ),
}


@pytest.mark.parametrize("key", FOLDED)
@pytest.mark.parametrize("unique", ["primary key", "references keys"])
def test_a_key_that_knows_no_case_is_written_as_it_arrives(
    postgres_url: str, destination: PostgresDestination, key: str, unique: str
) -> None:
    """`deletes` would take the former key for one that the source no longer has, and delete the record."""
    if not can(postgres_url, FOLDED[key]):
        pytest.skip(f"this server knows no {key}")
    script(
        postgres_url,
        f"create table keys (id {key} primary key); insert into keys values ('a'), ('b'); "
        f"create table t (id {key} {unique}, v text, n int default 1); "
        "insert into t values ('a', 'old'), ('b', 'other')",
    )
    write(destination, [batch_of({"id": ["A"], "v": ["new"]})], "t", WriteDisposition.MERGE, key=["id"])
    assert rows(postgres_url, "select id::text, v from t order by id") == [("A", "new"), ("b", "other")]


@pytest.mark.parametrize("kind", FOLDED)
@pytest.mark.parametrize("made", ["", "primary key", "primary key, n int default 1", "references keys"])
def test_two_keys_that_are_one_to_the_table_are_refused(
    postgres_url: str, destination: PostgresDestination, kind: str, made: str
) -> None:
    """Else the last of them would have overwritten the other without a word."""
    if not can(postgres_url, FOLDED[kind]):
        pytest.skip(f"this server knows no {kind}")
    script(postgres_url, f"create table keys (id {kind} primary key); insert into keys values ('a'), ('z')")
    script(postgres_url, f"create table t (id {kind} {made}, v text); insert into t (id, v) values ('a', 'old')")
    batch = batch_of({"id": ["a", "z", "A"], "v": ["new", "new", "new"]})
    with pytest.raises(FatalConnectorError, match=r"t treats the keys 'A' and 'a' \(column 'id'\) as equal"):
        write(destination, [batch], "t", WriteDisposition.MERGE, key=["id"])
    assert rows(postgres_url, "select id::text, v from t") == [("a", "old")]
    write(
        destination, [batch_of({"id": ["a", "z", "a"], "v": ["1", "2", "3"]})], "t", WriteDisposition.MERGE, key=["id"]
    )
    assert rows(postgres_url, "select id::text, v from t order by id") == [("a", "3"), ("z", "2")]


def test_a_replace_in_place_refuses_two_keys_that_are_one_to_the_table(
    postgres_url: str, destination: PostgresDestination
) -> None:
    script(postgres_url, "create extension citext; create table t (id citext primary key, v text)")
    script(postgres_url, "create table children (id citext references t); insert into t values ('a', 'old')")
    batch = batch_of({"id": ["a", "A"], "v": ["new", "newer"]})
    with pytest.raises(FatalConnectorError, match="t treats the keys 'A' and 'a'"):
        write(destination, [batch], "t", WriteDisposition.REPLACE, key=["id"])
    assert rows(postgres_url, "select id::text, v from t") == [("a", "old")]


def test_two_keys_that_differ_by_blanks_at_the_end_are_refused(
    postgres_url: str, destination: PostgresDestination
) -> None:
    script(postgres_url, "create table t (id bpchar primary key, v text); insert into t values ('a', 'old')")
    with pytest.raises(FatalConnectorError, match="t treats the keys 'a' and 'a ' "):
        write(destination, [batch_of({"id": ["a", "a "], "v": ["1", "2"]})], "t", WriteDisposition.MERGE, key=["id"])
    write(destination, [batch_of({"id": ["a "], "v": ["2"]})], "t", WriteDisposition.MERGE, key=["id"])
    assert rows(postgres_url, "select octet_length(id), v from t") == [(2, "2")]
