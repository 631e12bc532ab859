"""`before`: statements that are run before a stream is read, under its token, and before the first stream of a run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.connectors.sql.ledger import AbstractLedger
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI
from tests.golden.systems import mysql_connection

Ask = Callable[..., list[tuple[Any, ...]]]
INSERT = "insert into said values (:stream, :destination_table, :what)"


def destination(system: str, folder: Path, url: str) -> tuple[dict[str, Any], Ask]:
    """Return a destination with a table of what was said, and what runs plain SQL there."""

    def ask(sql: str) -> list[tuple[Any, ...]]:
        if system == "postgres":
            with psycopg.connect(url) as postgres:
                cursor = postgres.execute(sql.encode())
                return cursor.fetchall() if cursor.description else []
        if system == "mysql":
            with mysql_connection(url) as mysql, mysql.cursor() as asked:
                asked.execute(sql)
                mysql.commit()
                return list(asked.fetchall())
        if system == "duckdb":
            with closing(duckdb.connect(folder / "out.db")) as database:
                return database.execute(sql).fetchall()
        with closing(sqlite3.connect(folder / "out.db")) as lite:
            found = lite.execute(sql).fetchall()
            lite.commit()
            return found

    ask("create table said (stream varchar(80), place varchar(80), what varchar(80))")
    config = {"url": url} if url else {"path": "out.db"}
    if system == "sqlalchemy":
        config = {"url": f"sqlite:///{folder}/out.db"}
    return {"connector": system, "config": config}, ask


class Bench:
    """People in a CSV file, copied to a database."""

    def __init__(self, folder: Path, system: str = "duckdb", url: str = "") -> None:
        self.folder = folder
        self.to, self.ask = destination(system, folder, url)
        (folder / "people.csv").write_text("id,name\n1,Ann\n2,Bob\n")

    def document(self, *before: dict[str, Any], **stream: Any) -> dict[str, Any]:
        return {
            "pipeline": "people",
            "source": {"connector": "csv", "config": {"path": "people.csv"}},
            "destination": self.to,
            "streams": [{"stream": "people", "before": list(before), **stream}],
        }

    def run(self, *before: dict[str, Any], top: dict[str, Any] | None = None, **stream: Any) -> RunResult:
        return run_pipeline(load_pipeline(self.document(*before, **stream) | (top or {}), folder=self.folder))

    def failed(self) -> list[str]:
        """Return the blocks that have failed."""
        with closing(sqlite3.connect(self.folder / ".syncblocks" / "store.db")) as store:
            return [
                block for (block,) in store.execute("select block from _syncblocks_block_run where status = 'failure'")
            ]

    def said(self) -> list[str]:
        return [what for (what,) in self.ask("select what from said order by what")]


@pytest.fixture(params=["duckdb", "postgres", "mysql", "sqlite", "sqlalchemy"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    urls = {"postgres": "postgres_url", "mysql": "mariadb_url"}
    url = request.getfixturevalue(urls[request.param]) if request.param in urls else ""
    return Bench(tmp_path, request.param, url)


@pytest.fixture
def plain(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def there(sql: str, **parameters: Any) -> dict[str, Any]:
    return {"sql": sql, "connection": "destination", "parameters": parameters}


TWICE = """
from pathlib import Path
from syncblocks.connectors.errors import RetriableError

@transformer
def twice(df):
    if not Path("tried").exists():
        Path("tried").touch()
        raise RetriableError("again")
    return df
