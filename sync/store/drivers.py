"""SQLite and PostgreSQL, the two databases of a run store, and every difference between them."""

from __future__ import annotations

import contextlib
import re
import select
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from syncblocks.connectors.database_files import opening
from syncblocks.connectors.errors import RetriableError
from syncblocks.connectors.sql.clear_text import LIBPQ_SINCE

from ..clock import Clock
from ..errors import ConfigError
from .codecs import POSTGRES_CODECS, SQLITE_CODECS, Codec
from .connection import StoreConnection
from .location import DAMAGED, permission_hint
from .table_names import PREFIX, TABLES, VERSION_TABLE

#: A connection that was idle for longer is asked for a sign of life: what lies between may have dropped it silently.
ASK_AFTER_S = 5.0

#: What servers and poolers say where all connections are taken: of the server, a role or a database; PgBouncer; others.
_CROWDED = (
    "too many connections",
    "too many clients",
    "connection slots are reserved",
    "no more connections allowed",
    "max clients reached",
    "max_client_conn",
)

#: What SQLite says of a file that it cannot read.
_DAMAGES = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)

#: How long a writer waits for another process.
BUSY_S = 60

#: The name of a table in a statement, or of an index that is dropped, where it needs a schema; a column qualified by
#: the table needs none.
_TABLE = re.compile(rf"\b(FROM|INTO|UPDATE|JOIN|TABLE|ON|DROP INDEX)\s+({PREFIX}\w+)(?![\w.])")

#: A comparison with each value of a list.
_LIST = re.compile(r"= ANY\((:[a-z_]+)\)")
#: A list of texts as the rows of a table.
_ROWS = re.compile(r"unnest\(CAST\((:[a-z_]+) AS TEXT\[\]\)\) AS (\w+) \(value\)")

#: The schema in which the user's own search path finds a store, or would create one.
_OUR_SCHEMA = f"""SELECT coalesce((
    SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = '{VERSION_TABLE}' AND pg_catalog.pg_table_is_visible(c.oid)), pg_catalog.current_schema())"""


_NAMES = ", ".join(f"'{name}'" for name in TABLES)
_SEQUENCES = ", ".join(f"'{name}_id_seq'" for name in TABLES)

#: What a role lacks for a run, as the statements that give it.
_LACKING = f"""SELECT pg_catalog.format('alter role %I set default_transaction_read_only = off', current_user)
    AS statement WHERE pg_catalog.current_setting('default_transaction_read_only') = 'on'
UNION ALL SELECT pg_catalog.format('grant usage, create on schema %I to %I', n.nspname, current_user)
    FROM pg_catalog.pg_namespace n WHERE n.nspname = :schema
    AND NOT (pg_catalog.has_schema_privilege(n.oid, 'usage') AND (pg_catalog.has_schema_privilege(n.oid, 'create')
    OR EXISTS (SELECT 1 FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = '{VERSION_TABLE}')))
UNION ALL SELECT pg_catalog.format('grant %s on %I.%I to %I',
    CASE c.relkind WHEN 'S' THEN 'usage' ELSE 'select, insert, update, delete' END,
    n.nspname, c.relname, current_user)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND CASE c.relkind
        WHEN 'S' THEN c.relname IN ({_SEQUENCES}) AND NOT pg_catalog.has_sequence_privilege(c.oid, 'usage')
        WHEN 'r' THEN c.relname IN ({_NAMES}) AND NOT (pg_catalog.has_table_privilege(c.oid, 'select')
            AND pg_catalog.has_table_privilege(c.oid, 'insert') AND pg_catalog.has_table_privilege(c.oid, 'update')
            AND pg_catalog.has_table_privilege(c.oid, 'delete'))
        ELSE FALSE END"""


