"""Answers of a MySQL server, recorded and then damaged at random."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Any

import msgspec
import pyarrow as pa

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.mysql.results import select, select_texts
from syncblocks.connectors.mysql.session import MySQLSession
from syncblocks.connectors.mysql.settings import MySQLAddress
from tests.connectors.mysql.mysql_databases import run
from tests.connectors.mysql.mysql_proxy import Proxy, serving
from tests.fuzz.loop import ODD, read_file, touch

TABLE = """create table t (id int unsigned primary key, flag tinyint(1), n bigint, r float, d double, born year,
m decimal(20,4), day date, at datetime(6), span time(6), name varchar(20), note longtext, raw longblob, b bit(9))"""
RECORDS = """insert into t values
(1, 1, -5, 1.5, 1e-300, 2024, -0.5, '2024-02-29', '2024-02-29 23:59:59.5', '10:00:00.25', 'é', repeat('x', 300),
 x'00fffb', b'101'), (2, 0, 7, 0.1, 2.5, 1901, 99.9999, '0001-01-01', '1000-01-01', '00:00:00', '', repeat('y', 70000),
 '', b'1'), (3, null, null, null, null, null, null, null, null, null, null, null, null, null),
(4, 1, 1, 1, 1, 2000, 1, '2024-01-01', '2024-01-01 10:00:00', '23:59:59', 'name', 'z', 'w', b'0')"""


def packets(stream: bytes) -> list[bytes]:
    """Take answers apart into packets, each with its header."""
    found, at = [], 0
    while at < len(stream):
        end = at + 4 + int.from_bytes(stream[at : at + 3], "little")
        found.append(stream[at:end])
        at = end
    return found


def worse(stream: bytes, chance: random.Random) -> bytes:
    """Return the answers with something wrong: bytes, lengths, whole packets, or the end missing."""
    parts = packets(stream)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        place = chance.randrange(len(parts))
        part = bytearray(parts[place])
        kind = chance.randrange(9)
        if kind <= 3 and len(part) > 4:  # a byte, anywhere behind the header
            at = chance.randrange(4, len(part))
            part[at] = chance.choice((*ODD, chance.randrange(256)))
        elif kind == 4 and len(part) > 12:  # a length of eight bytes
            at = chance.randrange(4, len(part) - 8)
            part[at : at + 9] = b"\xfe" + chance.choice((2**63 - 1, 2**64 - 1, 2**31, chance.getrandbits(64))).to_bytes(
                8, "little"
            )
        elif kind == 5:  # the packet is longer or shorter than its header says
            part[:3] = chance.choice((0, 1, len(part), 0xFFFFFF, chance.randrange(1 << 16))).to_bytes(3, "little")
        elif kind == 6 and len(part) > 5:  # cut, with a header that fits
            part = part[: chance.randrange(4, len(part))]
            part[:3] = (len(part) - 4).to_bytes(3, "little")
        elif kind == 7:  # more of it, with a header that fits
            part += bytes(chance.choices(ODD, k=chance.randrange(1, 40)))
            part[:3] = (len(part) - 4).to_bytes(3, "little")
        else:
            parts.insert(place, parts[chance.randrange(len(parts))])
        parts[place] = bytes(part)
    whole = b"".join(parts)
    return whole[: chance.randrange(len(whole))] if chance.random() < 0.1 else whole


class Replay:
    """A server that says the same to everybody: each command is answered by the next of some answers."""

    def __init__(self, greeting: bytes, answers: Sequence[bytes]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._greeting, self._answers = greeting, answers
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        # A client that waits for the rest of a packet would do so for ever.
        client.settimeout(0.1)
        with client, suppress(OSError), client.makefile("rb") as sent:
            client.sendall(self._greeting)
            for answer in self._answers:
                header = sent.read(4)
                if len(header) < 4:
                    return
                sent.read(int.from_bytes(header[:3], "little"))
                client.sendall(answer)
            client.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)


def read(port: int, *, is_text: bool) -> list[pa.RecordBatch]:
    """Read over a session, as a source does."""
    address = MySQLAddress(host="127.0.0.1", port=port, user="root")
    run = select_texts if is_text else select
    with closing(MySQLSession(address, "start transaction", "read committed", 60)) as session:
        try:
            batches = list(run(session._connection, "select * from t"))
        except Exception as error:
            raise session._failure(error) from error
    for batch in batches:
        batch.validate(full=False)
        touch(batch)
    return batches


class Recorder(Proxy):
    """Keeps what a server says to one connection: its greeting, then the answer to each packet of the client."""

    def __init__(self, url: str) -> None:
        super().__init__(url, 0, 0)
        self.answers: list[bytearray] = [bytearray()]

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(1 << 16):
                self.answers.append(bytearray())
                server.sendall(data)
        except OSError:
            pass
        for end in (client, server):
            end.close()

    def _tell(self, client: socket.socket, server: socket.socket) -> None:
        try:
            greeting = bytearray(server.recv(1 << 16))
            greeting[greeting.index(0, 5) + 15] &= ~0x08  # no TLS
            data = bytes(greeting)
            while data:
                self.answers[-1] += data
                client.sendall(data)
                data = server.recv(1 << 16)
        except OSError:
            pass


Recorded = tuple[bytes, list[bytes], list[bytes], bool]


def recorded(url: str) -> list[Recorded]:
    """Return what a server says to a read, in both protocols."""
    run(url, TABLE, RECORDS)
    return [_recorded(url, read) for read in (select, select_texts)]


def _recorded(url: str, read: Any) -> Recorded:
    """Return greeting, the answers to the setup, and those to the SELECT."""
    with serving(Recorder(url)) as between:
        port = int(between.url.rpartition(":")[2].partition("/")[0])
        address = MySQLAddress(host="127.0.0.1", port=port, user="root", database=url.rpartition("/")[2])
        with closing(MySQLSession(address, "start transaction", "read committed", 60)) as session:
            count = len(between.answers)
            assert sum(len(batch) for batch in read(session._connection, "select * from t")) == 4
            answers = [bytes(each) for each in between.answers]
    return answers[0], answers[1:count], [each for each in answers[count:] if each], read is select_texts


def fuzzer(prepared: str) -> Callable[[random.Random], str]:
    known = msgspec.msgpack.decode(read_file(prepared), type=list[Recorded])

    def once(chance: random.Random) -> str:
        greeting, setup, answers, is_text = chance.choice(known)
        # One in ten of the damaged answers is one to the session's own questions.
        if chance.random() < 0.1:
            place = chance.randrange(len(setup))
            setup = [*setup[:place], worse(setup[place], chance), *setup[place + 1 :]]
        else:
            place = chance.randrange(len(answers))
            answers = [*answers[:place], worse(answers[place], chance), *answers[place + 1 :]]
        with closing(Replay(greeting, [*setup, *answers])) as server:
            try:
                read(server.port, is_text=is_text)
            except ConnectorError as error:
                return type(error).__name__
        return "read"

    return once