"""


@pytest.mark.one_of("bench")
def test_a_streams_statements_are_run_again_at_each_try(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.folder)
    (bench.folder / "twice.py").write_text(TWICE)
    hostile = "'; drop table said; -- :stream"
    result = bench.run(
        there(INSERT, what=hostile), top={"transformers": [{"file": "twice.py"}]}, retries=1, retry_delay_s=0
    )
    assert result.status == "success", result.streams[0].error
    assert bench.ask("select * from said") == [("people", "people", hostile)] * 2
    assert len(bench.ask("select * from people")) == 2


def test_a_statement_that_fails_fails_the_block_of_its_side(plain: Bench) -> None:
    result = plain.run(there(INSERT, what="one"), there("insert into nowhere values (1)"), there(INSERT, what="three"))
    (stream,) = result.streams
    assert (result.status, stream.status) == ("failure", "failure")
    assert "`before`, statement 2, in the destination" in str(stream.error)
    assert plain.failed() == [f"export_{plain.to['connector']}"]
    assert plain.said() == ["one"]


def test_nothing_is_run_once_another_run_has_the_stream(plain: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    check = AbstractLedger.check

    def checked(self: Any, session: Any, ledger: Any, key: Any, token: str) -> None:
        check(self, session, ledger, key, "of another run")

    monkeypatch.setattr(AbstractLedger, "check", checked)
    result = plain.run(there(INSERT, what="mine"))
    assert result.status == "failure"
    error = str(result.streams[0].error)
    assert "`before`, statement 1, in the destination: stream 'people'" in error
    assert "taken over" in error
    assert plain.said() == []


def test_a_statement_in_the_source_comes_before_its_read(plain: Bench, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as postgres:
        postgres.execute("create table people (id int primary key, name text)")
    top = {"source": {"connector": "postgres", "config": {"url": postgres_url, "range_bytes": 8192}}}
    insert = {"sql": "insert into people values (7, :ds)", "connection": "source"}
    assert plain.run(insert, top=top, stream="public.people").status == "success"
    assert [key for key, _ in plain.ask("select id, name from people")] == [7]
    result = plain.run(insert, top=top, stream="public.people")  # the key is there
    (stream,) = result.streams
    assert "`before`, statement 1, in the source" in str(stream.error)
    assert plain.failed() == ["load_postgres"]


def test_a_pipelines_statements_are_run_once_an_attempt_before_any_stream(plain: Bench) -> None:
    (plain.folder / "others.csv").write_text("id\n1\n")
    top: dict[str, Any] = {
        "source": {"connector": "csv", "config": {"path": "."}},
        "streams": [{"stream": "people"}, {"stream": "others"}],
        "before": [there("insert into said values (:pipeline_uuid, :ds, 'once')")],
    }
    for number in (1, 2):
        assert plain.run(top=top).status == "success"
        assert plain.said() == ["once"] * number
    failing = top | {"before": [there("insert into nowhere values (1)")]}
    result = plain.run(top=failing)
    assert (result.status, list(result.streams)) == ("failure", [])
    assert "`before`, statement 1, in the destination" in str(result.error)


def test_a_run_whose_time_is_over_during_a_statement_is_cancelled(tmp_path: Path, postgres_url: str) -> None:
    bench = Bench(tmp_path, "postgres", postgres_url)
    result = bench.run(top={"run_timeout_s": 0.2, "before": [there("select pg_sleep(100)")]})
    assert (result.status, list(result.streams), result.never_started) == ("cancelled", [], ("people",))


def test_the_command_ends_with_1_where_a_pipelines_statement_fails(plain: Bench, run_cli: RunCLI) -> None:
    document = plain.document() | {"before": [there("insert into nowhere values (1)")]}
    (plain.folder / "people.yaml").write_text(json.dumps(document))
    done = run_cli(["run", "people.yaml"], plain.folder)
    assert done.returncode == 1, done.stdout + done.stderr
    assert plain.ask("select table_name from duckdb_tables() where table_name = 'people'") == []


def test_plan_shows_statements_and_runs_none(plain: Bench, run_cli: RunCLI) -> None:
    document = plain.document(there(INSERT, what="x")) | {"before": [there("delete from said")]}
    (plain.folder / "people.yaml").write_text(json.dumps(document))
    plain.ask("insert into said values ('a', 'b', 'c')")
    shown = run_cli(["plan", "people.yaml"], plain.folder).stdout
    assert "before the first stream, in the destination: delete from said" in shown
    assert f"people: before its read, in the destination: {INSERT}" in shown
    assert plain.said() == ["c"]


@pytest.mark.parametrize(
    ("before", "top", "message"),
    [
        ([{"sql": "select 1"}], {}, "connection"),
        ([{"sql": "select 1", "connection": "nowhere"}], {}, "source.*destination"),
        ([{"sql": "select 1", "connection": "source"}], {}, "source connector 'csv' runs no statements"),
        ([there("select :straem")], {}, "there is no parameter :straem, did you mean :stream"),
        ([there("select 1", what=1)], {}, "parameter 'what' is not used"),
        ([there("select '{{ ds }}'")], {}, "a template would become SQL: write the value, or bind it"),
        (
            [there("select 1")],
            {"destination": {"connector": "csv", "config": {"path": "out"}}},
            "'csv' runs no statements",
        ),
        (
            [{"sql": "select 1", "connection": "source"}],
            {"source": {"connector": "duckdb", "config": {"path": "x.db"}}},
            "'duckdb' runs no statements",
        ),
    ],
)
def test_statements_that_cannot_be_run_are_refused(
    before: list[dict[str, Any]], top: dict[str, Any], message: str, plain: Bench
) -> None:
    with pytest.raises(ConfigError, match=message):
        plain.run(*before, top=top)
    if "straem" not in str(before):
        with pytest.raises(ConfigError, match=message):
            plain.run(top={**top, "before": before})
