"""`unique_constraints`: records are merged by these columns, and the key stays the primary key."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.plan.run_options import RunOptions
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from tests.sync.run.targets import Target, open_target

#: How each system lists the columns of unique and primary keys, one row a column.
INDEXES = {
    "sqlite": "select il.name, ii.name, il.origin = 'pk' from pragma_index_list('t') il, pragma_index_info(il.name) ii",
    "postgres": "select i.indexrelid::text, a.attname, i.indisprimary from pg_index i join pg_attribute a on "
    "a.attrelid = i.indrelid and a.attnum = any(i.indkey) where i.indrelid = 't'::regclass and i.indisunique",
    "mysql": "select index_name, column_name, index_name = 'PRIMARY' from information_schema.statistics where "
    "table_schema = database() and table_name = 't' and non_unique = 0",
}


def source(folder: Path, *rows: tuple[Any, ...]) -> None:
    with closing(sqlite3.connect(folder / "source.db")) as database:
        database.execute("drop table if exists t")
        database.execute("create table t (id text primary key, shop text, number integer, total integer)")
        database.executemany("insert into t values (?, ?, ?, ?)", rows)
        database.commit()


def document(to: dict[str, Any], **stream: Any) -> dict[str, Any]:
    settings = {"write_disposition": "merge", "unique_constraints": ["shop", "number"], **stream}
    return {
        "pipeline": "shops",
        "source": {"connector": "sqlite", "config": {"path": "source.db"}},
        "destination": to,
        "streams": [{"stream": "t", **settings}],
    }


def run(folder: Path, to: dict[str, Any], **stream: Any) -> RunResult:
    return run_pipeline(load_pipeline(document(to, **stream), folder=folder))


@pytest.mark.parametrize("kind", INDEXES)
def test_records_are_merged_by_unique_columns_under_their_own_primary_key(kind: str, tmp_path: Path) -> None:
    with open_target(kind, tmp_path) as target:
        source(tmp_path, ("a", "x", 1, 10), ("b", "x", 2, 20), ("c", "y", None, 30))
        result = run(tmp_path, target.document, on_rejected="keep")
        assert (result.status, result.streams[0].records_rejected) == ("success", 1), result.streams[0].error
        source(tmp_path, ("new", "x", 1, 11), ("d", "y", 1, 40))
        assert run(tmp_path, target.document, on_rejected="keep").status == "success"
        rows = sorted(target.query("select id, shop, number, total from t"))
        assert rows == [("b", "x", 2, 20), ("d", "y", 1, 40), ("new", "x", 1, 11)]
        assert keys(target) == {(True, frozenset({"id"})), (False, frozenset({"shop", "number"}))}


def keys(target: Target) -> set[tuple[bool, frozenset[str]]]:
    found: dict[str, tuple[bool, set[str]]] = {}
    for index, column, is_primary in target.query(INDEXES[target.kind]):
        found.setdefault(str(index), (bool(is_primary), set()))[1].add(str(column))
    return {(is_primary, frozenset(columns)) for is_primary, columns in found.values()}


def test_what_cannot_be_merged_by_unique_columns_is_refused(tmp_path: Path) -> None:
    source(tmp_path)
    database, files = ({"connector": name, "config": {"path": "out"}} for name in ("duckdb", "csv"))
    for to, stream, full_refresh, message in (
        (database, {"write_disposition": "replace"}, False, "and the stream has `write_disposition: replace`"),
        (database, {"unique_constraints": ["shopp"]}, False, "'shopp' is no column of the stream"),
        (database, {}, True, "`unique_constraints` and --full-refresh exclude each other"),
        (files, {}, False, "csv merges by `key_properties` only: leave out `unique_constraints`"),
    ):
        pipeline = load_pipeline(document(to, **stream), folder=tmp_path)
        with opened(pipeline) as session, pytest.raises(ConfigError) as caught:
            make_plan(session, None, options=RunOptions(full_refresh=full_refresh))
        assert message in str(caught.value)


@pytest.mark.one_of("kind")
@pytest.mark.parametrize("method", ["UPDATE", "IGNORE"])
@pytest.mark.parametrize("kind", [*INDEXES, "duckdb"])
def test_a_key_that_another_record_has_fails_with_what_to_do(kind: str, method: str, tmp_path: Path) -> None:
    with open_target(kind, tmp_path) as target:
        to = target.document
        if kind == "duckdb":
            to = {**to, "config": {**to["config"], "primary_key": True}}
        source(tmp_path, ("a", "x", 1, 10), ("b", "x", 2, 20))
        assert run(tmp_path, to, unique_conflict_method=method).status == "success"
        source(tmp_path, ("a", "moved", 1, 11), ("b", "x", 2, 21))
        failed = run(tmp_path, to, unique_conflict_method=method).streams[0]
        assert (
            "records are merged by unique_constraints (shop, number), but the table already has another record"
            in failed.error
        )
        result = run(tmp_path, to, unique_conflict_method=method, on_rejected="keep")
        assert (result.status, result.streams[0].records_rejected) == ("success", 1)
        kept = ("b", "x", 2, 20 if method == "IGNORE" else 21)
        assert sorted(target.query("select id, shop, number, total from t")) == [("a", "x", 1, 10), kept]
