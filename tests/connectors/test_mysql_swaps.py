"""MySQL and MariaDB: what becomes of a table that is replaced, and of what a load leaves that breaks off."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator

import pytest

from connectors.errors import ConnectorError

from .mysql_databases import database, query, run, tables
from .mysql_pair import APPEND, FINAL, PEOPLE, REPLACE, destination_of, load_of, people, write

pytest.importorskip("pymysql")

OURS = {"people", "_syncblocks_ledger", "_syncblocks_swaps"}


@pytest.fixture
def child(mariadb_url: str) -> Iterator[str]:
    """Name a table of another database that has a foreign key to `people`."""
    name = f"{database(mariadb_url)}_child"
    run(
        mariadb_url,
        "create table people (id bigint primary key, name longtext)",
        "insert into people values (1, 'old'), (2, 'old')",
        f"create database {name}",
        f"create table {name}.pets (owner bigint, foreign key (owner) references {database(mariadb_url)}.people (id))",
        f"insert into {name}.pets values (1)",
    )
    yield f"{name}.pets"
    run(mariadb_url, f"drop database {name}")


@pytest.fixture
def user(mariadb_url: str) -> Iterator[str]:
    """Name a user who may do all in the test's database, and nothing elsewhere."""
    name = f"u{uuid.uuid4().hex[:12]}"
    run(mariadb_url, f"create user {name} identified by 'pass'", f"grant all on {database(mariadb_url)}.* to {name}")
    yield name
    run(mariadb_url, f"drop user {name}")


def test_a_foreign_key_that_nobody_sees_blocks_no_later_load(
    mariadb_url: str, child: str, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    destination = destination_of(mariadb_url.replace("root@", f"{user}:pass@"))
    with caplog.at_level(logging.WARNING, "syncblocks"):
        write(destination, load_of(PEOPLE, REPLACE), [people((2, "new"), (3, "new")), FINAL])
    (kept,) = tables(mariadb_url) - OURS
    assert kept in caplog.text
    assert f"{database(mariadb_url)}.people is replaced" in caplog.text
    assert query(mariadb_url, f"select * from {kept}")[1] == [(1, "old"), (2, "old")]
    assert sorted(query(mariadb_url, "select * from people")[1]) == [(2, "new"), (3, "new")]
    assert query(mariadb_url, "select * from _syncblocks_swaps")[1] == []
    write(destination, load_of(PEOPLE, APPEND, "pets"), [people((1, "a")), FINAL])
    write(destination, load_of(PEOPLE, REPLACE), [people((1, "last")), FINAL])
    destination.close()
    assert query(mariadb_url, "select * from people")[1] == [(1, "last")]
    assert tables(mariadb_url) == {*OURS, "pets", kept}
    # As the warning says.
    schema, parent = child.partition(".")[0], f"{database(mariadb_url)}.people"
    asked = (
        f"select constraint_name from information_schema.referential_constraints where constraint_schema = '{schema}'"
    )
    ((constraint,),) = query(mariadb_url, asked)[1]
    run(
        mariadb_url,
        f"alter table {child} drop foreign key {constraint}",
        f"drop table {kept}",
        f"alter table {child} add foreign key (owner) references {parent} (id)",
    )


@pytest.mark.parametrize("privilege", ["select", "references", "insert"])
def test_a_foreign_key_that_the_user_may_see_keeps_the_table_where_it_is(
    mariadb_url: str, child: str, user: str, privilege: str
) -> None:
    run(mariadb_url, f"grant {privilege} on {child} to {user}")
    destination = destination_of(mariadb_url.replace("root@", f"{user}:pass@"))
    write(destination, load_of(PEOPLE, REPLACE), [people((1, "new"), (3, "new")), FINAL])
    with pytest.raises(ConnectorError, match="foreign key"):
        write(destination, load_of(PEOPLE, REPLACE), [people((3, "new")), FINAL])
    destination.close()
    assert sorted(query(mariadb_url, "select * from people")[1]) == [(1, "new"), (3, "new")]
    assert tables(mariadb_url) == OURS
