"""Connections and transactions of the run store: the same code for SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from ..clock import Clock
from ..errors import ConfigError, StateError
from ..failpoints import failpoint
from . import migrations
from .location import ensure_file, parse_url, without_password

#: How long a writer waits for another process.
BUSY_S = 60


class Database:
    """An opened store: engine, transactions, and the store's own clock. Thread-safe; not to be used after a fork."""

    def __init__(self, url: URL, clock: Clock) -> None:
        """Connect to a store that is there; `open_database` makes it first."""
        self.url = without_password(url)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._clock = clock
        self._pid = os.getpid()
        # SQLite's waiting is unfair and sleeps: threads of one process hand over by a lock instead.
        self._turn: contextlib.AbstractContextManager[Any] = (
            threading.Lock() if self.is_sqlite else contextlib.nullcontext()
        )
        self._engine = _sqlite_engine(url) if self.is_sqlite else _postgres_engine(url)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextlib.contextmanager
    def write(self, name: str) -> Iterator[Connection]:
        """Open a transaction that may write, committed at the end; `name` names its failpoints."""
        self._check_process()
        failpoint(f"store.{name}.before")
        with self._errors(), self._turn, self._engine.connect() as connection, connection.begin():
            # Deferred, a transaction that reads before it writes fails at once if another one wrote in between.
            self._begin(connection, "BEGIN IMMEDIATE")
            yield connection
            failpoint(f"store.{name}.inside")
        failpoint(f"store.{name}.after")

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a short transaction that only reads."""
        self._check_process()
        with self._errors(), self._engine.connect() as connection, connection.begin():
            self._begin(connection, "BEGIN")
            yield connection

    def _begin(self, connection: Connection, statement: str) -> None:
        """Begin a transaction of SQLite's. Not by an event: where there are any, each statement looks for all kinds."""
        if self.is_sqlite:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.execute(statement)

    def now(self, connection: Connection) -> datetime:
        """Return the store's time: what leases are measured by, on whatever machine."""
        if self.is_sqlite:
            return self._clock.now()
        time: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return time

    def lock_name(self, connection: Connection, name: str) -> None:
        """Keep other writers out of what the name stands for, until the transaction ends."""
        if not self.is_sqlite:  # there every writer is alone anyway
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))

    def try_lock_name(self, connection: Connection, name: str) -> bool:
        """Do what `lock_name` does if nobody else does; False: somebody does."""
        if self.is_sqlite:
            return True
        lock = sa.func.pg_try_advisory_xact_lock(sa.func.hashtextextended(name, 0))
        return bool(connection.execute(sa.select(lock)).scalar_one())

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("a run store cannot be used after a fork: open it anew in the child")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError:
            raise
        except sa.exc.DBAPIError as error:
            raise StateError(f"run store {self.url}: {str(error.orig).strip()}") from error
        except sqlite3.Error as error:
            raise StateError(f"run store {self.url}: {error}") from error


def open_database(url: str, *, clock: Clock, folder: Path | None = None) -> Database:
    """Open a store, made or migrated first if need be.

    Raises:
        ConfigError: the URL names no store, or its driver is not installed.
        StateError: it cannot be reached, is damaged, on a network file system, or newer than this program.
    """
    parsed = parse_url(url, folder)
    if parsed.get_backend_name() == "sqlite":
        path = Path(str(parsed.database))
        try:
            ensure_file(path, lambda draft: _create(parsed.set(database=str(draft)), clock))
        except OSError as error:
            raise StateError(f"run store {path}: {error.strerror or error}") from error
    database = Database(parsed, clock)
    try:
        _migrate_if_needed(database)
    except BaseException:
        database.close()
        raise
    return database


def store_exists(url: str, folder: Path | None = None) -> bool:
    """Whether a store is there, creating nothing."""
    parsed = parse_url(url, folder)
    if parsed.get_backend_name() == "sqlite":
        return Path(str(parsed.database)).exists()
    database = Database(parsed, Clock())
    try:
        with database.read() as connection:
            return migrations.version(connection) is not None
    finally:
        database.close()


def _create(url: URL, clock: Clock) -> None:
    database = Database(url, clock)
    try:
        with database._errors(), database._engine.connect() as connection:
            # Kept in the file's header: later connections need not ask for it.
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.execute("PRAGMA journal_mode=WAL")
        _migrate_if_needed(database)
    finally:
        database.close()


def _migrate_if_needed(database: Database) -> None:
    with database.read() as connection:
        found = migrations.version(connection)
    if not migrations.is_outdated(found, database.url):
        return
    with database.write("migrate") as connection:
        database.lock_name(connection, "syncblocks migrations")
        # Under the lock: another process may have been faster.
        found = migrations.version(connection)
        if found is None:
            migrations.create(connection)
        elif migrations.is_outdated(found, database.url):
            migrations.upgrade(connection)


def _sqlite_engine(url: URL) -> Engine:
    # As many connections as threads ask for: writers take turns before they take one.
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_S}, pool_size=16, max_overflow=-1)

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun by `_begin`, not guessed by the driver
        connection.execute("PRAGMA synchronous=FULL")

    return engine


def _postgres_engine(url: URL) -> Engine:
    try:
        engine = sa.create_engine(
            url, isolation_level="READ COMMITTED", pool_pre_ping=True, pool_size=8, max_overflow=-1, pool_timeout=BUSY_S
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            "a PostgreSQL run store needs psycopg: install `syncblocks[postgres]`", key="store"
        ) from error

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, record: Any) -> None:
        # A process that was stopped in mid-transaction must not hold up a takeover for ever.
        connection.autocommit = True
        connection.execute(f"SET lock_timeout = '{BUSY_S}s'; SET idle_in_transaction_session_timeout = '{BUSY_S}s'")
        connection.autocommit = False

    return engine