class Driver(ABC):
    """Opens connections and transactions, and translates statements."""

    #: The exceptions of the driver, and those that mean that a row with the same key exists.
    errors: tuple[type[Exception], ...]
    conflicts: tuple[type[Exception], ...]
    #: Column type of a key that counts up and never repeats.
    serial: str
    codecs: Mapping[str, Codec]
    #: Connections that a process may have at once; None: any number.
    most_connections: int | None = None
    #: Held while a transaction writes, and while a brief one does (see `Database.write`).
    turn: contextlib.AbstractContextManager[Any]
    brief_turn: contextlib.AbstractContextManager[Any]

    @abstractmethod
    def connect(self) -> Any:
        """Open a connection."""

    def check(self, raw: Any, idle_s: float) -> None:
        """Fail if a connection, which nobody used for a time, is lost."""
        return

    @abstractmethod
    def transaction(self, raw: Any, *, is_writing: bool) -> contextlib.AbstractContextManager[Any]:
        """Begin a transaction, and commit it at the end; yield psycopg's pipeline, if it is in one, else None."""

    def is_lost(self, raw: Any) -> bool:
        """Whether the server has closed the connection."""
        return False

    def is_crowded(self, error: BaseException) -> bool:
        """Whether it was not connected because others have all connections."""
        return False

    def is_misconfigured(self, error: BaseException) -> bool:
        """Whether it was not connected for what the URL says, such as credentials or the name of a database."""
        return False

    def way_out(self, error: BaseException) -> str:
        """Return what is to be done about an error, where more can be said than the database does, else nothing."""
        return ""

    @abstractmethod
    def sql(self, statement: str) -> str:
        """Translate a statement (see `StoreConnection`) into the dialect of the database."""

    @abstractmethod
    def has_table(self, connection: StoreConnection, name: str) -> bool:
        """Whether a table exists."""

    def missing_privileges(self, connection: StoreConnection) -> list[str]:
        """Return the statements that give the user what a run needs in the store."""
        return []

    def now(self, connection: StoreConnection) -> datetime:
        """Return the time by which all processes measure leases."""
        return self.ask_now(connection)()

    @abstractmethod
    def ask_now(self, connection: StoreConnection) -> Callable[[], datetime]:
        """Ask for the time when the statements before are done; return what reads it."""

    @abstractmethod
    def lock_name(self, connection: StoreConnection, name: str) -> None:
        """Take the lock of that name until the transaction ends."""

    @abstractmethod
    def ask_try_lock_name(self, connection: StoreConnection, name: str) -> Callable[[], bool]:
        """Take the lock of that name without waiting; return what says whether: another transaction may hold it."""


class Sqlite(Driver):
    """A file, with one writer at a time."""

    errors = (sqlite3.Error, RetriableError)
    conflicts = (sqlite3.IntegrityError,)
    serial = "INTEGER PRIMARY KEY AUTOINCREMENT"
    codecs = SQLITE_CODECS

    def __init__(self, path: Path, clock: Clock) -> None:
        """Use a file; the clock of its machine is the time of the store."""
        self._path = path
        self._clock = clock
        # SQLite waits by sleeping, in no order: threads of one process take turns by a lock instead.
        self.turn = self.brief_turn = threading.Lock()

    def connect(self) -> Any:
        """Open the file."""
        # `transaction` begins transactions, not the driver. A connection has one user at a time, in any thread.
        with opening(self._path):
            raw = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        with _closed_on_error(raw):
            raw.execute("PRAGMA synchronous=FULL")
        return raw

    def is_misconfigured(self, error: BaseException) -> bool:
        """See `Driver`; the file at that path is no database."""
        return (
            isinstance(error, sqlite3.DatabaseError)
            and _is_damage(error)
            and error.sqlite_errorcode == sqlite3.SQLITE_NOTADB
        )

    def way_out(self, error: BaseException) -> str:
        """See `Driver`."""
        if isinstance(error, self.conflicts) or _is_damage(error):
            return f": {DAMAGED}"
        return permission_hint(self._path)

    @contextlib.contextmanager
    def transaction(self, raw: Any, *, is_writing: bool) -> Iterator[None]:
        """See `Driver`. A deferred one that reads first fails at once if another one writes before it does."""
        raw.execute("BEGIN IMMEDIATE" if is_writing else "BEGIN")
        yield
        raw.commit()

    def sql(self, statement: str) -> str:
        """Drop row locks, read lists from JSON, and write flags as numbers.

        SQLite uses a partial index for its literal condition only.
        """
        return _for_sqlite(statement)

    def has_table(self, connection: StoreConnection, name: str) -> bool:
        """See `Driver`."""
        statement = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name"
        return connection.value(statement, {"name": name}) is not None

    def ask_now(self, connection: StoreConnection) -> Callable[[], datetime]:
        """Read the machine's time."""
        now = self._clock.now()
        return lambda: now

    def lock_name(self, connection: StoreConnection, name: str) -> None:
        """Do nothing: the file is locked."""

    def ask_try_lock_name(self, connection: StoreConnection, name: str) -> Callable[[], bool]:
        """Do nothing: the file is locked."""
        return lambda: True


