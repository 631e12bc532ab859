"""The driver's connection, one level below its cursors: results as Arrow batches, and LOAD DATA out of memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from ..errors import FatalConnectorError

_SENT_BYTES = 1 << 20

#: Commands, their names as in the protocol.
_STMT_PREPARE, _STMT_EXECUTE, _STMT_CLOSE = 0x16, 0x17, 0x19


def select(connection: Any, sql: str) -> Iterator[pa.RecordBatch]:
    """Yield the records of a SELECT, with columns as `records.decode` returns them.

    It is prepared: values then come in the binary protocol, which the server writes in half the time of texts.

    Source: MySQL, Client/Server Protocol, Prepared Statements.
    """
    from pymysql import err
    from pymysql.connections import MySQLResult

    from .packets import Packets  # with NumPy
    from .records import Kind, decode

    connection._execute_command(_STMT_PREPARE, sql)
    _, statement, columns, parameters = struct.unpack_from("<BIHH", connection._read_packet().get_all_data())
    for definitions in (parameters, columns):
        for _ in range(definitions + 1 if definitions else 0):
            connection._read_packet()
    # No cursor, once.
    connection._execute_command(_STMT_EXECUTE, struct.pack("<IBI", statement, 0, 1))
    result = MySQLResult(connection)
    result.init_unbuffered_query()
    # To the driver it is read: we read it.
    result.unbuffered_active = False
    kinds, names = [Kind.of(field) for field in result.fields], [field.name for field in result.fields]
    # Past the driver's own buffer, which would wait for more although it has some.
    file = connection._rfile
    packets = Packets(file.read(len(file.peek())), file.raw.readinto)
    for buffer, places in packets:
        yield pa.RecordBatch.from_arrays(decode(buffer, places, kinds), names)
    if packets.error:
        err.raise_mysql_exception(packets.error)
    connection._execute_command(_STMT_CLOSE, struct.pack("<I", statement))


def load(connection: Any, sql: str, content: pa.Buffer | None) -> tuple[int, int]:
    """Run LOAD DATA LOCAL with this content as its file; return records taken and warnings."""
    from pymysql.connections import MySQLResult
    from pymysql.constants import COMMAND

    connection._execute_command(COMMAND.COM_QUERY, sql)
    packet = connection._read_packet()
    if not packet.is_load_local_packet():
        raise FatalConnectorError("the server did not ask for the records of LOAD DATA", connector="mysql")
    if content is not None:
        view = memoryview(content)
        for start in range(0, len(view), _SENT_BYTES):
            connection.write_packet(bytes(view[start : start + _SENT_BYTES]))
    connection.write_packet(b"")
    result = MySQLResult(connection)
    result._read_ok_packet(connection._read_packet())
    return int(result.affected_rows), int(result.warning_count)


__all__ = ["load", "select"]
