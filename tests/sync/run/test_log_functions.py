"""LOG_BASED with functions of transformers: the destination's table is the function applied to the source's."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from syncblocks import load_pipeline
from syncblocks.sync.api import compared
from tests.conftest import RunCLI
from tests.sync.run.log_based import LOG_BASED, Logged

#: `t` is a text that can be large, so that the function needs the whole old record.
USERS = """create table users (id bigint primary key, age int, t text); alter table users replica identity full;
insert into users select n, n * 10, 'user ' || n from generate_series(1, 8) n"""

#: Leaves out who is under 30; makes a column, drops one.
GROWN = """
@transformer
def grown(df, **kwargs):
    assert len(df)
    df = df[df["age"] >= 30].copy()
    df["twice"] = df["age"] * 2
    return df[["person", "twice", "t"]].assign(t=df["t"].str.upper())
"""
WANTED = "select id, age * 2, upper(t) from users where age >= 30 order by 1"
FOUND = "(select person, twice, t from people)"


def transformed(tmp_path: Path, log_url: str, code: str = GROWN, connector: str = "duckdb", **settings: Any) -> Logged:
    """Return a pipeline whose function gets `id` as `person`."""
    logged = Logged(tmp_path, log_url, connector)
    method = {"replication_method": "LOG_BASED", "destination_table": "people", **settings}
    (tmp_path / "code.py").write_text(code)
    logged.document |= {
        "streams": [{"stream": "public.users", **method}],
        "transformers": [{"block": "first", "rename": {"id": "person"}}, {"block": "second", "file": "code.py"}],
        "retries": 0,
    }
    return logged


CHANGES = {
    "begins and stops to match": ["update users set age = 50 where id = 1", "update users set age = 1 where id = 5"],
    "the last record counts": [
        "begin; update users set age = 90 where id = 5; update users set age = 2 where id = 5; commit",
        "begin; insert into users values (9, 90, 'x'); update users set age = 9 where id = 9; commit",
    ],
    "deletes alone": ["delete from users where id in (1, 5)"],
    "deletes, then records": ["delete from users where id = 4", *["update users set t = t || 'x'"] * 3],
    "keys move": ["update users set id = 50 where id = 5", "update users set id = 40, age = 1 where id = 4"],
    "keys are swapped": [
        "begin; update users set id = 99 where id = 1; update users set id = 1 where id = 6;"
        " update users set id = 6 where id = 99; commit"
    ],
    "a chain of keys": [f"update users set id = {n + 1} where id = {n}" for n in range(8, 0, -1)],
    "all go": ["truncate users"],
    "all go and some come": ["truncate users", "insert into users values (1, 80, 'x'), (5, 1, 'y')"],
    "nothing is left": ["update users set age = 1"],
}


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.one_of("case")
def test_the_table_is_the_function_of_the_source(tmp_path: Path, log_url: str, case: str) -> None:
    logged = transformed(tmp_path, log_url)
    logged.sql(USERS)
    logged.succeed()
    assert logged.merged(FOUND) == logged.sql(WANTED) != []
    logged.sql(*CHANGES[case])
    logged.succeed()
    assert logged.merged(FOUND) == logged.sql(WANTED)


def statements(chance: random.Random) -> str:
    """Return a transaction of random changes."""
    found = []
    for _ in range(chance.choice((1, 1, 2, 6))):
        one, other, age = chance.randrange(1, 20), chance.randrange(1, 20), chance.randrange(60)
        found += chance.choice(
            (
                [f"insert into users values ({one}, {age}, 'a') on conflict (id) do update set age = {age}, t = 'b'"],
                [f"update users set age = {age} where id = {one}"],
                [f"update users set t = repeat('large', 600) where id = {one}"],
                [f"delete from users where id = {one}"],
                [
                    f"update users set id = -1 where id = {one}",
                    f"update users set id = {one} where id = {other}",
                    f"update users set id = {other} where id = -1",
                ],
                ["truncate users"] if age < 5 else [f"update users set age = age + 7 where id % 3 = {one % 3}"],
            )
        )
    return "; ".join(["begin", *found, "commit"])


@pytest.mark.full
@pytest.mark.parametrize(("connector", "frames"), [("duckdb", "batch"), ("postgres", "record")])
@pytest.mark.parametrize("deletes", ["hard", "soft"])
def test_after_random_changes_too(
    tmp_path: Path, log_url: str, postgres_url: str, deletes: str, connector: str, frames: str
) -> None:
    code = GROWN if deletes == "hard" else GROWN.replace(">= 30", "> -1")
    logged = transformed(tmp_path, log_url, code, connector, deletes=deletes, add_columns={"origin": "crm"})
    if connector == "postgres":
        logged.document["destination"]["config"] = {"url": postgres_url}
    logged.document["transformers"][1]["frames"] = frames
    logged.document["source"]["config"] |= {"checkpoint_records": 7}
    logged.sql(USERS)
    logged.succeed()
    chance = random.Random(f"{deletes} {frames}")
    wanted = WANTED if deletes == "hard" else WANTED.replace("where age >= 30", "")
    live = "" if deletes == "hard" else "where _deleted_at is null"
    for _ in range(4):
        logged.sql(*(statements(chance) for _ in range(25)))
        logged.succeed()
        assert logged.merged(f"(select person, twice, t from people {live}) p") == logged.sql(wanted)
    assert len(logged.merged("people")) > len(logged.sql(wanted)) or deletes == "hard"
    # A function's records are counted only; the log is read up to the moment that is compared.
    logged.sql(statements(chance))
    ((found,), _) = compared(load_pipeline(logged.file), (), with_repairs=False)
    assert found.verdict == "counted"
    assert logged.merged(f"(select person, twice, t from people {live}) p") == logged.sql(wanted)


REFUSED = {
    "a new key": ("df.assign(id=df['id'] + 100)", "with a key (id = 102) that no record of the batch had: the log"),
    "a key twice": ("pd.concat([df, df])", "returned 2 records of one key (id = 2)"),
    "no key": ("df[['age', 't']]", "lost the key column 'id'"),
    "a column of ours": ("df.assign(_op='x')", "'_op' is a name that it gives a column"),
    "left out, and kept": ("df[df['age'] > 900]", "left out a record (id = 2), which is not deleted at the source"),
}


@pytest.mark.full
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.one_of("case")
def test_what_a_function_returns_says_which_record_it_is_of(tmp_path: Path, log_url: str, case: str) -> None:
    made, said = REFUSED[case]
    code = f"import pandas as pd\n@transformer\ndef odd(df, **kwargs):\n    return df if len(df) > 1 else {made}\n"
    logged = transformed(tmp_path, log_url, code, deletes="soft" if "kept" in case else "hard")
    del logged.document["transformers"][0]
    logged.sql(USERS)
    logged.succeed()
    before = logged.merged("people")
    logged.sql("update users set age = 1 where id = 2")
    assert said in logged.refused()
    assert logged.merged("people") == before
    # A copy is refused too.
    (tmp_path / "code.py").write_text(code.replace("df if len(df) > 1 else", ""))
    logged.sql("delete from users where id <> 2")
    result = logged.run(full_refresh=True)
    assert said in str(result.streams[0].error)
    assert logged.merged("people") == before


def test_functions_need_whole_records(tmp_path: Path, log_url: str) -> None:
    logged = transformed(tmp_path, log_url)
    logged.sql(USERS, "alter table users replica identity default")
    assert "large values that do not change (t): `alter table" in logged.refused()
    assert logged.slots() == []
    logged.document["streams"][0]["columns"] = {"exclude": ["t"]}
    (tmp_path / "code.py").write_text(GROWN.replace(', "t"', "").replace('.assign(t=df["t"].str.upper())', ""))
    logged.succeed()
    logged.sql("update users set age = 80 where id = 1")
    logged.succeed()
    assert len(logged.merged("people")) == 7
    logged.sql("alter table users add note text")
    assert "large values that do not change (note): `alter table" in logged.refused()


def test_an_append_has_the_functions_records_and_deletes_with_their_keys(tmp_path: Path, log_url: str) -> None:
    code = GROWN.replace('["person", "twice", "t"]', '["person", "twice", "t", *(c for c in df if c[0] == "_")]')
    logged = transformed(tmp_path, log_url, code, "jsonl", **LOG_BASED)
    logged.sql(USERS)
    logged.succeed()
    logged.sql(
        "delete from users where id = 8",
        "begin; insert into users values (9, 90, 'x'), (10, 1, 'x'); update users set id = 30 where id = 3;"
        " delete from users where id = 9; commit",
        "truncate users",
        "insert into users values (1, 50, 'y')",
    )
    logged.succeed()
    found = logged.changes("people")
    shown = [(each["_op"], each["person"], each["twice"], each["t"]) for each in found]
    assert shown == [
        *(("read", n, 20 * n, f"USER {n}") for n in range(3, 9)),
        ("delete", 8, None, None),
        ("insert", 9, 180, "X"),
        ("update", 30, 60, "USER 3"),
        ("delete", 9, None, None),
        ("truncate", None, None, None),
        ("insert", 1, 100, "Y"),
    ]
    assert "3" in str(found[8]["_old_key"])
    (tmp_path / "code.py").write_text(GROWN)
    logged.sql("insert into users values (2, 50, 'y')")
    assert "lost the key column '_op'" in logged.refused()


def test_the_first_changes_of_an_empty_table_are_deletes(tmp_path: Path, log_url: str) -> None:
    logged = transformed(tmp_path, log_url)
    code = GROWN.replace("    assert len(df)\n", "")  # of an empty table nothing else says which columns there are
    (tmp_path / "code.py").write_text(code)
    logged.sql(USERS, "delete from users")
    logged.succeed()
    logged.document["source"]["config"] |= {"checkpoint_records": 1}
    logged.sql("truncate users", "insert into users values (1, 10, 'a')", "delete from users where id = 1")
    logged.sql("insert into users values (4, 40, 'four')")
    logged.succeed()
    assert logged.merged(FOUND) == logged.sql(WANTED) == [(4, 80, "FOUR")]


@pytest.mark.parametrize("change", ["delete from users where id = '{1}'", "update users set place = '{9}'"])
@pytest.mark.one_of("change")
def test_columns_keep_their_types(tmp_path: Path, log_url: str, postgres_url: str, change: str) -> None:
    code = "@transformer\ndef same(df, **kwargs):\n    return df\n"
    logged = transformed(tmp_path, log_url, code, "postgres")
    logged.document["destination"]["config"] = {"url": postgres_url}
    table = "create table users (id int[] primary key, u uuid, place int[])"
    logged.sql(table, "alter table users replica identity full", "insert into users values ('{1}', null, '{2}')")
    logged.succeed()
    logged.sql(change)
    logged.succeed()
    types = "select data_type from information_schema.columns where table_name = '{}' order by ordinal_position"
    assert logged.query(types.format("people")) == logged.sql(types.format("users"))
    assert logged.query("select * from people") == logged.sql("select * from users")


@pytest.mark.full
def test_a_column_that_has_no_value_any_more_is_emptied(tmp_path: Path, log_url: str) -> None:
    code = """
