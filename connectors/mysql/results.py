"""The driver's connection, one level below its cursors: results as Arrow batches, and LOAD DATA out of memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .failures import broken_answer, errno

if TYPE_CHECKING:
    from .packets import Buffer, Places
    from .records import RecordKind

_SENT_BYTES = 1 << 20

#: The file that LOAD DATA names. It does not exist; a server that asks for any other file gets none.
LOAD_FILE = "records"

#: Commands, their names as in the protocol.
_QUERY, _STMT_PREPARE, _STMT_EXECUTE, _STMT_CLOSE = 0x03, 0x16, 0x17, 0x19

#: Numbers of errors: a proxy that does not know the command.
_UNKNOWN_COMMAND = 1047

#: What is said of statements that cannot be prepared, but can run.
_UNPREPARED = {
    _UNKNOWN_COMMAND,
    1235,  # not supported (yet)
    1243,  # the prepared statement is not known (any more)
    1295,  # not one that is prepared
    1461,  # more than max_prepared_stmt_count
    1615,  # to be prepared anew each time, as happens to views where the server keeps few tables open
}


def select(connection: Any, sql: str) -> Iterator[pa.RecordBatch]:
    """Yield the records of a SELECT, with columns as `records.decode` returns them.

    It is prepared: values then come in the binary protocol, which the server writes in half the time of texts. Where it
    cannot be, they come as texts.

    Source: MySQL, Client/Server Protocol, Prepared Statements.
    """
    from pymysql import err

    from .records import decode

    statement = None
    try:
        statement, _ = _prepared(connection, sql)
        # No cursor, once.
        result = _begun(connection, _STMT_EXECUTE, struct.pack("<IBI", statement, 0, 1))
    except err.MySQLError as error:
        if errno(error) not in _UNPREPARED:
            raise
        if statement is not None and errno(error) != _UNKNOWN_COMMAND:
            _close(connection, statement)
        yield from select_texts(connection, sql)
        return
    yield from _records(connection, result, decode)
    _close(connection, statement)


def select_texts(connection: Any, sql: str) -> Iterator[pa.RecordBatch]:
    """Do the same without preparing it."""
    from .records import decode_texts

    yield from _records(connection, _begun(connection, _QUERY, sql), decode_texts, is_text=True)


def describe(connection: Any, sql: str) -> list[Any]:
    """Return the definitions of a SELECT's columns, as the driver parses them; it is prepared, and not run."""
    statement, fields = _prepared(connection, sql)
    _close(connection, statement)
    return fields


def _prepared(connection: Any, sql: str) -> tuple[int, list[Any]]:
    from pymysql.protocol import FieldDescriptorPacket

    connection._execute_command(_STMT_PREPARE, sql)
    status, statement, columns, parameters = struct.unpack_from("<BIHH", connection._read_packet().get_all_data())
    if status:
        raise broken_answer("the answer to COM_STMT_PREPARE does not begin with OK")
    for _ in range(parameters + 1 if parameters else 0):
        connection._read_packet()
    fields = [connection._read_packet(FieldDescriptorPacket) for _ in range(columns)]
    if columns:
        connection._read_packet()
    return int(statement), fields


def _close(connection: Any, statement: int) -> None:
    connection._execute_command(_STMT_CLOSE, struct.pack("<I", statement))


def _begun(connection: Any, command: int, content: str | bytes) -> Any:
    """Send a command, and read the answer up to where its records begin."""
    from pymysql.connections import MySQLResult

    connection._execute_command(command, content)
    result = MySQLResult(connection)
    result.init_unbuffered_query()
    # The driver takes the result for read; this reads it.
    result.unbuffered_active = False
    if not result.field_count:
        raise broken_answer("the result of a SELECT has no columns")
    return result


def _records(
    connection: Any,
    result: Any,
    decode: Callable[[Buffer, Places, Places, Sequence[RecordKind]], list[pa.Array]],
    *,
    is_text: bool = False,
) -> Iterator[pa.RecordBatch]:
    from pymysql import err

    from .packets import Packets  # with NumPy
    from .records import RecordKind

    kinds, names = [RecordKind.of(field) for field in result.fields], [field.name for field in result.fields]
    # Not through the driver's buffer, which would wait for more bytes although it holds some.
    file = connection._rfile
    packets = Packets(file.read(len(file.peek())), file.raw.readinto, is_text=is_text)
    for buffer, places, ends in packets:
        yield pa.RecordBatch.from_arrays(decode(buffer, places, ends, kinds), names)
    if packets.error:
        err.raise_mysql_exception(packets.error)


def load(connection: Any, sql: str, file: str, content: pa.Buffer | None) -> tuple[int, int]:
    """Run LOAD DATA LOCAL, which names a file, with this content for it; return records taken and warnings.

    Raises:
        BrokenAnswer: the server asks for another file, or for none. Nothing was sent.
    """
    from pymysql.connections import MySQLResult

    connection._execute_command(_QUERY, sql)
    packet = connection._read_packet()
    if packet.get_all_data() != b"\xfb" + file.encode():
        raise broken_answer("it asks for something else than the records of LOAD DATA")
    if content is not None:
        view = memoryview(content)
        for start in range(0, len(view), _SENT_BYTES):
            connection.write_packet(bytes(view[start : start + _SENT_BYTES]))
    connection.write_packet(b"")
    result = MySQLResult(connection)
    result._read_ok_packet(connection._read_packet())
    return int(result.affected_rows), int(result.warning_count)


__all__ = ["LOAD_FILE", "describe", "load", "select", "select_texts"]
