"""Messages of a logical replication stream, as they come out of the copy-both stream.

Source: PostgreSQL, Streaming Replication Protocol; Logical Replication Message Formats (protocol version 1).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from ...arrow.gather import MARGIN, Buffer, Places, values_at
from ...errors import FatalConnectorError

#: Bytes before the message: its kind, where it begins in the log, where the log ends, and when it was sent.
_HEADER = 25
_DATA = ord("w")

BEGIN, COMMIT, RELATION, TRUNCATE = b"BCRT"
INSERT, UPDATE, DELETE = b"IUD"

#: Messages that say nothing of records: types, origins, and what `pg_logical_emit_message` writes.
_SKIPPED = b"YOM"
_KNOWN = np.zeros(256, bool)
_KNOWN[list(b"BCRTIUD" + _SKIPPED)] = True

#: Bytes of a transaction's begin and of its commit, their kind included.
_BEGIN_BYTES, _COMMIT_BYTES = 21, 26

_column = struct.Struct(">Ii")

#: Microseconds from Arrow's first moment to PostgreSQL's.
_EPOCH_US = 946_684_800_000_000


class Column(Struct, frozen=True):
    """A column of a relation, as the log has it."""

    name: str
    #: Number of its type.
    type_id: int
    #: Length, digits and the like; -1: none.
    modifier: int
    #: It is a part of the replica identity.
    is_key: bool


class Relation(Struct, frozen=True):
    """A table, as the log has it from some change on."""

    oid: int
    schema: str
    name: str
    #: `d` (primary key), `i` (an index), `f` (all columns) or `n` (none).
    identity: str
    columns: tuple[Column, ...]


def lsn_text(lsn: int) -> str:
    """Write a place in the log as the server does."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """Read a place in the log."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def broken(lsn: int, reason: str) -> FatalConnectorError:
    """Return the error for a message that does not keep to the protocol."""
    text = f"the server's log stream is damaged at {lsn_text(lsn)}: {reason}; run again, the position is kept"
    return FatalConnectorError(text, connector="postgres", has_no_values=True)


class Block:
    """Some messages, one after the other in one buffer."""

    def __init__(self, messages: Sequence[bytes | memoryview]) -> None:
        """Join messages of the copy-both stream, each with its header; together less than 2 GiB.

        Raises:
            FatalConnectorError: one is none, or of a kind that was not asked for.
        """
        joined = b"".join([*messages, bytes(MARGIN)])
        self.data = joined
        self.buffer: Buffer = np.frombuffer(joined, np.uint8)
        self.ends: Places = np.cumsum(np.fromiter(map(len, messages), np.int64, len(messages)))
        #: Where the message's own bytes begin: its kind.
        self.at: Places = np.concatenate((np.zeros(1, np.int64), self.ends[:-1])) + _HEADER if messages else self.ends
        if (is_short := self.at >= self.ends).any():
            raise broken(0, f"message {int(np.argmax(is_short))} of a block is too short")
        self.check(self.buffer[self.at - _HEADER] == _DATA, "a message without a place in the log")
        self.kinds = self.buffer[self.at]
        self.check(_KNOWN[self.kinds], "a kind of message that was not asked for")

    def __len__(self) -> int:
        return len(self.ends)

    def check(self, is_right: np.ndarray, reason: str, of: Places | None = None) -> None:
        """Refuse the block where a message is wrong, naming the first one's place in the log.

        Args:
            is_right: a flag a message.
            reason: what is wrong.
            of: numbers of the messages that the flags are of; None: of all.
        """
        if not is_right.all():
            place = int(np.argmin(is_right))
            raise self.error(place if of is None else int(of[place]), reason)

    def error(self, number: int, reason: str) -> FatalConnectorError:
        """Return the error for one message."""
        return broken(int(values_at(self.buffer, self.at[number : number + 1] - 24, ">u8")[0]), reason)

    def body(self, number: int) -> bytes:
        """Return a message without its kind."""
        return self.data[self.at[number] + 1 : self.ends[number]]

    def begins(self, numbers: Places) -> tuple[Places, Places]:
        """Read the begins of transactions: where their commit records begin, and microseconds since 1970, UTC."""
        at, is_whole = self.at[numbers], self.ends[numbers] - self.at[numbers] == _BEGIN_BYTES
        self.check(is_whole, "a transaction's begin has another length", numbers)
        return self._numbers(at + 1), self._numbers(at + 9) + _EPOCH_US

    def commits(self, numbers: Places) -> tuple[Places, Places]:
        """Read the ends of transactions: where their commit records begin, and where they end."""
        at, is_whole = self.at[numbers], self.ends[numbers] - self.at[numbers] == _COMMIT_BYTES
        self.check(is_whole, "a transaction's commit has another length", numbers)
        return self._numbers(at + 2), self._numbers(at + 10)

    def _numbers(self, at: Places) -> Places:
        return values_at(self.buffer, at, ">i8").astype(np.int64)

    def truncated(self, number: int) -> list[int]:
        """Read which relations are truncated."""
        body = self.body(number)
        count = int.from_bytes(body[:4], "big")
        if len(body) != 5 + 4 * count:
            raise self.error(number, "a TRUNCATE has another length")
        return list(struct.unpack(f">{count}I", body[5:]))

    def relation(self, number: int) -> Relation:
        """Read the description of a table."""
        try:
            return _relation(self.body(number))
        except (ValueError, IndexError, struct.error):
            raise self.error(number, "the description of a table is cut or too long") from None


def _relation(body: bytes) -> Relation:
    oid = int.from_bytes(body[:4], "big")
    schema, at = _text(body, 4)
    name, at = _text(body, at)
    identity, (count,) = chr(body[at]), struct.unpack_from(">H", body, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        flags = body[at]
        column, at = _text(body, at + 1)
        type_id, modifier = _column.unpack_from(body, at)
        at += _column.size
        columns.append(Column(column, type_id, modifier, bool(flags & 1)))
    if at != len(body):
        raise ValueError("more than its columns")
    return Relation(oid, schema, name, identity, tuple(columns))


def _text(body: bytes, at: int) -> tuple[str, int]:
    """Read a text that ends with a zero; return where the next field begins."""
    end = body.index(0, at)
    return body[at:end].decode(), end + 1


__all__ = [
    "BEGIN",
    "COMMIT",
    "DELETE",
    "INSERT",
    "RELATION",
    "TRUNCATE",
    "UPDATE",
    "Block",
    "Column",
    "Relation",
    "broken",
    "lsn_text",
    "parse_lsn",
]
