"""LOG_BASED: which streams hold the log, and at which moment the tables stand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks import load_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import PipelineSession
from syncblocks.sync.state.stream_state import reset_state, rewind_state, set_state
from tests.conftest import RunCLI
from tests.sync.run.log_based import Logged, replayed

PAIR = """create table a (id int primary key, n int); create table b (id int primary key, n int);
insert into a values (1, 10); insert into b values (1, -10)"""
MERGED = {"replication_method": "LOG_BASED"}


def merging(tmp_path: Path, log_url: str) -> Logged:
    logged = Logged(tmp_path, log_url, "duckdb")
    logged.document["streams"] = [{"stream": "public.*", **MERGED}]
    logged.sql(PAIR)
    return logged


@pytest.mark.full
def test_a_stream_whose_ledger_stands_in_another_schema_holds_the_log_too(tmp_path: Path, log_url: str) -> None:
    logged = merging(tmp_path, log_url)
    logged.document["streams"] = [
        {"stream": "public.*", **MERGED},
        {"stream": "public.b", "destination_table": "{{ stream }}"},
    ]
    logged.succeed()
    logged.sql("update a set n = 11", "update b set n = -11")
    logged.succeed(streams=["public.a"])
    logged.succeed()
    assert logged.merged("a") == [(1, 11)]
    assert logged.merged("public.b") == [(1, -11)]


@pytest.mark.full
def test_a_stream_that_is_read_otherwise_now_keeps_its_bookmark_and_comes_back_by_a_copy(
    tmp_path: Path, log_url: str
) -> None:
    logged = merging(tmp_path, log_url)
    logged.succeed()
    by_id = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "key_properties": ["id"]}
    logged.document["streams"] = [{"stream": "public.a", **MERGED}, {"stream": "public.b", **by_id}]
    logged.sql("insert into b values (2, -2)")
    logged.succeed(full_refresh=True)
    logged.succeed()
    logged.sql("update b set n = -11 where id = 1")
    logged.succeed()
    assert logged.merged("b") == [(1, -10), (2, -2)]
    logged.document["streams"] = [{"stream": "public.*", **MERGED}]
    assert "another replication method wrote its table" in logged.refused()
    logged.succeed(full_refresh=True)
    assert logged.merged("b") == [(1, -11), (2, -2)]


@pytest.mark.full
def test_a_run_that_copies_one_table_leaves_all_at_one_moment(tmp_path: Path, log_url: str, run_cli: RunCLI) -> None:
    logged = merging(tmp_path, log_url)
    logged.succeed()
    assert run_cli(["state", "reset", logged.file, "public.b"], logged.folder).returncode == 0
    done = threading.Thread(target=logged.succeed)
    done.start()
    while done.is_alive():
        logged.sql("begin; update a set n = n + 1; update b set n = n - 1; commit")
    ((_, of_a),), ((_, of_b),) = logged.merged("a"), logged.merged("b")
    assert of_a + of_b == 0


def test_a_retry_ends_where_the_other_streams_have_ended(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "memory")
    logged.document |= {"retries": 1, "retry_delay_s": 0.5}
    logged.sql(PAIR)
    logged.succeed()
    logged.sql("update a set n = 11", "update b set n = -11")
    logged.document["destination"]["config"]["fail_on"] = {"public.a": 1}
    # `b` has ended, and `a` waits for its retry.
    done = threading.Thread(target=logged.succeed)
    done.start()
    while len(logged.changes("b")) < 2 and done.is_alive():
        pass
    logged.sql("begin; update a set n = 12; update b set n = -12; commit")
    done.join()
    total = sum(each["n"] for table in ("a", "b") for each in replayed(logged.changes(table)).values())
    assert total == 0
    del logged.document["destination"]["config"]["fail_on"]
    logged.succeed()
    assert [each["n"] for each in logged.changes("a")] == [10, 11, 12]
    assert [each["n"] for each in logged.changes("b")] == [-10, -11, -12]


def test_a_log_that_is_read_is_not_dropped_and_nothing_is_forgotten(
    tmp_path: Path, log_url: str, run_cli: RunCLI
) -> None:
    logged = Logged(tmp_path, log_url)
    logged.sql(PAIR)
    logged.succeed()
    ((slot, _),) = logged.slots()
    reader = psycopg.connect(logged.url, autocommit=True, replication="database", application_name="other tool")
    options = f"proto_version '1', publication_names '{slot}'"
    reader.pgconn.exec_(f"START_REPLICATION SLOT {slot} LOGICAL 0/0 ({options})".encode())
    done = run_cli(["log", "drop", logged.file], logged.folder)
    named = f"slot {slot!r} is read by other tool (process {reader.info.backend_pid}, role 'postgres', from "
    reader.close()
    assert (done.returncode, named in done.stderr) == (1, True), done.stderr
    logged.sql("update a set n = 11")
    logged.succeed()
    assert [each["_op"] for each in logged.changes("a")] == ["read", "update"]


@pytest.mark.full
def test_more_kept_log_than_the_file_allows_is_warned_of(tmp_path: Path, log_url: str, run_cli: RunCLI) -> None:
    logged = merging(tmp_path, log_url)
    logged.document["source"]["config"]["log"] = {"max_retained": "1MB"}
    logged.succeed()
    logged.sql(
        "create schema aside; create table aside.filler as select repeat('x', 500) from generate_series(1, 4000)"
    )
    told = "more than `max_retained`: run all its streams ('public."
    plan = json.loads(run_cli(["plan", "--json", logged.file], logged.folder).stdout)
    assert plan["log_retained_bytes"] > 1_000_000
    assert told in " ".join(plan["warnings"])
    done = run_cli(["run", logged.file], logged.folder)
    assert (done.returncode, told in done.stderr + done.stdout) == (0, True), done.stderr


@pytest.mark.full
def test_a_table_that_is_gone_holds_the_log_until_its_stream_is_reset(
    tmp_path: Path, log_url: str, run_cli: RunCLI
) -> None:
    logged = merging(tmp_path, log_url)
    logged.succeed()
    logged.succeed()
    ((_, before),) = logged.slots()
    logged.sql("drop table b", "update a set n = 11")
    told = "stream 'public.b' holds the log, and its table is gone: `syncblocks state reset public.b` lets go of it"
    done = run_cli(["run", logged.file], logged.folder)
    assert (done.returncode, told in done.stderr) == (0, True), done.stderr
    assert logged.slots()[0][1] == before
    assert run_cli(["state", "reset", logged.file, "public.b"], logged.folder).returncode == 0
    logged.succeed()
    assert logged.slots()[0][1] != before
    assert logged.merged("a") == [(1, 11)]


@pytest.mark.full
def test_check_and_runs_show_say_how_much_log_is_kept_and_how_far_streams_are_behind(
    tmp_path: Path, log_url: str, run_cli: RunCLI
) -> None:
    logged = merging(tmp_path, log_url)
    logged.succeed()
    logged.sql(
        "create schema aside; create table aside.filler as select repeat('x', 500) from generate_series(1, 4000)",
        "update a set n = 11",
    )
    assert json.loads(run_cli(["check", "--json", logged.file], logged.folder).stdout)["log_retained_bytes"] > 1_000_000
    logged.succeed()
    shown = json.loads(run_cli(["runs", "show", "--json", logged.file], logged.folder).stdout)
    lags = {each["stream"]: each["lag"] for each in shown["block_runs"] if each["lag"]}
    for lag in lags.values():
        assert lag["bytes_before"] > 1_000_000 > lag["bytes_after"]
        assert lag["retained_bytes"] > 0
    assert lags["public.a"]["seconds_before"] > 0
    assert lags["public.b"]["seconds_before"] is None
    told = run_cli(["runs", "show", logged.file], logged.folder).stdout
    assert "log of public.a: " in told
    assert " behind before the run, the oldest change " in told


@pytest.mark.full
def test_a_place_is_set_where_the_source_still_has_the_log_and_rewound_by_nothing(tmp_path: Path, log_url: str) -> None:
    logged = merging(tmp_path, log_url)
    logged.succeed()

    def refused(change: Callable[[PipelineSession], Any]) -> str:
        with opened(load_pipeline(logged.file)) as session:
            try:
                change(session)
            except ConfigError as error:
                return str(error)
        return ""

    def setting(column: str, value: str) -> str:
        return refused(lambda session: set_state(session, None, "public.a", {column: value}))

    ((slot, confirmed),) = logged.slots()
    logged.sql("update a set n = 11")
    ((here, below, past),) = logged.sql(
        f"""select pg_current_wal_flush_lsn()::text, ('{confirmed}'::pg_lsn - 1)::text,
        (pg_current_wal_flush_lsn() + 100000000)::text"""
    )
    place = "log_position"
    assert f"slot '{slot}' stands at {confirmed}, past stream 'public.a'" in setting(place, below)
    assert "and the server's log ends at " in setting(place, past)
    assert "is no place in the log: it is written like " in setting(place, "17")
    assert "say its place in the log, as `state show` does" in setting("id", "1")
    assert "keeps no older log" in refused(lambda session: rewind_state(session, None, "public.a", to={place: "0/1"}))
    with pytest.raises(ConfigError, match="the ledger alone says where it goes on"):
        logged.run(bookmarks={"public.a": {place: here}})
    assert setting(place, here) == ""
    logged.succeed()
    assert logged.merged("a") == [(1, 10)]  # the change before that place counts as written
    assert refused(lambda session: reset_state(session, None, "public.a", forget=False)) == ""
    logged.succeed()
    assert logged.merged("a") == [(1, 11)]