class Postgres(Driver):
    """A server, by psycopg."""

    serial = "SERIAL PRIMARY KEY"
    codecs = POSTGRES_CODECS
    most_connections = 2

    def __init__(self, uri: str) -> None:
        """Use the server at an address.

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
        # An older libpq refuses what it does not know.
        self._uri = uri if psycopg.pq.version() >= LIBPQ_SINCE else re.sub(r"(?<=[?&])require_auth=[^&]*&?", "", uri)
        #: Schema of the tables, quoted; known after the first connection.
        self._schema = ""
        self.errors = (psycopg.Error,)
        self.conflicts = (psycopg.IntegrityError,)
        # A writer may wait for a lock of another process: the second connection is for those that never do.
        self.turn = threading.Lock()
        self.brief_turn = contextlib.nullcontext()

    def connect(self) -> Any:
        """Connect; locks time out as with a file.

        The search path is empty: a function or an operator that another user created could match our values better
        than the server's own. Statements as short as ours are not worth being compiled.
        """
        raw = self._psycopg.connect(self._uri, autocommit=True, client_encoding="utf8")
        # A process that is stopped inside a transaction must not block a takeover for ever.
        with _closed_on_error(raw):
            ((schema,),) = raw.execute(_OUR_SCHEMA).fetchall()
            self._schema = '"' + (schema or "public").replace('"', '""') + '"'
            raw.execute(
                f"SET search_path = ''; SET jit = off; SET lock_timeout = '{BUSY_S}s'; "
                f"SET idle_in_transaction_session_timeout = '{BUSY_S}s'"
            )
        return raw

    def check(self, raw: Any, idle_s: float) -> None:
        """See `Driver`. A server that sends something unasked has closed the connection."""
        if idle_s > ASK_AFTER_S or select.select([raw.fileno()], [], [], 0)[0]:
            raw.execute("SELECT 1")

    @contextlib.contextmanager
    def transaction(self, raw: Any, *, is_writing: bool) -> Iterator[Any]:
        """See `Driver`. Reading needs no transaction: even in one, each statement would see a snapshot of its own."""
        if not is_writing:
            yield None
            return
        with self._pipeline(raw) as pipeline:
            raw.execute("BEGIN ISOLATION LEVEL READ COMMITTED", prepare=False)
            yield pipeline
            committed = raw.execute("COMMIT", prepare=False)
        if committed.statusmessage != "COMMIT":  # a COMMIT of a failed transaction is a ROLLBACK
            raise self._psycopg.errors.InFailedSqlTransaction("a statement of the transaction has failed")

    @contextlib.contextmanager
    def _pipeline(self, raw: Any) -> Iterator[Any]:
        """Send statements without waiting; at the end wait for all of them. An older libpq cannot."""
        if not self._psycopg.Pipeline.is_supported():
            yield None
            return
        with contextlib.ExitStack() as stack:
            pipeline = stack.enter_context(raw.pipeline())
            leave = stack.pop_all().close
        try:
            yield pipeline
        except Exception:
            with contextlib.suppress(*self.errors):
                leave()  # without the error: psycopg would write what follows from it to its log
            raise
        leave()

    def is_lost(self, raw: Any) -> bool:
        """See `Driver`; known after a statement has failed."""
        return bool(raw.closed)

    def is_crowded(self, error: BaseException) -> bool:
        """See `Driver`; mostly by the text: libpq gives no SQLSTATE of a connection that was refused."""
        if not isinstance(error, self._psycopg.OperationalError):
            return False
        return error.sqlstate == "53300" or any(part in str(error) for part in _CROWDED)

    def is_misconfigured(self, error: BaseException) -> bool:
        """See `Driver`."""
        from syncblocks.connectors.postgres.failures import is_misconfigured

        return isinstance(error, self._psycopg.Error) and is_misconfigured(error.sqlstate or "", str(error))

    def way_out(self, error: BaseException) -> str:
        """See `Driver`."""
        from syncblocks.connectors.postgres.failures import NO_LOGIN

        is_given = "password" in self._psycopg.conninfo.conninfo_to_dict(self._uri)
        text = "; no password was given: set one in `store`, or give it by PGPASSWORD or ~/.pgpass"
        return text if not is_given and NO_LOGIN.search(str(error)) else ""

    def sql(self, statement: str) -> str:
        """Name values in the style of psycopg, and qualify each table with its schema."""
        return _for_postgres(statement, self._schema)

    def has_table(self, connection: StoreConnection, name: str) -> bool:
        """See `Driver`."""
        # From the catalog table: `to_regclass` may return what it cached before this connection waited for a lock.
        statement = (
            "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relname = :name AND n.nspname = :schema"
        )
        return connection.value(statement, {"name": name, "schema": self._schema_name}) is not None

    def missing_privileges(self, connection: StoreConnection) -> list[str]:
        """See `Driver`."""
        return [row.statement for row in connection.rows(_LACKING, {"schema": self._schema_name})]

    @property
    def _schema_name(self) -> str:
        return self._schema[1:-1].replace('""', '"')

    def ask_now(self, connection: StoreConnection) -> Callable[[], datetime]:
        """Ask for the server's time."""
        answer = connection.ask("SELECT pg_catalog.clock_timestamp() AS now")
        return lambda: answer()[0].now

    def lock_name(self, connection: StoreConnection, name: str) -> None:
        """Take an advisory lock; the next answer waits for it."""
        connection.run("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(:name, 0))", {"name": name})

    def ask_try_lock_name(self, connection: StoreConnection, name: str) -> Callable[[], bool]:
        """Try to take an advisory lock."""
        lock = "SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(:name, 0)) AS is_mine"
        answer = connection.ask(lock, {"name": name})
        return lambda: bool(answer()[0].is_mine)


