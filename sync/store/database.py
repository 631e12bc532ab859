"""The opened database: transactions, and how a store is created and migrated."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from ..clock import Clock
from ..errors import StateError, StoreUnreachable
from ..failpoints import failpoint
from . import migrations
from .connection import Conflict, StoreConnection
from .drivers import Postgres, Sqlite
from .location import StoreLocation, ensure_file, locate, permission_hint
from .pool import Pool, release, share


class Database:
    """An opened database: connections, transactions and its clock. Thread-safe; unusable after a fork."""

    def __init__(self, url: str, pool: Pool) -> None:
        """Use a store that exists; `open_database` creates it first."""
        #: The URL without its password.
        self.url = url
        self.driver = pool.driver
        self._pool = pool
        self._pid = os.getpid()
        self._is_closed = False

    def close(self) -> None:
        """Close the connections that no other store of this process uses. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            release(self._pool)

    @contextlib.contextmanager
    def write(self, name: str, *, is_brief: bool = False) -> Iterator[StoreConnection]:
        """Open a transaction that may write, committed at the end; `name` names its failpoints.

        A brief one waits for no lock of a server, so it does not wait for those of this process that do.

        Raises:
            Conflict: there is a row of the same key.
            StoreUnreachable: the database fails.
        """
        self._check_process()
        failpoint(f"store.{name}.before")
        turn = self.driver.brief_turn if is_brief else self.driver.turn
        with self._errors(), turn, self._transaction(is_writing=True) as connection:
            yield connection
            failpoint(f"store.{name}.inside")
        failpoint(f"store.{name}.after")

    @contextlib.contextmanager
    def read(self) -> Iterator[StoreConnection]:
        """Open a short transaction that only reads.

        Raises:
            StoreUnreachable: the database fails.
        """
        self._check_process()
        with self._errors(), self._transaction(is_writing=False) as connection:
            yield connection

    def now(self, connection: StoreConnection) -> datetime:
        """Return the store's time. All processes measure leases by it."""
        return self.driver.now(connection)

    @contextlib.contextmanager
    def _transaction(self, *, is_writing: bool) -> Iterator[StoreConnection]:
        raw = self._connection()
        try:
            with self.driver.transaction(raw, is_writing=is_writing) as pipeline:
                yield StoreConnection(raw, self.driver.sql, self.driver.codecs, pipeline)
        except Exception:
            self._roll_back(raw)
            raise
        except BaseException:  # the driver may be in the middle of a call
            self._pool.drop(raw)
            raise
        self._pool.give(raw)

    def _connection(self) -> Any:
        """Return an idle connection, or a new one; drop those that the server has closed."""
        while True:
            raw, idle_s = self._pool.take()
            if idle_s is None:
                return raw
            try:
                self.driver.check(raw, idle_s)
            except BaseException:
                is_lost = self.driver.is_lost(raw)
                self._pool.drop(raw)
                if not is_lost:
                    raise
            else:
                return raw

    def _roll_back(self, raw: Any) -> None:
        try:
            raw.rollback()
        except self.driver.errors:
            self._pool.drop(raw)
        else:
            self._pool.give(raw)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("a run store cannot be used after a fork: open it anew in the child")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self.driver.conflicts as error:
            raise Conflict(self._text(error)) from error
        except self.driver.errors as error:
            is_wrong = not self._pool.has_connected and self.driver.is_misconfigured(error)
            kind = StateError if is_wrong else StoreUnreachable
            raise kind(self._text(error)) from error

    def _text(self, error: BaseException) -> str:
        # In one line: libpq indents what it says with tabs.
        return f"run store {self.url}: {' '.join(str(error).split())}{self.driver.way_out(error)}"


def open_database(url: str, *, clock: Clock, folder: Path | None = None) -> Database:
    """Open a store; create or migrate it first if necessary.

    Raises:
        ConfigError: the URL names no store, or its driver is not installed.
        StoreUnreachable: it cannot be reached or made.
        StateError: its credentials are wrong, it is damaged, on a network file system, or newer than this program.
    """
    place = locate(url, folder)
    if place.path is not None:
        with _file_errors(place.path):
            ensure_file(place.path, lambda draft: _create(draft, clock))
    database = _database(place, clock)
    try:
        _migrate_if_needed(database)
    except BaseException:
        database.close()
        raise
    return database


def open_as_it_is(url: str) -> Database:
    """Open a store that exists, of whatever version."""
    return _database(locate(url, None), Clock())


def store_exists(url: str, folder: Path | None = None) -> bool:
    """Whether a store exists; creates nothing.

    Raises:
        StoreUnreachable: this user may not enter its folder, or the server cannot be reached.
    """
    place = locate(url, folder)
    if place.path is not None:
        with _file_errors(place.path):
            return place.path.exists()
    database = _database(place, Clock())
    try:
        with database.read() as connection:
            return migrations.version(connection, database.driver) is not None
    finally:
        database.close()


@contextlib.contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnreachable(f"run store {path}: {error.strerror or error}{permission_hint(path)}") from error


def missing_privileges(url: str, folder: Path | None = None) -> list[str]:
    """Return the statements that give the store's user what a run needs; writes nothing. A file has no privileges."""
    place = locate(url, folder)
    if place.path is not None:
        return []
    database = _database(place, Clock())
    try:
        with database.read() as connection:
            return database.driver.missing_privileges(connection)
    finally:
        database.close()


def demand_writable(url: str, folder: Path | None = None) -> None:
    """Raise if this user may not write or make the file of a store; makes nothing. A server has privileges instead.

    Raises:
        StoreUnreachable: the file, one beside it, or the nearest folder that exists may not be written.
    """
    place = locate(url, folder)
    if place.path is not None and (hint := permission_hint(place.path)):
        raise StoreUnreachable(f"run store {place.path} cannot be written{hint}")


def _database(place: StoreLocation, clock: Clock) -> Database:
    if place.path is None:
        return Database(place.shown, share(place.uri, lambda: Pool(Postgres(place.uri), place.shown)))
    return Database(place.shown, Pool(Sqlite(place.path, clock), place.shown))


def _create(path: Path, clock: Clock) -> None:
    pool = Pool(Sqlite(path, clock), str(path))
    database = Database(str(path), pool)
    try:
        # Without a WAL, all of it is in the file itself: on a full disk a WAL would not get into the file at the end.
        _migrate_if_needed(database)
        with database._errors():
            # The file's header keeps the mode: later connections need not set it.
            raw, _ = pool.take()
            raw.execute("PRAGMA journal_mode=WAL")
            pool.give(raw)
    finally:
        database.close()


def _migrate_if_needed(database: Database) -> None:
    with database.read() as connection:
        found = migrations.version(connection, database.driver)
    if not migrations.is_outdated(found, database.url):
        return
    with database.write("migrate") as connection:
        database.driver.lock_name(connection, "syncblocks migrations")
        # Under the lock: another process may have been faster.
        found = migrations.version(connection, database.driver)
        if migrations.is_outdated(found, database.url):
            migrations.upgrade(connection, found, database.driver)
