"""`latest_by`: of the records of a key the newest one counts, in whatever order they arrive."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.verify.verification import DIFFERS, EQUAL, StreamVerification, verify_streams
from tests.conftest import RunCLI
from tests.sync.run.targets import DESTINATIONS, open_target

#: Times of one key, as a source writes them: the zone hides their order.
EARLY, LATE = "2024-03-01T09:30:00+01:00", "2024-03-01T09:00:00+00:00"


def source(folder: Path, *rows: tuple[Any, ...]) -> None:
    with closing(sqlite3.connect(folder / "source.db")) as database:
        database.execute("drop table if exists t")
        database.execute("create table t (id integer, name text, version integer, at timestamptz, flag boolean)")
        database.executemany("insert into t (id, name, version, at) values (?, ?, ?, ?)", rows)
        database.commit()


def document(to: dict[str, Any], **stream: Any) -> dict[str, Any]:
    settings = {"write_disposition": "merge", "key_properties": ["id"], "latest_by": "at", **stream}
    return {
        "pipeline": "versions",
        "source": {"connector": "sqlite", "config": {"path": "source.db"}},
        "destination": to,
        "streams": [{"stream": "t", **settings}],
    }


def run(folder: Path, to: dict[str, Any], **stream: Any) -> RunResult:
    result = run_pipeline(load_pipeline(document(to, **stream), folder=folder))
    assert result.status == "success", result.streams[0].error
    return result


@pytest.mark.one_of
@pytest.mark.parametrize("kind", [*DESTINATIONS, "psycopg"])
@pytest.mark.thinned(1)
@pytest.mark.parametrize("on_rejected", ["fail", "keep"])
def test_the_newest_record_of_a_key_counts_whenever_it_arrives(kind: str, on_rejected: str, tmp_path: Path) -> None:
    with open_target(kind, tmp_path) as target:
        source(tmp_path, (1, "late", 2, LATE), (1, "early", 1, EARLY), (2, "none", 1, None), (3, "early", 1, EARLY))
        run(tmp_path, target.document, on_rejected=on_rejected)
        names = "select id, name from t order by id"
        assert target.query(names) == [(1, "late"), (2, "none"), (3, "early")]
        source(tmp_path, (1, "early", 1, EARLY), (2, "early", 1, EARLY), (2, "null", 2, None), (3, "same", 2, EARLY))
        run(tmp_path, target.document, on_rejected=on_rejected)
        assert target.query(names) == [(1, "late"), (2, "early"), (3, "same")]


@pytest.mark.one_of
@pytest.mark.parametrize("kind", ["mysql", "psycopg", "parquet"])
def test_the_oldest_record_of_a_key_counts_where_the_lowest_value_does(kind: str, tmp_path: Path) -> None:
    first = {"latest_by": {"column": "at", "order": "ascending"}, "verify": True}
    with open_target(kind, tmp_path) as target:
        source(tmp_path, (1, "early", 1, EARLY), (1, "late", 2, LATE), (1, "null", 0, None), (2, "late", 2, LATE))
        (stream,) = run(tmp_path, target.document, **first).streams
        assert stream.verdict == "equal"
        source(tmp_path, (1, "late", 2, LATE), (2, "early", 1, EARLY), (3, "null", 1, None))
        (stream,) = run(tmp_path, target.document, **first).streams
        assert stream.verdict == "equal"
        assert target.query("select id, name from t order by id") == [(1, "early"), (2, "early"), (3, "null")]


@pytest.mark.one_of("kind")
@pytest.mark.parametrize("kind", [*DESTINATIONS, "psycopg"])
def test_a_range_is_written_with_the_newest_record_of_each_key(kind: str, tmp_path: Path) -> None:
    with open_target(kind, tmp_path) as target:
        settings = {"write_disposition": "replace_range", "range_column": "version"}
        names = "select id, name, version from t order by id"
        source(tmp_path, (1, "late", 2, LATE), (1, "early", 1, EARLY), (2, "null", 1, None), (3, "stays", 3, LATE))
        run(tmp_path, target.document, **settings)
        assert target.query(names) == [(1, "late", 2), (2, "null", 1), (3, "stays", 3)]
        # The table's record of a key goes, older or not; and so does the range of a record that does not count.
        source(tmp_path, (1, "early", 1, EARLY), (1, "earliest", 2, None))
        run(tmp_path, target.document, **settings)
        assert target.query(names) == [(1, "early", 1), (3, "stays", 3)]


def test_files_are_written_with_the_newest_record_of_each_key(tmp_path: Path) -> None:
    to = {"connector": "jsonl", "config": {"path": "out"}}
    source(tmp_path, (1, "late", 1, LATE), (1, "early", 2, EARLY), (2, "one", 2, None))
    run(tmp_path, to, write_disposition="replace_range", range_column="version")
    (path,) = (tmp_path / "out").glob("**/t*.jsonl")
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(each["id"], each["name"]) for each in written] == [(1, "late"), (2, "one")]


@pytest.mark.full
@pytest.mark.parametrize("column", ["at", "version", "name"])
def test_verify_compares_the_record_that_counts(column: str, tmp_path: Path) -> None:
    to = {"connector": "duckdb", "config": {"path": "out.db"}}
    rows = [(1, "b", 10, LATE), (1, "a", 9, EARLY), (2, "x", 1, EARLY), (2, "x", 1, EARLY), (3, "z", 10, LATE)]
    source(tmp_path, *rows)
    run(tmp_path, to, latest_by=column)
    assert verified(tmp_path, to, column) == (EQUAL, [], 0)
    source(tmp_path, *rows[:-1], (3, "y", 9, EARLY))
    assert verified(tmp_path, to, column) == (EQUAL, [], 1), "the table has a newer one"
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        database.execute("update t set name = 'A', version = -8, \"at\" = null where id < 3")
    assert verified(tmp_path, to, column) == (DIFFERS, ["1", "2"], 1)
    repaired = run_verification(tmp_path, to, column).repair
    assert repaired is not None


def run_verification(folder: Path, to: dict[str, Any], column: str) -> StreamVerification:
    pipeline = load_pipeline(document(to, latest_by=column), folder=folder)
    with opened(pipeline) as session, existing_store(pipeline) as store:
        (found,) = verify_streams(session, make_plan(session, store), with_repairs=True)
    return found


def verified(folder: Path, to: dict[str, Any], column: str) -> tuple[str, list[str | None], int]:
    found = run_verification(folder, to, column)
    assert found.comparison is not None
    return found.verdict, [each.key[0] for each in found.comparison.records], found.comparison.outdated


@pytest.mark.one_of("kind")
@pytest.mark.parametrize("kind", [*DESTINATIONS, "psycopg", "parquet"])
def test_a_history_keeps_no_older_record_for_a_newer_one(kind: str, tmp_path: Path) -> None:
    with open_target(kind, tmp_path) as target:
        history = {"write_disposition": "history", "replication_method": "FULL_TABLE"}
        source(tmp_path, (1, "late", 2, LATE), (1, "early", 1, EARLY), (2, "early", 1, EARLY))
        run(tmp_path, target.document, **history)
        source(tmp_path, (1, "early", 1, EARLY), (2, "late", 2, LATE))
        run(tmp_path, target.document, **history)
        versions = "select id, name, _valid_to is null from t order by id, _valid_from"
        found = [(key, name, bool(is_current)) for key, name, is_current in target.query(versions)]
        assert found == [(1, "late", True), (2, "early", False), (2, "late", True)]


def test_files_that_arrive_late_change_nothing(tmp_path: Path) -> None:
    parts = tmp_path / "in"
    parts.mkdir()
    (parts / "2.csv").write_text("id,at,name\n1,2024-03-02,new\n2,2024-03-02,new\n")
    settings = {
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["_file_modified"],
        "key_properties": ["id"],
        "latest_by": "at",
    }
    files = {
        "pipeline": "files",
        "source": {"connector": "csv", "config": {"path": "in", "streams": {"t": "*.csv"}}},
        "destination": {"connector": "jsonl", "config": {"path": "out", "partition_by": ["at"]}},
        "streams": [{"stream": "t", **settings}],
    }
    for name, text in (("", ""), ("1.csv", "id,at,name\n1,2024-03-01,old\n2,2024-03-03,newer\n3,,unknown\n")):
        if name:
            (parts / name).write_text(text)
        result = run_pipeline(load_pipeline(files, folder=tmp_path))
        assert result.status == "success", result.streams[0].error
    written = [
        json.loads(line)
        for path in (tmp_path / "out").rglob("*.jsonl")
        for line in path.read_text().split("\n")
        if line
    ]
    assert {record["id"]: record["name"] for record in written} == {1: "new", 2: "newer", 3: "unknown"}


def test_what_cannot_be_told_apart_by_age_is_refused(tmp_path: Path) -> None:
    source(tmp_path)
    to_duckdb = {"connector": "duckdb", "config": {"path": "out"}}
    other = {"connector": "sqlalchemy", "config": {"url": f"sqlite:///{tmp_path}/out.db"}}
    for to, stream, message in (
        (
            to_duckdb,
            {"write_disposition": "replace_range", "range_column": "version", "key_properties": []},
            "`latest_by` needs key_properties",
        ),
        (to_duckdb, {"write_disposition": "append"}, "`write_disposition: append` has no use for it"),
        (to_duckdb, {"write_disposition": "replace"}, "`write_disposition: replace` has no use for it"),
        (to_duckdb, {"latest_by": "att"}, "'att' is no column of the stream"),
        (to_duckdb, {"columns": {"exclude": ["at"]}}, "'at' is no column of the stream, or is excluded"),
        (to_duckdb, {"unique_conflict_method": "IGNORE"}, "and `unique_conflict_method: IGNORE` exclude each other"),
        (to_duckdb, {"fill_new_columns": True}, "and `fill_new_columns: true` exclude each other"),
        (to_duckdb, {"columns": {"mask": {"at": None}}}, "`latest_by`"),
        (to_duckdb, {"latest_by": "flag"}, "'flag' is bool: it must be a number, a date, a time or a text"),
        (other, {"latest_by": "name"}, "`latest_by` 'name' is kept as text, which this destination does not order"),
        (
            to_duckdb,
            {
                "write_disposition": "history",
                "valid_from": "bookmark",
                "replication_method": "INCREMENTAL",
                "bookmark_properties": ["at"],
            },
            "and `valid_from: bookmark` exclude each other",
        ),
    ):
        pipeline = load_pipeline(document(to, **stream), folder=tmp_path)
        with opened(pipeline) as session, pytest.raises(ConfigError) as caught:
            make_plan(session, None)
        assert message in str(caught.value), str(caught.value)


def test_plan_names_the_column_as_it_arrives(tmp_path: Path, run_cli: RunCLI) -> None:
    source(tmp_path)
    to = {"connector": "duckdb", "config": {"path": "out.db"}}
    blocks = [{"block": "renames", "rename": {"at": "changed"}}]
    (tmp_path / "p.yaml").write_text(json.dumps({**document(to), "transformers": blocks}))
    assert (
        "t: of the records of a key the one with the highest changed counts"
        in run_cli(["plan", "p.yaml"], cwd=tmp_path).stdout
    )
    found = json.loads(run_cli(["plan", "p.yaml", "--json"], cwd=tmp_path).stdout.splitlines()[-1])
    assert found["streams"][0]["latest_by"] == "changed"
