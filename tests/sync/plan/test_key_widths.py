"""A merge into MariaDB whose key becomes a text of any length: the column gets as long as an index takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from syncblocks import RunResult, run_pipeline
from tests.conftest import RunCLI
from tests.connectors.mysql.mysql_databases import query, run


class Bench:
    """A table `s.items` of PostgreSQL that is merged into `items` of MariaDB."""

    def __init__(self, folder: Path, url: str, target: str) -> None:
        self.folder, self.url, self.target = folder, url, target
        self.stream: dict[str, Any] = {"stream": "s.items", "destination_table": "items", "write_disposition": "merge"}
        self.source(
            "create schema s; create table s.items (id varchar(20), part int, v text, n int, primary key (id, part));"
            "insert into s.items values ('a', 1, 'x', 5)"
        )

    def source(self, statements: str) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(statements.encode())

    def file(self) -> Path:
        document = {
            "pipeline": "items",
            "source": {"connector": "postgres", "config": {"url": self.url}},
            "destination": {"connector": "mysql", "config": {"url": self.target}},
            "streams": [self.stream],
        }
        file = self.folder / "items.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        return file

    def run(self) -> RunResult:
        return run_pipeline(self.file())

    def types(self) -> dict[str, tuple[str, str]]:
        sql = (
            "select column_name, column_type, is_nullable from information_schema.columns "
            "where table_schema = database() and table_name = 'items'"
        )
        return {name: (kind, is_nullable) for name, kind, is_nullable in query(self.target, sql)[1]}

    def rows(self) -> list[tuple[Any, ...]]:
        return sorted(query(self.target, "select id, part, v from items")[1])


@pytest.fixture
def bench(tmp_path: Path, postgres_url: str, mariadb_url: str) -> Bench:
    made = Bench(tmp_path, postgres_url, mariadb_url)
    assert made.run().status == "success"
    run(mariadb_url, "alter table items modify id varchar(20) not null")
    return made


def test_a_key_that_becomes_text_is_widened_as_far_as_an_index_goes(bench: Bench, run_cli: RunCLI) -> None:
    long = "b" * 300
    bench.source(f"alter table s.items alter id type text; insert into s.items values ('{long}', 1, 'y', 6)")
    shown = json.loads(run_cli(["plan", bench.file(), "--json"], bench.folder).stdout)["streams"][0]
    assert any("varchar(383)" in change for change in shown["changes"])
    for _ in range(2):
        result = bench.run()
        assert (result.status, result.streams[0].error) == ("success", None)
        assert bench.types()["id"] == ("varchar(383)", "NO")
        assert bench.rows() == [("a", 1, "x"), (long, 1, "y")]


def test_what_does_not_let_a_column_widen_is_told_with_the_column(bench: Bench) -> None:
    like = "select collation_name from information_schema.columns where (table_name, column_name) = ('items', 'v')"
    ((collation,),) = query(bench.target, f"{like} and table_schema = database()")[1]
    run(
        bench.target,
        f"create table kinds (v varchar(9) primary key) character set utf8mb4 collate {collation}",
        "insert into kinds values ('x')",
        "alter table items modify v varchar(9), add constraint of_kind foreign key (v) references kinds (v)",
    )
    error = str(bench.run().streams[0].error)
    for part in ("column 'v' from varchar(9) to longtext", "of_kind", "by hand", "--full-refresh"):
        assert part in error
    assert bench.types()["v"][0] == "varchar(9)"
    run(bench.target, "alter table items drop foreign key of_kind, drop index of_kind")
    assert bench.run().status == "success"


def test_a_column_that_is_widened_still_refuses_null(bench: Bench) -> None:
    run(bench.target, "alter table items modify n int not null")
    bench.source("alter table s.items alter n type bigint")
    assert bench.run().status == "success"
    kind, is_nullable = bench.types()["n"]
    assert (kind.partition("(")[0], is_nullable) == ("bigint", "NO")


@pytest.mark.full
def test_plan_says_the_type_that_a_text_of_a_new_key_gets(bench: Bench, run_cli: RunCLI) -> None:
    bench.stream |= {"destination_table": "others", "columns": {"include": ["id", "part", "v"]}}
    for keys, disposition in ((["id", "part"], "merge"), (["id", "v"], "replace"), (["v"], "replace")):
        bench.stream |= {"key_properties": keys, "write_disposition": disposition}
        bench.source("alter table s.items alter id type text, alter v set not null")
        run(bench.target, "drop table if exists others")
        (shown,) = json.loads(run_cli(["plan", bench.file(), "--json"], bench.folder).stdout)["streams"]
        assert run_pipeline(bench.file(), full_refresh=True).status == "success"
        sql = "select column_name, column_type from information_schema.columns where table_name = 'others'"
        made = dict(query(bench.target, f"{sql} and table_schema = database()")[1])
        said = {each["destination_column"]: each["destination_type"] for each in shown["fidelity"]}
        assert {name: made[name].replace("int(11)", "int") for name in made} == said
