"""The driver's database is shared by those who connect to the same one at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier, Thread
from typing import Any

import adbc_driver_manager
import pytest

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.postgres.adbc_driver import FRESH_S, ADBCDatabase
from syncblocks.connectors.postgres.settings import PostgresSettings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the URIs of all that the driver makes."""
    uris: list[str] = []
    make = adbc_driver_manager.AdbcDatabase

    def counted(**options: Any) -> Any:
        uris.append(options["uri"])
        return make(**options)

    monkeypatch.setattr(adbc_driver_manager, "AdbcDatabase", counted)
    return uris


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def two(postgres_url: str, clock: Clock) -> Iterator[tuple[ADBCDatabase, ADBCDatabase]]:
    address = PostgresSettings(url=postgres_url).address  # type: ignore[arg-type]
    databases = ADBCDatabase(address, clock), ADBCDatabase(address, clock)
    yield databases
    for database in databases:
        database.close()


def answer(database: ADBCDatabase) -> Any:
    session = database.connect("begin", 1 << 20)
    try:
        return session.query("select 42")
    finally:
        session.close()


def test_two_that_connect_at_the_same_time_share_one(made: list[str], two: tuple[ADBCDatabase, ADBCDatabase]) -> None:
    start, answers = Barrier(2), []

    def connect(database: ADBCDatabase) -> None:
        start.wait()
        answers.append(answer(database))

    threads = [Thread(target=connect, args=(database,)) for database in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers, len(made)) == ([[(42,)], [(42,)]], 1)


def test_one_that_closes_leaves_it_to_the_other(made: list[str], two: tuple[ADBCDatabase, ADBCDatabase]) -> None:
    first, second = two
    assert answer(first) == answer(second) == [(42,)]
    first.close()
    assert (answer(second), len(made)) == ([(42,)], 1)


def test_a_later_one_reads_the_types_of_then(
    made: list[str], two: tuple[ADBCDatabase, ADBCDatabase], clock: Clock
) -> None:
    first, second = two
    answer(first)
    clock.now += FRESH_S + 1
    assert (answer(second), len(made)) == ([(42,)], 2)
    assert (answer(first), len(made)) == ([(42,)], 2)  # keeps its own
    first.close()
    assert (answer(second), len(made)) == ([(42,)], 2)


def test_after_all_have_closed_it_is_made_anew(made: list[str], two: tuple[ADBCDatabase, ADBCDatabase]) -> None:
    for database in two:
        answer(database)
    for database in two:
        database.close()
    assert (answer(two[0]), len(made)) == ([(42,)], 2)


def test_who_waited_in_vain_does_not_try_again_but_the_next_one_does(made: list[str], postgres_url: str) -> None:
    address = PostgresSettings(url=postgres_url + "_that_is_not_there").address  # type: ignore[arg-type]
    waiting, later = ADBCDatabase(address), ADBCDatabase(address)
    known = waiting._join()
    with pytest.raises(ConnectorError, match="that_is_not_there"):
        ADBCDatabase(address).connect("begin", 1 << 20)
    for tried in (1, 2):
        with pytest.raises(ConnectorError, match="that_is_not_there"):
            waiting.connect("begin", 1 << 20)
        assert len(made) == tried
    with pytest.raises(ConnectorError, match="that_is_not_there"):
        later.connect("begin", 1 << 20)
    assert (len(made), known.users) == (3, 0)


def test_a_connection_that_the_driver_has_miscounted_is_closed_all_the_same(
    two: tuple[ADBCDatabase, ADBCDatabase],
) -> None:
    session = two[0].connect("begin", 1 << 20)
    driver = session._connection

    class Miscounted:
        def close(self) -> None:
            driver.close()
            raise adbc_driver_manager.InternalError(
                "[libpq] Open connection count underflowed", status_code=adbc_driver_manager.AdbcStatusCode.INTERNAL
            )

    session._connection = Miscounted()
    session.close()
    assert answer(two[0]) == [(42,)]
