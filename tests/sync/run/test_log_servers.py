"""LOG_BASED and what becomes of servers: promoted, restored, copied, and other versions."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from syncblocks import RunResult
from tests import services
from tests.sync.run import test_log_writers
from tests.sync.run.log_based import LOG_BASED, Logged, replayed
from tests.zygote import Zygote

pytestmark = pytest.mark.full

TABLE = "create table t (id int primary key, n int); insert into t values (1, 1)"

MORE = "create table more as select repeat('x', 100) from generate_series(1, 5000)"


@pytest.fixture(scope="module")
def server() -> Iterator[services.OwnPostgres]:
    options = ("max_slot_wal_keep_size=64MB", "max_prepared_transactions=4", "wal_sender_timeout=2s")
    with services.own_postgres(*options) as made:
        yield made


@pytest.fixture
def logged(tmp_path: Path, server: services.OwnPostgres) -> Iterator[Logged]:
    made = logged_of(tmp_path, server)
    made.sql(TABLE)
    yield made
    made.sql(
        "drop table t",
        "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where active",
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots",
    )
    made.sql(*(f"drop publication {name}" for (name,) in made.sql("select pubname from pg_publication")))


def logged_of(folder: Path, server: services.OwnPostgres) -> Logged:
    logged = Logged(folder, server.url)
    logged.document["streams"] = [{"stream": "public.t", **LOG_BASED}]
    return logged


def moved(logged: Logged, server: services.OwnPostgres) -> None:
    """Let the pipeline read the same database of another server."""
    logged.url = logged.document["source"]["config"]["url"] = server.url


def until(url: str, query: str, expected: object = True) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(query.encode()).fetchone() != (expected,):
            pass


def numbers(logged: Logged) -> dict[int, int]:
    return {key: found["n"] for key, found in replayed(logged.changes("t")).items()}


def test_a_promoted_standby_goes_on_if_it_has_all_that_was_read(tmp_path: Path) -> None:
    with services.own_postgres() as primary:
        logged = logged_of(tmp_path, primary)
        logged.sql(TABLE)
        logged.succeed()
        ((slot, _),) = logged.slots()
        assert logged.sql("select failover from pg_replication_slots") == [(True,)]
        follows = ("hot_standby_feedback=on", "sync_replication_slots=on")
        standby = primary.backed_up("standby", "-R", "-C", "-S", "standby", options=follows)
        standby.start()
        is_there = f"select count(*) = 1 from pg_replication_slots where slot_name = '{slot}' and not temporary"
        while True:  # the standby takes over a slot once the log of it has gone on
            logged.sql("select pg_log_standby_snapshot()", "insert into t values (0, 0); delete from t where id = 0")
            logged.succeed()
            with psycopg.connect(standby.url, autocommit=True) as connection:
                if connection.execute(is_there.encode()).fetchone() == (True,):
                    break
        standby.stop()
        late = standby.copied("late")
        logged.sql("update t set n = 2", "insert into t values (2, 2)")
        logged.succeed()
        logged.sql("update t set n = 3 where id = 2")
        ((end,),) = logged.sql("select pg_current_wal_insert_lsn()")
        standby.start()
        until(standby.url, f"select pg_last_wal_replay_lsn() >= '{end}'")
        primary.kill()

        late.start()
        late.promote()
        moved(logged, late)
        assert "and the server's log ends at " in logged.refused()
        logged.sql(MORE)  # from now on only the timeline tells
        said = logged.refused()
        assert "the server is on timeline 2, which left timeline 1 at " in said
        assert "stream 'public.t' was read up to " in said
        late.stop()

        standby.promote()
        moved(logged, standby)
        logged.sql("insert into t values (3, 3)")
        logged.succeed()
        assert numbers(logged) == {1: 2, 2: 3, 3: 3}
        logged.sql("delete from t where id = 1")
        logged.succeed()
        assert numbers(logged) == {2: 3, 3: 3}
        standby.stop()

        primary.start()  # the former one: what came since is not its own
        moved(logged, primary)
        logged.sql(MORE)
        assert "the server is on timeline 1, which left another one" in logged.refused()


def test_a_promoted_standby_without_the_slot_is_refused(tmp_path: Path) -> None:
    with services.own_postgres(version=16) as primary:
        logged = logged_of(tmp_path, primary)
        logged.sql(TABLE)
        logged.succeed()
        standby = primary.backed_up("standby", "-R")
        standby.start()
        moved(logged, standby)
        primary.kill()
        standby.promote()
        assert "is gone, and with it the log since the last run: `syncblocks log drop`" in logged.refused()
        standby.stop()


def test_a_standby_is_read_also_once_it_is_promoted(tmp_path: Path) -> None:
    with services.own_postgres() as primary:
        logged = logged_of(tmp_path, primary)
        logged.sql(TABLE, "create table u (id int primary key); insert into u values (1)")
        standby = primary.backed_up("standby", "-R", "-C", "-S", "standby", options=("hot_standby_feedback=on",))
        standby.start()

        def on_primary(*statements: str) -> None:
            moved(logged, primary)
            ((end,),) = logged.sql(*statements, "select pg_current_wal_insert_lsn()")
            moved(logged, standby)
            until(standby.url, f"select pg_last_wal_replay_lsn() >= '{end}'")

        def succeed() -> None:
            """Run while the primary tells what runs there, as it does by itself every 15 seconds."""
            run = threading.Thread(target=logged.succeed)
            run.start()
            with psycopg.connect(primary.url, autocommit=True) as connection:
                while run.is_alive():
                    connection.execute("select pg_log_standby_snapshot()")
                    run.join(0.1)

        moved(logged, standby)
        statement = re.search("at the primary: `(create publication .*?)`", logged.refused())
        assert statement
        on_primary(statement[1].replace(" for table ", " for table only ").replace("insert, ", ""))
        assert f"at the primary: `drop publication {statement[1].split()[2]}; {statement[1]}`" in logged.refused()
        on_primary(f"drop publication {statement[1].split()[2]}", statement[1])
        succeed()
        on_primary("update t set n = 2", "insert into t values (2, 2)")
        logged.succeed()
        assert numbers(logged) == {1: 2, 2: 2}
        logged.document["streams"].append({"stream": "public.u", **LOG_BASED})
        statement = re.search("at the primary: `(alter publication .*?)`", logged.refused())
        assert statement
        on_primary(statement[1])
        succeed()
        on_primary("delete from t where id = 2", "insert into u values (2)")
        primary.kill()
        standby.promote()
        logged.sql("insert into t values (3, 3)")
        logged.succeed()
        assert numbers(logged) == {1: 2, 3: 3}
        assert replayed(logged.changes("u")).keys() == {1, 2}


def test_a_restored_server_is_refused(tmp_path: Path) -> None:
    with services.own_postgres() as server:
        logged = logged_of(tmp_path, server)
        logged.sql(TABLE)
        logged.succeed()
        backup = server.backed_up("backup")
        server.stop()
        storage = server.copied("storage")
        server.start()
        logged.sql("insert into t select g, 0 from generate_series(2, 5000) g")
        logged.succeed()
        server.stop()
        for restored, words in (
            (backup, "is gone, and with it the log since the last run"),
            (storage, "and the server's log ends at "),
        ):
            restored.start()
            moved(logged, restored)
            assert words in logged.refused()
            restored.stop()
        server.start()
        moved(logged, server)
        logged.succeed()


def test_another_ledger_of_the_same_file_never_takes_the_slot(tmp_path: Path, logged: Logged) -> None:
    logged.succeed()
    before = logged.slots()
    shutil.move(tmp_path / "out", tmp_path / "production")  # a laptop has the same file, and a ledger of its own
    logged.sql("insert into t values (2, 2)")
    assert "is not ours, as no ledger of this pipeline names it" in logged.refused()
    logged.document["destination"]["config"]["path"] = str(tmp_path / "other")  # its own slot
    logged.succeed()
    assert before[0] in logged.slots()
    assert len(logged.slots()) == 2
    logged.document["destination"]["config"]["path"] = str(tmp_path / "out")
    shutil.move(tmp_path / "production", tmp_path / "out")
    logged.succeed()
    assert numbers(logged) == {1: 1, 2: 2}


@pytest.mark.parametrize("version", [16, 18])
def test_many_writers_on_each_version(tmp_path: Path, version: int) -> None:
    with services.own_postgres(version=version) as server:
        test_log_writers.test_each_change_of_many_writers_is_there_once(tmp_path, server.url)


def test_a_slot_whose_log_was_removed_is_refused(logged: Logged) -> None:
    logged.succeed()
    ((slot, _),) = logged.slots()
    lost = f"select wal_status from pg_replication_slots where slot_name = '{slot}'"
    while logged.sql(lost) != [("lost",)]:
        logged.sql(
            "create table filler as select repeat('x', 1000) from generate_series(1, 40000)",
            "drop table filler",
            "checkpoint",
        )
    assert f"slot {slot!r} has lost log that is needed (lost, pgoutput): `syncblocks log drop`" in logged.refused()


#: Seconds that a copy waits in these tests.
SHORT = {"syncblocks.connectors.postgres.log.slot.COPY_WAIT_S": 0.5}


def ended(logged: Logged, zygote: Zygote) -> str:
    """Run with little patience; return why it fails."""
    process = zygote.start(logged.folder, ("run", logged.file.name), constants=SHORT)
    assert process.wait() == 1
    return process.log()


def test_a_copy_that_waits_for_transactions_names_them(logged: Logged, zygote: Zygote) -> None:
    logged.document["retries"] = 0
    logged.sql("begin; insert into t values (2, 2); prepare transaction 'left behind'")
    with psycopg.connect(logged.url) as writer:
        writer.execute("insert into t values (3, 3)")
        said = ended(logged, zygote)
        assert f"process {writer.info.backend_pid} of postgres since 20" in said
        assert "prepared transaction left behind): end them, or run again when they are over" in said
        killed = zygote.start(logged.folder, ("run", logged.file.name))
        until(logged.url, "select exists (select from pg_stat_activity where wait_event_type = 'Lock')")
        killed.kill()
        assert "waits for transactions that run (process " in ended(logged, zygote)  # its slot is half made
    logged.sql("commit prepared 'left behind'")
    logged.succeed()
    assert numbers(logged) == {1: 1, 2: 2, 3: 3}


def test_a_table_that_is_locked_is_waited_for_and_who_locks_it_is_named(logged: Logged, zygote: Zygote) -> None:
    logged.document["retries"] = 0
    with psycopg.connect(logged.url) as vacuum:
        vacuum.execute("lock table t in share update exclusive mode")
        assert f"process {vacuum.info.backend_pid} of postgres since 20" in ended(logged, zygote)
    logged.succeed()


def test_a_server_that_says_nothing_any_more_is_given_up(logged: Logged) -> None:
    """Its kernel still takes what is sent: no timeout of the network notices."""
    logged.document["retries"] = 0
    logged.document["source"]["config"]["network_timeout_s"] = 1
    logged.succeed()
    logged.sql("create table filler (v text)")
    found, results = list[tuple[int]](), list[RunResult]()

    def run() -> None:
        results.append(logged.run())

    while not results or results[-1].status == "success":  # it may have sent all before it is stopped
        logged.sql("insert into filler select repeat('x', 100) from generate_series(1, 100000)")
        running = threading.Thread(target=run)
        running.start()
        while running.is_alive() and not found:
            found = logged.sql("select pid from pg_stat_replication where state = 'catchup'")
        for (pid,) in found:
            os.kill(pid, signal.SIGSTOP)
        running.join()
        for (pid,) in found:
            os.kill(pid, signal.SIGCONT)
        found.clear()
    assert "the server has answered nothing for " in str([stream.error for stream in results[-1].streams])
    logged.sql("drop table filler", "insert into t values (2, 2)")
    logged.succeed()
    assert numbers(logged) == {1: 1, 2: 2}


def test_operations_that_were_not_published_for_a_while_are_noticed(logged: Logged) -> None:
    logged.succeed()
    logged.succeed()
    ((publication,),) = logged.sql("select pubname from pg_publication")
    logged.sql(
        f"alter publication {publication} set (publish = 'insert')",
        "delete from t",
        f"alter publication {publication} set (publish = 'insert, update, delete, truncate')",
    )
    assert "or that one altered: changes may be missing: `syncblocks state reset public.t` copies" in logged.refused()


@pytest.mark.parametrize("point", ["log.made:1", "stream.after_commit:1", "log.confirm:1"])
def test_a_run_that_wakes_up_behind_another_one_changes_nothing(logged: Logged, zygote: Zygote, point: str) -> None:
    """The other one has a run store of its own: only ledger and slot keep them apart."""
    logged.succeed()
    logged.sql("insert into t values (2, 2)", "update t set n = 3 where id = 1")
    frozen = zygote.start(logged.folder, ("run", logged.file.name), failpoint=f"{point}:stop")
    while Path(f"/proc/{frozen.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        pass
    other = logged.folder / "other"
    other.mkdir()
    shutil.copy(logged.file, other)
    run = zygote.start(other, ("run", logged.file.name))
    assert run.wait() == 0, run.log()
    logged.sql("delete from t where id = 2")
    frozen.signal(signal.SIGCONT)
    assert frozen.wait() in (0, 1)
    run = zygote.start(other, ("run", logged.file.name))
    assert run.wait() == 0, run.log()
    assert numbers(logged) == {1: 3}
    assert [each["_op"] for each in logged.changes("t")] == ["read", "insert", "update", "delete"]
