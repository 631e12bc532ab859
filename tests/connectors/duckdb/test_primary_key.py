"""`primary_key: true`: tables that are made have their key as a constraint, and stay as writable as others."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from syncblocks import load_pipeline, run_pipeline


def copied(folder: Path, *, full_refresh: bool = False, **stream: Any) -> list[tuple[Any, ...]]:
    """Sync the table; return the copy's records."""
    document = {
        "pipeline": "keyed",
        "source": {"connector": "duckdb", "config": {"path": "source.db"}},
        "destination": {"connector": "duckdb", "config": {"path": "out.db", "primary_key": True}},
        "streams": [{"stream": "people", "key_properties": ["id"], **stream}],
    }
    result = run_pipeline(load_pipeline(document, folder=folder), full_refresh=full_refresh)
    assert result.status == "success", result.streams[0].error
    with closing(duckdb.connect(folder / "out.db")) as database:
        keys = database.execute(
            "select constraint_column_names from duckdb_constraints() "
            "where table_name = 'people' and constraint_type = 'PRIMARY KEY'"
        ).fetchall()
        assert keys == [(["id"],)]
        return database.execute("select * from people order by id").fetchall()


def change(folder: Path, *statements: str) -> None:
    with closing(duckdb.connect(folder / "source.db")) as database:
        for each in statements:
            database.execute(each)


MERGE = {"write_disposition": "merge"}


@pytest.mark.full
@pytest.mark.parametrize("stream", [{}, MERGE, {**MERGE, "unique_conflict_method": "IGNORE"}], ids=str)
def test_a_table_with_a_key_is_written_again_and_again(tmp_path: Path, stream: dict[str, Any]) -> None:
    change(tmp_path, "create table people (id int, name varchar)", "insert into people values (1, 'a'), (2, 'b')")
    assert copied(tmp_path, **stream) == [(1, "a"), (2, "b")]
    change(tmp_path, "update people set name = upper(name)", "insert into people values (3, 'c')")
    is_ignored = "unique_conflict_method" in stream
    assert copied(tmp_path, **stream) == [(1, "a" if is_ignored else "A"), (2, "b" if is_ignored else "B"), (3, "c")]
    change(tmp_path, "alter table people add column age int", "insert into people values (4, 'd', 7)")
    assert copied(tmp_path, **stream)[-1] == (4, "d", 7)
    assert copied(tmp_path, full_refresh=True, **stream)[:2] == [(1, "A", None), (2, "B", None)]


@pytest.mark.full
def test_a_large_table_is_replaced_and_merged(tmp_path: Path) -> None:
    change(tmp_path, "create table people as select i::int as id, 'x' || i as name from range(150000) as r(i)")
    assert len(copied(tmp_path)) == 150_000
    change(tmp_path, "update people set name = 'y' where id % 2 = 0", "delete from people where id = 1")
    assert len(copied(tmp_path)) == 149_999
    found = copied(tmp_path, **MERGE)
    assert (len(found), found[0]) == (149_999, (0, "y"))


def test_a_table_without_a_key_gets_it_by_a_full_refresh(tmp_path: Path) -> None:
    change(tmp_path, "create table people (id int, name varchar)", "insert into people values (1, 'a')")
    document = {
        "pipeline": "keyed",
        "source": {"connector": "duckdb", "config": {"path": "source.db"}},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "people", "key_properties": ["id"], **MERGE}],
    }
    assert run_pipeline(load_pipeline(document, folder=tmp_path)).status == "success"
    assert copied(tmp_path, full_refresh=True, **MERGE) == [(1, "a")]
