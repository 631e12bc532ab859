"""Columns and keys that change at the source: each change ends well or in a clear error, is recorded and shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from syncblocks import RunResult, run_pipeline
from syncblocks.sync.store import Store
from tests.conftest import RunCLI

TOLD = """
import json
from pathlib import Path

@callback("schema_changed")
def told(block_run, **kwargs):
    with open(Path(__file__).with_suffix(".log"), "a") as log:
        log.write(json.dumps([dict(change) for change in block_run.schema_changes]) + "\\n")
"""


class Bench:
    """A table `s.people` of PostgreSQL that is synced into schema `d` of the same database."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.stream: dict[str, Any] = {"stream": "s.people", "destination_table": "d.people"}
        self.extra: dict[str, Any] = {}
        self.sql(
            "create schema s; create schema d; create table s.people (id int primary key, name varchar(5), age int);"
            "insert into s.people values (1, 'a', 10)"
        )

    def sql(self, statements: str) -> list[Any]:
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statements.encode())
            return cursor.fetchall() if cursor.description else []

    def file(self) -> Path:
        config = {"url": self.url}
        document = {
            "pipeline": "people",
            "source": {"connector": "postgres", "block": "load", "config": config},
            "destination": {"connector": "postgres", "block": "export", "config": config},
            "streams": [self.stream],
            **self.extra,
        }
        file = self.folder / "people.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        return file

    def run(self, **options: Any) -> RunResult:
        return run_pipeline(self.file(), **options)

    def changes(self) -> list[tuple[str, str, Any, Any]]:
        """What the latest run has recorded."""
        with Store.open(f"sqlite:///{self.folder}/.syncblocks/store.db") as store:
            latest = store.latest_run("people")
            assert latest is not None
            runs = {run.block: run.schema_changes for run in store.block_runs(latest.id)}
        return sorted((c["column"], c["change"], c["before"], c["after"]) for c in runs["export"])

    def columns(self) -> dict[str, str]:
        return dict(
            self.sql(
                "select attname, format_type(atttypid, atttypmod) from pg_attribute "
                "where attrelid = 'd.people'::regclass and attnum > 0 and not attisdropped order by attnum"
            )
        )


@pytest.fixture
def bench(tmp_path: Path, postgres_url: str) -> Bench:
    return Bench(tmp_path, postgres_url)


MERGE = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "write_disposition": "merge"}
APPEND = {"write_disposition": "append"}

CHANGES = [
    ("alter table s.people add city text", [("city", "added", None, "text")]),
    ("alter table s.people alter age type bigint", [("age", "widened", "integer", "bigint")]),
    (
        "alter table s.people alter name type varchar(9)",
        [("name", "widened", "character varying(5)", "character varying(9)")],
    ),
    ("alter table s.people drop age", [("age", "dropped", "integer", None)]),
    (
        "alter table s.people rename age to years",
        [("age", "dropped", "integer", None), ("years", "added", None, "integer")],
    ),
]


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", [MERGE, APPEND], ids=["merge", "append"])
@pytest.mark.parametrize(("change", "recorded"), CHANGES, ids=lambda value: str(value)[22:40])
def test_a_change_is_taken_over_and_recorded_once(
    bench: Bench, how: Mapping[str, Any], change: str, recorded: list[Any]
) -> None:
    bench.stream |= how
    (bench.folder / "told.py").write_text(TOLD)
    bench.extra = {"callbacks": [{"file": "told.py", "on": ["destination"]}]}
    assert bench.run().status == "success"
    assert bench.changes() == []
    bench.sql(f"{change}; insert into s.people (id, name) values (2, 'b')")
    assert bench.run().status == "success"
    assert bench.changes() == recorded
    assert bench.sql("select id, name from d.people where id = 2") == [(2, "b")]
    if how is APPEND:  # a merge reads the record at the bookmark again: without the column
        assert bench.sql("select age from d.people where id = 1 order by age limit 1") == [(10,)], (
            "what was there stays"
        )
    if len(recorded) > 1:
        assert bench.run().status == "success"
        assert bench.changes() == []
    told = [json.loads(line) for line in (bench.folder / "told.log").read_text().splitlines()]
    assert sorted(each["column"] for line in told for each in line) == [each[0] for each in recorded]


def test_a_replaced_table_follows_its_source(bench: Bench, run_cli: RunCLI) -> None:
    assert bench.run().status == "success"
    bench.sql("alter table s.people drop age, add city text, alter name type text")
    shown = json.loads(run_cli(["plan", bench.file(), "--json"], bench.folder).stdout)["streams"][0]
    assert {change["column"] for change in shown["source_changes"]} == {"age", "city", "name"}
    assert bench.run().status == "success"
    assert bench.columns() == {"id": "integer", "name": "text", "city": "text"}
    recorded = [("age", "dropped"), ("city", "added"), ("name", "retyped")]
    assert [change[:2] for change in bench.changes()] == recorded
    runs = run_cli(["runs", "show", bench.file(), "2"], bench.folder).stdout
    assert "schema of s.people:" in runs
    assert "column 'city' added (text)" in runs


