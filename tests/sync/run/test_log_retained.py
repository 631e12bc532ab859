"""LOG_BASED: what is given up of a log that has grown past `max_retained`."""

from __future__ import annotations

import json
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks.sync.errors import ConfigError
from syncblocks.sync.run.mapped.opening import open_run
from tests import services
from tests.conftest import RunCLI
from tests.sync.run.log_based import LOG_BASED, Logged, replayed
from tests.thinned import only_full
from tests.zygote import Zygote

PAIR = """create table a (id int primary key, n int); create table b (id int primary key, n int);
insert into a values (1, 10); insert into b values (1, -10)"""
FILLER = "create table if not exists aside.filler as select repeat('x', 500) as x from generate_series(1, 4000)"


def limited(tmp_path: Path, log_url: str, on_retained: str, connector: str = "duckdb") -> Logged:
    """Return a pipeline that has copied `a` and `b`, and may keep 1 MB of log."""
    logged = Logged(tmp_path, log_url, connector)
    if connector == "duckdb":
        logged.document["streams"] = [{"stream": "public.*", "replication_method": "LOG_BASED"}]
    logged.document["source"]["config"]["log"] = {"max_retained": "1MB", "on_retained": on_retained}
    logged.sql(PAIR, "create schema aside")
    logged.succeed()
    return logged


def fill(logged: Logged) -> None:
    """Write 2 MB of log that no stream has."""
    logged.sql("drop table if exists aside.filler", FILLER)


