"""LOG_BASED merges: the destination's tables are those of the source, after any change and any crash."""

from __future__ import annotations

import hmac
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunCLI
from tests.sync.run.log_based import Logged

USERS = """create table users (id bigint primary key, name text not null, note text, raw bytea, doc jsonb, tags text[]);
alter table users alter note set storage external; alter table users alter raw set storage external;
insert into users
select g, 'user ' || g, repeat('n', 3000), decode(repeat('00ff', 1500), 'hex'), '{"a": [1, 2]}', '{x,y}'
from generate_series(1, 5) g"""

MERGED = [{"stream": "public.*", "replication_method": "LOG_BASED"}]


@pytest.fixture
def logged(tmp_path: Path, log_url: str) -> Logged:
    found = Logged(tmp_path, log_url, "duckdb")
    found.document["streams"] = MERGED
    found.sql(USERS)
    return found


def same(logged: Logged) -> bool:
    """Whether the merged table is the source's; documents and lists are compared as texts."""
    query = "select id, name, note, raw, doc::text, tags::text from users order by 1"
    there = [(*row[:4], *(None if text is None else str(text) for text in row[4:])) for row in logged.merged("users")]
    return there == [(*row[:4], *row[4:]) for row in logged.sql(query)]


CHANGES = {
    "plain": [
        "insert into users values (6, 'new')",
        "update users set name = 'N' where id = 2",
        "delete from users where id = 3",
    ],
    "large values stay": [
        "update users set name = 'N'",
        "update users set note = 'short' where id = 1",
        "update users set name = 'M'",
    ],
    "keys move": ["update users set id = 10 where id = 1; update users set id = 11, name = 'N' where id = 10"],
    "keys are swapped": [
        "begin; update users set id = 99 where id = 1; update users set id = 1 where id = 2;"
        " update users set id = 2 where id = 99; commit"
    ],
    "a chain of keys": [f"update users set id = {n + 1} where id = {n}" for n in (5, 4, 3, 2, 1)],
    "deleted and there again": [
        "begin; delete from users where id = 1; insert into users values (1, 'again', repeat('m', 3000));"
        " update users set name = 'N' where id = 1; commit"
    ],
    "moved and deleted": ["begin; update users set id = 50 where id = 1; delete from users where id = 50; commit"],
    "emptied": [
        "begin; update users set name = 'N'; truncate users; insert into users values (1, 'first', repeat('m', 3000));"
        " update users set name = 'N' where id = 1; commit"
    ],
    "emptied at last": ["insert into users values (7, 'new')", "truncate users"],
    "rolled back": ["begin; savepoint s; delete from users; rollback to s; update users set name = 'N'; commit"],
}


@pytest.mark.full
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
@pytest.mark.one_of("changes")
def test_the_table_is_that_of_the_source(logged: Logged, changes: list[str]) -> None:
    logged.succeed()
    assert same(logged)
    logged.sql(*changes)
    logged.succeed()
    assert same(logged)
    logged.succeed()
    assert same(logged)


@pytest.mark.full
@pytest.mark.parametrize("destination", ["duckdb", "postgres"])
def test_a_transaction_that_is_staged_in_parts_is_folded_in_the_destination(
    tmp_path: Path, log_url: str, postgres_url: str, destination: str
) -> None:
    """Past 16 MB of changes the staging table, and not memory, tells which change of a key is the last."""
    logged = Logged(tmp_path, log_url, "duckdb")
    if destination == "postgres":
        logged.document["destination"] = {"connector": "postgres", "config": {"url": postgres_url, "schema": "public"}}
        logged.connector = "postgres"
    logged.document["streams"] = MERGED
    logged.sql(USERS)
    logged.succeed()
    written = "insert into users select g, 'first', repeat(md5(g::text), 600) from generate_series(100, 999) g"
    logged.sql(
        f"begin; {written}; delete from users where id % 3 = 0;"
        " update users set name = 'second', note = repeat(md5(id::text || 's'), 600) where id > 99 and id % 2 = 0;"
        " insert into users select g, 'third' from generate_series(300, 600, 3) g;"
        " update users set name = 'fourth', note = repeat(md5(id::text || 'f'), 600) where id > 99 and id % 5 = 0;"
        " delete from users where id % 7 = 0; commit"
    )
    logged.succeed()
    query = "select id, name, coalesce(md5(note), '') from users order by 1"
    assert logged.query(query) == logged.sql(query)


def test_whole_records_in_the_log_know_large_values(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "duckdb")
    logged.document["streams"] = MERGED
    logged.sql(USERS, "alter table users replica identity full")
    logged.succeed()
    logged.sql("update users set name = 'N'", "update users set id = 20 where id = 2", "delete from users where id = 3")
    logged.succeed()
    assert same(logged)


