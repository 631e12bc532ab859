"""The two databases that a run store lives in, and all that differs between them."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..clock import Clock
from ..errors import ConfigError
from .connection import Connection
from .tables import POSTGRES_CODECS, PREFIX, SQLITE_CODECS, VERSION_TABLE, Codec

#: How long a writer waits for another process.
BUSY_S = 60

#: A table where a statement names one; columns of it go without the schema.
_TABLE = re.compile(rf"\b(FROM|INTO|UPDATE|JOIN|TABLE|ON)\s+({PREFIX}\w+)(?![\w.])")

#: The schema in which a user's settings find a store, or would make one; the settings are still as they were.
_OUR_SCHEMA = f"""SELECT coalesce((
    SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = '{VERSION_TABLE}' AND pg_catalog.pg_table_is_visible(c.oid)), pg_catalog.current_schema())"""


class Driver(ABC):
    """Opens connections that begin no transaction by themselves, and translates for them."""

    #: What it raises, and what of that says that there is such a row already.
    errors: tuple[type[Exception], ...]
    conflicts: tuple[type[Exception], ...]
    #: Type of a key that counts up, and is never given twice.
    serial: str
    codecs: Mapping[str, Codec]
    #: Held while a transaction writes.
    turn: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()

    @abstractmethod
    def connect(self) -> Any:
        """Open a connection."""

    @abstractmethod
    def begin(self, raw: Any, *, is_writing: bool) -> None:
        """Begin a transaction."""

    def is_lost(self, raw: Any) -> bool:
        """Whether the other side has hung up."""
        return False

    @abstractmethod
    def sql(self, statement: str) -> str:
        """Return a statement, see `Connection`, as the database takes it."""

    @abstractmethod
    def has_table(self, connection: Connection, name: str) -> bool:
        """Whether there is such a table."""

    @abstractmethod
    def now(self, connection: Connection) -> datetime:
        """Return the time by which all processes measure leases."""

    @abstractmethod
    def lock_name(self, connection: Connection, name: str) -> None:
        """Keep other writers out of what the name stands for, until the transaction ends."""

    @abstractmethod
    def try_lock_name(self, connection: Connection, name: str) -> bool:
        """Do what `lock_name` does if nobody else does; False: somebody does."""


class Sqlite(Driver):
    """A file. Every writer is alone."""

    errors = (sqlite3.Error,)
    conflicts = (sqlite3.IntegrityError,)
    serial = "INTEGER PRIMARY KEY AUTOINCREMENT"
    codecs = SQLITE_CODECS

    def __init__(self, path: Path, clock: Clock) -> None:
        """Take the file, and the clock of the machine that it is on."""
        self._path = path
        self._clock = clock
        # SQLite's waiting is unfair and sleeps: threads of one process hand over by a lock instead.
        self.turn = threading.Lock()

    def connect(self) -> Any:
        """Open the file."""
        # Transactions are begun here, not guessed by the driver; a connection has one user at a time, of any thread.
        raw = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        with _closed_on_error(raw):
            raw.execute("PRAGMA synchronous=FULL")
        return raw

    def begin(self, raw: Any, *, is_writing: bool) -> None:
        """Begin; deferred, what reads before it writes would fail at once if another one wrote in between."""
        raw.execute("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    def sql(self, statement: str) -> str:
        """Leave out locks; a partial index is used only for the very words of its condition, with a number."""
        return _for_sqlite(statement)

    def has_table(self, connection: Connection, name: str) -> bool:
        """See `Driver`."""
        statement = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name"
        return connection.value(statement, {"name": name}) is not None

    def now(self, connection: Connection) -> datetime:
        """Return the machine's time."""
        return self._clock.now()

    def lock_name(self, connection: Connection, name: str) -> None:
        """Do nothing: the file is locked."""

    def try_lock_name(self, connection: Connection, name: str) -> bool:
        """Do nothing: the file is locked."""
        return True


class Postgres(Driver):
    """A server, reached by psycopg."""

    serial = "SERIAL PRIMARY KEY"
    codecs = POSTGRES_CODECS

    def __init__(self, uri: str) -> None:
        """Take the address.

        Raises:
            ConfigError: psycopg is not installed.
        """
        try:
            import psycopg
        except ModuleNotFoundError as error:
            raise ConfigError(
                "a PostgreSQL run store needs psycopg: install `syncblocks[postgres]`", key="store"
            ) from error
        self._psycopg = psycopg
        self._uri = uri
        #: Where the tables are, or are made; known once there was a connection.
        self._schema = ""
        self.errors = (psycopg.Error,)
        self.conflicts = (psycopg.IntegrityError,)

    def connect(self) -> Any:
        """Connect, and wait as long as with a file.

        Names are looked for in no schema but the server's own: a function or an operator that somebody else made could
        fit our values better than the one we mean.
        """
        raw = self._psycopg.connect(self._uri, autocommit=True, client_encoding="utf8")
        # A process that was stopped in mid-transaction must not hold up a takeover for ever.
        with _closed_on_error(raw):
            ((schema,),) = raw.execute(_OUR_SCHEMA).fetchall()
            self._schema = '"' + (schema or "public").replace('"', '""') + '"'
            raw.execute(
                f"SET search_path = ''; SET lock_timeout = '{BUSY_S}s'; "
                f"SET idle_in_transaction_session_timeout = '{BUSY_S}s'"
            )
            raw.autocommit = False
            raw.isolation_level = self._psycopg.IsolationLevel.READ_COMMITTED
        return raw

    def begin(self, raw: Any, *, is_writing: bool) -> None:
        """Begin by a first statement: the driver begins, and the server says whether it still listens."""
        raw.execute("SELECT 1")

    def is_lost(self, raw: Any) -> bool:
        """See `Driver`: known once something failed."""
        return bool(raw.closed)

    def sql(self, statement: str) -> str:
        """Name values as the driver has them, and the schema of each table."""
        return _for_postgres(statement, self._schema)

    def has_table(self, connection: Connection, name: str) -> bool:
        """See `Driver`."""
        # Out of the table itself: `to_regclass` may remember what was so before this connection waited for a lock.
        statement = (
            "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relname = :name AND n.nspname = :schema"
        )
        schema = self._schema[1:-1].replace('""', '"')
        return connection.value(statement, {"name": name, "schema": schema}) is not None

    def now(self, connection: Connection) -> datetime:
        """Return the server's time."""
        time: datetime = connection.value("SELECT pg_catalog.clock_timestamp() AS now")
        return time

    def lock_name(self, connection: Connection, name: str) -> None:
        """Take an advisory lock."""
        lock = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(:name, 0))"
        connection.rows(lock, {"name": name})

    def try_lock_name(self, connection: Connection, name: str) -> bool:
        """Try to take it."""
        lock = "SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(:name, 0))"
        return bool(connection.value(lock, {"name": name}))


@contextlib.contextmanager
def _closed_on_error(raw: Any) -> Iterator[None]:
    """Leave no connection open that nobody gets."""
    try:
        yield
    except BaseException:
        raw.close()
        raise


@lru_cache(maxsize=500)
def _for_sqlite(statement: str) -> str:
    return statement.removesuffix(" FOR UPDATE").replace(" = TRUE", " = 1").replace(" = FALSE", " = 0")


@lru_cache(maxsize=500)
def _for_postgres(statement: str, schema: str) -> str:
    statement = re.sub(r":([a-z_0-9]+)", r"%(\1)s", statement.replace("%", "%%"))
    return _TABLE.sub(lambda found: f"{found[1]} {schema.replace('%', '%%')}.{found[2]}", statement)
