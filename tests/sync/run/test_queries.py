"""A query as a stream: its columns as the database describes them, read as any table is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.store import Store
from syncblocks.sync.verify.verification import EQUAL, verify_streams
from tests.conftest import RunCLI
from tests.golden.systems import mysql_connection

SYSTEMS = ("sqlite", "duckdb", "postgres", "mysql")

TABLES = (
    "create table people (id integer primary key, name varchar(20), born date, spent decimal(10,2), seen timestamp)",
    "create table orders (id integer primary key, person integer, total decimal(12,2))",
    "insert into people values (1, 'Ann', '2001-02-03', 10.50, '2024-01-02 03:04:05'), "
    "(2, 'Bob', null, 0.10, '2024-01-03 03:04:05'), (3, 'it''s; -- Zoe', '1999-12-31', null, null)",
    "insert into orders values (1, 1, 10.00), (2, 1, 5.25), (3, 2, 99.99)",
)

BIG = """
-- People with their orders; a comment with an apostrophe isn't one's end
select p.id, p.name, p.born, p.spent, sum(o.total) as total, count(o.id) as orders
from people p left join orders o on o.person = p.id
group by p.id, p.name, p.born, p.spent;
"""


class Bench:
    """A database as the source, a DuckDB file as the destination."""

    def __init__(self, system: str, folder: Path, url: str) -> None:
        self.system, self.folder, self.url = system, folder, url
        self.execute(*TABLES)

    def execute(self, *statements: str) -> None:
        if self.system == "mysql":
            with mysql_connection(self.url) as mysql, mysql.cursor() as cursor:
                for each in statements:
                    cursor.execute(each)
                mysql.commit()
        elif self.system == "postgres":
            with psycopg.connect(self.url) as postgres:
                for each in statements:
                    postgres.execute(each.encode())
        else:
            path = self.folder / "source.db"
            database: Any = duckdb.connect(path) if self.system == "duckdb" else sqlite3.connect(path)
            with closing(database):
                for each in statements:
                    database.execute(each)
                database.commit()

    def file(self, query: str = BIG, **stream: Any) -> Path:
        document = {
            "pipeline": "queries",
            "source": {
                "connector": self.system,
                "config": {"url": self.url} if self.url else {"path": "source.db"},
            },
            "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
            "streams": [{"stream": "big_orders", "query": query, **stream}],
        }
        path = self.folder / "queries.yaml"
        path.write_text(json.dumps(document))
        return path

    def table(self) -> list[Mapping[str, Any]]:
        with closing(duckdb.connect(self.folder / "out.db")) as database:
            found = database.execute("select * from big_orders order by 1")
            return [dict(zip([c[0] for c in found.description], row, strict=True)) for row in found.fetchall()]

    def types(self) -> dict[str, str]:
        with closing(duckdb.connect(self.folder / "out.db")) as database:
            rows = database.execute("describe big_orders").fetchall()
            return {name: kind for name, kind, *_ in rows}


@pytest.fixture(params=SYSTEMS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    urls = {"postgres": "postgres_url", "mysql": "mariadb_url"}
    url = request.getfixturevalue(urls[request.param]) if request.param in urls else ""
    return Bench(request.param, tmp_path, url)


def test_a_join_is_a_stream(bench: Bench) -> None:
    result = run_pipeline(bench.file())
    assert result.status == "success", result.streams[0].error
    found = bench.table()
    assert [(r["id"], r["name"], str(r["born"]), int(r["orders"])) for r in found] == [
        (1, "Ann", "2001-02-03", 2),
        (2, "Bob", "None", 1),
        (3, "it's; -- Zoe", "1999-12-31", 0),
    ]
    assert [r["spent"] for r in found] == [Decimal("10.50"), Decimal("0.10"), None]
    assert [None if r["total"] is None else float(r["total"]) for r in found] == [15.25, 99.99, None]
    assert bench.types()["spent"] == "DECIMAL(10,2)"
    assert bench.types()["born"] == "DATE"


def test_it_is_merged_by_keys_from_its_bookmark_on(bench: Bench) -> None:
    stream = {
        "query": "select id, name, seen from people where seen is not null",
        "key_properties": ["id"],
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["seen"],
    }
    assert run_pipeline(bench.file(**stream)).status == "success"
    bench.execute("update people set seen = '2024-02-01 00:00:00', name = 'Zoe' where id = 3")
    result = run_pipeline(bench.file(**stream))
    assert result.status == "success", result.streams[0].error
    assert [(r["id"], r["name"]) for r in bench.table()] == [(1, "Ann"), (2, "Bob"), (3, "Zoe")]
    # Older records that another query finds would never come.
    changed = {**stream, "query": "select id, name, seen from people where seen is not null or id = 9"}
    with pytest.raises(ConfigError, match="the query of stream 'big_orders' has changed"):
        run_pipeline(bench.file(**changed))
    assert run_pipeline(bench.file(**changed), full_refresh=True).status == "success"


def test_a_query_that_is_read_anew_may_change(bench: Bench) -> None:
    assert run_pipeline(bench.file("select id from people")).status == "success"
    assert run_pipeline(bench.file("select id, name from people where id > 1")).status == "success"
    assert [(r["id"], r["name"]) for r in bench.table()] == [(2, "Bob"), (3, "it's; -- Zoe")]


def test_count_verify_and_preview_take_the_query(bench: Bench, run_cli: RunCLI) -> None:
    file = bench.file("select id, name, spent from people where id < 3", key_properties=["id"])
    assert run_pipeline(file).status == "success"
    assert json.loads(run_cli(["count", file, "--json"], bench.folder).stdout)["streams"][0]["source"] == 2
    assert "Bob" in run_cli(["preview", file, "--stream", "big_orders"], bench.folder).stdout
    with opened(load_pipeline(file)) as session, Store.open(session.pipeline.store_url) as store:
        (found,) = verify_streams(session, make_plan(session, store))
    assert found.verdict == EQUAL, found.notes


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select id, name as ID from people", "two columns of the query are called"),
        ("select nothing_there from people", "nothing_there"),
        ("delete from people", r"SELECT|syntax|at or near|column|READ ONLY"),
        ("select 1 as a; delete from people", r"SELECT|syntax|multiple commands|one statement"),
        ("select id from people where name = '{{ env_var(\"X\") }}'", "a template would become SQL"),
    ],
)
def test_what_is_no_query_is_refused_before_anything_runs(bench: Bench, query: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        run_pipeline(bench.file(query))
    assert "query" in str(caught.value)
    assert run_pipeline(bench.file("select count(*) as n from people")).status == "success"
    assert bench.table() == [{"n": 3}]


def test_postgres_finds_tables_as_the_user_does(postgres_url: str, tmp_path: Path) -> None:
    bench = Bench("postgres", tmp_path, postgres_url)
    bench.execute(
        "create schema sales",
        "create table sales.deals (id int, region text, amount numeric)",
        "insert into sales.deals values (1, 'eu', 1.5)",
        "create domain positive as int check (value > 0)",
        "create type mood as enum ('sad', 'glad')",
    )
    query = "select d.id::positive as id, 'glad'::mood as mood, d.amount, array[1, 2] as parts from deals d"
    config = f"{postgres_url}?options=-csearch_path%3Dsales,public"
    bench.url = config
    result = run_pipeline(bench.file(query))
    assert result.status == "success", result.streams[0].error
    (record,) = bench.table()
    assert (record["id"], record["mood"], str(record["amount"])) == (1, "glad", "1.5")


def test_a_source_without_queries_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    document = {
        "source": {"connector": "csv", "config": {"path": "a.csv"}},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "q", "query": "select 1 as n"}],
    }
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="csv does not read queries"):
        run_pipeline(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ([{"stream": "q*", "query": "select 1 as n"}], "cannot be a pattern"),
        ([{"stream": "q", "query": "select 1 as n"}] * 2, "another entry has a query of this name"),
        ([{"stream": "q", "query": " "}], "is empty"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, streams: list[dict[str, str]], message: str) -> None:
    document = {
        "source": {"connector": "duckdb", "config": {"path": "in.db"}},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": streams,
    }
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=message):
        load_pipeline(tmp_path / "p.yaml")
