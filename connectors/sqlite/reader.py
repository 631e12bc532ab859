"""A connection that only reads, through ADBC's driver: several times faster, without a Python object a value.

The driver brings its own SQLite, and two SQLite libraries must not have one file open in one process: whichever
closes it drops the other's locks, since POSIX locks belong to the process. So this reader is for files that nobody
else in the process has open (`database_files`), and `open_reader` gives Python's own driver for the others.
Source: SQLite, How To Corrupt An SQLite Database File, 2.2.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote as quote_url

import pyarrow as pa

from .. import database_files
from ..arrow.batches import FETCH_RECORDS
from ..arrow.compute import constant
from ..errors import ConnectorError, FatalConnectorError, Interrupted
from ..sql.identifiers import TableName
from ..stream import Block
from .session import SQLiteSession, positional, sort_error

try:
    import adbc_driver_manager
    import adbc_driver_sqlite
except ModuleNotFoundError:
    HAS_DRIVER = False
else:
    HAS_DRIVER = True


def open_reader(path: Path) -> SQLiteReader | SQLiteSession:
    """Open a file for reading, by the faster driver if that is installed and safe."""
    with database_files.lock:
        if HAS_DRIVER and database_files.takes_fast_reader(path):
            return SQLiteReader(path)
        return SQLiteSession(path, is_writer=False)


class SQLiteReader:
    """A connection of ADBC's driver; implements `ReadSession`, but for writing.

    The driver cannot cancel a statement: an interrupted read ends at its next batch.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_cancelled = False
        self._is_begun = False
        try:
            uri = f"file:{quote_url(str(path))}?mode=ro"
            with database_files.lock:
                self._database = adbc_driver_manager.AdbcDatabase(driver=adbc_driver_sqlite._driver_path(), uri=uri)
                self._connection = adbc_driver_manager.AdbcConnection(self._database)
                self._inode: tuple[int, int] | None = database_files.add_fast_reader(path)
        except adbc_driver_manager.Error as error:
            raise sort_error(error, path) from error
        try:
            self.query("pragma busy_timeout = 60000")
            # The file's first page is read here: what is no database shows at once.
            self.query("select count(*) from sqlite_master")
        except ConnectorError:
            self.close()
            raise

    def begin(self) -> None:
        """Start a transaction."""
        self._is_cancelled = False
        self.query("begin")
        self._is_begun = True

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Refuse: this connection is for reading."""
        raise FatalConnectorError(f"{self._path} is open for reading only", connector="sqlite")

    def ingest(self, table: TableName, schema: pa.Schema, data: Iterator[pa.RecordBatch | Block], wire: str) -> int:
        """Refuse: this connection is for reading."""
        raise FatalConnectorError(f"{self._path} is open for reading only", connector="sqlite")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a small result."""
        table = pa.Table.from_batches(batches) if (batches := list(self.fetch(sql, parameters))) else pa.table({})
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def fetch(self, sql: str, parameters: Sequence[Any] = (), records: int = FETCH_RECORDS) -> Iterator[pa.RecordBatch]:
        """Yield a result in batches, from one snapshot; each column has the type of its first values."""
        try:
            with adbc_driver_manager.AdbcStatement(self._connection) as statement:
                statement.set_options(**{"adbc.sqlite.query.batch_rows": str(records)})
                text, values = positional(sql, parameters)
                statement.set_sql_query(text)
                if values:
                    _bind(statement, values)
                handle, _ = statement.execute_query()
                with pa.RecordBatchReader._import_from_c(handle.address) as reader:
                    for batch in reader:
                        if self._is_cancelled:
                            raise Interrupted("the read was interrupted", connector="sqlite")
                        yield batch
                        del batch  # not held while the next one is made
        except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
            raise sort_error(error, self._path) from error

    def commit(self) -> None:
        """End the transaction."""
        self.rollback()

    def rollback(self) -> None:
        """End the transaction, if there is one."""
        if self._is_begun:
            self._is_cancelled = self._is_begun = False
            self.query("rollback")

    def cancel(self) -> None:
        """End the read under way at its next batch."""
        self._is_cancelled = True

    def close(self) -> None:
        """Close the connection."""
        with database_files.lock:
            try:
                self._connection.close()
                self._database.close()
            except adbc_driver_manager.Error as error:
                raise sort_error(error, self._path) from error
            if self._inode is not None:
                database_files.remove_fast_reader(self._inode)
                self._inode = None


def _bind(statement: Any, values: Sequence[Any]) -> None:
    columns = [pa.repeat(constant(v), 1) if isinstance(v, str | int | float) else pa.array([v]) for v in values]
    batch = pa.RecordBatch.from_arrays(columns, [f"p{n}" for n in range(len(values))])
    array, schema = adbc_driver_manager.ArrowArrayHandle(), adbc_driver_manager.ArrowSchemaHandle()
    batch._export_to_c(array.address, schema.address)
    statement.bind(array, schema)


__all__ = ["SQLiteReader", "open_reader"]
