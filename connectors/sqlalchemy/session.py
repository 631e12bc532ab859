"""One connection of an engine: statements, rows by executemany, results that are streamed.

What systems do with DDL in a transaction has no rule: some roll it back, some commit what was before it, one shows
a new table only after a commit. So no DDL runs in a transaction that holds data: each such statement has its own.
"""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from ..arrow.batches import FETCH_RECORDS
from ..database_files import opening
from ..errors import ConnectorError, FatalConnectorError, Interrupted, RetriableError
from ..named_parameters import placed
from ..network import Canceller
from ..sql.identifiers import SEQUENCE, STAGING_PREFIX, TableName
from ..stream import Block
from .failures import connect_failure, failure
from .spelling import Names
from .traits import Traits
from .types import SQLAlchemyKind, kind_for, sqlalchemy_type
from .values import array_of, values_of

T = TypeVar("T")

#: How long to wait for our other writers of a table, and for conflicting changes of the catalog.
LOCK_TIMEOUT_S = 60.0

#: How long to try to drop a staging table.
DROP_TIMEOUT_S = 5.0

_DDL = re.compile(r"\s*(create|alter|drop)\b", re.IGNORECASE)
_DROP = re.compile(rf"drop table .*{STAGING_PREFIX}", re.IGNORECASE)
_CREATE = re.compile(rf"create table ([^(]*{STAGING_PREFIX}[^ (]*) \(", re.IGNORECASE)

#: Methods by which another thread cancels a driver's connection: the first that it has.
_CANCELS = ("cancel_safe", "cancel", "interrupt", "cancel_operation")


def _opening(url: URL) -> AbstractContextManager[None]:
    """Guard the file of a SQLite database while Python's driver opens it."""
    file = url.database or ""
    is_file = url.get_backend_name() == "sqlite" and file not in ("", ":memory:") and not file.startswith("file:")
    return opening(Path(file)) if is_file else nullcontext()


def has_hash_comments(engine: Engine) -> bool:
    """Tell whether `#` begins a comment."""
    return engine.dialect.name in ("mysql", "mariadb")


