"""LOG_BASED with `on_rejected: keep`: a change that does not fit is kept beside the table, whose record stays."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from tests.sync.run.log_based import LOG_BASED, Logged
from tests.sync.run.test_log_functions import statements

USERS = """create table users (id bigint primary key, age int, t text); alter table users replica identity full;
insert into users select n, n * 10, 'user ' || n from generate_series(1, 8) n"""

GROWN = """
@transformer
def same(df, **kwargs):
    return df[df["age"] >= 0]
"""


@pytest.fixture(params=["duckdb", "postgres"])
def logged(request: pytest.FixtureRequest, tmp_path: Path, log_url: str) -> Logged:
    found = Logged(tmp_path, log_url, request.param)
    if request.param == "postgres":
        found.document["destination"]["config"] = {"url": request.getfixturevalue("postgres_url")}
    entry = {"replication_method": "LOG_BASED", "on_rejected": "keep", "checks": {"age": {"<": 100}}}
    found.document |= {"streams": [{"stream": "public.users", **entry}], "retries": 0}
    return found


def rejected(logged: Logged) -> list[tuple[Any, ...]]:
    """Return key and age of what was kept, in order of the records."""
    found = logged.query("select record from _syncblocks_rejected")
    records = [json.loads(record) for (record,) in found]
    return sorted((record["id"], record["age"]) for record in records)


CHANGES = [
    # Statements, and which ages are there then.
    (["insert into users values (9, 900, 'x')"], {}),
    (["update users set age = 101 where id = 1"], {}),
    (["update users set age = 11 where id = 1", "update users set age = 90 where id = 9"], {1: 11, 9: 90}),
    (["update users set age = 102 where id = 2", "delete from users where id = 2"], {2: None}),
    # What fits is there, whatever comes behind it in one transaction or in another.
    (["begin; update users set age = 33 where id = 3; update users set age = 103 where id = 3; commit"], {3: 33}),
    (["delete from users where id = 8", "update users set age = 44 where id = 4"], {8: None, 4: 44}),
    # A record under a former key goes, as the source has it no more.
    (["update users set id = 50, age = 105 where id = 5"], {5: None}),
    (["update users set age = 55 where id = 50"], {50: 55}),
    (["truncate users", "insert into users values (1, 10, 'a'), (2, 200, 'b')"], None),
]


@pytest.mark.full
@pytest.mark.parametrize("functions", [False, True])
def test_a_change_that_fails_a_check_keeps_the_old_record(logged: Logged, functions: bool) -> None:
    if functions:
        (logged.folder / "code.py").write_text(GROWN)
        logged.document["transformers"] = [{"block": "same", "file": "code.py"}]
    logged.sql(USERS, "insert into users values (7000, 7000, 'no')")
    logged.succeed()
    ages: dict[int, int] = {n: n * 10 for n in range(1, 9)}
    kept = [(7000, 7000)]
    assert rejected(logged) == kept
    for changes, changed in CHANGES:
        logged.sql(*changes)
        logged.succeed()
        if changed is None:
            ages = {1: 10}
        else:
            ages |= changed  # type: ignore[arg-type]
        found = dict(logged.query("select id, age from users"))
        if functions and changed == {3: 33} and found[3] == 30:
            # A function receives the last record of each key in a batch, and a slow server divides what it sends.
            ages[3] = 30
        assert found == {key: age for key, age in ages.items() if age is not None}, changes
    expected = [(1, 101), (2, 102), (2, 200), (3, 103), (9, 900), (50, 105), *kept]
    found_rejected = rejected(logged)
    if functions and (2, 102) not in found_rejected:
        expected.remove((2, 102))
    assert found_rejected == expected


@pytest.mark.one_of("logged")
def test_what_the_destination_refuses_keeps_the_old_record(logged: Logged) -> None:
    del logged.document["streams"][0]["checks"]
    logged.document["destination"]["config"]["schema"] = "main" if logged.connector == "duckdb" else "public"
    logged.sql(USERS)
    execute(logged, "create table users (id bigint primary key, age int check (age < 100), t text)")
    logged.document["streams"][0] |= {"replace_existing": True}
    logged.succeed()
    logged.sql(
        "begin; insert into users values (9, 900, 'x'), (10, 10, 'y'); update users set age = 101 where id = 1;"
        " delete from users where id = 8; update users set id = 50, age = 105 where id = 5;"
        " update users set age = 22 where id = 2; commit"
    )
    logged.succeed()
    ages = {1: 10, 2: 22, 3: 30, 4: 40, 6: 60, 7: 70, 10: 10}
    assert logged.query("select id, age from users order by 1") == sorted(ages.items())
    assert rejected(logged) == [(1, 101), (9, 900), (50, 105)]


@pytest.mark.full
@pytest.mark.parametrize("finds", ["a check", "the destination"])
def test_after_random_changes_what_fits_is_there(logged: Logged, finds: str) -> None:
    entry = logged.document["streams"][0] | {"checks": {"age": {"<": 40}}, "max_rejected": 9000}
    logged.sql(USERS)
    if finds == "the destination":
        execute(logged, "create table users (id bigint primary key, age int check (age < 40), t text)")
        del entry["checks"]
        entry["replace_existing"] = True
    logged.document["streams"] = [entry]
    logged.document["source"]["config"] |= {"checkpoint_records": 9}
    logged.succeed()
    chance = random.Random(finds)
    for _ in range(4):
        logged.sql(*(statements(chance) for _ in range(25)))
        logged.succeed()
        found = {row[0]: row for row in logged.query("select id, age, t from users")}
        there = {row[0]: row for row in logged.sql("select id, age, t from users")}
        assert found.keys() <= there.keys()
        assert [found.get(key) for key, row in there.items() if row[1] < 40] == [
            row for row in there.values() if row[1] < 40
        ]
        assert all(age < 40 for _, age, _ in found.values())
    assert rejected(logged) != []


def execute(logged: Logged, statement: str) -> None:
    """Run a statement in the destination."""
    if logged.connector == "duckdb":
        with duckdb.connect(logged.folder / "out.duckdb") as connection:
            connection.execute(statement)
    else:
        with psycopg.connect(logged.document["destination"]["config"]["url"], autocommit=True) as connection:
            connection.execute(statement.encode())


DAYS = "create table days (id int primary key, day date); insert into days values (1, '2020-01-01'), (2, 'infinity')"


@pytest.mark.full
@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_values_that_only_the_server_has_are_rejected(tmp_path: Path, log_url: str, disposition: str) -> None:
    logged = Logged(tmp_path, log_url, "duckdb")
    logged.document["retries"] = 0
    entry = {"replication_method": "LOG_BASED", "write_disposition": disposition, "on_rejected": "keep"}
    logged.document["streams"] = [{"stream": "public.days", **entry, "max_rejected": 2}]
    logged.sql(DAYS, "alter table days replica identity full")
    logged.succeed()
    logged.sql(
        "begin; update days set day = '-infinity' where id = 1; insert into days values (3, '2020-01-03'); commit"
    )
    logged.succeed()
    assert [row[0] for row in logged.query("select id from days order by 1")] == [1, 3]
    kept = logged.query("select record, reason from _syncblocks_rejected order by 1")
    assert sorted(int(json.loads(record)["id"]) for record, _ in kept) == [1, 2]
    assert all("infinite" in reason for _, reason in kept)
    logged.sql("insert into days values (4, 'infinity'), (5, 'infinity'), (6, 'infinity'), (7, '2020-01-03')")
    assert "more than 2 rejected records" in logged.refused()
    assert [row[0] for row in logged.query("select id from days order by 1")] == [1, 3]
    logged.document["streams"][0]["max_rejected"] = 3
    logged.succeed()
    assert [row[0] for row in logged.query("select id from days order by 1")] == [1, 3, 7]
    # A delete fits, whatever the record was last.
    logged.sql("update days set day = 'infinity' where id = 7", "delete from days where id in (1, 3, 7)")
    logged.succeed()
    if disposition == "merge":
        assert logged.query("select id from days") == []
    else:
        found = logged.query("select id, day::text from days where _op = 'delete' order by id")
        assert found == [(1, None), (3, "2020-01-03"), (7, None)]


@pytest.mark.full
def test_what_is_masked_is_not_told_of_a_rejected_change(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "duckdb")
    entry = {"replication_method": "LOG_BASED", "on_rejected": "keep", "columns": {"mask": {"n*": "hash"}}}
    logged.document |= {"mask_key": "k" * 32, "streams": [{"stream": "public.days", **entry}]}
    logged.sql(DAYS, "alter table days add name varchar(20)", "update days set name = 'first-secret'")
    logged.succeed()
    logged.sql("insert into days values (3, 'infinity', 'later-secret')")
    logged.succeed()
    kept = logged.query("select * from _syncblocks_rejected")
    assert len(kept) == 2
    assert "secret" not in str(kept)


def test_an_append_leaves_out_changes_that_fail_a_check(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "duckdb")
    entry = {"stream": "public.users", **LOG_BASED, "on_rejected": "keep", "checks": {"age": {"<": 100}}}
    logged.document |= {"streams": [entry], "retries": 0}
    logged.sql(USERS.replace("full", "default"))
    logged.succeed()
    logged.sql("update users set age = 100 where id = 1", "delete from users where id = 1", "truncate users")
    logged.succeed()
    found = logged.query("select _op from users order by _position")
    assert found[8:] == [("delete",), ("truncate",)]
    assert rejected(logged) == [(1, 100)]


def test_a_merge_that_keeps_rejected_records_needs_whole_ones(logged: Logged) -> None:
    logged.sql(USERS, "alter table users replica identity default")
    assert "large values that do not change (t): `alter table" in logged.refused()


REMEDIES: dict[str, tuple[dict[str, Any], dict[str, Any], list[tuple[Any, ...]]]] = {
    "text_columns": ({"text_columns": ["public.p.n"]}, {}, [(1, "NaN"), (2, "2.00")]),
    "on_rejected": ({}, {"on_rejected": "keep"}, [(2, "2.00")]),
}


@pytest.mark.full
@pytest.mark.parametrize("phase", ["copied", "changed"])
@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("connector", ["duckdb", "postgres"])
def test_a_value_that_does_not_fit_fails_its_own_stream_and_each_remedy_works(
    tmp_path: Path, log_url: str, request: pytest.FixtureRequest, connector: str, remedy: str, phase: str
) -> None:
    logged = Logged(tmp_path, log_url, connector)
    if connector == "postgres":
        logged.document["destination"]["config"] = {"url": request.getfixturevalue("postgres_url")}
    entry = {"replication_method": "LOG_BASED"}
    logged.document |= {"allow_blocks_to_fail": True, "streams": [{"stream": "public.*", **entry}]}
    logged.sql("create table o (id int primary key)", "create table p (id int primary key, n numeric(9,2))")
    logged.sql("alter table p replica identity full")
    if phase == "changed":
        logged.succeed()
    logged.sql("insert into o values (1)", "insert into p values (1, 'NaN'), (2, 2)", "insert into o values (2)")
    result = logged.run()
    errors = {stream.stream: str(stream.error or "") for stream in result.streams}
    assert errors["public.o"] == ""
    for words in ("'n' contains NaN", "public.p.n", "`text_columns`", "`on_rejected: keep`", "--stream public.p`"):
        assert words in errors["public.p"]
    assert logged.merged("o") == [(1,), (2,)]
    config, setting, expected = REMEDIES[remedy]
    logged.document["source"]["config"] |= config
    logged.document["streams"].append({"stream": "public.p", **setting})
    logged.succeed(full_refresh=True, streams=["public.p"])
    logged.sql("insert into o values (3)", "insert into p values (4, 4)")
    logged.succeed()
    assert logged.query("select id, cast(n as varchar) from p order by id") == [*expected, (4, "4.00")]
    assert logged.merged("o") == [(1,), (2,), (3,)]


def test_a_value_that_does_not_fit_does_not_stop_other_streams_of_the_log(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "memory")
    logged.document |= {"allow_blocks_to_fail": True}
    logged.sql("create table o (id int primary key)", "create table p (id int primary key, d date)")
    logged.succeed()
    logged.sql("insert into o values (1)", "insert into p values (1, 'infinity')", "insert into o values (2)")
    failed = {stream.stream: str(stream.error or "") for stream in logged.run().streams}
    assert (failed["public.o"], "column 'd'" in failed["public.p"]) == ("", True)
    assert [change["id"] for change in logged.changes("o")] == [1, 2]
    logged.document["streams"].append({"stream": "public.p", "columns": {"exclude": ["d"]}})
    logged.succeed()
    assert [(change["_op"], change["id"]) for change in logged.changes("p")] == [("insert", 1)]
