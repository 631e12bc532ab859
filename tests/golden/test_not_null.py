"""Tables refuse NULL where the source does, and cease to when the source does; a replace keeps what a table had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from syncblocks import RunResult, run_pipeline
from tests.golden.test_golden_types import other_mariadb_url, other_postgres_url, places  # noqa: F401 -- fixtures
from tests.golden.test_planned_types import connected, document, planned

IS_NULLABLE = {
    "postgres": "select attname::text, not attnotnull from pg_attribute "
    "where attrelid = 'wide'::regclass and attnum > 0",
    "mysql": "select column_name, is_nullable = 'YES' from information_schema.columns "
    "where table_name = 'wide' and table_schema = database()",
    "sqlite": "select name, not \"notnull\" from pragma_table_info('wide')",
    "duckdb": "select column_name, is_nullable from duckdb_columns() where table_name = 'wide'",
}


class Bench:
    """The table `wide` of PostgreSQL, and of a destination."""

    def __init__(self, folder: Path, destination: str, places: tuple[str, str]) -> None:  # noqa: F811
        self.file, self.destination, self.places = folder / "planned.yaml", destination, places
        self.there, self.here = connected("postgres", places[0]), connected(destination, places[1])

    def plan(self, disposition: str, **stream: Any) -> tuple[str, ...]:
        given = document("postgres", self.destination, self.places, write_disposition=disposition, **stream)
        self.file.write_text(json.dumps(given), encoding="utf-8")
        return planned(self.file).streams[0].texts.changes

    def run(self) -> RunResult:
        return run_pipeline(self.file)

    def succeed(self) -> None:
        result = self.run()
        assert result.status == "success", [stream.error for stream in result.streams]

    def nullable(self) -> set[str]:
        return {str(name) for name, is_nullable in self.here(IS_NULLABLE[self.destination]) if is_nullable}

    def rows(self, columns: str) -> list[Any]:
        return self.here(f"select {columns} from wide order by id")


@pytest.fixture
def source() -> str:
    return "postgres"


@pytest.fixture
def bench(tmp_path: Path, destination: str, places: tuple[str, str]) -> Bench:  # noqa: F811
    return Bench(tmp_path, destination, places)


SYSTEMS = ("postgres", "mysql", "sqlite", "duckdb")


@pytest.mark.full
@pytest.mark.one_of("destination")
@pytest.mark.parametrize(
    ("destination", "disposition"),
    [*((system, "merge") for system in SYSTEMS), ("postgres", "append"), ("postgres", "replace"), ("mysql", "replace")],
)
def test_not_null_comes_with_the_column_and_goes_with_it(bench: Bench, disposition: str) -> None:
    bench.there("create table wide (id int primary key, a int not null, b text, m timestamptz not null)")
    bench.there("insert into wide values (1, 5, null, now())")
    assert bench.plan(disposition) == ("create table",)
    bench.succeed()
    assert bench.nullable() - {"id"} == {"b"}  # an append makes no key
    bench.there("alter table wide alter a drop not null")
    bench.there("insert into wide values (2, null, 'x', now())")
    if disposition == "append":
        bench.there("delete from wide where id = 1")
    changes = "; ".join(bench.plan(disposition, on_schema_change="freeze"))
    assert "a: NOT NULL is dropped, NULL may arrive" in changes
    assert "column 'a' may be NULL" in str(bench.run().streams[0].error)
    bench.plan(disposition)
    bench.succeed()
    assert bench.nullable() - {"id"} == {"a", "b"}
    assert bench.rows("id, a") == [(1, 5), (2, None)]
    assert "a: NOT NULL" not in "; ".join(bench.plan(disposition))


@pytest.mark.one_of("destination")
@pytest.mark.parametrize("destination", SYSTEMS)
def test_a_column_that_no_longer_comes_ceases_to_refuse_null(bench: Bench) -> None:
    bench.there("create table wide (id int primary key, a int not null, b text)")
    bench.there("insert into wide values (1, 5, 'x')")
    bench.plan("merge")
    bench.succeed()
    bench.there("insert into wide values (2, 6, 'y')")
    changes = bench.plan("merge", columns={"exclude": ["a"]})
    assert changes == ("a: NOT NULL is dropped, nothing arrives for it",)
    bench.succeed()
    assert bench.rows("id, a, b") == [(1, None, "x"), (2, None, "y")]


@pytest.mark.one_of("destination")
@pytest.mark.parametrize("destination", SYSTEMS)
def test_a_replace_keeps_what_its_table_had(bench: Bench) -> None:
    bench.there("create table wide (id int primary key, a int, b text, c int)")
    bench.there("insert into wide values (1, 5, 'x', 1), (2, 6, 'y', 2)")
    bench.plan("replace")
    bench.succeed()
    if bench.destination == "mysql":
        bench.here(
            "alter table wide modify id int not null auto_increment comment 'number', modify c int default 7 check "
            "(c > 0), modify a int not null, comment 'all of it'"
        )
    elif bench.destination == "sqlite":
        bench.here("drop table wide")
        bench.here("create table wide (id integer primary key, a integer not null, b text, c integer)")
    else:
        bench.here("alter table wide alter a set not null")
    before = bench.here("show create table wide") if bench.destination == "mysql" else bench.nullable()
    bench.there("update wide set a = a + 1")
    bench.plan("replace")
    bench.succeed()
    assert bench.rows("id, a, b, c") == [(1, 6, "x", 1), (2, 7, "y", 2)]
    assert (bench.here("show create table wide") if bench.destination == "mysql" else bench.nullable()) == before
    bench.there("update wide set a = null where id = 1")
    assert bench.run().status == "failure"  # the table's owner says so
    assert bench.rows("id, a") == [(1, 6), (2, 7)]
