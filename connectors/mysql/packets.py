"""Packets of a result, read in large blocks: an object for each would take longer than the server needs for it.

Source: MySQL, Client/Server Protocol, Packets.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np

from ..arrow.gather import MARGIN, Buffer, Places
from ..errors import FatalConnectorError
from .failures import broken_answer

_BLOCK_BYTES = 4 << 20
_BLOCK_RECORDS = 65_536

_HEADER = 4
#: A packet of this length continues in the next one.
_FULL = 0xFFFFFF
#: Arrow counts the bytes of a block in 32 bits.
_LONGEST = 2**31 - 1 - MARGIN

#: First byte of what ends the result, from this on, in the binary protocol and in that of texts; without an error.
_ENDS, _TEXT_ENDS, _END = 0x01, 0xFE, 0xFE

#: First byte of an error packet, the fewest bytes that it has, and the most that a packet at the end of a result has.
_ERROR, _LEAST_ERROR, _MOST_END = 0xFF, 3, 8

_length_at = struct.Struct("<I").unpack_from


class Packets:
    """The records of a result."""

    def __init__(self, first: bytes, read_into: Callable[[memoryview], int], *, is_text: bool = False) -> None:
        """Begin with some bytes; `read_into` waits for more, puts them into a buffer, and returns how many it did.

        It returns 0 where the connection was closed. `is_text`: records are texts, not in the binary protocol.
        """
        self._read_into = read_into
        # A text whose length begins with this byte fills its packet, and such packets are not looked at.
        self._ends = _TEXT_ENDS if is_text else _ENDS
        #: First byte of a record in several packets, at most.
        self._most = _TEXT_ENDS if is_text else _ENDS - 1
        self._buffer: Buffer = np.empty(_BLOCK_BYTES + MARGIN, np.uint8)
        self._view = self._buffer.data
        #: Where the first unread packet begins, and where the bytes in the buffer end.
        self._start, self._end = 0, len(first)
        self._view[: len(first)] = first
        #: The error packet that ended the records, if there is one.
        self.error = b""

    def __iter__(self) -> Iterator[tuple[Buffer, Places, Places]]:
        """Yield a buffer, which the next block overwrites, and where in it payloads begin and end, up to the last one.

        Raises:
            BrokenAnswer: a packet that is neither a record nor an end.
        """
        while True:
            starts = self._whole()
            if not starts:
                joined = self._joined()
                if joined[0] > self._most:
                    raise broken_answer("several packets without a record")
                yield joined, np.zeros(1, np.int64), np.full(1, len(joined) - MARGIN, np.int64)
                continue
            # Packets follow one another: each ends where the next one's header begins.
            bounds = np.array([*starts, self._start], np.int64)
            places, ends = bounds[:-1] + _HEADER, bounds[1:]
            if (places == ends).any():
                raise broken_answer("a record is empty")
            others = np.flatnonzero(self._buffer[places] >= self._ends)
            if len(others):
                last = others[0]
                self.error = _error(bytes(self._view[places[last] : ends[last]]))
                places, ends = places[:last], ends[:last]
            for first in range(0, len(places), _BLOCK_RECORDS):
                block = slice(first, first + _BLOCK_RECORDS)
                yield self._buffer, places[block], ends[block]
            if len(others):
                return

    def _is_over(self, starts: list[int]) -> bool:
        """Tell whether the last packet ends the result."""
        return self._start == self._end and int(self._buffer[starts[-1] + _HEADER]) >= self._ends

    def _whole(self) -> list[int]:
        """Return where the packets of a block begin; none: the first one goes on in the next."""
        self._have(_HEADER)
        starts: list[int] = []
        add, length_at = starts.append, _length_at
        start = 0
        while True:
            view, last = self._view, self._end - _HEADER
            # Each of these steps is taken for each record.
            while start <= last:
                add(start)
                start += (length_at(view, start)[0] & _FULL) + _HEADER
            if start > self._end:
                start = starts.pop()
            self._start = start
            length = length_at(view, start)[0] & _FULL if start <= last else 0
            if length == _FULL or (starts and (last + _HEADER >= _BLOCK_BYTES or self._is_over(starts))):
                return starts
            if starts:
                self._read()
            else:
                self._have(_HEADER + length)

    def _joined(self) -> Buffer:
        """Return the payload of a record that is in several packets."""
        parts, length, size = [], _FULL, 0
        while length == _FULL:
            self._have(_HEADER)
            length = _length_at(self._view, self._start)[0] & _FULL
            self._start, size = self._start + _HEADER, size + length
            if size > _LONGEST:
                raise FatalConnectorError("a record has more than 2 GiB", connector="mysql")
            missing = length
            while missing:
                self._have(1)
                parts.append(bytes(self._view[: min(missing, self._end)]))
                self._start = len(parts[-1])
                missing -= self._start
        return np.frombuffer(b"".join([*parts, bytes(MARGIN)]), np.uint8)

    def _have(self, count: int) -> None:
        """Have so many bytes from the first packet on, which is brought to the buffer's beginning.

        They are never more than a packet that is not full takes: one that is is never whole in the buffer.
        """
        rest = bytes(self._view[self._start : self._end])
        if count + MARGIN > len(self._view):
            self._buffer = np.empty(count + MARGIN, np.uint8)
            self._view = self._buffer.data
        self._view[: len(rest)] = rest
        self._start, self._end = 0, len(rest)
        while self._end < count:
            self._read()

    def _read(self) -> None:
        count = self._read_into(self._view[self._end : len(self._view) - MARGIN])
        if not count:
            raise EOFError("the server closed the connection")
        self._end += count


def _error(ending: bytes) -> bytes:
    """Return the error that ends a result, as the driver parses it; empty: it ends without one."""
    if ending[0] == _END and len(ending) <= _MOST_END:
        return b""
    if ending[0] != _ERROR or len(ending) < _LEAST_ERROR:
        raise broken_answer("the packet that ends a result is neither an end nor an error")
    return ending


__all__ = ["MARGIN", "Buffer", "Packets", "Places"]