def planned(logged: Logged, run_cli: RunCLI, *options: str) -> tuple[list[str], str]:
    """Return what `plan` says of the streams that are copied, and all its warnings."""
    done = run_cli(["plan", "--json", *options, logged.file], logged.folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return [each["stream"] for each in found["streams"] if each["bookmark"] is None], " ".join(found["warnings"])


def ran(logged: Logged, run_cli: RunCLI, *options: str) -> tuple[int, str]:
    done = run_cli(["run", *options, logged.file], logged.folder)
    return done.returncode, done.stderr + done.stdout


def merged(logged: Logged) -> list[list[tuple[Any, ...]]]:
    return [logged.merged(table) for table in "ab"]


@pytest.mark.full
def test_a_stream_that_is_left_out_is_given_up_and_copied_by_the_next_run_with_it(
    tmp_path: Path, log_url: str, run_cli: RunCLI
) -> None:
    logged = limited(tmp_path, log_url, "recopy")
    logged.sql("update a set n = 11", "update b set n = -11")
    logged.succeed(streams=["public.a"])
    ((_, before),) = logged.slots()
    fill(logged)
    told = "MB of log at the source, more than `max_retained`: the run leaves it out"
    copied, warnings = planned(logged, run_cli, "--stream", "public.a")
    assert (copied, "stream 'public.b' holds " in warnings, told in warnings) == ([], True, True)
    code, text = ran(logged, run_cli, "--stream", "public.a")
    assert (code, "stream 'public.b' holds " in text, told in text) == (0, True, True), text
    ((_, after),) = logged.slots()
    assert after != before
    assert merged(logged) == [[(1, 11)], [(1, -10)]]
    logged.sql("insert into b values (2, -2)")
    copied, warnings = planned(logged, run_cli)
    assert (copied, told in warnings) == (["public.b"], False)
    logged.succeed()
    assert merged(logged) == [[(1, 11)], [(1, -11), (2, -2)]]
    logged.sql("delete from b where id = 1")
    logged.succeed()
    assert logged.merged("b") == [(2, -2)]


def test_streams_that_the_run_reads_are_read_however_far_they_are_behind(
    tmp_path: Path, log_url: str, run_cli: RunCLI
) -> None:
    logged = limited(tmp_path, log_url, "recopy", "jsonl")
    logged.sql("update a set n = 11")
    fill(logged)
    copied, warnings = planned(logged, run_cli)
    assert (copied, "more than `max_retained`: the run reads it" in warnings) == ([], True)
    logged.succeed()
    assert [each["_op"] for each in logged.changes("a")] == ["read", "update"]


@pytest.mark.full
def test_a_slot_is_dropped_and_everything_copied(tmp_path: Path, log_url: str, run_cli: RunCLI) -> None:
    logged = limited(tmp_path, log_url, "drop")
    logged.succeed()
    published = logged.sql("select oid from pg_publication")
    logged.sql("update a set n = 11", "update b set n = -11", "insert into b values (2, -2)")
    fill(logged)
    checked = json.loads(run_cli(["check", "--json", logged.file], logged.folder).stdout)
    assert "the run drops it and copies its tables" in " ".join(checked["warnings"])
    assert planned(logged, run_cli)[0] == ["public.a", "public.b"]
    ((slot, before),) = logged.slots()
    code, text = ran(logged, run_cli, "--stream", "public.a")
    assert (code, f"slot '{slot}' keeps " in text) == (0, True), text
    ((_, after),) = logged.slots()
    assert after != before
    assert logged.sql("select oid from pg_publication") == published
    assert merged(logged) == [[(1, 11)], [(1, -10)]]
    logged.sql("delete from b where id = 1")
    logged.succeed()
    assert merged(logged) == [[(1, 11)], [(2, -2)]]
    logged.sql("update a set n = 12", "update b set n = -12")
    logged.succeed()
    assert merged(logged) == [[(1, 12)], [(2, -12)]]


@pytest.mark.full
@pytest.mark.parametrize("on_retained", ["recopy", "drop"])
def test_appended_changes_go_on_behind_a_new_copy(tmp_path: Path, log_url: str, on_retained: str) -> None:
    logged = limited(tmp_path, log_url, on_retained, "jsonl")
    logged.sql("update b set n = -11")
    fill(logged)
    logged.succeed(streams=["public.a"])
    del logged.document["source"]["config"]["log"]  # other tests write log as well
    logged.sql("insert into b values (2, -2)")
    logged.succeed()
    logged.sql("update b set n = n - 1")
    logged.succeed()
    changes = logged.changes("b")
    assert [each["_op"] for each in changes] == ["read", "read", "read", "update", "update"]
    assert {key: each["n"] for key, each in replayed(changes[1:]).items()} == {1: -12, 2: -3}


@pytest.mark.full
@pytest.mark.parametrize("connector", ["duckdb", "jsonl"])
@pytest.mark.thinned(1)
@pytest.mark.parametrize(
    "case",
    [
        *("recopy log.emptied:1", "drop log.emptied:1", "drop log.emptied:2", "drop log.dropped:1"),
        *only_full("recopy log.confirm:1", "drop log.noted:1", "drop log.made:1", "drop log.exported:1"),
    ],
)
def test_killed_between_any_two_steps_nothing_is_lost_or_there_twice(
    tmp_path: Path, log_url: str, zygote: Zygote, connector: str, case: str
) -> None:
    on_retained, point = case.split()
    logged = limited(tmp_path, log_url, on_retained, connector)
    logged.succeed()
    logged.sql(
        "update a set n = 11", "update b set n = -11", "delete from b where id = 1", "insert into b values (2, -2)"
    )
    fill(logged)
    words = ("run", "--stream", "public.a", logged.file.name)
    process = zygote.start(logged.folder, words, failpoint=f"{point}:kill")
    assert process.wait(60) == -signal.SIGKILL, process.log()
    logged.sql("update a set n = 12", "insert into b values (3, -3)")
    logged.succeed()
    logged.sql("update a set n = 13", "update b set n = -4 where id = 3")
    logged.succeed()
    wanted = [[(1, 13)], [(2, -2), (3, -4)]]
    if connector == "duckdb":
        assert merged(logged) == wanted
        return
    for table, records in zip("ab", wanted, strict=True):
        changes = logged.changes(table)
        last = max(str(each["_position"])[:16] for each in changes if each["_op"] == "read")
        held = replayed([each for each in changes if each["_position"] >= last])
        assert sorted((each["id"], each["n"]) for each in held.values()) == records


@pytest.mark.full
def test_a_stream_that_fails_each_time_at_the_same_place_is_given_up(tmp_path: Path, log_url: str) -> None:
    logged = limited(tmp_path, log_url, "recopy", "memory")
    logged.sql("update a set n = 11", "update b set n = -11")
    fill(logged)
    failing = logged.document["destination"]["config"]
    for _ in range(2):
        failing |= {"fail_on": {"public.b": 1}, "fail_times": 2}
        assert logged.run().status == "failure"
        assert [each["_op"] for each in logged.changes("b")] == ["read"]
    del failing["fail_on"]
    logged.succeed()
    assert [each["_op"] for each in logged.changes("b")] == ["read", "read"]


@pytest.mark.full
def test_a_stream_whose_log_cannot_be_read_on_is_given_up(tmp_path: Path, log_url: str) -> None:
    logged = limited(tmp_path, log_url, "recopy")
    logged.sql("update a set n = 11", "drop table b", "create table b (id int primary key, n int)")
    assert "its table was made anew" in logged.refused()
    fill(logged)
    logged.succeed()
    assert merged(logged) == [[(1, 11)], []]


@pytest.mark.full
def test_what_an_open_transaction_holds_is_no_stream_s_to_give_up(tmp_path: Path, run_cli: RunCLI) -> None:
    with services.own_postgres() as server:  # nobody else writes log there
        logged = limited(tmp_path, server.url, "drop")
        with psycopg.connect(server.url) as connection:
            connection.execute("insert into a values (2, 20)")
            fill(logged)
            limit = logged.document["source"]["config"].pop("log")
            logged.succeed()
            logged.document["source"]["config"]["log"] = limit
            copied, warnings = planned(logged, run_cli)
            assert (copied, "a transaction may be open at the source" in warnings) == ([], True)
        logged.succeed()
        assert logged.merged("a") == [(1, 10), (2, 20)]


@pytest.mark.full
def test_a_slot_that_somebody_reads_is_not_dropped(tmp_path: Path, log_url: str, run_cli: RunCLI) -> None:
    logged = limited(tmp_path, log_url, "drop")
    logged.sql("update a set n = 11")
    fill(logged)
    ((slot, _),) = logged.slots()
    with closing(psycopg.connect(log_url, autocommit=True, replication="database")) as reader:
        options = f"proto_version '1', publication_names '{slot}'"
        reader.pgconn.exec_(f"START_REPLICATION SLOT {slot} LOGICAL 0/0 ({options})".encode())
        copied, warnings = planned(logged, run_cli)
        assert (copied, "it is not dropped, since somebody reads it" in warnings) == ([], True)


@pytest.mark.full
def test_a_run_of_tasks_is_refused_before_it_gives_anything_up(tmp_path: Path, log_url: str) -> None:
    logged = limited(tmp_path, log_url, "drop", "jsonl")
    logged.document["streams"] = [{"stream": "public.a", **LOG_BASED}]
    logged.sql("update a set n = 11")
    fill(logged)
    before = logged.slots()
    with pytest.raises(ConfigError, match="they cannot be tasks of their own"):
        open_run(logged.file)
    assert logged.slots() == before
    logged.document["source"]["config"]["log"] = {}
    logged.succeed()
    assert [each["_op"] for each in logged.changes("a")] == ["read", "update"]


def test_a_limit_is_needed_to_give_anything_up(tmp_path: Path) -> None:
    logged = Logged(tmp_path, "postgresql://nobody@127.0.0.1:1/none")
    logged.document["source"]["config"]["log"] = {"on_retained": "drop"}
    assert "`on_retained: drop` needs `max_retained`" in logged.refused()
