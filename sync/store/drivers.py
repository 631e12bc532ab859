"""The two databases that a run store lives in, and all that differs between them."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..clock import Clock
from ..errors import ConfigError
from .connection import Connection, Driver
from .tables import PREFIX, VERSION_TABLE

#: How long a writer waits for another process.
BUSY_S = 60

#: A table where a statement names one; columns of it go without the schema.
_TABLE = re.compile(rf"\b(FROM|INTO|UPDATE|JOIN|TABLE|ON)\s+({PREFIX}\w+)(?![\w.])")

#: The schema in which a user's settings find a store, or would make one; the settings are still as they were.
_OUR_SCHEMA = f"""SELECT coalesce((
    SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = '{VERSION_TABLE}' AND pg_catalog.pg_table_is_visible(c.oid)), pg_catalog.current_schema())"""


class Sqlite(Driver):
    """A file. Every writer is alone."""

    errors = (sqlite3.Error,)
    conflicts = (sqlite3.IntegrityError,)
    serial = "INTEGER PRIMARY KEY AUTOINCREMENT"

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

    def encode_time(self, value: datetime) -> str:
        """Return UTC without its zone."""
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")

    def decode_time(self, value: str) -> datetime:
        """Give the zone back."""
        return datetime.fromisoformat(value).replace(tzinfo=UTC)

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

    def encode_time(self, value: datetime) -> datetime:
        """Return it: the driver knows times."""
        return value

    def decode_time(self, value: datetime) -> datetime:
        """Turn it into UTC."""
        return value.astimezone(UTC)

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
