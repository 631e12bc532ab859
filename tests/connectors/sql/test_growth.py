"""A stream costs the same beside many other tables: its statements are counted, once for each row they return."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from syncblocks.connectors.duckdb import DuckDBDestination
from syncblocks.connectors.duckdb.session import DuckDBSession
from syncblocks.connectors.sqlalchemy.destination import SQLAlchemyDestination
from syncblocks.connectors.sqlalchemy.session import AlchemySession
from syncblocks.connectors.sqlite import SQLiteDestination
from syncblocks.connectors.sqlite.session import SQLiteSession
from tests.connectors.duckdb import duckdb_files
from tests.connectors.sqlite import sqlite_files
from tests.connectors.sqlite.sqlite_files import APPEND, FINAL, MERGE, PEOPLE, REPLACE, people

SEEN: list[str] = []

#: What makes the name of a staging table another one each time.
_TOKEN = re.compile(r"[0-9a-f]{32}")


class CountingSQLiteSession(SQLiteSession):
    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows = super().query(sql, parameters)
        SEEN.extend([sql] * len(rows))
        return rows


class CountingSQLite(SQLiteDestination):
    def connect(self) -> SQLiteSession:
        return CountingSQLiteSession(self._path, is_writer=True)


class CountingDuckDBSession(DuckDBSession):
    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows = super().query(sql, parameters)
        SEEN.extend([sql] * len(rows))
        return rows

    def records(self, sql: str) -> list[dict[str, Any]]:
        rows = super().records(sql)
        SEEN.extend([sql] * len(rows))
        return rows


class CountingDuckDB(DuckDBDestination):
    def connect(self) -> DuckDBSession:
        session = CountingDuckDBSession(self._database, self._database.cursor(self, self._config, is_writer=True))
        self._naming.catalog = session.catalog
        return session


class CountingSQLAlchemy(SQLAlchemyDestination):
    def connect(self) -> AlchemySession:
        session = super().connect()
        sa.event.listen(
            session.connection, "before_cursor_execute", lambda *found: SEEN.append(_TOKEN.sub("", found[2]))
        )
        return session


def of_sqlalchemy(folder: Path) -> tuple[Any, Callable[..., Any]]:
    return CountingSQLAlchemy({"url": f"sqlite:///{folder / 'w.db'}"}, folder), sqlite_files.load


def of_sqlite(folder: Path) -> tuple[Any, Callable[..., Any]]:
    return CountingSQLite({"path": "w.db"}, folder), sqlite_files.load


def of_duckdb(folder: Path) -> tuple[Any, Callable[..., Any]]:
    return CountingDuckDB({"path": "w.duckdb"}, folder), duckdb_files.load


@pytest.mark.parametrize("make", [of_sqlite, of_duckdb, of_sqlalchemy])
def test_a_load_reads_as_much_of_the_catalog_beside_many_tables_as_beside_few(
    make: Callable[[Path], Any], tmp_path: Path
) -> None:
    seen = []
    for tables in (3, 30):
        folder = tmp_path / str(tables)
        folder.mkdir()
        destination, load = make(folder)
        load(destination, "of_a_key", MERGE, [people((1, "a")), FINAL], PEOPLE, ["id"])
        for number in range(tables):
            destination.execute(f"create table other{number} (id integer primary key, name text unique)", {})
        SEEN.clear()
        for disposition, number in ((REPLACE, 1), (APPEND, 2), (MERGE, 2), (REPLACE, 1)):
            load(destination, "t", disposition, [people((number, "a")), FINAL], PEOPLE, ["id"])
        destination.close()
        seen.append(list(SEEN))
    assert seen[0]
    assert seen[0] == seen[1]
    # DuckDB lists those of all tables: they are asked once, not for each stream.
    assert sum("duckdb_constraints" in sql for sql in seen[0]) <= 1


@pytest.mark.parametrize("make", [of_sqlite, of_duckdb])
def test_planning_reads_the_ledger_rows_of_its_own_tables_however_they_are_spelt(
    make: Callable[[Path], Any], tmp_path: Path
) -> None:
    destination, load = make(tmp_path)
    load(destination, "Orders", REPLACE, [people((1, "a")), FINAL], PEOPLE, ["id"])
    load(destination, "main.orders", REPLACE, [people((1, "a")), FINAL], PEOPLE, ["id"])
    load(destination, '"ORDERS"', REPLACE, [people((1, "a")), FINAL], PEOPLE, ["id"])
    load(destination, "others", REPLACE, [people((1, "a")), FINAL], PEOPLE, ["id"])
    SEEN.clear()
    (state,) = destination.describe(["orders"]).values()
    destination.close()
    assert {row.key.destination_table for row in state.ledger} == {"Orders", "main.orders", '"ORDERS"'}
    assert len([sql for sql in SEEN if "select" in sql and "from" in sql and "destination_table" in sql]) == 3
