"""DuckDB and SQLite: a load that is killed at any of its commit points leaves a state to go on from."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.registry import make_destination
from tests.connectors.duckdb import duckdb_files
from tests.contracts.embedded_worker import load_in_a_process
from tests.zygote import Zygote

pytestmark = pytest.mark.full

DISPOSITIONS = ("append", "merge", "replace")


def look(connector: str, path: Path, sql: str) -> list[tuple[Any, ...]]:
    if connector == "duckdb":
        return duckdb_files.query(path, sql)
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def names_of_tables(connector: str, path: Path) -> set[str]:
    catalog = "select table_name from duckdb_tables()" if connector == "duckdb" else "select name from sqlite_master"
    found = {name for (name,) in look(connector, path, catalog)}
    return {name for name in found if not name.startswith("sqlite_")}


def failpoints(zygote: Zygote, connector: str, first: Path, disposition: str) -> list[str]:
    """Run over a first load without a fault, and return every failpoint that was reached."""
    trace, traced = first.with_name("trace"), shutil.copy(first, first.with_name("traced.db"))
    load_in_a_process(zygote, connector, traced, disposition, "second", 5, 15, trace=trace)
    return trace.read_text().split()


@pytest.mark.thinned(1)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("disposition", DISPOSITIONS)
@pytest.mark.parametrize("connector", ["duckdb", "sqlite"])
def test_a_killed_load_is_made_good_by_the_next_run(
    zygote: Zygote, connector: str, disposition: str, tmp_path: Path
) -> None:
    first = tmp_path / "first.db"
    assert load_in_a_process(zygote, connector, first, disposition, "first", 0, 10) == 0
    reached = failpoints(zygote, connector, first, disposition)
    assert len(reached) >= 5, reached
    for number, name in enumerate(reached):
        path = shutil.copy(first, tmp_path / f"{number}.db")
        killed = {"failpoint": f"{name}:kill"}
        assert load_in_a_process(zygote, connector, path, disposition, "second", 10, 20, **killed) != 0, name
        rows = sorted(look(connector, path, "select id, v from people"))
        ((bookmark, owner),) = look(connector, path, "select bookmark, completed_by from _syncblocks_ledger")
        held = [row for row in rows if row[1] == "second"]
        if disposition == "replace":
            assert len(held) in (0, 10), name
            assert len(rows) == 10, name
        else:
            assert len(held) in (0, 5, 10), name
            assert [row for row in rows if row[1] == "first"] == [(place, "first") for place in range(10)]
            told = {0: '{"id": 10}', 5: '{"id": 15}', 10: '{"id": 20}'}[len(held)]
            assert bookmark == told, name
        assert (owner == "second") == (len(held) == 10), name
        destination = make_destination(connector, {"path": str(path)}, tmp_path)
        destination.drop_staging(["second"])
        destination.close()
        assert names_of_tables(connector, path) == {"people", "_syncblocks_ledger"}, name
