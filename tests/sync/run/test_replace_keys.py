"""Replace with another key where views, indexes or triggers keep the table: the key changes, or it is said why not."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
import yaml

from syncblocks import RunResult, run_pipeline
from syncblocks.sync.store import Store
from tests.connectors.mysql.mysql_databases import connect as connect_mysql


class Bench:
    """A table `s.items` of PostgreSQL that replaces `items` of some database; `url` is PostgreSQL's."""

    def __init__(self, folder: Path, url: str, config: dict[str, Any], connector: str) -> None:
        self.folder, self.url, self.config, self.connector = folder, url, config, connector
        self.stream: dict[str, Any] = {"stream": "s.items", "destination_table": "items"}
        self.source(
            "create schema s; create table s.items (id int primary key, k int not null, a text);"
            "insert into s.items values (1, 10, 'a'), (2, 20, 'b')"
        )

    def source(self, statements: str) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(statements.encode())

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements at the destination; return what the last one selects."""
        connection: Any
        if self.connector == "postgres":
            connection = psycopg.connect(self.url)
        elif self.connector == "mysql":
            connection = connect_mysql(self.config["url"])
        elif self.connector == "sqlite":
            connection = sqlite3.connect(self.config["path"])
        else:
            connection = duckdb.connect(self.config["path"])
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        found = list(cursor.fetchall()) if cursor.description else []
        connection.commit()
        connection.close()
        return found

    def run(self) -> RunResult:
        document = {
            "pipeline": "items",
            "source": {"connector": "postgres", "config": {"url": self.url}},
            "destination": {"connector": self.connector, "block": "export", "config": self.config},
            "streams": [self.stream],
        }
        (self.folder / "items.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        return run_pipeline(self.folder / "items.yaml")

    def succeeds(self) -> None:
        result = self.run()
        assert (result.status, result.streams[0].error) == ("success", None)

    def rows(self) -> list[tuple[Any, ...]]:
        found = self.sql("select id, k, a from items")
        return sorted(found, key=lambda row: tuple((value is not None, value) for value in row))

    def key(self) -> list[str]:
        if self.connector == "postgres":
            sql = (
                "select attname::text from pg_index, unnest(indkey) with ordinality k (number, place), pg_attribute "
                "where indrelid = 'items'::regclass and indisprimary and attrelid = indrelid and attnum = number "
                "order by place"
            )
        else:
            sql = (
                "select column_name from information_schema.statistics where table_schema = database() "
                "and table_name = 'items' and index_name = 'PRIMARY' order by seq_in_index"
            )
        return [name for (name,) in self.sql(sql)]

    def key_changes(self) -> list[tuple[str, str]]:
        with Store.open(f"sqlite:///{self.folder}/.syncblocks/store.db") as store:
            latest = store.latest_run("items")
            assert latest is not None
            runs = {run.block: run.schema_changes for run in store.block_runs(latest.id)}
        return [(each["before"], each["after"]) for each in runs["export"] if each["change"] == "keys"]


@pytest.fixture
def bench(tmp_path: Path, postgres_url: str, request: pytest.FixtureRequest) -> Bench:
    connector = request.param
    config = {
        "postgres": lambda: {"url": postgres_url},
        "mysql": lambda: {"url": request.getfixturevalue("mariadb_url")},
    }.get(connector, lambda: {"path": str(tmp_path / "out.db")})()
    return Bench(tmp_path, postgres_url, config, connector)


def on(*connectors: str) -> Any:
    return pytest.mark.parametrize("bench", connectors, indirect=True)


#: At the source: what changes, and the keys before and after.
CHANGES = {
    "wider": ("add primary key (id, k)", "values (1, 11, 'c')", ["id", "k"]),
    "other": ("add primary key (k); alter table s.items alter id drop not null", "values (null, 30, 'c')", ["k"]),
    "none": ("alter id drop not null", "values (null, 10, 'c')", []),
}
KEPT = {
    "postgres": ["create view look as select id, a from items", "create index items_a on items (a)"],
    "mysql": ["create index items_a on items (a(9))"],
    "sqlite": ["create index items_a on items (a)"],
    "duckdb": ["create index items_a on items (a)"],
}


@pytest.mark.one_of("bench")
@pytest.mark.parametrize("change", CHANGES)
@on("postgres", "mysql")
def test_a_table_that_must_stay_gets_the_streams_new_key(bench: Bench, change: str) -> None:
    altered, record, key = CHANGES[change]
    bench.succeeds()
    bench.sql(*KEPT[bench.connector])
    assert bench.key() == ["id"]
    bench.source(f"alter table s.items drop constraint items_pkey; alter table s.items {altered}")
    bench.source(f"insert into s.items {record}")
    bench.succeeds()
    assert bench.key() == key
    assert len(bench.rows()) == 3
    assert bench.key_changes() == [("id", ", ".join(key))]
    bench.succeeds()
    assert (bench.key(), bench.key_changes(), len(bench.rows())) == (key, [], 3)


@on("postgres", "mysql")
def test_a_key_column_that_is_gone_lets_records_pass(bench: Bench) -> None:
    bench.succeeds()
    bench.sql(*KEPT[bench.connector])
    bench.source("alter table s.items drop id; alter table s.items add primary key (k)")
    bench.succeeds()
    assert bench.key() == ["k"]
    assert bench.rows() == [(None, 10, "a"), (None, 20, "b")]


@on("postgres", "mysql")
def test_records_that_the_new_key_refuses_are_set_aside(bench: Bench) -> None:
    bench.stream |= {"key_properties": ["id"], "on_rejected": "keep"}
    bench.succeeds()
    bench.sql(*KEPT[bench.connector])
    bench.stream["key_properties"] = ["k"]
    bench.source("insert into s.items values (3, 20, 'c')")
    result = bench.run()
    assert (result.status, result.streams[0].error) == ("success", None)
    assert (bench.key(), [row[1] for row in bench.rows()]) == (["k"], [10, 20])


@on("mysql")
def test_a_text_in_a_new_key_gets_a_length_that_an_index_takes(bench: Bench) -> None:
    bench.succeeds()
    bench.sql("create index items_k on items (k)")
    bench.source("alter table s.items drop constraint items_pkey; alter table s.items add primary key (a)")
    bench.succeeds()
    assert (bench.key(), bench.rows()) == (["a"], [(1, 10, "a"), (2, 20, "b")])


@on("mysql")
def test_records_that_do_not_fit_the_new_key_where_ddl_commits_are_told(bench: Bench) -> None:
    """There the key changes before the records go, so that they must fit both."""
    bench.source("insert into s.items values (3, 10, 'c')")
    bench.succeeds()
    bench.sql(*KEPT["mysql"])
    bench.source("delete from s.items where id = 3; alter table s.items drop constraint items_pkey")
    bench.source("alter table s.items add primary key (k)")
    error = told(bench.run())
    for part in ("items", "(id)", "(k)", "index items_a", "Duplicate entry"):
        assert part in error
    assert (bench.key(), len(bench.rows())) == (["id"], 3)
    bench.sql("delete from items")
    bench.succeeds()
    assert bench.key() == ["k"]


@on("postgres", "mysql")
def test_foreign_keys_on_the_old_key_are_told(bench: Bench) -> None:
    bench.succeeds()
    bench.sql("create table child (item int, constraint of_item foreign key (item) references items (id))")
    before = bench.rows()
    bench.source("alter table s.items drop constraint items_pkey; alter table s.items add primary key (id, k)")
    bench.source("insert into s.items values (1, 11, 'c')")
    error = told(bench.run())
    for part in ("(id)", "(id, k)", "foreign key of_item of table child", "by hand"):
        assert part in error
    assert (bench.key(), bench.rows()) == (["id"], before)
    bench.sql("drop table child")
    bench.succeeds()
    assert bench.key() == ["id", "k"]


@on("sqlite")
def test_a_system_that_changes_no_key_says_what_keeps_the_table(bench: Bench) -> None:
    bench.succeeds()
    bench.sql(*KEPT["sqlite"], "create trigger t1 after insert on items begin select 1; end")
    before = bench.rows()
    bench.source("alter table s.items drop constraint items_pkey; alter table s.items add primary key (id, k)")
    bench.source("insert into s.items values (1, 11, 'c')")
    error = told(bench.run())
    for part in ("items", "(id)", "(id, k)", "index items_a, trigger t1", "by hand"):
        assert part in error
    assert "UNIQUE" not in error
    assert bench.rows() == before
    bench.sql("drop index items_a", "drop trigger t1")
    bench.succeeds()
    assert len(bench.rows()) == 3


@pytest.mark.full
@on("duckdb")
def test_duckdb_takes_other_keys_and_tells_of_a_column_that_stays_not_null(bench: Bench) -> None:
    bench.succeeds()
    bench.sql(*KEPT["duckdb"])
    bench.source("alter table s.items drop constraint items_pkey; alter table s.items add primary key (id, k)")
    bench.source("insert into s.items values (1, 11, 'c')")
    bench.succeeds()
    before = bench.rows()
    assert len(before) == 3
    bench.source("alter table s.items drop constraint items_pkey; alter table s.items alter id drop not null")
    bench.source("alter table s.items add primary key (k); insert into s.items values (null, 30, 'd')")
    error = told(bench.run())
    for part in ("'id' of main.items stays NOT NULL", "index items_a"):
        assert part in error
    assert bench.rows() == before
    bench.sql("drop index items_a")
    bench.succeeds()
    assert len(bench.rows()) == 4


@on("postgres")
def test_a_key_of_somebody_elses_stays(bench: Bench) -> None:
    """The stream never had it: what it refuses is the database's to say."""
    bench.succeeds()
    bench.sql("create view look as select a from items", "alter table items drop constraint items_pkey")
    bench.sql("alter table items add constraint mine primary key (k)")
    bench.source("alter table s.items drop constraint items_pkey; alter table s.items add primary key (id, k)")
    bench.succeeds()
    assert bench.key() == ["k"]
    bench.source("insert into s.items values (3, 20, 'c')")
    error = told(bench.run())
    for part in ("mine", "the key of public.items is (k)", "the stream's key is (id, k)", "by hand"):
        assert part in error
    assert (bench.key(), len(bench.rows())) == (["k"], 2)


@on("postgres")
def test_what_needs_the_old_key_is_told(bench: Bench) -> None:
    bench.succeeds()
    bench.sql("create view look as select id, a from items group by id")
    before = bench.rows()
    bench.source("alter table s.items drop constraint items_pkey; alter table s.items add primary key (id, k)")
    error = told(bench.run())
    for part in ("(id, k)", "view look", "by hand"):
        assert part in error
    assert (bench.key(), bench.rows()) == (["id"], before)


def told(result: RunResult) -> str:
    assert result.status == "failure"
    return str(result.streams[0].error)
