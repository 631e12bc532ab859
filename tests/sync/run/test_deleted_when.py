"""`deleted_when`: a record that says it is deleted goes from the table, whatever of its key arrives beside it."""

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
from syncblocks.sync.verify.verification import COUNTED, DIFFERS, EQUAL, verify_streams
from tests.conftest import RunCLI
from tests.sync.run.targets import DESTINATIONS, open_target

BY_TEXT: dict[str, Any] = {"op": ["D", "delete"]}
BY_FLAG: dict[str, Any] = {"gone": True}
BY_TIME: dict[str, Any] = {"gone_at": {"is_null": False}}
AT = "2024-03-01T09:30:00"


def source(folder: Path, *rows: tuple[Any, ...]) -> None:
    with closing(sqlite3.connect(folder / "source.db")) as database:
        database.execute("drop table if exists t")
        database.execute("create table t (id integer, name text, op text, gone boolean, gone_at timestamp)")
        database.executemany("insert into t values (?, ?, ?, ?, ?)", rows)
        database.commit()


def live(key: int, name: str) -> tuple[Any, ...]:
    return (key, name, "d" if name == "lower" else "U", False, None)


def dead(key: int, op: str = "D") -> tuple[Any, ...]:
    return (key, None, op, True, AT)


def document(to: dict[str, Any], **stream: Any) -> dict[str, Any]:
    settings = {"write_disposition": "merge", "key_properties": ["id"], "deleted_when": BY_TEXT, **stream}
    return {
        "pipeline": "deletions",
        "source": {"connector": "sqlite", "config": {"path": "source.db"}},
        "destination": to,
        "streams": [{"stream": "t", **settings}],
    }


def run(folder: Path, to: dict[str, Any], **stream: Any) -> RunResult:
    result = run_pipeline(load_pipeline(document(to, **stream), folder=folder))
    assert result.status == "success", result.streams[0].error
    return result


def verdict(folder: Path, to: dict[str, Any], **stream: Any) -> str:
    pipeline = load_pipeline(document(to, **stream), folder=folder)
    with opened(pipeline) as session, existing_store(pipeline) as store:
        (found,) = verify_streams(session, make_plan(session, store))
    return found.verdict


CASES = [
    *((kind, BY_TEXT) for kind in DESTINATIONS),
    ("postgres", BY_TIME),
    ("mysql", BY_FLAG),
    ("psycopg", BY_FLAG),
    ("psycopg", BY_TIME),
]


@pytest.mark.one_of("kind")
@pytest.mark.parametrize(("kind", "said"), CASES, ids=str)
def test_the_record_of_a_key_that_counts_decides(kind: str, said: dict[str, Any], tmp_path: Path) -> None:
    with open_target(kind, tmp_path) as target:
        names = "select id, name from t order by id"
        settings = {"deleted_when": said, "on_rejected": "keep" if kind == "postgres" else "fail"}
        source(tmp_path, live(1, "one"), live(2, "two"), live(3, "lower"), live(4, "four"), dead(5))
        run(tmp_path, target.document, **settings)
        assert target.query(names) == [(1, "one"), (2, "two"), (3, "lower"), (4, "four")]
        # Deleted, back again within the batch, deleted after a change, and never there.
        source(tmp_path, dead(1), dead(2), live(2, "back"), live(4, "new"), dead(4, "delete"), dead(6))
        run(tmp_path, target.document, **settings)
        assert target.query(names) == [(2, "back"), (3, "lower")]
        source(tmp_path, live(1, "again"), dead(2))
        run(tmp_path, target.document, **settings)
        assert target.query(names) == [(1, "again"), (3, "lower")]


@pytest.mark.one_of("kind")
@pytest.mark.parametrize("kind", [*DESTINATIONS, "psycopg"])
def test_a_table_that_is_written_anew_has_none_of_them(kind: str, tmp_path: Path) -> None:
    said = BY_FLAG if kind == "psycopg" else BY_TEXT
    with open_target(kind, tmp_path) as target:
        source(tmp_path, live(1, "one"))
        run(tmp_path, target.document, deleted_when=said)
        source(tmp_path, dead(1), live(2, "two"), live(3, "lower"), dead(4))
        pipeline = load_pipeline(document(target.document, deleted_when=said), folder=tmp_path)
        result = run_pipeline(pipeline, full_refresh=True)
        assert result.status == "success", result.streams[0].error
        assert target.query("select id, name from t order by id") == [(2, "two"), (3, "lower")]


def test_the_newest_record_of_a_key_decides_where_the_stream_says_so(tmp_path: Path) -> None:
    with open_target("duckdb", tmp_path) as target:
        latest = {"latest_by": "gone_at", "deleted_when": BY_FLAG}
        early, late = "2024-03-01T00:00:00", "2024-03-02T00:00:00"
        source(tmp_path, (1, "new", "", False, late), (1, "", "", True, early), (2, "old", "", False, early))
        run(tmp_path, target.document, **latest)
        source(tmp_path, (2, "", "", True, late), (2, "older", "", False, early), (1, "", "", True, early))
        run(tmp_path, target.document, **latest)
        assert target.query("select id, name from t") == [(1, "new")]
        assert verdict(tmp_path, target.document, **latest) == COUNTED


