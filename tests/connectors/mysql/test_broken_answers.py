"""A server that is broken, or hostile, is told so: no answer of its makes us crash, hang or read what is not there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("pymysql")

from syncblocks.connectors.mysql.failures import BrokenAnswer
from syncblocks.connectors.mysql.packets import MARGIN, Packets
from syncblocks.connectors.mysql.records import Kind, decode, decode_texts
from syncblocks.connectors.mysql.results import select, select_texts
from syncblocks.connectors.mysql.session import MySQLSession
from syncblocks.connectors.mysql.settings import Address
from tests.connectors.mysql.mysql_databases import run
from tests.connectors.mysql.mysql_proxy import Proxy, serving

ROOT = Path(__file__).parents[3]
TRIES = 10_000 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 500

TABLE = """create table t (id int unsigned primary key, flag tinyint(1), n bigint, r float, d double, born year,
m decimal(20,4), day date, at datetime(6), span time(6), name varchar(20), note longtext, raw longblob, b bit(9))"""
RECORDS = """insert into t values
(1, 1, -5, 1.5, 1e-300, 2024, -0.5, '2024-02-29', '2024-02-29 23:59:59.5', '10:00:00.25', 'é', repeat('x', 300),
 x'00fffb', b'101'), (2, 0, 7, 0.1, 2.5, 1901, 99.9999, '0001-01-01', '1000-01-01', '00:00:00', '', repeat('y', 70000),
 '', b'1'), (3, null, null, null, null, null, null, null, null, null, null, null, null, null),
(4, 1, 1, 1, 1, 2000, 1, '2024-01-01', '2024-01-01 10:00:00', '23:59:59', 'name', 'z', 'w', b'0')"""

TEXT, NUMBER, MOMENT, SPAN = (
    Kind(253, False, True),
    Kind(8, False, False),
    Kind(12, False, False),
    Kind(11, False, False),
)


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


def recorded(url: str, read: Any) -> tuple[bytes, list[bytes], list[bytes], bool]:
    """Return greeting, the answers to the setup, and those to the SELECT."""
    with serving(Recorder(url)) as between:
        port = int(between.url.rpartition(":")[2].partition("/")[0])
        address = Address(host="127.0.0.1", port=port, user="root", database=url.rpartition("/")[2])
        with closing(MySQLSession(address, "start transaction", "read committed", 60)) as session:
            count = len(between.answers)
            assert sum(len(batch) for batch in read(session._connection, "select * from t")) == 4
            answers = [bytes(each) for each in between.answers]
    return answers[0], answers[1:count], [each for each in answers[count:] if each], read is select_texts


def test_damaged_answers_are_errors_or_values_never_a_crash(mariadb_url: str, tmp_path: Path) -> None:
    run(mariadb_url, TABLE, RECORDS)
    file = tmp_path / "recorded"
    file.write_bytes(msgspec.msgpack.encode([recorded(mariadb_url, read) for read in (select, select_texts)]))
    outcome = subprocess.run(
        [sys.executable, "-m", "tests.connectors.mysql.mysql_fuzz", str(file), "0", str(TRIES)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=TRIES,
    )  # fmt: skip
    assert outcome.returncode == 0, (outcome.stdout[-200:], outcome.stderr[-2000:])


def block(*payloads: bytes) -> tuple[Any, Any, Any]:
    """Return payloads as `Packets` hands them out."""
    stream = b"".join(len(each).to_bytes(3, "little") + b"\0" + each for each in payloads)
    bounds = np.cumsum([0, *(4 + len(each) for each in payloads)])
    return np.frombuffer(stream + bytes(MARGIN), np.uint8), bounds[:-1] + 4, bounds[1:]


#: More than the three bytes that follow; the longest ones are negative, or make a sum overflow.
EIGHT_BYTES = [each.to_bytes(8, "little") for each in (6, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)]


@pytest.mark.parametrize(
    "length", [b"\x05", b"\xfa", b"\xfc\xff\xff", b"\xfd\xff\xff\xff", *(b"\xfe" + each for each in EIGHT_BYTES)]
)
def test_a_length_past_the_packet_is_refused(length: bytes) -> None:
    good, bad = b"\0\0\4good", b"\0\0" + length + b"bad"
    for payloads in ((bad,), (bad, good), (good, bad), (good, bad, good)):
        with pytest.raises(BrokenAnswer):
            decode(*block(*payloads), [TEXT])
        with pytest.raises(BrokenAnswer):
            decode_texts(*block(*(each[2:] for each in payloads)), [TEXT])


@pytest.mark.parametrize(
    ("payload", "kinds"),
    [
        (b"\0", [NUMBER]),
        (b"\0\0" + bytes(7), [NUMBER]),
        (b"\0\0" + bytes(9), [NUMBER]),
        (b"\0\0", [NUMBER] * 4),
        (b"\0" + bytes(40), [NUMBER] * 4000),
        (b"\0\0\xfb", [TEXT]),
        (b"\0\0\xff", [TEXT]),
        (b"\0\0\x05" + bytes(5), [MOMENT]),
        (b"\0\0\x0b" + bytes(7), [MOMENT]),
        (b"\0\0\x0c\0\xff\xff\xff\xff" + bytes(7), [SPAN]),
    ],
)
def test_a_record_that_is_not_as_long_as_its_packet_is_refused(payload: bytes, kinds: list[Kind]) -> None:
    with pytest.raises(BrokenAnswer):
        decode(*block(payload), kinds)


@pytest.mark.parametrize("is_text", [False, True])
@pytest.mark.parametrize("ending", [b"", b"\xff\1", b"\xfe" + bytes(9)])
def test_an_end_that_is_none_is_refused(ending: bytes, is_text: bool) -> None:
    stream = b"".join(len(each).to_bytes(3, "little") + b"\0" + each for each in (b"\0\0\1x", ending, b"\xfe\0\0\0\0"))
    with pytest.raises(BrokenAnswer):
        list(Packets(stream, lambda view: 0, is_text=is_text))
