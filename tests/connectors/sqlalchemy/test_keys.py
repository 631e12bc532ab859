"""Keys of `sqlalchemy` that a system takes for equal though they are different texts, looked at through its driver."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.sql.identifiers import TableName
from syncblocks.connectors.sql.tables import Column
from syncblocks.connectors.sqlalchemy.naming import SQLAlchemyNaming
from syncblocks.connectors.sqlalchemy.tables import SQLAlchemyTables
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition
from tests.connectors.mysql import mysql_databases
from tests.connectors.sqlalchemy import firebird_files as firebird
from tests.connectors.sqlalchemy.test_sqlalchemy import load
from tests.connectors.sqlite import sqlite_files

MERGE = WriteDisposition.MERGE

#: Reads what a table has.
Query = Callable[[str], list[tuple[Any, ...]]]

# Firebird's own cursors complain about the order in which they are freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def _freed() -> Iterator[None]:
    """Free those cursors here, and not in another module's test, where a complaint is an error."""
    yield
    gc.collect()


@pytest.fixture
def case_blind(mariadb_url: str) -> tuple[str, Query, str]:
    """MariaDB, whose texts are the same in any case unless somebody says so."""
    mysql_databases.run(mariadb_url, "alter database collate utf8mb4_general_ci")
    url = mariadb_url.replace("mysql://", "mysql+pymysql://")
    return url, lambda sql: mysql_databases.query(mariadb_url, sql)[1], "A"


@pytest.fixture
def blank_blind(tmp_path: Path) -> tuple[str, Query, str]:
    """Firebird, for which blanks at the end of a text are nothing."""
    path = tmp_path / "x.fdb"
    return firebird.create(path), lambda sql: firebird.query(path, sql)[1], "a "


@pytest.fixture(params=["case_blind", "blank_blind"])
def system(request: pytest.FixtureRequest) -> tuple[str, Query, str]:
    """URL, how to look there, and what is the same as 'a'."""
    found: tuple[str, Query, str] = request.getfixturevalue(request.param)
    return found


def records(keys: Sequence[str], value: int) -> pa.Table:
    return pa.table({"id": pa.array(keys, pa.string()), "n": pa.array([value] * len(keys), pa.int64())})


@pytest.mark.full
def test_keys_that_the_system_takes_for_one_are_not_merged_into_one(system: tuple[str, Query, str]) -> None:
    url, query, twin = system
    both = rf"things treats the keys 'a' and '{twin}'|things treats the keys '{twin}' and 'a'"
    with pytest.raises(FatalConnectorError, match=both):
        load(url, records(["z", "a", twin], 1), MERGE)
    load(url, records(["a", "z", "a"], 1), MERGE)
    with pytest.raises(FatalConnectorError, match=f"things treats the keys 'a' and '{twin}' .*'id'.* append"):
        load(url, records(["y", twin], 2), MERGE)
    assert query("select id, n from things order by id") == [("a", 1), ("z", 1)]
    load(url, records(["a", "y", "a"], 3), MERGE)
    assert query("select id, n from things order by id") == [("a", 3), ("y", 3), ("z", 1)]


@pytest.mark.full
def test_such_texts_are_no_twins_where_another_column_of_the_key_differs(system: tuple[str, Query, str]) -> None:
    url, query, twin = system
    merged = pa.table({"house": [1, 2, 1], "id": ["a", twin, "b"], "n": [1, 2, 3]})
    for _ in range(2):
        load(url, merged, MERGE, key=("house", "id"))
    with pytest.raises(FatalConnectorError, match="treats the keys"):
        load(url, pa.table({"house": [2], "id": ["a"], "n": [3]}), MERGE, key=("house", "id"))
    assert query("select house, id, n from things order by house, id") == [(1, "a", 1), (1, "b", 3), (2, twin, 2)]


@pytest.mark.parametrize("method", list(ConflictMethod), ids=str)
def test_a_column_that_takes_texts_for_equal_where_the_system_does_not(tmp_path: Path, method: ConflictMethod) -> None:
    path = tmp_path / "x.db"
    sqlite_files.script(
        path, "create table things (id text collate nocase primary key, n int); insert into things values ('a', 1)"
    )
    with pytest.raises(FatalConnectorError, match=r"things treats the keys 'a' and 'A' .*as equal"):
        load(f"sqlite:///{path}", records(["b", "A"], 2), MERGE, conflict_method=method)
    assert sqlite_files.query(path, "select * from things") == [("a", 1)]


def test_a_database_that_tells_them_apart_has_both(mariadb_url: str) -> None:
    """What the message says helps: the database's default is that of staging as well."""
    collation = "utf8mb4_nopad_bin" if mysql_databases.is_mariadb(mariadb_url) else "utf8mb4_0900_bin"
    mysql_databases.run(mariadb_url, f"alter database collate {collation}")
    for value in (1, 2):
        load(mariadb_url.replace("mysql://", "mysql+pymysql://"), records(["a", "A", "a "], value), MERGE)
    assert sorted(mysql_databases.query(mariadb_url, "select * from things")[1]) == [("A", 2), ("a", 2), ("a ", 2)]


@pytest.mark.parametrize(
    ("key", "is_indexed"),
    [
        ({"a": "bigint"}, True),
        ({"a": "decimal(38,10)", "b": "timestamp"}, True),
        ({"a": "varchar(255)"}, True),
        ({"a": "varchar(128)", "b": "varchar(128)"}, False),
        ({"a": "text"}, False),
        ({"a": "bigint", "b": "binary"}, False),
    ],
)
def test_staged_keys_are_indexed_where_any_system_takes_them(key: dict[str, str], is_indexed: bool) -> None:
    """Else to find them would take the square of the records."""
    columns = [Column(name=name, type=kind) for name, kind in key.items()]
    naming = {name: SQLAlchemyNaming(sqlalchemy.create_engine(f"{name}://")) for name in ("mysql+pymysql", "sqlite")}
    written = {
        name: SQLAlchemyTables(each).index_staging(TableName("", "staged"), columns) for name, each in naming.items()
    }
    assert (written["mysql+pymysql"] != "") == is_indexed
    assert (written["sqlite"] != "") == (is_indexed or "binary" not in key.values())