def _is_damage(error: BaseException) -> bool:
    """Tell whether SQLite cannot read its file; the other errors that it raises itself have classes of their own."""
    # The lower byte: the rest says where SQLite found it.
    return type(error) is sqlite3.DatabaseError and error.sqlite_errorcode & 0xFF in _DAMAGES


@contextlib.contextmanager
def _closed_on_error(raw: Any) -> Iterator[None]:
    """Close a connection if its setup fails."""
    try:
        yield
    except BaseException:
        raw.close()
        raise


@lru_cache(maxsize=500)
def _for_sqlite(statement: str) -> str:
    statement = statement.replace(" FOR UPDATE SKIP LOCKED", "").removesuffix(" FOR UPDATE")
    statement = _LIST.sub(r"IN (SELECT value FROM json_each(\1))", statement)
    statement = _ROWS.sub(r"json_each(\1) AS \2", statement)
    return statement.replace(" = TRUE", " = 1").replace(" = FALSE", " = 0")


@lru_cache(maxsize=500)
def _for_postgres(statement: str, schema: str) -> str:
    statement = re.sub(r":([a-z_0-9]+)", r"%(\1)s", statement.replace("%", "%%"))
    return _TABLE.sub(lambda found: f"{found[1]} {schema.replace('%', '%%')}.{found[2]}", statement)
