"""One connection to MySQL or MariaDB: statements, LOAD DATA out of memory, and results in batches."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa

from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, RetriableError, TakenOver
from ..named_parameters import placed
from ..network import SILENT_S, Canceller, libpq_parameters, limit_socket, speaks_postgres
from ..sql.clear_text import pymysql_connection
from ..sql.identifiers import LEDGER_TABLE, STAGING_PREFIX, TableName, literal, quote
from ..stream import Block
from . import results, swaps
from .encode import LOAD_FORMAT, lines, values, years_written_out
from .failures import NO_SUCH_TABLE, broken_answer, connect_failure, errno, failure, is_broken, is_lost
from .settings import MySQLAddress

#: What every connection sets: constants without escapes; errors instead of cut-off values; UTC; a day's patience with a
#: slow source; all records, since a server's `sql_select_limit` silently ends each result. Autocommit is off: with it,
#: each statement after a DDL statement's implicit commit would be a transaction of its own.
SQL_MODE = (
    "STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_BACKSLASH_ESCAPES,NO_ZERO_DATE,NO_ZERO_IN_DATE,"
    "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO"
)
_SETUP = (
    f"set session sql_mode = '{SQL_MODE}'",
    "set session time_zone = '+00:00'",
    "set session autocommit = 0",
    "set session net_write_timeout = 86400, net_read_timeout = 86400, wait_timeout = 86400",
    "set session sql_select_limit = 18446744073709551615, sql_big_selects = 1",
    "set session sql_safe_updates = 0, foreign_key_checks = 1, unique_checks = 1",
    "set session sql_notes = 1, max_error_count = 64",
)

#: Before a query of MariaDB. It keeps comments of partitions with escapes, and cannot open such a table without them:
#: one in any schema would make queries of the catalog fail. The query's own constants are read before this counts.
_OPENING = f"set statement sql_mode = '{SQL_MODE.replace('NO_BACKSLASH_ESCAPES,', '')}' for "
_SELECT = re.compile(r"\s*\(*\s*select\b", re.IGNORECASE)

#: CREATE of a staging table: temporary or not, its full name, its schema.
_STAGING = re.compile(rf"create (temporary )?table ((?:`((?:[^`]|``)*)`\.)?`{STAGING_PREFIX}[0-9a-z_]*`)")
_DROP = re.compile(rf"drop table if exists ((?:`(?:[^`]|``)*`\.)?`{STAGING_PREFIX}[0-9a-z_]*`)")
_DDL = re.compile(r"\s*(create|alter|drop|rename|truncate)\s+(?!temporary)", re.IGNORECASE)
_DML = re.compile(r"\s*(insert|update|delete|replace|load)\b", re.IGNORECASE)

#: Number of the warning that a value was cut off.
_CUT = 1265

#: Size of one INSERT where LOAD DATA is not allowed.
_INSERT_BYTES = 1 << 20


class MySQLSession:
    """A connection; implements `ReadSession`.

    At the end of each transaction it drops the staging tables that it made, unless a commit has swapped them in.
    """

    def __init__(
        self, address: MySQLAddress, begin: str, isolation: str, lock_timeout_s: int, *, is_loading: bool = False
    ) -> None:
        import pymysql

        self._address = address
        self._begin = begin
        self._lock_timeout_s = lock_timeout_s
        self._lock = threading.Lock()
        self._is_lost = False
        self.is_mariadb = False
        #: Records are written, but the ledger is not: an implicit commit would be wrong.
        self._is_dirty = False
        self._staging: dict[str, bool] = {}
        self._drops: list[str] = []
        self._swap_schemas: set[str] = set()
        self._named_locks: list[str] = []
        self._canceller = Canceller()
        self._connection = _connect(address, database=address.database, is_loading=is_loading)
        try:
            for sql in (
                *_SETUP,
                f"set session transaction isolation level {isolation}",
                f"set session innodb_lock_wait_timeout = {lock_timeout_s}, lock_wait_timeout = {lock_timeout_s}",
            ):
                self._run(sql)
            asked = "select version(), @@local_infile, @@max_allowed_packet, @@lower_case_table_names"
            try:
                ((version, can_load, packet, lower_case),) = self.query(asked)
                self._packet_bytes = int(packet)
            except (TypeError, ValueError):
                raise broken_answer("it does not report its version and settings", address) from None
            self.is_mariadb = "mariadb" in str(version).lower()
            self.version = tuple(int(part) for part in re.findall(r"\d+", str(version))[:3])
            self.can_load = is_loading and bool(can_load)
            self.folds_names = bool(lower_case)
        except (ConnectorError, pymysql.MySQLError):
            self.close()
            raise

    # ------------------------------------------------------------ transactions
    def begin(self) -> None:
        """Start a transaction."""
        if self._is_lost:
            raise RetriableError(f"{self._address.shown}: the connection is closed", connector="mysql")
        self._run(self._begin)
        self._is_dirty = False

    def commit(self) -> None:
        """Commit; then carry out the swaps that the transaction noted, and drop staging tables."""
        if self._swap_schemas:
            # It stays, whatever the answer: from the commit on it is the table itself.
            self._staging = {name: is_temporary for name, is_temporary in self._staging.items() if is_temporary}
        self._run("commit")
        self._is_dirty = False
        schemas, self._swap_schemas = self._swap_schemas, set()
        for schema in sorted(schemas):
            for staging, target in swaps.pending(self, schema):
                swaps.finish(self, schema, staging, target)
        self._drop_staging()
        self._release()

    def rollback(self) -> None:
        """End the transaction, if there is one."""
        self._swap_schemas.clear()
        self._drops.clear()
        if self._is_lost:
            raise RetriableError(f"{self._address.shown}: the connection is closed", connector="mysql")
        self._run("rollback")
        self._is_dirty = False
        self._drop_staging()
        self._release()

    def _drop_staging(self) -> None:
        for name, is_temporary in self._staging.items():
            self._run(f"drop {'temporary ' if is_temporary else ''}table if exists {name}")
        for name in self._drops:
            self._run(f"drop table if exists {name}")
        self._staging.clear()
        self._drops.clear()

    def _release(self) -> None:
        for name in self._named_locks:
            self._run(f"do release_lock({name})")
        self._named_locks.clear()

    # -------------------------------------------------------------- statements
    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; return the records it changed (or found as they should be)."""
        if match := _DROP.fullmatch(sql):
            return self._drop(match[1])
        if match := _STAGING.match(sql):
            self._before_staging(match[2], (match[3] or "").replace("``", "`"), is_temporary=bool(match[1]))
        elif _DDL.match(sql) and self._is_dirty:
            raise FatalConnectorError("a change of a table would commit half of a load", connector="mysql")
        elif _DML.match(sql):
            self._is_dirty = True
        cursor = self._run(filled(sql, parameters))
        if cursor.warning_count and _DML.match(sql):
            self._refuse_cut()
        return int(cursor.rowcount)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a small result."""
        return list(self._run(self._opening(filled(sql, parameters))).fetchall())

    def _opening(self, sql: str) -> str:
        return f"{_OPENING}{sql}" if self.is_mariadb and _SELECT.match(sql) else sql

    def run_alone(self, sql: str) -> None:
        """Run a statement that commits by itself."""
        self._run(sql)
        self._run("commit")

    def execute_alone(self, sql: str, parameters: Sequence[Any]) -> int:
        """Run one statement of the user's and commit it."""
        changed = self.execute_bound(sql, parameters)
        self._run("commit")
        return changed

    def execute_bound(self, sql: str, parameters: Sequence[Any]) -> int:
        """Run one statement of the user's within the transaction; return the records it changed."""
        cursor = self._bound(sql, parameters) if parameters else self._run(sql)
        return 0 if cursor.description else max(int(cursor.rowcount), 0)

    def _bound(self, sql: str, parameters: Sequence[Any]) -> Any:
        """Run a statement whose values the server binds: whatever a statement holds, a value is never a part of it."""
        used: list[str] = []

        def mark(number: int) -> str:
            used.append(f"@_syncblocks_{number}")
            return "?"

        text = placed(sql, mark, has_hashes=True)
        values = (f"@_syncblocks_{place} = {_constant(value)}" for place, value in enumerate(parameters, start=1))
        self._run(f"set {', '.join(values)}")
        self._run(f"prepare _syncblocks_statement from {literal(text)}")
        try:
            return self._run(f"execute _syncblocks_statement{' using ' if used else ''}{', '.join(used)}")
        finally:
            with suppress(ConnectorError):
                self._run("deallocate prepare _syncblocks_statement")

    def drop_left(self, name: TableName) -> bool:
        """Drop a staging table of a load whose connection broke; False: it is in use, and left to its writer."""
        is_dropped = False
        self._run("set session lock_wait_timeout = 1")
        with suppress(RetriableError, FatalConnectorError):  # a connection that is lost fails again just below
            self.run_alone(f"drop table if exists {quote(name.schema, 'mysql')}.{quote(name.name, 'mysql')}")
            is_dropped = True
        self._run(f"set session lock_wait_timeout = {self._lock_timeout_s}")
        return is_dropped

    def take_lock(self, name: str, timeout_s: int) -> None:
        """Wait for a named lock, and keep it until the end of the transaction; the name has at most 64 characters."""
        ((answer,),) = self.query(f"select get_lock({literal(name)}, {timeout_s})")
        if answer != 1:
            raise RetriableError(f"{self._address.shown}: another load has locked the table", connector="mysql")
        self._named_locks.append(literal(name))

    def swap_after_commit(self, schema: str, staging: str, target: str) -> None:
        """Note that a staging table takes the target's place; the tables are renamed after the commit."""
        self._is_dirty = True
        self._swap_schemas.add(schema)
        self._run(swaps.note(schema, staging, target))

    def _drop(self, name: str) -> int:
        """Drop a staging table; one that is not temporary after the commit, since DROP commits implicitly."""
        if self._staging.pop(name, False):
            self._run(f"drop temporary table if exists {name}")
        else:
            self._drops.append(name)
        return 0

    def _before_staging(self, name: str, schema: str, *, is_temporary: bool) -> None:
        if not is_temporary:
            # Left by a load of the same token whose connection broke.
            for staging, target in swaps.pending(self, schema):
                if name.endswith(f"{quote(staging, 'mysql')}"):
                    swaps.finish(self, schema, staging, target)
            self._run(f"drop table if exists {name}")
        self._staging[name] = is_temporary

    def _refuse_cut(self) -> None:
        """Raise where spaces at the end of a text were cut off: strict mode gives only a note."""
        cut = next((text for _, number, text in self.query("show warnings") if int(number) == _CUT), "")
        if cut:
            raise FatalConnectorError(f"{self._address.shown}: {cut} (error {_CUT})", connector="mysql")

    def _run(self, sql: str | bytes) -> Any:
        cursor = self._connection.cursor()
        try:
            cursor.execute(sql)
        except Exception as error:
            raise self._failure(error) from error
        return cursor

    def _failure(self, error: BaseException) -> ConnectorError:
        if is_lost(error):
            self._is_lost = True
        if is_broken(error):
            # Any further packet would be read as the answer to the next statement.
            self._is_lost = True
            with suppress(Exception):
                self._connection._force_close()
        if errno(error) in NO_SUCH_TABLE and f"{LEDGER_TABLE}'" in str(error):
            return TakenOver("the ledger does not exist any more", connector="mysql")
        return failure(error, self._address)

    # -------------------------------------------------------------------- data
    def describe(self, sql: str) -> list[Any]:
        """Return the definitions of a SELECT's columns."""
        try:
            return results.describe(self._connection, self._opening(sql))
        except Exception as error:
            raise self._failure(error) from error

    def fetch(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Yield the result in batches, their columns as the server sends them."""
        is_over = False
        try:
            yield from results.select(self._connection, self._opening(sql))
            is_over = True
        except GeneratorExit:
            raise
        except Exception as error:
            raise self._failure(error) from error
        finally:
            if not is_over:
                # The running result would have to be read to its end first.
                self._is_lost = True
                with suppress(Exception):
                    self._connection._force_close()

    def ingest(self, table: TableName, schema: pa.Schema, data: Iterator[pa.RecordBatch | Block], wire: str) -> int:
        """Append the batches to the named columns of a table: by LOAD DATA, or INSERT where the server forbids it."""
        records = 0
        name = f"{quote(table.schema, 'mysql')}.{quote(table.name, 'mysql')}"
        if name not in self._staging:
            self._is_dirty = True
        years = self._years(name) if pa.int16() in schema.types else frozenset()
        for batch in data:
            if not isinstance(batch, pa.RecordBatch):
                raise FatalConnectorError("MySQL accepts only Arrow batches", connector="mysql")
            if years:
                batch = years_written_out(batch, years)
            records += self._load(name, batch) if self.can_load else self._insert(name, batch)
        return records

    def _years(self, name: str) -> frozenset[str]:
        """Return the columns of a table that hold years; the catalog has no temporary tables."""
        return frozenset(
            column for column, kind, *_ in self.query(f"show columns from {name}") if kind.startswith("year")
        )

    def _load(self, name: str, batch: pa.RecordBatch) -> int:
        places, sets = [], []
        for place, field in enumerate(batch.schema):
            column = quote(field.name, "mysql")
            is_bytes = pa.types.is_binary(field.type)
            places.append(f"@v{place}" if is_bytes else column)
            if is_bytes:
                sets.append(f"{column} = unhex(@v{place})")
        assigned = f" set {', '.join(sets)}" if sets else ""
        into = f"into table {name} {LOAD_FORMAT} ({', '.join(places)}){assigned}"
        sql = f"load data local infile '{results.LOAD_FILE}' {into}"
        content = lines(batch)
        try:
            loaded, warnings = results.load(self._connection, sql, results.LOAD_FILE, content)
        except Exception as error:
            raise self._failure(error) from error
        if warnings or loaded != batch.num_rows:
            # LOCAL makes errors warnings, and drops or alters the records.
            raise self._refusal(f"{loaded} of {batch.num_rows} records were stored")
        return loaded

    def _refusal(self, summary: str) -> ConnectorError:
        rows = self.query("show warnings")
        first = next((row for row in rows if row[0] != "Note"), rows[0] if rows else None)
        reason = f"{first[2]} (error {first[1]})" if first else summary
        return FatalConnectorError(f"{self._address.shown}: {reason}", connector="mysql")

    def _insert(self, name: str, batch: pa.RecordBatch) -> int:
        columns = ", ".join(quote(field.name, "mysql") for field in batch.schema)
        head = f"insert into {name} ({columns}) values ".encode()
        for _, content in values(batch, min(_INSERT_BYTES, self._packet_bytes // 2)):
            if self._run(head + content.to_pybytes()).warning_count:
                self._refuse_cut()
        return int(batch.num_rows)

    # ------------------------------------------------------------------ the end
    def cancel(self) -> None:
        """Make the running statement fail soon: KILL QUERY, over a second connection."""
        self._canceller.start(self._kill)

    def _kill(self) -> None:
        try:
            other = _connect(self._address, database=None)
            try:
                other.cursor().execute(f"kill query {self._connection.thread_id()}")
            finally:
                other.close()
        except Exception:  # no second connection: close the first one
            self._is_lost = True
            with suppress(Exception):
                # To close it would wait for the thread that reads from it.
                socket.socket.shutdown(self._connection._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._canceller.close(self._end_connection)

    def _end_connection(self) -> None:
        with suppress(Exception):
            self._connection.close()


def _connect(address: MySQLAddress, database: str | None, *, is_loading: bool = False) -> Any:
    """Connect. The driver itself never sends a file, whatever a server asks for; see `results.load` for what does."""
    import pymysql
    from pymysql.constants import CLIENT

    timeout_s = address.connect_timeout_s
    limits = libpq_parameters(timeout_s, address.network_timeout_s)
    try:
        connect = pymysql.connections.Connection if address.may_get_full_login else pymysql_connection()
        connection = _patient(connect, address)(
            **address.driver_arguments(),  # no variable: a traceback would show it
            database=database,
            charset="utf8mb4",
            local_infile=False,
            # What LOAD DATA LOCAL needs is agreed on here; only connections that load say that they can.
            client_flag=CLIENT.FOUND_ROWS | (CLIENT.LOCAL_FILES if is_loading else 0),
            autocommit=None,
            program_name="syncblocks",
            # Of the login only: a statement may take as long as it likes.
            read_timeout=timeout_s,
            write_timeout=timeout_s,
        )
        connection._read_timeout = connection._write_timeout = None
        limit_socket(connection._sock, limits)
        return connection
    except ConnectorError:  # of the files of certificates, or of another kind of server
        raise
    except Exception as error:
        raise connect_failure(error, address) from None


def _patient(base: type[Any], address: MySQLAddress) -> type[Any]:
    """Return the driver's connection that does not wait in vain for the greeting of a PostgreSQL server."""

    class Patient(base):  # type: ignore[misc]
        def _get_server_information(self) -> None:
            if not address.is_socket:
                self._wait_for_greeting()
            super()._get_server_information()

        def _wait_for_greeting(self) -> None:
            self._sock.settimeout(min(SILENT_S, address.connect_timeout_s))
            try:
                self._sock.recv(1, socket.MSG_PEEK)
            except TimeoutError:
                if speaks_postgres(self.host, self.port):
                    text = "this port speaks PostgreSQL, not MySQL: use MySQL's port, or the connector `postgres`"
                    raise ConnectorConfigError(
                        f"cannot connect to {address.shown}: {text}", connector="mysql", key="url"
                    ) from None
            finally:
                self._sock.settimeout(self._read_timeout)

    return Patient


def filled(sql: str, parameters: Sequence[Any]) -> str:
    """Put constants in the places of `$n`; under NO_BACKSLASH_ESCAPES doubled quotes are all that is needed."""

    return placed(sql, lambda number: _constant(parameters[number - 1])) if parameters else sql


def _constant(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        return repr(value)
    return literal(str(value))


__all__ = ["MySQLSession", "filled"]
