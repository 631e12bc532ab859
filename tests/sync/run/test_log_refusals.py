"""Refusals of LOG_BASED name who reads a slot, which setting is wrong, or which right is missing."""

from __future__ import annotations

import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RunCLI
from tests.sync.run.log_based import Logged
from tests.zygote import Zygote

TABLE = "create table t (id int primary key, v text); insert into t values (1, 'a')"


@pytest.fixture
def logged(tmp_path: Path, log_url: str) -> Logged:
    """A pipeline that appends the changes of one table."""
    logged = Logged(tmp_path, log_url)
    logged.sql(TABLE)
    logged.document["retries"] = 0
    return logged


def elsewhere(logged: Logged) -> Path:
    """Copy the pipeline file to a folder with a run store of its own."""
    folder = logged.folder / f"folder_{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    shutil.copy(logged.file, folder)
    return folder


@pytest.mark.full
def test_a_run_that_waits_for_a_slot_names_the_run_that_reads_it(logged: Logged, zygote: Zygote) -> None:
    logged.sql("create schema loaded")
    logged.document["destination"] = {"connector": "postgres", "config": {"url": logged.url, "schema": "loaded"}}
    logged.document["streams"][0]["write_disposition"] = "merge"
    logged.succeed()
    logged.sql("insert into t values (2, 'b')")
    first = zygote.start(logged.folder, ("run", logged.file.name), failpoint="stream.after_commit:1:stop")
    while not first.has_ended() and Path(f"/proc/{first.pid}/stat").read_text().rpartition(") ")[2][0] != "T":
        pass
    ((process, name),) = logged.sql(
        "select pid, application_name from pg_stat_activity join pg_replication_slots on pid = active_pid "
        "where pg_replication_slots.database = current_database()"
    )
    short = {"syncblocks.connectors.postgres.log.connection._FREED_S": 0.3}
    second = zygote.start(elsewhere(logged), ("run", logged.file.name), constants=short)
    assert second.wait() == 1
    assert name.startswith("syncblocks run 2 on ")
    for words in (f"is still read by {name} (process {process}, role 'postgres', from ", "waited 0.3 s"):
        assert words in second.log()
    first.signal(signal.SIGCONT)
    first.wait()
    logged.succeed()
    assert logged.query("select * from loaded.t order by 1") == [(1, "a"), (2, "b")]


@pytest.mark.full
def test_a_wrong_slot_name_is_refused_before_the_first_run_and_recorded_afterwards(
    logged: Logged, run_cli: RunCLI
) -> None:
    logged.document["source"]["config"]["log"] = {"slot": "Big-Name"}
    done = run_cli(["run", logged.file], logged.folder)
    assert (done.returncode, "'Big-Name'" in done.stderr, "logged.yaml:1" in done.stderr) == (2, True, True)
    del logged.document["source"]["config"]["log"]
    logged.succeed()
    logged.document["source"]["config"]["log"] = {"slot": "another"}
    done = run_cli(["run", logged.file], logged.folder)
    assert (done.returncode, "`syncblocks log drop`" in done.stdout) == (1, True), done.stdout
    assert '"status": "failure"' in run_cli(["runs", "list", "--json"], logged.folder).stdout


@pytest.mark.full
def test_a_missing_slot_is_refused_without_runs_in_the_store_and_recorded_otherwise(
    logged: Logged, run_cli: RunCLI
) -> None:
    logged.succeed()
    logged.sql(f"select pg_drop_replication_slot('{logged.slots()[0][0]}')")
    done = run_cli(["run", logged.file.name], elsewhere(logged))
    assert (done.returncode, "`syncblocks log drop`" in done.stderr) == (2, True), done.stderr
    done = run_cli(["run", logged.file], logged.folder)
    assert (done.returncode, "`syncblocks log drop`" in done.stdout) == (1, True), done.stdout


@pytest.fixture
def role(log_url: str) -> Iterator[str]:
    """A role that may log in, and read nothing."""
    admin, name = Logged(Path(), log_url), f"role_{uuid.uuid4().hex[:12]}"
    admin.sql(f"create role {name} login replication", f"grant usage on schema public to {name}")
    yield name
    admin.sql(f"drop owned by {name}", f"drop role {name}")


def test_a_missing_select_right_prints_its_grant(logged: Logged, role: str) -> None:
    logged.document["source"]["config"]["user"] = role
    grant = f'grant select on "public"."t" to "{role}"'
    assert f"`{grant}`" in logged.refused()
    logged.sql(f"grant select (id) on t to {role}")
    assert f'`grant select ("v") on "public"."t" to "{role}"`' in logged.refused()
    logged.sql(grant)
    assert "grant select" not in logged.refused()


def test_a_missing_schema_right_prints_its_grant_before_those_of_the_tables(logged: Logged, role: str) -> None:
    logged.sql('create schema "My s"', 'create table "My s".a (id int primary key)', 'create table "My s".b (id int)')
    logged.document["source"]["config"]["user"] = role
    logged.document["streams"] = [{"stream": "My s.*"}]
    usage, *selects = (
        f'grant {right} to "{role}"'
        for right in ('usage on schema "My s"', 'select on "My s"."a"', 'select on "My s"."b"')
    )
    assert f"`{'; '.join([usage, *selects])}`" in logged.refused()
    logged.sql(*selects)
    assert usage in logged.refused()
    logged.sql(usage)
    logged.succeed()
