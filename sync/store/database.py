"""The opened database: pooled connections, transactions, and how a store is created and migrated."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from ..clock import Clock
from ..errors import StateError
from ..failpoints import failpoint
from . import migrations
from .connection import Conflict, Connection
from .drivers import Driver, Postgres, Sqlite
from .location import Location, ensure_file, locate

#: Connections that are kept for the next transaction.
IDLE_KEPT = 16


class Database:
    """An opened database: connections, transactions and its clock. Thread-safe; unusable after a fork."""

    def __init__(self, url: str, driver: Driver) -> None:
        """Use a store that exists; `open_database` creates it first."""
        #: The URL without its password.
        self.url = url
        self.driver = driver
        self._pid = os.getpid()
        # Idle connections. A transaction pops one or opens one: a list is thread-safe for that.
        self._idle: list[Any] = []

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    @contextlib.contextmanager
    def write(self, name: str) -> Iterator[Connection]:
        """Open a transaction that may write, committed at the end; `name` names its failpoints.

        Raises:
            Conflict: there is a row of the same key.
            StateError: the database fails.
        """
        self._check_process()
        failpoint(f"store.{name}.before")
        with self._errors(), self.driver.turn, self._transaction(is_writing=True) as connection:
            yield connection
            failpoint(f"store.{name}.inside")
        failpoint(f"store.{name}.after")

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a short transaction that only reads.

        Raises:
            StateError: the database fails.
        """
        self._check_process()
        with self._errors(), self._transaction(is_writing=False) as connection:
            yield connection

    def now(self, connection: Connection) -> datetime:
        """Return the store's time. All processes measure leases by it."""
        return self.driver.now(connection)

    @contextlib.contextmanager
    def _transaction(self, *, is_writing: bool) -> Iterator[Connection]:
        raw = self._begin(is_writing=is_writing)
        try:
            yield Connection(raw, self.driver.sql, self.driver.codecs)
            raw.commit()
        except Exception:
            self._keep(raw, is_sound=self._roll_back(raw))
            raise
        except BaseException:  # the driver may be in the middle of a call
            self._roll_back(raw)
            self._keep(raw, is_sound=False)
            raise
        self._keep(raw, is_sound=True)

    def _begin(self, *, is_writing: bool) -> Any:
        """Begin a transaction on an idle connection, or on a new one; drop connections that the server has closed."""
        while True:
            try:
                raw, is_new = self._idle.pop(), False
            except IndexError:
                raw, is_new = self.driver.connect(), True
            try:
                self.driver.begin(raw, is_writing=is_writing)
            except BaseException:
                is_lost = self.driver.is_lost(raw)
                self._keep(raw, is_sound=False)
                if is_new or not is_lost:
                    raise
            else:
                return raw

    def _roll_back(self, raw: Any) -> bool:
        """Roll back; return whether the connection can be used again."""
        try:
            raw.rollback()
        except self.driver.errors:
            return False
        return True

    def _keep(self, raw: Any, *, is_sound: bool) -> None:
        """Keep a connection for the next transaction, or close it."""
        if is_sound and len(self._idle) < IDLE_KEPT:
            self._idle.append(raw)
            return
        with contextlib.suppress(*self.driver.errors):
            raw.close()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("a run store cannot be used after a fork: open it anew in the child")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self.driver.conflicts as error:
            raise Conflict(str(error).strip()) from error
        except self.driver.errors as error:
            raise StateError(f"run store {self.url}: {str(error).strip()}") from error


def open_database(url: str, *, clock: Clock, folder: Path | None = None) -> Database:
    """Open a store; create or migrate it first if necessary.

    Raises:
        ConfigError: the URL names no store, or its driver is not installed.
        StateError: it cannot be reached, is damaged, on a network file system, or newer than this program.
    """
    place = locate(url, folder)
    if place.path is not None:
        try:
            ensure_file(place.path, lambda draft: _create(draft, clock))
        except OSError as error:
            raise StateError(f"run store {place.path}: {error.strerror or error}") from error
    database = _database(place, clock)
    try:
        _migrate_if_needed(database)
    except BaseException:
        database.close()
        raise
    return database


def store_exists(url: str, folder: Path | None = None) -> bool:
    """Whether a store exists; creates nothing."""
    place = locate(url, folder)
    if place.path is not None:
        return place.path.exists()
    database = _database(place, Clock())
    try:
        with database.read() as connection:
            return migrations.version(connection, database.driver) is not None
    finally:
        database.close()


def _database(place: Location, clock: Clock) -> Database:
    return Database(place.shown, Postgres(place.uri) if place.path is None else Sqlite(place.path, clock))


def _create(path: Path, clock: Clock) -> None:
    database = Database(str(path), Sqlite(path, clock))
    try:
        with database._errors():
            # The file's header keeps the mode: later connections need not set it.
            raw = database.driver.connect()
            raw.execute("PRAGMA journal_mode=WAL")
            database._idle.append(raw)
        _migrate_if_needed(database)
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