def test_masked_columns_are_masked_in_copies_and_changes(logged: Logged) -> None:
    masks = {"name": None, "note": "hash", "*[!d]": None}
    logged.document |= {"mask_key": "k" * 32, "streams": [{**MERGED[0], "columns": {"mask": masks}, "deletes": "soft"}]}
    logged.document["transformers"] = [{"block": "named", "rename": {"raw": "bytes"}}]
    logged.succeed()
    before = logged.merged("users")
    logged.sql("update users set name = 'N' where id = 1", "insert into users values (6, 'secret')")
    logged.sql("update users set id = 7 where id = 2", "delete from users where id = 3")
    logged.succeed()
    found = {row[0]: row[1:] for row in logged.merged("users")}
    assert found.keys() == {1, 3, 4, 5, 6, 7}
    assert {row[0] for row in found.values()} == {None}
    assert found[1] == found[7] == before[0][1:]
    assert "secret" not in str(found)
    assert found[3][-1] is not None


@pytest.mark.full
def test_a_masked_key_is_masked_in_each_change_and_in_former_keys(logged: Logged) -> None:
    logged.document |= {
        "mask_key": "k" * 32,
        "streams": [{**MERGED[0], "columns": {"mask": {"id": "hash"}}}],
        "verify": True,
    }
    logged.succeed()
    logged.sql("update users set name = 'N' where id = 1", "delete from users where id = 3")
    logged.sql("begin; update users set id = 9 where id = 4; update users set id = 4 where id = 5; commit")
    logged.sql("update users set id = 5 where id = 9", "insert into users values (8, 'eight')")
    result = logged.run()
    assert [stream.verdict for stream in result.streams] == ["equal"]
    expected = {
        (hmac.new(b"k" * 32, str(id).encode(), "sha256").hexdigest(), name, note)
        for id, name, note in logged.sql("select id, name, note from users")
    }
    assert {row[:3] for row in logged.merged("users")} == expected


def test_a_column_that_is_added_is_merged(logged: Logged) -> None:
    logged.succeed()
    logged.sql("update users set name = 'N' where id = 1", "alter table users add age int", "update users set age = 4")
    logged.succeed()
    assert [row[6] for row in logged.merged("users")] == [4] * 5


@pytest.mark.full
def test_a_table_that_is_gone_or_lacks_a_record_is_never_filled_with_nothing(logged: Logged) -> None:
    import duckdb

    logged.succeed()
    with duckdb.connect(logged.folder / "out.duckdb") as connection:
        connection.execute("delete from users where id = 2")
    logged.sql("update users set name = 'N' where id = 2")
    assert "the table has no record of this key (id = 2)" in logged.refused()
    with duckdb.connect(logged.folder / "out.duckdb") as connection:
        connection.execute("drop table users")
    logged.succeed()
    assert same(logged)


@pytest.mark.full
def test_state_reset_copies_the_table_in_place_of_what_is_there(logged: Logged, run_cli: RunCLI) -> None:
    logged.succeed()
    logged.sql("delete from users where id < 4", "alter table users alter name type varchar(9)")
    assert "column 'name' is character varying(9) and was text" in logged.refused()
    assert run_cli(["state", "reset", logged.file, "public.users"], logged.folder).returncode == 0
    logged.succeed()
    assert [row[0] for row in logged.merged("users")] == [4, 5]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"key_properties": ["name"]}, "it is merged by its table's primary key (id): say no other key"),
        ({"unique_conflict_method": "IGNORE"}, "LOG_BASED writes every change"),
    ],
)
def test_what_is_not_built_is_refused_by_name(logged: Logged, said: dict[str, Any], words: str) -> None:
    logged.document["streams"] = [{**MERGED[0], "stream": "public.users", **said}]
    assert words in logged.refused()
    assert logged.slots() == []


POINTS = ("log.made:1", "duckdb.commit.inside:1", "duckdb.commit.inside:2", "stream.after_commit:1", "log.confirm:1")

STEPS = (
    "update users set name = 'N' where id = 1",
    "begin; update users set id = 99 where id = 1; update users set id = 1 where id = 2;"
    " update users set id = 2 where id = 99; delete from users where id = 3; commit",
    "begin; truncate users; insert into users values (1, 'first', repeat('m', 3000));"
    " update users set id = 8 where id = 1; commit",
)


@pytest.mark.full
@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_is_killed_is_repeated(logged: Logged, run_cli: RunCLI, point: str) -> None:
    for step in ("select 1", *STEPS):
        logged.sql(step)
        done = run_cli(["run", logged.file], logged.folder, {"SYNCBLOCKS_FAILPOINT": f"{point}:kill"})
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
    logged.succeed()
    logged.succeed()
    assert same(logged)
