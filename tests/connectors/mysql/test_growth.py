"""A look at one table costs the server the same beside many others: the tables that it opens are counted."""

from __future__ import annotations

from syncblocks.connectors.mysql.destination import MySQLDestination
from tests.connectors.mysql.mysql_databases import run
from tests.connectors.mysql.mysql_pair import destination_of

_OPENED = "show session status like 'Opened_table_definitions'"


def opened(destination: MySQLDestination, others: int) -> int:
    """Return how many tables the server opens for a look at one of them, when it remembers none of them."""
    target = destination.target("people")
    with destination._sessions.lease() as lease:
        lease.begin()
        lease.session.execute(f"flush tables people, {', '.join(f't{number}' for number in range(others))}")
        before = int(lease.session.query(_OPENED)[0][1])
        assert target in destination.dialect.catalog.reflect(lease.session, [target])
        after = int(lease.session.query(_OPENED)[0][1])
        lease.session.rollback()
    return after - before


def test_a_look_at_a_table_opens_no_others(mariadb_url: str) -> None:
    run(mariadb_url, "create table people (id bigint primary key, tags json)")
    destination = destination_of(mariadb_url)
    counts = []
    for first, last in ((0, 3), (3, 40)):
        run(
            mariadb_url,
            *(f"create table t{number} (id bigint primary key, tags json)" for number in range(first, last)),
            f"create table of{first} (id bigint, foreign key (id) references t{first} (id))",
        )
        counts.append(opened(destination, last))
    destination.close()
    assert 1 <= counts[0] == counts[1] <= 3
