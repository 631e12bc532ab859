"""A column that is new at the source: older records get its values, by key, and newer values win."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.plan.features.fill_new_columns import PlannedFill
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from tests.conftest import RunCLI
from tests.sync.run.targets import open_target

SETTINGS = {
    "replication_method": "INCREMENTAL",
    "bookmark_properties": ["seen"],
    "key_properties": ["id"],
    "fill_new_columns": True,
}


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "source.db")) as database:
        for sql in statements:
            database.execute(sql)
        database.commit()


def document(to: dict[str, Any], **stream: Any) -> dict[str, Any]:
    return {
        "pipeline": "shop",
        "source": {"connector": "sqlite", "config": {"path": "source.db"}},
        "destination": to,
        "streams": [{"stream": "t", **SETTINGS, **stream}],
    }


def run(folder: Path, to: dict[str, Any], more: dict[str, Any] | None = None, **stream: Any) -> RunResult:
    result = run_pipeline(load_pipeline(document(to, **stream), folder=folder), **(more or {}))
    assert result.status == "success", result.streams[0].error
    return result


START = ("create table t (id integer primary key, seen integer, name text)", "insert into t values (1,1,'a'),(2,2,'b')")
NEW = (
    "alter table t add column color text",
    "update t set color = 'red' || id",
    "insert into t values (3,3,'c','new')",
)


@pytest.mark.one_of("kind")
@pytest.mark.parametrize("kind", ["duckdb", "postgres", "mysql", "sqlite"])
def test_older_records_get_the_values_of_a_new_column(kind: str, tmp_path: Path) -> None:
    with open_target(kind, tmp_path) as target:
        change(tmp_path, *START)
        run(tmp_path, target.document)
        # Of a record that has changed without a new bookmark, only the new column comes.
        change(tmp_path, *NEW, "update t set name = 'not seen' where id = 1")
        result = run(tmp_path, target.document)
        rows = sorted(target.query("select id, name, color from t"))
        assert rows == [(1, "a", "red1"), (2, "b", "red2"), (3, "c", "new")]
        # The record at the bookmark has changed, and is read once more.
        assert (result.streams[0].records, result.streams[0].bookmark) == (2, {"seen": 3})
        # By hand: the name, which nobody has seen.
        run(tmp_path, target.document, {"fills": {"t": ["name"]}}, fill_new_columns=False)
        assert sorted(target.query("select id, name from t"))[0] == (1, "not seen")


@pytest.mark.full
def test_without_it_older_records_keep_null_and_fill_repairs_that(tmp_path: Path, run_cli: RunCLI) -> None:
    with open_target("duckdb", tmp_path) as target:
        file = tmp_path / "shop.json"
        file.write_text(json.dumps(document(target.document, fill_new_columns=False)))
        change(tmp_path, *START)
        assert run_cli(["run", file.name], tmp_path).returncode == 0
        change(tmp_path, *NEW)
        assert run_cli(["run", file.name], tmp_path).returncode == 0
        assert sorted(target.query("select id, color from t")) == [(1, None), (2, "red2"), (3, "new")]
        wrong = run_cli(["fill", file.name, "t", "--columns", "colour"], tmp_path)
        assert (wrong.returncode, "did you mean 'color'" in wrong.stderr) == (2, True)
        nobody = run_cli(["fill", file.name, "tt", "--columns", "color"], tmp_path)
        assert (nobody.returncode, "did you mean 't'" in nobody.stderr) == (2, True)
        filled = run_cli(["fill", file.name, "t", "--columns", "color"], tmp_path)
        assert (filled.returncode, "filled in older records: color" in filled.stderr) == (0, True)
        assert sorted(target.query("select id, color from t")) == [(1, "red1"), (2, "red2"), (3, "new")]


def test_plan_names_the_columns_and_refuses_what_cannot_be_filled(tmp_path: Path) -> None:
    database, files = {"connector": "duckdb", "config": {"path": "o.db"}}, {"connector": "csv", "config": {"path": "o"}}
    change(tmp_path, *START)
    run(tmp_path, database)
    change(tmp_path, *NEW)
    pipeline = load_pipeline(document(database), folder=tmp_path)
    with opened(pipeline) as session, existing_store(pipeline) as store:
        assert make_plan(session, store).streams[0].step(PlannedFill) == PlannedFill(columns=("color",))
    whole = {"replication_method": "FULL_TABLE", "bookmark_properties": None, "write_disposition": "merge"}
    for to, stream, message in (
        (database, whole, "`fill_new_columns` needs `replication_method: INCREMENTAL`"),
        (database, {"write_disposition": "append"}, "`fill_new_columns` needs `write_disposition: merge`"),
        (files, {}, "`fill_new_columns` needs a destination that can fill columns"),
    ):
        pipeline = load_pipeline(document(to, **stream), folder=tmp_path)
        with opened(pipeline) as session, pytest.raises(ConfigError) as caught:
            make_plan(session, None)
        assert message in str(caught.value)
