"""MySQL and MariaDB: what becomes of a table that is replaced, and of what a load leaves that breaks off."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from syncblocks.connectors.errors import ConnectorError, RetriableError, TakenOver
from syncblocks.connectors.sql.identifiers import staging_name
from syncblocks.connectors.stream import Event
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.mysql.mysql_databases import database, query, run, tables
from tests.connectors.mysql.mysql_pair import APPEND, FINAL, PEOPLE, REPLACE, destination_of, load_of, people, write

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


def staged(url: str) -> set[str]:
    return tables(url) - OURS


def breaking(url: str) -> Iterator[Event]:
    """Send records, and break the connection that has written them."""
    yield people((1, "lost"))
    asked = f"select id from information_schema.processlist where db = '{database(url)}' and id <> connection_id()"
    for (number,) in query(url, asked)[1]:
        run(url, f"kill {number}")
    yield people((2, "lost"))


def test_a_load_whose_connection_breaks_leaves_no_staging_table(mariadb_url: str) -> None:
    """It may have been the last try."""
    destination = destination_of(mariadb_url)
    write(destination, load_of(PEOPLE, REPLACE), [people((1, "a")), FINAL])
    with pytest.raises(RetriableError):
        write(destination, load_of(PEOPLE, REPLACE), breaking(mariadb_url))
    assert staged(mariadb_url) == set()
    write(destination, load_of(PEOPLE, REPLACE), [people((3, "new")), FINAL])
    destination.close()
    assert query(mariadb_url, "select * from people")[1] == [(3, "new")]


def leave(url: str, destination: Any, table: str = "people") -> str:
    """Leave what a replacement leaves whose server crashes: a staging table, and its token in the ledger."""
    load = load_of(PEOPLE, REPLACE, table)
    destination.take_over(load.key, token=load.token, owner="crashed", source="test://")
    left = staging_name(load.token)
    run(url, f"create table {left} (id int)")
    return left


def test_each_stream_drops_what_its_last_run_has_left(mariadb_url: str) -> None:
    """Though the first one has found it before, with its token still in the ledger."""
    first, later = destination_of(mariadb_url), destination_of(mariadb_url)
    left = {leave(mariadb_url, first, table) for table in ("a", "b")}
    assert staged(mariadb_url) >= left
    first.close()
    for table in ("a", "b"):
        load = load_of(PEOPLE, REPLACE, table)
        later.take_over(load.key, token=load.token, owner="later", source="test://")
    later.close()
    assert staged(mariadb_url) == set()


def test_a_later_run_drops_what_broken_connections_have_left_and_nothing_else(mariadb_url: str) -> None:
    first, other, later = (destination_of(mariadb_url) for _ in range(3))
    leave(mariadb_url, first)
    key = load_of(PEOPLE, REPLACE).key
    other.take_over(key, token="0" * 32, owner="another process, which saw nothing of it")
    run(mariadb_url, "create table _syncblocks_stg_1_o (id int)")
    own = load_of(PEOPLE, REPLACE, "pets")
    own = replace(own, key=replace(own.key, stream="pets"))
    noted = "_syncblocks_stg_2"

    def events() -> Iterator[Event]:
        yield people((1, "a"))
        run(mariadb_url, f"create table {noted} (id int)")
        run(mariadb_url, f"insert into _syncblocks_swaps values ('{noted}', 'noted')")
        row = later.take_over(key, token="1" * 32, owner="later")
        assert row.token == "1" * 32
        yield FINAL

    write(first, own, events())
    for destination in (first, other, later):
        destination.close()
    assert tables(mariadb_url) == {*OURS, "pets", "noted", "_syncblocks_stg_1_o"} - {"people"}


def test_nobody_waits_for_a_load_that_still_writes(mariadb_url: str) -> None:
    first, second = destination_of(mariadb_url), destination_of(mariadb_url, lock_timeout_s=20)
    load, took = load_of(PEOPLE, REPLACE), []

    def events() -> Iterator[Event]:
        yield people((1, "a"))
        yield people((2, "a"))
        before = time.monotonic()
        second.take_over(load.key, token="1" * 32, owner="second")
        took.append(time.monotonic() - before)
        assert len(staged(mariadb_url)) == 1
        yield FINAL

    with pytest.raises(TakenOver):
        write(first, load, events())
    assert took[0] < 10
    first.close()
    second.close()
    assert staged(mariadb_url) == set()


def test_the_server_looks_at_the_table_of_a_load_and_not_at_the_others(mariadb_url: str) -> None:
    def rows(session: Any) -> int:
        names = "'Handler_tmp_write', 'Opened_table_definitions', 'Opened_tables'"
        return sum(int(value) for _, value in session.query(f"show session status where variable_name in ({names})"))

    run(mariadb_url, "create table people (id bigint primary key, name longtext, tags json)")
    destination = destination_of(mariadb_url)
    name = destination.target("people")
    looked = []
    for start, end in ((0, 3), (3, 30)):
        for number in range(start, end):
            run(
                mariadb_url,
                f"create table other{number} (id bigint primary key, tags json, "
                "person bigint, foreign key (person) references people (id))",
                f"create trigger on_other{number} before insert on other{number} for each row set new.id = 1",
            )
        session = destination.connect()
        before = rows(session)
        table = destination.dialect.catalog.reflect(session, [name])[name]
        looked.append(rows(session) - before)
        session.close()
        assert table.is_referenced
    destination.close()
    # A row for each foreign key that points at the table.
    assert looked[1] - looked[0] <= 27 * 2