@pytest.mark.one_of
@pytest.mark.parametrize("change", [change for change, _ in CHANGES[1:4]])
def test_freeze_fails_before_anything_is_written_and_says_why(bench: Bench, change: str) -> None:
    bench.stream |= {**MERGE, "on_schema_change": "freeze"}
    assert bench.run().status == "success"
    assert bench.run().status == "success", "nothing has changed"
    before = bench.columns()
    bench.sql(f"{change}; insert into s.people (id, name) values (2, 'b')")
    result = bench.run()
    assert result.status == "failure"
    for part in ("age" if "age" in change else change.split()[4], "evolve", "--full-refresh"):
        assert part in str(result.streams[0].error)
    assert bench.columns() == before
    assert bench.sql("select count(*) from d.people") == [(1,)]
    assert bench.run(full_refresh=True).status == "success"
    assert bench.run().status == "success", "the way out holds"
    assert bench.sql("select count(*) from d.people") == [(2,)]


def test_freeze_tells_the_callbacks_of_a_failure_of_the_source(bench: Bench, run_cli: RunCLI) -> None:
    (bench.folder / "told.py").write_text(
        "from pathlib import Path\n@callback('failure')\ndef failed(parent_block_uuid, **kwargs):\n"
        "    Path(__file__).with_suffix('.log').write_text(f\"{parent_block_uuid}: {kwargs['__error']}\")\n"
    )
    bench.extra = {"callbacks": [{"file": "told.py", "on": ["load"]}]}
    bench.stream["on_schema_change"] = "freeze"
    assert bench.run().status == "success"
    bench.sql("alter table s.people add city text")
    assert bench.run().status == "failure"
    assert (bench.folder / "told.log").read_text().startswith("load: ")
    done = run_cli(["plan", bench.file()], bench.folder)
    assert done.returncode == 2
    assert "stream 's.people' will fail: the source has changed" in done.stderr
    assert "'city' added (text)" in (bench.folder / "told.log").read_text()


@pytest.mark.parametrize("how", [MERGE, APPEND, {}], ids=["merge", "append", "replace"])
def test_ignore_leaves_new_columns_out(bench: Bench, run_cli: RunCLI, how: Mapping[str, Any]) -> None:
    bench.stream |= {**how, "on_schema_change": "ignore"}
    assert bench.run().status == "success"
    bench.sql(
        "alter table s.people add city text, alter age type bigint;"
        "insert into s.people values (2, 'b', 5000000000, 'Ulm')"
    )
    if not how:
        assert "leave out new column city" in run_cli(["plan", bench.file()], bench.folder).stdout
    for _ in range(2):
        assert bench.run().status == "success"
    assert bench.columns() == {"id": "integer", "name": "character varying(5)", "age": "bigint"}
    assert bench.sql("select distinct age from d.people where id = 2") == [(5_000_000_000,)]
    bench.stream["on_schema_change"] = "evolve"
    assert bench.run().status == "success"
    assert bench.columns()["city"] == "text"


def test_the_first_left_out_column_is_recorded_as_such(bench: Bench) -> None:
    bench.stream |= {**MERGE, "on_schema_change": "ignore"}
    bench.run()
    bench.sql("alter table s.people add city text")
    bench.run()
    assert bench.changes() == [("city", "left out", None, "text")]


def test_other_keys_end_a_merge_in_a_clear_error(bench: Bench) -> None:
    bench.stream |= MERGE
    assert bench.run().status == "success"
    bench.sql(
        "alter table s.people drop constraint people_pkey, add region int not null default 1;"
        "alter table s.people add primary key (id, region);"
        "insert into s.people values (1, 'b', 20, 2)"
    )
    result = bench.run()
    assert result.status == "failure"
    assert "keys changed from (id) to (id, region)" in str(result.streams[0].error)
    assert bench.sql("select count(*) from d.people") == [(1,)]
    assert bench.run(full_refresh=True).status == "success"
    assert ("", "keys", "id", "id, region") in bench.changes()
    bench.sql("insert into s.people values (3, 'c', 30, 1)")
    assert bench.run().status == "success"
    assert bench.sql("select count(*) from d.people") == [(3,)]


def test_a_first_key_ends_a_merge_in_an_error_that_says_why(bench: Bench) -> None:
    bench.stream |= {"write_disposition": "append", "key_properties": []}
    assert bench.run().status == "success"
    bench.stream |= MERGE | {"key_properties": ["id"]}
    (failed,) = bench.run().streams
    assert "records of one key may stand in the table more than once" in str(failed.error)
    assert "merged by the old" not in str(failed.error)
    assert bench.run(full_refresh=True).status == "success"