def test_files_lose_them_too(tmp_path: Path) -> None:
    to = {"connector": "jsonl", "config": {"path": "out"}}

    def written() -> dict[int, str]:
        lines = [line for path in (tmp_path / "out").rglob("*.jsonl") for line in path.read_text().splitlines()]
        return {record["id"]: record["name"] for record in map(json.loads, lines)}

    source(tmp_path, live(1, "one"), live(2, "two"), dead(3))
    run(tmp_path, to)
    assert written() == {1: "one", 2: "two"}
    source(tmp_path, dead(1), dead(2), live(2, "back"))
    run(tmp_path, to)
    assert written() == {2: "back"}
    assert verdict(tmp_path, to) == EQUAL
    source(tmp_path, live(2, "new"), dead(2), live(4, "four"))
    assert run_pipeline(load_pipeline(document(to), folder=tmp_path), full_refresh=True).status == "success"
    assert written() == {4: "four"}


def test_verify_leaves_them_out_and_finds_one_that_stayed(tmp_path: Path) -> None:
    to = {"connector": "duckdb", "config": {"path": "out.db"}, "naming": "snake_case"}
    renamed = {"transformers": [{"rename": {"op": "whatHappened"}}]}
    source(tmp_path, live(1, "one"), dead(2), live(3, "lower"))
    checked = {"checks": {"id": {"<": 9}}, "on_rejected": "keep"}
    result = run_pipeline(load_pipeline(document(to, **checked) | renamed, folder=tmp_path))
    assert result.status == "success", result.streams[0].error
    pipeline = load_pipeline(document(to, **checked) | renamed, folder=tmp_path)
    with opened(pipeline) as session, existing_store(pipeline) as store:
        (found,) = verify_streams(session, make_plan(session, store))
    assert (found.verdict, found.source_records) == (EQUAL, 2), found.notes
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        database.execute("insert into t values (2, null, 'D', true, null)")
    with opened(pipeline) as session, existing_store(pipeline) as store:
        (found,) = verify_streams(session, make_plan(session, store))
    assert found.verdict == DIFFERS


TO_DUCKDB = {"connector": "duckdb", "config": {"path": "out.db"}}
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (TO_DUCKDB, {"write_disposition": "append"}, "which `write_disposition: append` does not: write merge"),
    (TO_DUCKDB, {"write_disposition": "history"}, "which `write_disposition: history` does not"),
    (TO_DUCKDB, {"unique_conflict_method": "IGNORE"}, "and `unique_conflict_method: IGNORE` exclude each other"),
    (TO_DUCKDB, {"deleted_when": {"opp": "D"}}, "'opp' is no column of the stream"),
    (TO_DUCKDB, {"columns": {"exclude": ["op"]}}, "'op' is no column of the stream, or is excluded"),
    (TO_DUCKDB, {"columns": {"mask": {"op": None}}}, "'op' is masked, and `deleted_when` names it"),
    (TO_DUCKDB, {"deleted_when": {"gone": "D"}}, "'D' does not fit: write true or false"),
    (TO_DUCKDB, {"deleted_when": {"gone_at": AT}}, "only booleans, integers and texts can be compared"),
    (TO_DUCKDB, {"deleted_when": {"op": {">": "D"}}}, "there is no operator '>'"),
    (TO_DUCKDB, {"deleted_when": {"op": "D", "gone": True}}, "takes one condition on one column"),
    (
        {"connector": "sqlalchemy", "config": {"url": "sqlite:///out.db"}},
        {},
        "which texts sqlalchemy takes for equal is unknown",
    ),
]


@pytest.mark.parametrize(("to", "stream", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_what_cannot_be_meant_is_refused(
    to: dict[str, Any], stream: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source(tmp_path)
    with pytest.raises(ConfigError) as caught:
        run_pipeline(load_pipeline(document(to, **stream), folder=tmp_path))
    assert message in str(caught.value), str(caught.value)


def test_plan_names_the_column_as_it_arrives(tmp_path: Path, run_cli: RunCLI) -> None:
    source(tmp_path)
    blocks = [{"block": "renames", "rename": {"op": "what"}}]
    (tmp_path / "p.yaml").write_text(json.dumps({**document(TO_DUCKDB), "transformers": blocks}))
    shown = run_cli(["plan", "p.yaml"], cwd=tmp_path).stdout
    assert "t: a record with what in ('D', 'delete') is deleted in the table, by its key" in shown
    found = json.loads(run_cli(["plan", "p.yaml", "--json"], cwd=tmp_path).stdout.splitlines()[-1])
    assert found["streams"][0]["deleted_when"] == "what in ('D', 'delete')"