@transformer
def noted(df, **kwargs):
    return df.assign(note=["old" if age > 50 else None for age in df["age"]])
"""
    logged = transformed(tmp_path, log_url, code)
    logged.sql(USERS)
    logged.succeed()
    logged.sql("update users set age = 1 where id = 6")
    logged.succeed()
    logged.sql("update users set age = 90 where id = 1")
    logged.succeed()
    wanted = logged.sql("select id, case when age > 50 then 'old' end from users order by 1")
    assert logged.merged("(select person, note from people)") == wanted


@pytest.mark.full
def test_a_run_that_is_killed_is_repeated(tmp_path: Path, log_url: str, run_cli: RunCLI) -> None:
    logged = transformed(tmp_path, log_url)
    logged.document["source"]["config"] |= {"checkpoint_records": 3}
    logged.sql(USERS)
    chance = random.Random(3)
    for point in ("duckdb.commit.before", "stream.after_commit:2", "stream.after_commit", "log.confirm"):
        done = run_cli(["run", logged.file], logged.folder, {"SYNCBLOCKS_FAILPOINT": f"{point}:kill"})
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        logged.sql(*(statements(chance) for _ in range(10)))
    logged.succeed()
    logged.succeed()
    assert logged.merged(FOUND) == logged.sql(WANTED)