def test_a_table_that_was_made_anew_goes_on(bench: Bench) -> None:
    bench.stream |= MERGE
    assert bench.run().status == "success"
    bench.sql(
        "drop table s.people; create table s.people (name text, id bigint primary key);"
        "insert into s.people values ('aa', 1), ('bb', 2)"
    )
    assert bench.run().status == "success"
    assert bench.sql("select id, name, age from d.people order by id") == [(1, "aa", None), (2, "bb", None)]
    assert {change[:2] for change in bench.changes()} == {("age", "dropped"), ("id", "widened"), ("name", "widened")}


def test_what_the_pipeline_leaves_out_is_no_change_of_the_source(bench: Bench) -> None:
    bench.stream |= {**APPEND, "on_schema_change": "freeze"}
    assert bench.run().status == "success"
    bench.stream["columns"] = {"exclude": ["age"]}
    assert bench.run().status == "success"
    del bench.stream["columns"]
    assert bench.run().status == "success"


@pytest.mark.parametrize("how", [MERGE, APPEND], ids=["merge", "append"])
def test_what_the_pipeline_lets_in_or_renames_is_added_under_freeze(bench: Bench, how: Mapping[str, Any]) -> None:
    (bench.folder / "same.py").write_text("@transformer\ndef same(df):\n    return df\n")
    bench.stream |= {**how, "on_schema_change": "freeze", "columns": {"exclude": ["age"]}}
    assert bench.run().status == "success"
    del bench.stream["columns"]
    assert bench.run().status == "success"
    bench.extra = {"transformers": [{"file": "same.py", "rename": {"name": "called"}}]}
    bench.sql("insert into s.people (id, name) values (2, 'b')")
    assert bench.run().status == "success"
    assert bench.sql("select called from d.people where id = 2") == [("b",)]
    bench.sql("alter table s.people add city text")
    assert bench.run().status == "failure"


def test_what_a_transformer_adds_is_no_change_of_the_source_and_ignore_lets_it_in(bench: Bench) -> None:
    (bench.folder / "more.py").write_text("@transformer\ndef more(df):\n    return df\n")
    bench.extra = {"transformers": [{"file": "more.py"}]}
    bench.stream |= {**APPEND, "on_schema_change": "ignore"}
    assert bench.run().status == "success"
    bench.sql("alter table s.people add city text")
    (bench.folder / "more.py").write_text("@transformer\ndef more(df):\n    df['new'] = df['age'] * 2\n    return df\n")
    assert bench.run().status == "success"
    assert bench.columns().keys() == {"id", "name", "age", "new"}
    assert bench.sql("select distinct new from d.people order by 1") == [(20,), (None,)]


@pytest.mark.one_of("connector")
@pytest.mark.parametrize("connector", ["mysql", "sqlite", "duckdb", "csv", "jsonl", "parquet"])
def test_every_destination_takes_changes_over(bench: Bench, request: pytest.FixtureRequest, connector: str) -> None:
    if connector == "mysql":
        config = {"url": request.getfixturevalue("mariadb_url")}
    else:
        is_folder = connector in ("csv", "jsonl", "parquet")
        config = {"path": str(bench.folder / ("out" if is_folder else f"out.{connector}"))}
    bench.stream = {"stream": "s.people", "destination_table": "people", **APPEND}
    bench.extra = {"destination": {"connector": connector, "block": "export", "config": config}}
    assert bench.run().status == "success"
    bench.sql(
        "alter table s.people drop name, add city text, alter age type bigint;"
        "insert into s.people values (2, 5000000000, 'Ulm')"
    )
    assert bench.run().status == "success"
    changes = {change[0]: change[1] for change in bench.changes()}
    assert changes.keys() == {"name", "city", "age"}
    assert (changes["name"], changes["city"]) == ("dropped", "added")
    with Store.open(f"sqlite:///{bench.folder}/.syncblocks/store.db") as store:
        assert [run.rows for run in store.block_runs(2)] == [2, 2]
    source = {"source": {**bench.extra["destination"], "block": "load"}, "pipeline": "back"}
    back = {"stream": "*", "destination_table": "d.back"}
    if connector == "mysql":
        back["stream"] = "*.people"
    bench.stream, bench.extra = back, source
    assert bench.run().status == "success"
    assert bench.sql("select id, name, age, city from d.back order by id, city nulls first, name nulls last") == [
        (1, "a", 10, None),
        (1, None, 10, None),
        (2, None, 5_000_000_000, "Ulm"),
    ]


def test_blanks_that_fill_a_longer_character_stay(bench: Bench) -> None:
    bench.stream |= MERGE
    bench.sql("alter table s.people add code char(3) default 'x'")
    assert bench.run().status == "success"
    bench.sql("alter table s.people alter code type char(5); insert into s.people values (2, 'b', 20, 'y')")
    assert bench.run().status == "success"
    assert bench.columns()["code"] == "character(5)"
    assert bench.sql("select id, octet_length(code) from d.people order by id") == [(1, 5), (2, 5)]
