"""A connection over ADBC: Arrow from and to COPY, and SQL in the same transaction."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from ..errors import ConnectorError, FatalConnectorError
from ..network import Canceller
from ..sql.identifiers import TableName
from ..stream import Block
from .failures import failure
from .settings import PostgresAddress

#: Settings of every connection. Texts have one format on every server. Loads wait for slow sources, without a timeout.
#: `synchronous_commit`: if a commit is acknowledged before it is durable, the ledger may be wrong after a crash.
#: `jit`: compiling our catalog queries takes 0.1 s for 300 tables, and 0.7 s for a thousand, even if dropped since;
#: running the queries takes milliseconds.
SETUP = (
    "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set extra_float_digits = 1; "
    "set client_encoding = 'UTF8'; set bytea_output = 'hex'; set standard_conforming_strings = on; "
    "set array_nulls = on; set xmloption = content; set idle_in_transaction_session_timeout = 0; set jit = off; "
    "select pg_catalog.set_config('synchronous_commit', 'on', false) "
    "where pg_catalog.current_setting('synchronous_commit') = 'off'"
)


class AdbcSession:
    """One connection with explicit BEGIN and COMMIT: the driver's own mode always keeps a transaction open."""

    def __init__(self, connection: Any, address: PostgresAddress, begin: str, batch_size_bytes: int) -> None:
        self._connection = connection
        self._address = address
        self._begin = begin
        self._batch_size_bytes = batch_size_bytes
        self._canceller = Canceller()

    def begin(self) -> None:
        """Start a transaction."""
        self.execute(self._begin)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run SQL; without parameters it may contain several statements."""
        statement = self._statement()
        try:
            statement.set_sql_query(_checked(sql))
            if parameters:
                statement.bind(_record(parameters))
            return int(statement.execute_update())
        except Exception as error:
            raise self._failure(error) from error
        finally:
            statement.close()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows."""
        statement = self._statement()
        try:
            # COPY has no INSERT ... RETURNING, and is no faster for a few rows.
            statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            statement.set_sql_query(_checked(sql))
            if parameters:
                statement.bind(_record(parameters))
            stream, _ = statement.execute_query()
            return list(zip(*(_values(column) for column in _reader(stream).read_all().columns), strict=True))
        except Exception as error:
            raise self._failure(error) from error
        finally:
            statement.close()

    def fetch(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Yield the result of one COPY, which is one snapshot."""
        statement = self._statement()
        is_over = False
        try:
            statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(self._batch_size_bytes)})
            statement.set_sql_query(_checked(sql))
            stream, _ = statement.execute_query()
            reader = _reader(stream)
            while True:
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    is_over = True
                    return
                yield batch
        except (ConnectorError, GeneratorExit):
            raise
        except Exception as error:
            is_over = True
            raise self._failure(error) from error
        finally:
            if not is_over:
                # Without it, closing would first read the rest of the table. Wait for it: the cancel must not hit the
                # next statement.
                self._ask_to_cancel()
            statement.close()

    def ingest(self, table: TableName, schema: pa.Schema, data: Iterator[pa.RecordBatch | Block], wire: str) -> int:
        """Append batches by COPY; the caller has cast them to the exact column types."""
        if not schema.names:
            raise FatalConnectorError("a stream without columns cannot be written", connector="postgres")
        statement = self._statement()
        try:
            statement.set_options(
                **{
                    "adbc.ingest.target_table": table.name,
                    "adbc.ingest.target_db_schema": table.schema,
                    "adbc.ingest.mode": "adbc.ingest.mode.append",
                }
            )
            statement.bind_stream(pa.RecordBatchReader.from_batches(schema, data))
            return int(statement.execute_update())
        except Exception as error:
            raise self._failure(error) from error
        finally:
            statement.close()

    def commit(self) -> None:
        """Commit."""
        self.execute("commit")

    def rollback(self) -> None:
        """Roll back if a transaction is open."""
        if self._status() != "idle":
            self.execute("rollback")

    def cancel(self) -> None:
        """Ask the server to cancel the running statement, over a separate connection of the driver."""
        self._canceller.start(self._ask_to_cancel)

    def _ask_to_cancel(self) -> None:
        with suppress(Exception):  # no running statement, or a lost connection: nothing to end
            self._connection.cancel()

    def close(self) -> None:
        """Close the connection."""
        self._canceller.close(self._end_connection)

    def _end_connection(self) -> None:
        # The driver counts a database's connections without a lock. If threads connect at the same moment it may miss
        # one, and then complain at the last close about a count below zero. The connection is closed anyway.
        with suppress(Exception):
            self._connection.close()

    def _statement(self) -> Any:
        import adbc_driver_manager

        try:
            return adbc_driver_manager.AdbcStatement(self._connection)
        except adbc_driver_manager.Error as error:  # it was closed because it had died: report that error
            raise self._failure(error) from error

    def _status(self) -> str:
        try:
            return str(self._connection.get_option("adbc.postgresql.transaction_status"))
        except Exception:  # a connection that cannot answer is of no use either
            return "unknown"

    def _failure(self, error: Exception) -> ConnectorError:
        return failure(error, self._address, is_lost=self._status() == "unknown")


def _reader(stream: Any) -> Any:
    """Return a result reader that raises the driver's errors, with SQLSTATE; Arrow's errors have only the text."""
    from adbc_driver_manager._reader import AdbcRecordBatchReader

    return AdbcRecordBatchReader._import_from_c(stream.address)


def _checked(sql: str) -> str:
    """Refuse a NUL: libpq would cut the statement at it and run the first part."""
    if "\0" in sql:
        raise FatalConnectorError("a statement holds a NUL", connector="postgres")
    return sql


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return Python values; `to_pylist` of times would import pandas, and a cast would import all Arrow functions."""
    if not pa.types.is_timestamp(column.type):
        return list(column.to_pylist())
    start = datetime.fromtimestamp(0, UTC) if column.type.tz else datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
    moments = [micros for chunk in column.chunks for micros in chunk.view(pa.int64()).to_pylist()]
    return [None if micros is None else start + timedelta(microseconds=micros) for micros in moments]


def _record(parameters: Sequence[Any]) -> pa.RecordBatch:
    names = [str(place) for place in range(1, len(parameters) + 1)]
    return pa.RecordBatch.from_arrays([_array(value) for value in parameters], names=names)


def _array(value: Any) -> pa.Array:
    """Return an array of one value. Built from buffers: `pa.array` of Python values imports pandas."""
    if isinstance(value, bool):
        return pa.Array.from_buffers(pa.bool_(), 1, [None, pa.py_buffer(bytes([value]))])
    if isinstance(value, float):
        return pa.Array.from_buffers(pa.float64(), 1, [None, pa.py_buffer(struct.pack("=d", value))])
    if isinstance(value, int):
        return pa.Array.from_buffers(pa.int64(), 1, [None, pa.py_buffer(value.to_bytes(8, "little", signed=True))])
    if value is None:
        return pa.Array.from_buffers(pa.string(), 1, [pa.py_buffer(b"\0"), pa.py_buffer(bytes(8)), pa.py_buffer(b"")])
    data = str(value).encode()
    offsets = bytes(4) + len(data).to_bytes(4, "little")
    return pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


__all__ = ["AdbcSession"]
