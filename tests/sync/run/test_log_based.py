"""LOG_BASED: every change of PostgreSQL's tables is appended once, whatever happens on the way."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks.connectors.memory import database
from tests.conftest import RunCLI
from tests.sync.run.log_based import LOG_BASED, Logged, replayed

USERS = """create table users (id bigint primary key, name text, note text);
alter table users alter note set storage external;
insert into users values (1, 'Ann', repeat('n', 3000)), (2, 'Bob', null)"""
ORDERS = "create table orders (id int primary key, total numeric(9,2)); insert into orders values (1, 1.5)"


@pytest.fixture
def logged(tmp_path: Path, log_url: str) -> Logged:
    found = Logged(tmp_path, log_url)
    found.sql(USERS, ORDERS)
    return found


def source(logged: Logged, table: str = "users") -> dict[Any, Any]:
    with psycopg.connect(logged.url) as connection:
        cursor = connection.execute(f"select * from {table}".encode())
        names = [column.name for column in cursor.description or ()]
        return {row[0]: dict(zip(names, row, strict=True)) for row in cursor}


@pytest.mark.one_of
@pytest.mark.parametrize("connector", ["jsonl", "memory"])
def test_tables_are_copied_and_then_each_change_is_appended_once(tmp_path: Path, log_url: str, connector: str) -> None:
    logged = Logged(tmp_path, log_url, connector)
    logged.sql(USERS, ORDERS)
    logged.succeed()
    assert [(each["_op"], each["id"]) for each in logged.changes("users")] == [("read", 1), ("read", 2)]
    logged.sql(
        "insert into users values (3, 'Cyd', repeat('c', 3000))",
        "update users set name = 'Cy' where id = 3",
        "begin; update users set id = 4 where id = 3; update users set name = 'B' where id = 2; commit",
        "begin; insert into users values (9, 'nobody'); rollback",
        "delete from users where id = 1",
        "truncate orders",
    )
    logged.succeed()
    logged.succeed()
    found = logged.changes("users")[2:]
    assert [(each["_op"], each["id"], each["name"]) for each in found] == [
        ("insert", 3, "Cyd"),
        ("update", 3, "Cy"),
        ("update", 4, "Cy"),
        ("update", 2, "B"),
        ("delete", 1, None),
    ]
    assert found[2]["_position"].partition("-")[0] == found[3]["_position"].partition("-")[0]
    assert replayed(logged.changes("users")) == source(logged)
    assert [each["_op"] for each in logged.changes("orders")] == ["read", "truncate"]


def test_the_slot_is_ours_and_never_ahead_of_the_ledger(logged: Logged) -> None:
    logged.succeed()
    ((slot, before),) = logged.slots()
    logged.sql("insert into users values (3, 'Cyd')")
    logged.succeed()
    ((_, after),) = logged.slots()
    ((is_later,),) = logged.sql(f"select '{after}'::pg_lsn > '{before}'::pg_lsn")
    assert slot.startswith("logged_")
    assert is_later


def test_a_table_that_is_added_later_is_complete_though_a_transaction_is_open_across_it(logged: Logged) -> None:
    logged.document["streams"] = [{"stream": "public.users", **LOG_BASED}]
    logged.succeed()
    logged.document["streams"] = [{"stream": "public.*", **LOG_BASED}]
    with psycopg.connect(logged.url) as writer:
        writer.execute("insert into orders values (2, 2)")
        done = threading.Thread(target=logged.run)
        done.start()
        waits = "select count(*) from pg_stat_activity where backend_type = 'walsender' and wait_event_type = 'Lock'"
        while logged.sql(waits) != [(1,)] and done.is_alive():
            pass
        writer.execute("insert into orders values (3, 3)")
        writer.commit()
        done.join()
    logged.sql("insert into orders values (4, 4)")
    logged.succeed()
    assert replayed(logged.changes("orders")).keys() == {1, 2, 3, 4}
    assert replayed(logged.changes("users")) == source(logged)


def test_a_stream_that_is_left_out_holds_the_log(logged: Logged) -> None:
    logged.succeed()
    logged.sql("insert into users values (3, 'Cyd')", "insert into orders values (2, 2)")
    logged.succeed(streams=["public.orders"])
    assert len(logged.changes("users")) == 2
    logged.succeed()
    assert replayed(logged.changes("users")) == source(logged)


def test_a_stream_that_leaves_the_file_holds_nothing_and_is_copied_anew(logged: Logged) -> None:
    logged.succeed()
    logged.document["streams"] = [{"stream": "public.orders", **LOG_BASED}]
    logged.sql("insert into users values (3, 'Cyd')")
    logged.succeed()
    logged.document["streams"] = [{"stream": "public.*", **LOG_BASED}]
    logged.succeed()
    assert [(each["_op"], each["id"]) for each in logged.changes("users")] == [
        *(("read", 1), ("read", 2)),
        *(("read", 1), ("read", 2), ("read", 3)),
    ]


def test_a_stream_that_fails_goes_on_from_its_own_place(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "memory")
    logged.document |= {"allow_blocks_to_fail": True, "retries": 0}
    logged.sql(USERS, ORDERS)
    logged.succeed()
    logged.sql("insert into users values (3, 'Cyd')", "insert into orders values (2, 2)")
    logged.document["destination"]["config"]["fail_on"] = {"public.users": 1}
    assert logged.run().status == "failure"
    logged.sql("delete from users where id = 3", "delete from orders where id = 2")
    del logged.document["destination"]["config"]["fail_on"]
    logged.succeed()
    assert [each["_op"] for each in logged.changes("users")[2:]] == ["insert", "delete"]
    assert [each["_op"] for each in logged.changes("orders")[1:]] == ["insert", "delete"]


@pytest.mark.full
def test_a_slow_destination_neither_ends_the_connection_nor_holds_the_log(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, f"{log_url}?options=-c%20wal_sender_timeout%3D1000", "memory", delay_commit_s=2.5)
    logged.document["source"]["config"] |= {"checkpoint_records": 1, "checkpoint_s": 0.01}
    logged.sql(USERS)
    logged.succeed()
    logged.sql("insert into users values (3, 'Cyd')")
    ((_, before),) = logged.slots()
    done = threading.Thread(target=logged.succeed)
    done.start()
    while logged.slots()[0][1] == before and done.is_alive():
        pass
    done.join()
    ((_, after),) = logged.slots()
    assert logged.sql(f"select '{after}'::pg_lsn > '{before}'::pg_lsn") == [(True,)]
    assert replayed(logged.changes("users")) == source(logged)


def test_a_full_refresh_copies_the_table_and_goes_on(logged: Logged) -> None:
    logged.succeed()
    logged.sql("insert into users values (3, 'Cyd')")
    logged.succeed(full_refresh=True)
    assert [each["_op"] for each in logged.changes("users")] == ["read"] * 3
    logged.sql("delete from users where id = 3")
    logged.succeed()
    assert [each["_op"] for each in logged.changes("users")] == [*["read"] * 3, "delete"]


def test_a_column_that_is_added_is_null_in_older_changes(logged: Logged) -> None:
    logged.succeed()
    logged.sql(
        "insert into users values (3, 'Cyd')",
        "alter table users add age int",
        "insert into users values (4, 'Dan', null, 40)",
    )
    logged.succeed()
    assert [(each["id"], each.get("age")) for each in logged.changes("users")[2:]] == [(3, None), (4, 40)]


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        ("create table other as table users; drop table users; alter table other rename to users", "replica identity"),
        (
            "alter table users drop constraint users_pkey; alter table users add primary key (id, name)",
            "it has another primary key or replica identity: `syncblocks state reset public.users`",
        ),
        ("alter table users replica identity nothing", '`alter table "public"."users" replica identity default`'),
    ],
)
def test_what_the_log_cannot_tell_is_refused_with_the_way_out(logged: Logged, ddl: str, words: str) -> None:
    logged.succeed()
    logged.sql("insert into users values (3, 'Cyd')", ddl)
    assert words in logged.refused()
    assert len(logged.changes("users")) == 2


def test_a_slot_that_is_gone_made_anew_or_not_ours_is_never_used(logged: Logged) -> None:
    logged.succeed()
    ((slot, _),) = logged.slots()
    logged.sql(f"select pg_drop_replication_slot('{slot}')", "insert into users values (3, 'Cyd')")
    assert "is gone, and with it the log since the last run: `syncblocks log drop`" in logged.refused()
    logged.sql(f"select pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    assert re.search(r"past stream 'public.\w+' at [0-9A-F]+/[0-9A-F]+, whose changes", logged.refused())
    stranger = Logged(logged.folder / "stranger", logged.url)
    stranger.folder.mkdir()
    stranger.document["source"]["config"]["log"] = {"slot": slot}
    assert "is not ours" in stranger.refused()


def test_what_the_server_lacks_is_said_with_the_statement_that_mends_it(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url)
    logged.sql("create table bare (id int)", "create role reader login", "grant select on bare to reader")
    try:
        logged.document["source"]["config"]["user"] = "reader"
        refused = logged.refused()
        for words in (
            '`alter role "reader" replication`',
            '`grant create on database "',
            '`alter table "public"."bare" replica identity full`',
            '`alter table "public"."bare" owner to "reader"`',
        ):
            assert words in refused
    finally:
        logged.sql("drop owned by reader", "drop role reader")


def test_a_server_without_a_logical_log_is_refused(tmp_path: Path, postgres_url: str) -> None:
    logged = Logged(tmp_path, postgres_url)
    logged.sql(USERS)
    if logged.sql("show wal_level") == [("logical",)]:
        pytest.skip("the server's log is a logical one")
    assert "`alter system set wal_level = logical`" in logged.refused()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"write_disposition": "merge"}, "its merge is not built for jsonl yet: say `write_disposition: append`"),
        ({"write_disposition": "replace"}, "`write_disposition: replace` is not built for LOG_BASED"),
        ({"deletes": "hard"}, "`deletes` is not built"),
        ({"deletes": "soft"}, "`deletes` is not built"),
        ({"limit": 5}, "`limit` is not built"),
    ],
)
def test_what_is_not_built_is_refused_by_name(logged: Logged, said: dict[str, Any], words: str) -> None:
    entry = {"stream": "public.users", **LOG_BASED, **said}
    logged.document["streams"] = [{key: value for key, value in entry.items() if value is not None}]
    assert words in logged.refused()
    assert logged.slots() == []


#: A kill at each of these leaves something half done.
POINTS = (
    "log.noted:1",
    "log.made:1",
    "log.exported:1",
    "files.manifest.after:4",
    "stream.after_commit:1",
    "log.confirm:1",
)


@pytest.mark.full
@pytest.mark.parametrize("phase", ["first", "second"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.one_of("point")
def test_a_run_that_is_killed_is_repeated_and_appends_each_change_once(
    logged: Logged, run_cli: RunCLI, point: str, phase: str
) -> None:
    if phase == "second":
        logged.succeed()
        logged.sql("update users set name = 'B' where id = 2", "insert into orders values (2, 2)")
    done = run_cli(["run", logged.file], logged.folder, {"SYNCBLOCKS_FAILPOINT": f"{point}:kill"})
    if done.returncode != -signal.SIGKILL:
        assert done.returncode == 0, done.stderr  # this run does not come by there
    logged.sql("insert into users values (3, 'Cyd')", "delete from users where id = 1")
    logged.succeed()
    logged.succeed()
    for table in ("users", "orders"):
        assert {each: found["id"] for each, found in replayed(logged.changes(table)).items()} == {
            each: each for each in source(logged, table)
        }
    assert len(logged.slots()) == 1


def test_memory_tables_keep_what_the_ledger_says_of_the_log(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "memory")
    logged.sql(USERS)
    logged.succeed()
    (row,) = database(logged.memory).ledger.values()
    assert row.log["slot"] == logged.slots()[0][0]
    assert row.log["columns"]["id"][0] == 1
    assert row.bookmark is not None
    assert row.bookmark.keys() == {"log_position"}


def test_log_drop_leaves_nothing_at_the_source_and_the_next_run_copies_anew(logged: Logged, run_cli: RunCLI) -> None:
    logged.succeed()
    ((slot, _),) = logged.slots()
    done = run_cli(["log", "drop", logged.file], logged.folder)
    assert (done.returncode, done.stdout) == (0, f"logged: dropped slot '{slot}' and publication '{slot}'\n")
    assert logged.slots() == logged.sql("select pubname from pg_publication") == []
    assert "nothing to drop" in run_cli(["log", "drop", logged.file], logged.folder).stdout
    logged.sql("insert into users values (3, 'Cyd')")
    logged.succeed(full_refresh=True)
    assert replayed(logged.changes("users")) == source(logged)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["preview", "--stream", "public.orders"], '"total": "1.50"'),
        (["count"], '"public.orders"'),
        (["plan"], "copied first, and read out of the log from then on: public.orders, public.users"),
        (["check"], '"ok": true'),
    ],
)
@pytest.mark.one_of("command")
def test_commands_that_look_know_such_streams(logged: Logged, run_cli: RunCLI, command: list[str], told: str) -> None:
    done = run_cli([*command, "--json", logged.file], logged.folder)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    assert logged.slots() == []


@pytest.mark.full
def test_a_place_in_the_log_is_not_rewound_nor_forgotten_by_hand(logged: Logged, run_cli: RunCLI) -> None:
    logged.succeed()
    for command, said in (
        (["rewind", logged.file, "public.users", "--run", "1"], "its source keeps no older log"),
        (["set", logged.file, "public.users", "id=1"], "say its place in the log, as `state show` does"),
    ):
        done = run_cli(["state", *command], logged.folder)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert (
        "`syncblocks log drop` first"
        in run_cli(["state", "reset", "--forget", logged.file, "public.users"], logged.folder).stderr
    )
    assert run_cli(["state", "reset", logged.file, "public.users"], logged.folder).returncode == 0
    logged.succeed()
    assert [each["_op"] for each in logged.changes("users")] == ["read"] * 4
