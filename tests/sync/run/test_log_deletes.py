"""LOG_BASED merges: what becomes of records that the source deletes, as `deletes` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.sync.run.log_based import Logged

USERS = """create table users (id int primary key, name text, note text);
alter table users alter note set storage external;
insert into users select g, 'user ' || g, repeat('n', 3000) from generate_series(1, 6) g"""

N = "n" * 3000

#: Changes -> records afterwards under `soft`, and under `ignore`: key, name, large value, is it marked.
CASES: dict[str, tuple[list[str], set[tuple[Any, ...]], set[tuple[Any, ...]]]] = {
    "deleted": (["delete from users where id = 1"], {(1, "user 1", N, True)}, {(1, "user 1", N, False)}),
    "changed and deleted": (
        ["begin; update users set name = 'N' where id = 1; delete from users where id = 1; commit"],
        {(1, "N", N, True)},
        {(1, "N", N, False)},
    ),
    "made and deleted": (
        [
            "begin; insert into users values (9, 'x', 'y'); update users set name = 'N';"
            " delete from users where id = 9; commit"
        ],
        {(9, "N", "y", True)} | {(n, "N", N, False) for n in range(1, 7)},
        {(9, "N", "y", False)} | {(n, "N", N, False) for n in range(1, 7)},
    ),
    "deleted and there again": (
        ["delete from users where id = 1", "insert into users values (1, 'again', 'z')"],
        {(1, "again", "z", False)},
        {(1, "again", "z", False)},
    ),
    "moved": (
        ["update users set id = 10 where id = 1"],
        {(10, "user 1", N, False)},
        {(1, "user 1", N, False), (10, "user 1", N, False)},
    ),
    "moved and deleted": (
        ["begin; update users set id = 10 where id = 1; delete from users where id = 10; commit"],
        {(10, "user 1", N, True)},
        {(1, "user 1", N, False), (10, "user 1", N, False)},
    ),
    "moved onto a deleted one": (
        ["begin; delete from users where id = 2; update users set id = 2 where id = 1; commit"],
        {(2, "user 1", N, False)},
        {(1, "user 1", N, False), (2, "user 1", N, False)},
    ),
    "emptied": (
        ["update users set name = 'N' where id = 2; truncate users", "insert into users values (1, 'first', 'a')"],
        {(1, "first", "a", False), (2, "N", N, True), *((n, f"user {n}", N, True) for n in (3, 4, 5, 6))},
        {(1, "first", "a", False), (2, "N", N, False)},
    ),
}

#: Under `soft` these are gone.
MOVED = {"moved": {1}, "moved and deleted": {1}, "moved onto a deleted one": {1}}


@pytest.mark.full
@pytest.mark.parametrize("mode", ["soft", "ignore"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("connector", ["duckdb", "postgres"])
@pytest.mark.one_of("case")
def test_deleted_records_are_marked_or_stay(
    tmp_path: Path, log_url: str, postgres_url: str, connector: str, case: str, mode: str
) -> None:
    logged = Logged(tmp_path, log_url, connector)
    if connector == "postgres":
        logged.document["destination"]["config"] = {"url": postgres_url}
    logged.document["streams"] = [
        {"stream": "public.users", "replication_method": "LOG_BASED", "deletes": mode, "destination_table": "people"}
    ]
    logged.sql(USERS)
    logged.succeed()
    changes, soft, ignored = CASES[case]
    logged.sql(*changes)
    logged.succeed()
    logged.succeed()
    found = {row[0]: (*row[:3], len(row) > 3 and row[3] is not None) for row in logged.merged("people")}
    changed = {row[0]: row for row in (soft if mode == "soft" else ignored)}
    kept = {n: (n, f"user {n}", N, False) for n in range(1, 7) if mode == "ignore" or n not in MOVED.get(case, ())}
    assert found == kept | changed


def test_a_mark_is_the_time_of_the_commit(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "duckdb")
    logged.document["streams"] = [{"stream": "public.*", "replication_method": "LOG_BASED", "deletes": "soft"}]
    logged.sql(USERS)
    logged.succeed()
    ((before,),) = logged.sql("delete from users where id = 1", "select clock_timestamp() - interval '1 minute'")
    ((after,),) = logged.sql("truncate users", "select clock_timestamp()")
    logged.succeed()
    marks = [row[3] for row in logged.merged("users")]
    assert all(before < mark < after for mark in marks)
    assert marks[0] < marks[1] == marks[5]


@pytest.mark.parametrize(
    ("columns", "said", "words"),
    [
        ("", {"mode": "soft", "every": "1d"}, "leave out `every` and `limit`"),
        ("alter table users add _deleted_at int", "soft", "'_deleted_at' is a name that LOG_BASED gives a column"),
    ],
)
def test_what_deletes_cannot_say_is_refused(tmp_path: Path, log_url: str, columns: str, said: Any, words: str) -> None:
    logged = Logged(tmp_path, log_url, "duckdb")
    logged.document["streams"] = [{"stream": "public.*", "replication_method": "LOG_BASED", "deletes": said}]
    logged.sql(USERS, *filter(None, [columns]))
    assert words in logged.refused()
