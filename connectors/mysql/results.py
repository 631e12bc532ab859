"""The driver's connection, one level below its cursors: rows without an object each, and LOAD DATA out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from ..errors import FatalConnectorError

#: A block is full at either.
_BLOCK_BYTES = 4 << 20
_BLOCK_RECORDS = 65_536

_CHUNK_BYTES = 1 << 20
#: A packet of this length goes on in the next one.
_FULL_PACKET = 0xFFFFFF
_SENT_BYTES = 1 << 20


class Blocks:
    """Lines of a result of one column, a record each, joined to blocks.

    Source: MySQL, Client/Server Protocol, Text Resultset Row.
    """

    def __init__(self, connection: Any, sql: str) -> None:
        import pymysql

        self._connection = connection
        self._buffer = b""
        self._place = 0
        cursor = pymysql.cursors.SSCursor(connection)
        cursor.execute(sql)
        self._result = cursor._result
        self._cursor = cursor

    def __iter__(self) -> Iterator[bytes]:
        """Yield blocks up to the end of the result."""
        lines: list[bytes] = []
        size = 0
        while True:
            packet, start, end = self._packet()
            first = packet[start] if end > start else 0
            if first < 0xFB:
                value = packet[start + 1 : end]
            elif first == 0xFC:
                value = packet[start + 3 : end]
            elif first == 0xFD:
                value = packet[start + 4 : end]
            elif first == 0xFE and end - start < 9:
                break
            elif first == 0xFE:
                value = packet[start + 9 : end]
            elif first == 0xFB:
                raise FatalConnectorError(
                    "a record is larger than the server's max_allowed_packet (bytes count twice); raise that",
                    connector="mysql",
                )
            else:
                self._finish()
                import pymysql

                pymysql.err.raise_mysql_exception(packet[start:end])
            lines.append(value)
            size += end - start
            if size >= _BLOCK_BYTES or len(lines) >= _BLOCK_RECORDS:
                lines.append(b"")
                yield b"\n".join(lines)
                lines, size = [], 0
        self._finish()
        if lines:
            lines.append(b"")
            yield b"\n".join(lines)

    def _finish(self) -> None:
        """Tell the driver that the result is read."""
        self._result.unbuffered_active = False
        self._result.connection = None
        self._connection._result = None
        self._cursor._result = None
        self._cursor.connection = None

    def _packet(self) -> tuple[bytes, int, int]:
        """Return the next packet as a part of a buffer."""
        start = self._need(4)
        buffer = self._buffer
        length = buffer[start] | buffer[start + 1] << 8 | buffer[start + 2] << 16
        start = self._need(4 + length) + 4
        self._place = start + length
        if length < _FULL_PACKET:
            return self._buffer, start, start + length
        parts = [self._buffer[start : start + length]]
        while length == _FULL_PACKET:
            begin = self._need(4)
            length = int.from_bytes(self._buffer[begin : begin + 3], "little")
            begin = self._need(4 + length) + 4
            parts.append(self._buffer[begin : begin + length])
            self._place = begin + length
        joined = b"".join(parts)
        return joined, 0, len(joined)

    def _need(self, count: int) -> int:
        """Have so many bytes in the buffer; return where they begin."""
        if len(self._buffer) - self._place < count:
            parts = [self._buffer[self._place :]]
            have = len(parts[0])
            while have < count:
                chunk = self._connection._rfile.read1(max(_CHUNK_BYTES, count - have))
                if not chunk:
                    raise EOFError("the server closed the connection")
                parts.append(chunk)
                have += len(chunk)
            self._buffer, self._place = b"".join(parts), 0
        return self._place

    @staticmethod
    def send(connection: Any, sql: str, content: pa.Buffer | None) -> tuple[int, int]:
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


__all__ = ["Blocks"]