class AlchemySession:
    """A connection with one transaction at a time; implements `Session`, and streams clauses.

    Staging tables that it made are dropped at the end of the transaction, whichever end that is.
    """

    def __init__(self, engine: Engine, place: str, *, is_writer: bool, names: Names | None = None) -> None:
        self._engine = engine
        self._place = place
        self._names = names or Names(engine.dialect)
        self._has_hashes = has_hash_comments(engine)
        self._traits = Traits()
        self._lock: Callable[[AlchemySession, str], None] = lambda session, table: None
        #: Staging tables made in this transaction, as their DDL spells them.
        self._staging: dict[str, bool] = {}
        self._sequence = 0
        #: Something is written that the ledger does not know yet.
        self.is_dirty = False
        self._is_cancelled = False
        self._savepoint: Any = None
        self._canceller = Canceller()
        try:
            with _opening(engine.url):
                self.connection = engine.connect()
            if is_writer and "READ COMMITTED" in _levels(self.connection):
                # Each statement sees what others have committed. Some dialects say they can, and cannot.
                with suppress(AttributeError, NotImplementedError):
                    self.connection = self.connection.execution_options(isolation_level="READ COMMITTED")
            # Ends what the dialect asked the server at its first connection.
            self.connection.rollback()
        except Exception as error:
            raise connect_failure(error, self._url, place) from None

    @property
    def _url(self) -> URL:
        return self._engine.url

    def adapt(self, traits: Traits, lock: Callable[[AlchemySession, str], None]) -> None:
        """Set how the system stores values, and how a table is locked."""
        self._traits = traits
        self._lock = lock

    def lock(self, table: str) -> None:
        """Shut out our other writers of a table until the commit."""
        self._lock(self, table)

    def wait(self, call: Callable[[], None], timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Begin the transaction with a call that may conflict with others; repeat it until it succeeds.

        Some systems wait by themselves, others refuse at once, or as soon as the wait is over.
        """
        deadline = time.monotonic() + timeout_s
        for attempt in itertools.count():
            try:
                call()
                break
            except RetriableError:
                if time.monotonic() > deadline:
                    raise
                self._back()
                time.sleep(random.uniform(0, min(0.01 * 2**attempt, 0.5)))  # until the other one's commit
                self._run(self.connection.begin)
        self.is_dirty = False

    # ------------------------------------------------------------ transactions
    def begin(self) -> None:
        """Start a transaction; tests whether the connection still works."""
        self._is_cancelled = self.is_dirty = False
        try:
            self._back()
            driver: Any = self.connection.connection.dbapi_connection
            is_alive = self._engine.dialect.do_ping(driver)
            if not self.connection.in_transaction():
                self.connection.begin()
        except Exception as error:
            found = self._failure(error)
            raise found if isinstance(found, RetriableError) else RetriableError(str(found)) from error
        if not is_alive:
            raise RetriableError(f"{self._place}: the connection is closed", connector="sqlalchemy")

    def commit(self) -> None:
        """Commit, then drop staging."""
        self._end()
        self._drop_staging()

    def settle(self) -> None:
        """Commit the staged records, and begin a transaction that sees what others have committed."""
        if self.is_dirty:
            raise FatalConnectorError("half of a load would be committed", connector="sqlalchemy")
        self._end()
        self._run(self.connection.begin)

    def _end(self) -> None:
        self._run(self.connection.commit)
        self.is_dirty = False

    def rollback(self) -> None:
        """End the transaction, if there is one; nothing of it is kept."""
        self.is_dirty = False
        self._back()
        self._drop_staging()

    def commit_alone(self) -> None:
        """Commit statements that are no part of a load."""
        self._end()

    def restart(self) -> None:
        """Begin a transaction that sees what others have committed."""
        self._back()
        self._run(self.connection.begin)

    def _back(self) -> None:
        """Roll back, also if a commit failed and SQLAlchemy takes the transaction for ended."""
        self._run(self.connection.rollback)
        driver: Any = self.connection.connection
        self._run(lambda: self._engine.dialect.do_rollback(driver))

    def _drop_staging(self) -> None:
        staging, self._staging = self._staging, {}
        for name in staging:
            with suppress(ConnectorError):  # then recovery, or the next start, drops it
                self._alone(f"drop table {name}", timeout_s=DROP_TIMEOUT_S)

    def mark(self) -> None:
        """Set a savepoint."""
        self._savepoint = self._run(self.connection.begin_nested)

    def take_back(self) -> None:
        """Roll back to the savepoint."""
        self._run(self._savepoint.rollback)

    def keep(self) -> None:
        """Release the savepoint."""
        self._run(self._savepoint.commit)

    # -------------------------------------------------------------- statements
    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; return the records it changed."""
        if _DROP.match(sql) and any(name in sql for name in self._staging):
            return 0  # after the commit
        if _DDL.match(sql):
            if self.is_dirty:
                raise FatalConnectorError(
                    "a table cannot be altered inside a load: this system would commit its first part",
                    connector="sqlalchemy",
                )
            self._end()
            match = _CREATE.match(sql)
            try:
                self._alone(sql)
            except FatalConnectorError:
                if match is None:
                    raise
                # An earlier connection of this load created it, and broke.
                self._back()
                self._alone(f"drop table {match[1]}")
                self._alone(sql)
            self._run(self.connection.begin)
            if match is not None:
                self._staging[match[1]] = self._names.quote(SEQUENCE) in sql
                self._sequence = 0
            return 0
        self.is_dirty = True
        return max(int(self._text(sql, parameters).rowcount), 0)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a small result."""
        return [tuple(row) for row in self._run(lambda: self._text(sql, parameters).fetchall())]

    def inspect(self, read: Callable[[sa.Connection], T]) -> T:
        """Read the catalog, as `catalog` does."""
        found: T = self._run(lambda: read(self.connection))
        return found

    def change(self, clause: Any, values: Mapping[str, Any] | None = None) -> int:
        """Run an INSERT, UPDATE or DELETE of SQLAlchemy's; return the records it changed, -1 if nobody knows."""
        self.is_dirty = True
        return int(self._run(lambda: self.connection.execute(clause, values)).rowcount)

    def rows(self, clause: Any, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Return all rows of a small SELECT of SQLAlchemy's."""
        return [tuple(row) for row in self._run(lambda: self.connection.execute(clause, values).fetchall())]

    def execute_alone(self, sql: str, parameters: Sequence[Any]) -> int:
        """Run one statement of the user's and commit it."""
        self._back()
        result = self._text(sql, parameters)
        changed = 0 if result.returns_rows else max(result.rowcount, 0)
        self._end()
        return changed

    def _alone(self, sql: str, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        def run() -> None:
            self._text(sql)
            self._run(self.connection.commit)

        self.wait(run, timeout_s)

    def _text(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        if not parameters:
            # Unchanged: a driver that formats parameters must not find any in names.
            options = {"no_parameters": True}
            return self._run(lambda: self.connection.exec_driver_sql(sql, execution_options=options))

        # SQLAlchemy would find parameters in constants and comments.
        text = placed(
            sql, lambda number: f":p{number}", has_hashes=self._has_hashes, other=lambda text: text.replace(":", r"\:")
        )
        values = {f"p{place}": value for place, value in enumerate(parameters, start=1)}
        return self._run(lambda: self.connection.execute(sa.text(text), values))

    def _run(self, call: Any) -> Any:
        if self._is_cancelled:
            raise Interrupted("the call was interrupted", connector="sqlalchemy")
        try:
            return call()
        except Exception as error:
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> ConnectorError:
        if self._is_cancelled:
            return Interrupted("the statement was interrupted", connector="sqlalchemy")
        return failure(error, self._url, self._place)

    # -------------------------------------------------------------------- data
    def stream(self, clause: Any, schema: pa.Schema, stream: str) -> Generator[pa.RecordBatch]:
        """Yield a SELECT's result in batches of the schema; closing the iterator ends it."""
        options = {"stream_results": True, "max_row_buffer": FETCH_RECORDS}
        result = self._run(lambda: self.connection.execute(clause, execution_options=options))
        try:
            while rows := self._run(lambda: result.fetchmany(FETCH_RECORDS)):
                columns = zip(*rows, strict=True)
                arrays = [array_of(values, field, stream) for values, field in zip(columns, schema, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        finally:
            with suppress(Exception):
                result.close()

    def ingest(self, table: TableName, schema: pa.Schema, data: Iterator[pa.RecordBatch | Block], wire: str) -> int:
        """Append the batches to the named columns of a table by INSERT, many records at a time."""
        kinds = [kind_for(field.type, field.name) for field in schema]
        is_numbered = self._staging.get(self._spelled(table), False)
        clause, marks = self._insert(table, schema.names, kinds, is_numbered)
        records = 0
        for batch in data:
            if not isinstance(batch, pa.RecordBatch):
                raise FatalConnectorError("this connector accepts only Arrow batches", connector="sqlalchemy")
            columns = [self._values(batch.column(place), field.name) for place, field in enumerate(schema)]
            if is_numbered:
                columns.append(list(range(self._sequence, self._sequence + batch.num_rows)))
                self._sequence += batch.num_rows
            for start in range(0, batch.num_rows, FETCH_RECORDS):
                rows = zip(*(values[start : start + FETCH_RECORDS] for values in columns), strict=True)
                self._many(clause, [dict(zip(marks, row, strict=True)) for row in rows])
            records += batch.num_rows
        return records

    def _insert(
        self, table: TableName, names: Sequence[str], kinds: Sequence[SQLAlchemyKind], is_numbered: bool
    ) -> tuple[Any, list[str]]:
        """Return INSERT and the names of its parameters: our own, since those of columns may hold anything."""
        dialect = self._engine.dialect
        every, types = list(names), [sqlalchemy_type(kind, dialect) for kind in kinds]
        if is_numbered:
            every, types = [*every, SEQUENCE], [*types, sa.BigInteger()]
        columns: list[Any] = [sa.column(self._names.spell(name), kind) for name, kind in zip(every, types, strict=True)]
        marks = [f"c{place}" for place in range(len(columns))]
        values = {column: sa.bindparam(mark, type_=column.type) for mark, column in zip(marks, columns, strict=True)}
        target = self._names.table(table, columns)
        return sa.insert(target).values(values), marks

    def _spelled(self, table: TableName) -> str:
        return ".".join(self._names.quote(part) for part in (table.schema, table.name) if part)

    def _many(self, clause: Any, parameters: list[dict[str, Any]]) -> None:
        self._run(lambda: self.connection.execute(clause, parameters))

    def _values(self, array: pa.Array, column: str) -> list[Any]:
        self._traits.refuse(array, column)
        values = values_of(array, column)
        # Firebird's driver wants zones of its own; its dialect sees to that for single records only.
        adapt: Any = getattr(self._engine.dialect, "adapt_timezone", None)
        is_zoned = pa.types.is_timestamp(array.type) and array.type.tz is not None
        return [adapt(value) for value in values] if adapt is not None and is_zoned else values

    # ------------------------------------------------------------------ the end
    def cancel(self) -> None:
        """Make the statement under way fail soon, where the driver can; else the next one."""
        self._is_cancelled = True
        self._canceller.start(self._ask_to_cancel)

    def _ask_to_cancel(self) -> None:
        with suppress(Exception):
            driver: Any = self.connection.connection.driver_connection
            for name in _CANCELS:
                if callable(cancel := getattr(driver, name, None)):
                    cancel()
                    return

    def close(self) -> None:
        """Close the connection; what was not committed is lost."""
        self._canceller.close(self._end_connection)

    def _end_connection(self) -> None:
        with suppress(Exception):
            self.connection.close()


def _levels(connection: sa.Connection) -> Sequence[str]:
    try:
        driver: Any = connection.connection.dbapi_connection
        return list(connection.dialect.get_isolation_level_values(driver))
    except NotImplementedError:
        return ()


__all__ = ["AlchemySession"]
