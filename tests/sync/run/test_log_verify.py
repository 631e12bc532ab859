"""LOG_BASED: `verify` compares both sides at one moment of the source, whatever writers do meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from syncblocks import load_pipeline
from syncblocks.sync.api import compared
from syncblocks.sync.run.log_moment import log_moment
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.verify.verification import COUNTED, DIFFERS, EQUAL, FAILED, StreamVerification, verify_streams
from tests.sync.run.log_based import LOG_BASED, Logged
from tests.sync.run.test_log_writers import TABLES, writing
from tests.zygote import Zygote

USERS = """create table users (id bigint primary key, name text, big text);
insert into users select n, 'user ' || n, repeat('b', 3000) from generate_series(1, 6) n"""


def merging(tmp_path: Path, log_url: str, deletes: str = "hard", destination: str = "") -> Logged:
    logged = Logged(tmp_path, log_url, "postgres" if destination else "duckdb")
    if destination:
        logged.document["destination"]["config"] = {"url": destination}
    logged.document["streams"] = [{"stream": "public.*", "replication_method": "LOG_BASED", "deletes": deletes}]
    return logged


def verified(logged: Logged) -> dict[str, StreamVerification]:
    return {
        each.stream.partition(".")[2]: each for each in compared(load_pipeline(logged.file), (), with_repairs=False)[0]
    }


def planted(logged: Logged, statement: str) -> None:
    """Change the destination behind the engine's back."""
    if logged.connector == "duckdb":
        with duckdb.connect(logged.folder / "out.duckdb") as connection:
            connection.execute(statement)
        return
    with psycopg.connect(logged.document["destination"]["config"]["url"], autocommit=True) as connection:
        connection.execute(statement.encode())


def kinds(found: StreamVerification) -> dict[Any, str]:
    assert found.comparison is not None
    return {each.key[0]: each.kind for each in found.comparison.records}


@pytest.mark.parametrize(
    "deletes", ["hard", *(pytest.param(each, marks=pytest.mark.full) for each in ("soft", "ignore"))]
)
def test_it_runs_to_a_moment_and_names_what_differs_there(tmp_path: Path, log_url: str, deletes: str) -> None:
    logged = merging(tmp_path, log_url, deletes)
    logged.sql(USERS)
    logged.succeed()
    logged.sql("insert into users values (7, 'new', null)", "delete from users where id = 1")
    found = verified(logged)["users"]
    assert found.verdict == (COUNTED if deletes == "ignore" else EQUAL), found.notes
    assert found.source_records == 6
    planted(logged, "update users set name = 'other' where id = 2")
    planted(logged, "delete from users where id = 3")
    logged.sql("update users set name = 'later' where id = 4")
    found = verified(logged)["users"]
    assert found.verdict == DIFFERS
    assert kinds(found) == {"2": "different", "3": "missing"} | ({"1": "extra"} if deletes == "ignore" else {})
    assert "state reset public.users" in found.remedy
    assert len(logged.slots()) == 1


@pytest.mark.full
def test_a_table_that_another_run_has_moved_meanwhile_is_not_judged(tmp_path: Path, log_url: str) -> None:
    logged = merging(tmp_path, log_url)
    logged.sql(USERS)
    logged.succeed()
    pipeline = load_pipeline(logged.file)
    with log_moment(pipeline, (), ()) as moment:
        logged.sql("update users set name = 'later' where id = 4")
        logged.succeed()
        with opened(pipeline) as session:
            plan = make_plan(session, None, is_of_run=False)
            (found,) = verify_streams(session, plan, moment=moment)
    assert found.verdict == FAILED
    assert "another run has moved its table from " in found.notes[-1]
    assert verified(logged)["users"].verdict == EQUAL


@pytest.mark.full
def test_each_run_of_a_file_with_verify_compares_at_one_moment(tmp_path: Path, log_url: str) -> None:
    logged = merging(tmp_path, log_url)
    logged.document["verify"] = True
    logged.sql(USERS)

    def verdict() -> str | None:
        (stream,) = logged.run().streams
        assert stream.status == "success", stream.error
        return stream.verdict

    assert verdict() == COUNTED  # the table stands at the moment of its copy
    logged.sql("insert into users values (7, 'new', null)", "delete from users where id = 1")
    assert verdict() == EQUAL
    planted(logged, "update users set name = 'other' where id = 2")
    assert verdict() == DIFFERS
    logged.sql("update users set name = 'mine' where id = 2")
    assert verdict() == EQUAL
    assert len(logged.slots()) == 1


@pytest.mark.full
def test_a_run_of_a_file_with_verify_agrees_beside_writers(tmp_path: Path, log_url: str) -> None:
    logged = merging(tmp_path, log_url)
    logged.sql(TABLES)
    logged.succeed()
    logged.document["verify"] = True
    with writing(log_url):
        for _ in range(3):
            result = logged.run()
            assert {each.verdict for each in result.streams} == {EQUAL}, result


@pytest.mark.full
def test_a_run_whose_moment_is_held_up_succeeds_and_is_not_verified(
    tmp_path: Path, log_url: str, zygote: Zygote
) -> None:
    logged = merging(tmp_path, log_url)
    logged.sql(USERS)
    logged.succeed()
    logged.document["verify"] = True
    logged.sql("insert into users values (7, 'new', null)")
    wait = {"syncblocks.connectors.postgres.log.slot.COPY_WAIT_S": 0.5}
    with psycopg.connect(log_url) as connection:
        connection.execute("insert into users values (8, 'open', null)")
        process = zygote.start(logged.folder, ("run", logged.file.name), constants=wait)
        process.wait(60)
    assert "verified: failed; the making of a replication slot waits for transactions that run" in process.log()
    assert [key for key, *_ in logged.merged("users")] == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_appended_is_only_counted(tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url, "duckdb")
    logged.document["streams"] = [{"stream": "public.*", **LOG_BASED}]
    logged.sql(USERS)
    logged.succeed()
    found = verified(logged)["users"]
    assert (found.verdict, found.notes) == (COUNTED, ("every change is appended: records are only counted",))


@pytest.mark.full
@pytest.mark.parametrize("connector", ["duckdb", "postgres"])
def test_nothing_is_found_beside_writers_but_what_was_planted(
    tmp_path: Path, log_url: str, postgres_url: str, connector: str
) -> None:
    logged = merging(tmp_path, log_url, destination=postgres_url if connector == "postgres" else "")
    logged.sql(TABLES)
    logged.succeed()
    with writing(log_url):
        for _ in range(3):
            found = verified(logged)
            assert {each.verdict for each in found.values()} == {EQUAL}, found
    planted(logged, "insert into a (id, v, t) values (1000000, 0, 'planted')")
    with writing(log_url):
        found = verified(logged)
    assert (found["a"].verdict, kinds(found["a"])) == (DIFFERS, {"1000000": "extra"})
    assert found["b"].verdict == EQUAL
