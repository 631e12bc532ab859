"""Files and folders of destinations on local disk that this user may not write: `check` and errors name them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.sqlite.session import sort_error
from tests.nobody import as_nobody, open_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.mark.parametrize(("connector", "name"), [("sqlite", "x.db"), ("duckdb", "x.duckdb"), ("csv", "out")])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_place_without_permission_is_an_error_of_check(
    folder: Path, connector: str, name: str, *, is_there: bool
) -> None:
    if is_there and connector != "csv":
        (folder / name).touch(mode=0o444)
    folder.chmod(0o555)
    destination = make_destination(connector, {"path": str(folder / name)}, folder)
    with as_nobody(), pytest.raises(ConnectorConfigError, match="no permission to write to it") as caught:
        destination.check()
    destination.close()
    assert str(folder / name if is_there and connector != "csv" else folder) in str(caught.value)


@pytest.fixture
def left_behind(folder: Path) -> Path:
    """Return a database that may be written, beside an index of its WAL that may not: SQLite leaves such a one."""
    file = folder / "x.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table t (a)")
    file.chmod(0o666)
    (folder / "x.db-wal").touch(mode=0o666)
    (folder / "x.db-shm").touch(mode=0o444)
    (folder / "x.db-wal").chmod(0o666)
    folder.chmod(0o777)
    return file


def test_check_names_a_file_that_sqlite_has_left_beside_the_database(left_behind: Path) -> None:
    destination = make_destination("sqlite", {"path": str(left_behind)}, left_behind.parent)
    with as_nobody(), pytest.raises(ConnectorConfigError, match=r"x\.db-shm: no permission to write to it"):
        destination.check()
    destination.close()


def test_the_error_of_a_database_that_cannot_be_written_names_what_may_not_be(left_behind: Path) -> None:
    with as_nobody(), closing(sqlite3.connect(left_behind)) as connection:
        with pytest.raises(sqlite3.OperationalError) as caught:
            connection.execute("insert into t values (1)")
        assert str(sort_error(caught.value, left_behind)) == (
            f"{left_behind}: attempt to write a readonly database: "
            f"this user has no permission to write to {left_behind}-shm"
        )
