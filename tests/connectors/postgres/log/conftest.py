"""A database whose log can be decoded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import services


@pytest.fixture
def log_url() -> Iterator[str]:
    """URL of a fresh PostgreSQL database, this test's own; slots that the test leaves are dropped."""
    import psycopg

    with services.fresh_postgres_database(services.logging_postgres_server()) as url:
        yield url
        with psycopg.connect(url, autocommit=True) as connection:
            # Whoever was killed may still be known to the server.
            connection.execute(
                "select pg_terminate_backend(active_pid, 5000), pg_drop_replication_slot(slot_name) "
                "from pg_replication_slots where database = current_database()"
            )
            for (name,) in connection.execute("select pubname from pg_publication").fetchall():
                connection.execute(f'drop publication "{name}"')
