"""Messages of a log stream made by hand, those of a server, and a plain decoder to compare with."""

from __future__ import annotations

import select
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from syncblocks.connectors.postgres.log.values import SESSION

#: An unchanged value that is stored apart.
UNCHANGED = object()

#: Microseconds from 1970 to 2000.
EPOCH_US = 946_684_800_000_000


def framed(message: bytes, lsn: int = 0x1000) -> bytes:
    return b"w" + struct.pack(">QQq", lsn, lsn, 0) + message


def begin(lsn: int, at: int = 0) -> bytes:
    return framed(b"B" + struct.pack(">QqI", lsn, at, 7), lsn)


def commit(lsn: int, end: int, at: int = 0) -> bytes:
    return framed(b"C" + struct.pack(">BQQq", 0, lsn, end, at), lsn)


def relation(oid: int, name: str, *columns: str, identity: str = "d", key: Sequence[str] = ("id",)) -> bytes:
    made = b"R" + struct.pack(">I", oid) + b"public\0" + name.encode() + b"\0" + identity.encode()
    made += struct.pack(">H", len(columns))
    for column in columns:
        made += bytes([column in key]) + column.encode() + b"\0" + struct.pack(">Ii", 25, -1)
    return framed(made, 0)


def fields(*values: object) -> bytes:
    made = struct.pack(">H", len(values))
    for value in values:
        if value is None or value is UNCHANGED:
            made += b"n" if value is None else b"u"
        else:
            text = str(value).encode()
            made += b"t" + struct.pack(">I", len(text)) + text
    return made


def insert(oid: int, *values: object) -> bytes:
    return framed(b"I" + struct.pack(">I", oid) + b"N" + fields(*values))


def update(oid: int, *values: object, key: Sequence[object] = (), old: Sequence[object] = ()) -> bytes:
    before = b"K" + fields(*key) if key else b"O" + fields(*old) if old else b""
    return framed(b"U" + struct.pack(">I", oid) + before + b"N" + fields(*values))


def delete(oid: int, *key: object, is_whole: bool = False) -> bytes:
    return framed(b"D" + struct.pack(">I", oid) + (b"O" if is_whole else b"K") + fields(*key))


def truncate(*oids: int) -> bytes:
    return framed(b"T" + struct.pack(f">IB{len(oids)}I", len(oids), 0, *oids))


class Reference:
    """The plain decoder: a message at a time, a value at a time."""

    def __init__(self) -> None:
        self.relations: dict[int, tuple[Any, ...]] = {}
        self.open: tuple[int, int] | None = None
        self.counted: dict[int, tuple[int, int]] = {}
        self.position = 0

    def decode(self, messages: Sequence[bytes]) -> list[tuple[Any, ...]]:
        """Return changes: relation, operation, commit LSN, commit time, number, new, old, whether that is whole.

        Raises:
            ValueError: (with its kin) a message is broken.
        """
        return [change for message in messages for change in self._read(message)]

    def _read(self, message: bytes) -> Iterator[tuple[Any, ...]]:
        head, body = message[:25], message[25:]
        _right(len(head) == 25 and head[:1] == b"w" and body)
        kind, body = body[:1], body[1:]
        if kind == b"B":
            _right(self.open is None and len(body) == 20)
            lsn, at, _ = struct.unpack(">QqI", body)
            self.open = (lsn, at + EPOCH_US)
        elif kind == b"C":
            _right(self.open is not None and len(body) == 25)
            _, lsn, end, _ = struct.unpack(">BQQq", body)
            _right(self.open is not None and self.open[0] == lsn)
            self.open, self.position = None, end
        elif kind == b"R":
            self._describe(body)
        elif kind == b"T":
            count, _ = struct.unpack_from(">IB", body)
            _right(self.open and len(body) == 5 + 4 * count)
            for oid in dict.fromkeys(struct.unpack(f">{count}I", body[5:])):
                yield self._change(oid, "T", None, None, None)
        elif kind in (b"I", b"U", b"D"):
            _right(self.open)
            yield self._tuples(kind.decode(), body)
        else:
            _right(kind in (b"Y", b"O", b"M"))

    def _describe(self, body: bytes) -> None:
        oid, rest = int.from_bytes(body[:4], "big"), body[4:]
        schema, rest = rest.split(b"\0", 1)
        name, rest = rest.split(b"\0", 1)
        (count,), identity, rest = struct.unpack(">H", rest[1:3]), chr(rest[0]), rest[3:]
        columns = []
        for _ in range(count):
            column, after = rest[1:].split(b"\0", 1)
            columns.append((column.decode(), *struct.unpack(">Ii", after[:8]), bool(rest[0] & 1)))
            rest = after[8:]
        _right(not rest)
        self.relations[oid] = (oid, schema.decode(), name.decode(), identity, tuple(columns))

    def _tuples(self, kind: str, body: bytes) -> tuple[Any, ...]:
        oid, at, old, is_whole = int.from_bytes(body[:4], "big"), 4, None, None
        _right(len(body) > 4)
        columns = len(self.relations[oid][4])
        if body[at : at + 1] in (b"K", b"O") and kind != "I":
            is_whole = body[at : at + 1] == b"O"
            old, at = _fields(body, at + 1, columns)
        new = None
        if kind != "D":
            _right(body[at : at + 1] == b"N")
            new, at = _fields(body, at + 1, columns)
        _right(at == len(body) and (kind != "D" or old is not None))
        return self._change(oid, kind, new, old, is_whole)

    def _change(self, oid: int, kind: str, new: Any, old: Any, is_whole: bool | None) -> tuple[Any, ...]:
        assert self.open is not None
        lsn, count = self.counted.get(oid, (-1, 0))
        count = count if lsn == self.open[0] else 0
        self.counted[oid] = (self.open[0], count + 1)
        return (self.relations[oid], kind, *self.open, count, new, old, is_whole)


def _right(is_right: object) -> None:
    if not is_right:
        raise ValueError("broken")


def _fields(body: bytes, at: int, columns: int) -> tuple[list[Any], int]:
    _right(int.from_bytes(body[at : at + 2], "big") == columns and len(body) >= at + 2)
    at += 2
    found: list[Any] = []
    for _ in range(columns):
        kind, at = body[at : at + 1], at + 1
        _right(kind and kind in b"ntu")
        if kind == b"t":
            _right(len(body) >= at + 4)
            end = at + 4 + int.from_bytes(body[at : at + 4], "big")
            _right(end <= len(body))
            found.append(body[at + 4 : end])
            at = end
        else:
            found.append(None if kind == b"n" else UNCHANGED)
    return found, at


def recorded(url: str, publication: str, slot: str, end: str) -> list[bytes]:
    """Return what the server sends of a slot, up to a place in its log, with this client's own settings."""
    import psycopg

    from syncblocks.connectors.postgres.log.messages import parse_lsn

    found: list[bytes] = []
    with closing(psycopg.connect(url, replication="database", autocommit=True)) as connection:
        pgconn = connection.pgconn
        for name, value in SESSION.items():
            pgconn.exec_(f"set {name} = '{value}'".encode())
        options = f"proto_version '1', publication_names '{publication}'"
        pgconn.exec_(f"START_REPLICATION SLOT {slot} LOGICAL 0/0 ({options})".encode())
        while True:
            size, data = pgconn.get_copy_data(1)
            if size > 0:
                message = bytes(data)
                if message[:1] == b"w":
                    found.append(message)
                elif int.from_bytes(message[1:9], "big") >= parse_lsn(end):
                    return found
            else:
                select.select([pgconn.socket], [], [], 10)
                pgconn.consume_input()
