"""LOG_BASED with settings that decide about single records: `where`, `checks`."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from syncblocks import load_pipeline
from syncblocks.sync.api import compared
from tests.conftest import RunCLI
from tests.sync.run.log_based import LOG_BASED, Logged, Record
from tests.sync.run.test_log_functions import USERS as SMALL
from tests.sync.run.test_log_functions import statements
from tests.sync.run.test_log_writers import TABLES, writing

USERS = """create table users (id bigint primary key, age int, name text, big text);
alter table users alter big set storage external;
insert into users select n, n * 10, 'user ' || n, repeat('b', 3000) from generate_series(1, 6) n"""


def filtered(tmp_path: Path, log_url: str, where: Any, **settings: Any) -> Logged:
    logged = Logged(tmp_path, log_url, "duckdb")
    method = {"replication_method": "LOG_BASED", "where": where, **settings}
    logged.document["streams"] = [{"stream": "public.users", **method, "destination_table": "people"}]
    logged.sql(USERS)
    logged.succeed()
    return logged


CHANGES = {
    "begins to match": ["update users set age = 50, big = 'new' where id = 1"],
    "stops to match": ["update users set age = 1 where id = 5"],
    "never matches": ["insert into users values (7, 1, 'x', 'y')", "update users set name = 'z' where id = 7"],
    "comes and goes": [
        "begin; insert into users values (7, 70, 'x', repeat('c', 3000)); update users set age = 1 where id = 7; "
        "update users set age = 80 where id = 7; commit"
    ],
    "moves out": ["update users set id = 50, age = 1 where id = 5"],
    "moves in": [
        "begin; update users set big = 'n' where id = 1; update users set id = 10, age = 90 where id = 1; commit"
    ],
    "is deleted": ["delete from users where id in (1, 5)"],
    "is swapped": [
        "begin; update users set id = 55 where id = 5; update users set id = 5, big = 'o' where id = 1; commit"
    ],
    "all go": ["truncate users", "insert into users values (8, 80, 'x', 'y'), (9, 1, 'x', 'y')"],
}


@pytest.mark.full
@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.one_of("case")
def test_only_records_that_match_are_there(tmp_path: Path, log_url: str, case: str) -> None:
    logged = filtered(tmp_path, log_url, {"age": {">=": 30}}, columns={"exclude": ["age"]})
    wanted = "select id, name, big from users where age >= 30 order by 1"
    assert logged.merged("people") == logged.sql(wanted)
    logged.sql(*CHANGES[case])
    logged.succeed()
    assert logged.merged("people") == logged.sql(wanted)
    ((found,), _) = compared(load_pipeline(logged.file), (), with_repairs=False)
    assert found.verdict == "equal"


@pytest.mark.full
def test_beside_writers_exactly_what_matches_is_there(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "duckdb")
    logged.document["source"]["config"] |= {"checkpoint_records": 100, "checkpoint_s": 0.05}
    method = {"replication_method": "LOG_BASED", "where": {"id": {">=": 30}}}
    logged.document["streams"] = [{"stream": "public.b", **method}]
    logged.sql(TABLES)
    logged.succeed()
    with writing(log_url):
        for _ in range(3):
            ((found,), _) = compared(load_pipeline(logged.file), (), with_repairs=False)
            assert found.verdict == "equal", found
    logged.sql("checkpoint")
    logged.succeed()
    wanted = "select id, v, t, md5(big) from b where id >= 30 order by 1"
    assert logged.merged("(select id, v, t, md5(big) from b)") == logged.sql(wanted)


@pytest.mark.full
def test_what_is_kept_stays_where_it_stops_to_match(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "duckdb")
    entry = {"replication_method": "LOG_BASED", "where": {"age": {">=": 30}}, "deletes": "ignore"}
    logged.document["streams"] = [{"stream": "public.users", **entry, "destination_table": "people"}]
    logged.sql(USERS)
    # What is kept has the large value that it had when it last matched, which no later change may take for its own.
    assert "large values that do not change (name, big): `alter table" in logged.refused()
    logged.sql("alter table users replica identity full")
    logged.succeed()
    logged.sql("update users set age = 1, name = 'out' where id = 5", "update users set name = 'in' where id = 4")
    logged.sql("update users set big = 'later' where id = 5")
    logged.succeed()
    assert [row[2] for row in logged.merged("people")] == ["user 3", "in", "user 5", "user 6"]
    logged.sql("update users set age = 50 where id = 5")
    logged.succeed()
    assert logged.merged("people")[2] == (5, 50, "out", "later")


def test_another_filter_is_refused_until_the_table_is_copied(tmp_path: Path, log_url: str) -> None:
    logged = filtered(tmp_path, log_url, {"age": {">=": 30}})
    logged.document["streams"][0]["where"] = {"age": {">=": 50}}
    assert "the filter (`where`)" in logged.refused()
    logged.succeed(full_refresh=True)
    assert [row[0] for row in logged.merged("people")] == [5, 6]


@pytest.mark.full
@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_the_filter_finds_the_same_in_the_copy_and_in_the_log(tmp_path: Path, log_url: str, disposition: str) -> None:
    logged = Logged(tmp_path, log_url, "duckdb")
    method = {"replication_method": "LOG_BASED", "write_disposition": disposition}
    # Texts that the server itself writes with blanks, or with `/32`.
    said = {"where": {"code": "a", "host": "10.0.0.1"}, "destination_table": "people"}
    logged.document["streams"] = [{"stream": "public.users", **method, **said}]
    logged.sql("create table users (id int primary key, code char(3), host inet, n int)")
    logged.sql("insert into users values (1, 'a', '10.0.0.1', 1), (2, 'b', '10.0.0.1', 1)")
    logged.succeed()
    logged.sql("update users set n = 2", "insert into users values (3, 'a', '10.0.0.1', 2), (4, 'a', '10.0.0.2', 2)")
    logged.succeed()
    found = logged.query("select id, code, host from people where n = 2 order by 1")
    assert found == [(1, "a  ", "10.0.0.1"), (3, "a  ", "10.0.0.1")]


@pytest.mark.full
def test_a_large_value_of_the_filter_that_the_log_leaves_out_is_said(tmp_path: Path, log_url: str) -> None:
    logged = filtered(tmp_path, log_url, {"big": {"!=": "b"}})
    logged.sql("update users set age = 1 where id = 5")
    assert "the log leaves out 'big' of a changed record" in logged.refused()


def test_where_is_refused_where_it_is_not_built(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "duckdb")
    said = {"replication_method": "LOG_BASED", "where": {"age": 1}, "deletes": "soft"}
    logged.document["streams"] = [{"stream": "public.users", **said}]
    logged.sql(USERS, "alter table users add twice int generated always as (age * 2) stored")
    assert "`where` is not built for LOG_BASED with" in logged.refused()
    logged.document["streams"][0] |= {"deletes": "hard", "where": {"twice": 20}}
    assert "asks for the generated column 'twice', which is not in the log" in logged.refused()


def amounts(changes: Sequence[Record], *, are_deletes_known: bool) -> list[tuple[Any, ...]]:
    """Return the records that match, as appended changes tell of them."""
    table: dict[int, tuple[Any, ...]] = {}
    for change in changes:
        operation, key, old = change["_op"], change["id"], change["_old_key"]
        if old is not None:
            table.pop(int((json.loads(old) if isinstance(old, str) else old)["id"]), None)
        if operation == "truncate":
            table.clear()
        elif operation == "delete":
            assert key in table or not are_deletes_known
            table.pop(key, None)
        else:
            table[key] = (key, change["age"], change["t"])
    return sorted(table.values())


@pytest.mark.parametrize(
    ("identity", "column"), [("default", "age"), ("full", "age"), pytest.param("default", "id", marks=pytest.mark.full)]
)
def test_appended_changes_are_those_of_records_that_match(
    tmp_path: Path, log_url: str, identity: str, column: str
) -> None:
    least = {"age": 30, "id": 4}[column]
    logged = Logged(tmp_path, log_url)
    entry = {"stream": "public.users", **LOG_BASED, "where": {column: {">=": least}}}
    logged.document["streams"] = [entry]
    logged.sql(SMALL, f"alter table users replica identity {identity}")
    logged.succeed()
    chance = random.Random(f"{identity} {column}")
    logged.sql(
        f"update users set {column} = {column} - 30, t = 'secret' where id = 4", "delete from users where id < 3"
    )
    logged.sql(*(statements(chance) for _ in range(40)))
    logged.succeed()
    found = logged.changes("users")
    is_known = identity == "full" or column == "id"
    held = amounts(found, are_deletes_known=is_known)
    assert held == logged.sql(f"select id, age, t from users where {column} >= {least} order by 1")
    stopped = next(each for each in found if each["_op"] == "delete")
    former = (40, "user 4") if identity == "full" else (None, None)
    assert (stopped["id"], stopped["age"], stopped["t"]) == (4, *former)
    assert "secret" not in str(found)
    deleted = [each["id"] for each in found if each["_op"] == "delete"][1:3]
    assert (deleted == [1, 2]) is not is_known
    entry["where"] = {column: {">=": 50}}
    assert "the filter (`where`)" in logged.refused()


def merging(tmp_path: Path, log_url: str, **settings: Any) -> Logged:
    logged = Logged(tmp_path, log_url, "duckdb")
    method = {"replication_method": "LOG_BASED", "destination_table": "people", **settings}
    logged.document["streams"] = [{"stream": "public.users", **method}]
    logged.document["retries"] = 0
    return logged


@pytest.mark.full
def test_a_record_that_fails_a_check_fails_the_stream_and_one_of_warn_checks_is_told(
    tmp_path: Path, log_url: str
) -> None:
    checks = {"age": {"<=": 200}, "big": {"is_null": False}}
    logged = merging(tmp_path, log_url, checks=checks, warn_checks={"name": {"min_length": 2}})
    logged.sql(USERS)
    logged.succeed()
    # What is deleted, and what keeps a large value, has NULL in these columns of the log.
    logged.sql("delete from users where id = 1", "update users set name = 'y' where id = 2")
    result = logged.run()
    assert result.status == "success"
    assert [row[0:3:2] for row in logged.merged("people")][:2] == [(2, "y"), (3, "user 3")]
    logged.sql("update users set age = 201 where id = 3")
    assert "age" in logged.refused()
    logged.sql("update users set age = 3 where id = 3")
    del logged.document["streams"][0]["checks"]
    logged.succeed()
    assert logged.merged("people")[1][1] == 3


def test_checks_are_asked_of_appended_changes_that_have_a_record(tmp_path: Path, log_url: str, run_cli: RunCLI) -> None:
    logged = Logged(tmp_path, log_url)
    checks = {"years": {"<=": 200, "is_null": False}, "Large": {"is_null": False}}
    entry = {"stream": "public.users", **LOG_BASED, "checks": checks, "warn_checks": {"name": {"min_length": 2}}}
    logged.document |= {"streams": [entry], "retries": 0}
    logged.document["transformers"] = [{"block": "named", "rename": {"age": "years", "big": "Large", "_op": "what"}}]
    logged.sql(USERS)
    logged.succeed()
    logged.sql("delete from users where id = 1", "update users set name = 'y' where id = 2", "truncate users")
    logged.succeed()
    shown = run_cli(["runs", "show", logged.file, "2"], tmp_path).stdout
    assert "1 record fails a check of `warn_checks`, and is written: column 'name': 'y'" in shown
    assert [each["what"] for each in logged.changes("users")][6:] == ["delete", "update", "truncate"]
    logged.sql("insert into users values (3, 201, 'name', 'b')")
    assert "column 'years'" in logged.refused()


@pytest.mark.parametrize("deletes", [pytest.param("hard", marks=pytest.mark.full), "soft"])
def test_columns_have_other_names_and_more_are_added(tmp_path: Path, log_url: str, deletes: str) -> None:
    logged = merging(tmp_path, log_url, deletes=deletes, add_columns={"origin": "crm"})
    logged.document["transformers"] = [{"block": "named", "rename": {"id": "person", "big": "Large"}}]
    logged.document["destination"]["naming"] = "snake_case"
    logged.sql(USERS)
    logged.succeed()
    logged.sql(
        "update users set name = 'kept' where id = 2",
        "begin; update users set id = 30, age = 3 where id = 3; update users set name = 'moved' where id = 30; commit",
        "delete from users where id = 4",
        "insert into users values (7, 70, 'new', 'n')",
    )
    logged.succeed()
    live = "where _deleted_at is null" if deletes == "soft" else ""
    assert logged.merged(f"(select person, age, name, large, origin from people {live})") == logged.sql(
        "select id, age, name, big, 'crm' from users order by 1"
    )
    ((found,), _) = compared(load_pipeline(logged.file), (), with_repairs=False)
    assert found.verdict == "equal", found
    logged.document["transformers"] = [{"block": "named", "rename": {"name": "_op"}}]
    assert "'_op' is a name that it gives a column" in logged.refused()
    del logged.document["transformers"]
    logged.document["streams"][0]["add_columns"] = {"_OP": "crm"}
    assert "'_op' is a name that it gives a column" in logged.refused()


def test_masked_and_excluded_columns_are_so_in_each_appended_change_and_in_former_keys(
    tmp_path: Path, log_url: str
) -> None:
    logged = Logged(tmp_path, log_url)
    entry = {
        "stream": "public.users",
        **LOG_BASED,
        "columns": {"mask": {"name": "hash", "b*": None}, "exclude": ["age"]},
    }
    logged.document |= {"mask_key": "k" * 32, "streams": [entry]}
    logged.sql(USERS, "alter table users alter name set not null, alter age set not null")
    logged.sql("create unique index users_name on users (id, name, age)")
    logged.sql("alter table users replica identity using index users_name")
    logged.succeed()
    logged.sql("update users set name = 'other', age = 1 where id = 2", "delete from users where id = 3")
    logged.succeed()
    found = logged.changes("users")
    assert [each["_op"] for each in found] == [*["read"] * 6, "update", "delete"]
    assert "other" not in str(found)
    assert "user 2" not in str(found)
    assert {each["big"] for each in found} == {None}
    old_key = found[6]["_old_key"]
    assert (json.loads(old_key) if isinstance(old_key, str) else old_key) == {"id": "2", "name": None}
    assert found[7]["name"] == found[2]["name"] != found[6]["name"]
    entry["columns"]["mask"]["id"] = "hash"
    assert "its key (id) is masked, so that an append has no former keys" in logged.refused()
