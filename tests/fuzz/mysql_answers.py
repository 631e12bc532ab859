"""Answers of a MySQL server, recorded and then damaged at random; run as a child process, which may crash.

`python -m tests.connectors.mysql.mysql_fuzz FILE SEED COUNT`: FILE holds what was recorded. Writes a line before each
try, so that the parent knows which one ended it, and at the end how many failed by which error.
"""

from __future__ import annotations

import random
import socket
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pyarrow as pa

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.mysql.results import select, select_texts
from syncblocks.connectors.mysql.session import MySQLSession
from syncblocks.connectors.mysql.settings import Address

#: What a length may begin with that is none of a byte; and other bytes at the edges of something.
_ODD = (0, 1, 0x7F, 0x80, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF)


def packets(stream: bytes) -> list[bytes]:
    """Take answers apart into packets, each with its header."""
    found, at = [], 0
    while at < len(stream):
        end = at + 4 + int.from_bytes(stream[at : at + 3], "little")
        found.append(stream[at:end])
        at = end
    return found


def damaged(stream: bytes, chance: random.Random) -> bytes:
    """Return the answers with something wrong: bytes, lengths, whole packets, or the end missing."""
    parts = packets(stream)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        place = chance.randrange(len(parts))
        part = bytearray(parts[place])
        kind = chance.randrange(9)
        if kind <= 3 and len(part) > 4:  # a byte, anywhere behind the header
            at = chance.randrange(4, len(part))
            part[at] = chance.choice((*_ODD, chance.randrange(256)))
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
            part += bytes(chance.choices(_ODD, k=chance.randrange(1, 40)))
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
    address = Address(host="127.0.0.1", port=port, user="root")
    run = select_texts if is_text else select
    with closing(MySQLSession(address, "start transaction", "read committed", 60)) as session:
        try:
            batches = list(run(session._connection, "select * from t"))
        except Exception as error:
            raise session._failure(error) from error
    for batch in batches:
        batch.validate(full=False)
        _looked_at(batch)
    return batches


def _looked_at(batch: pa.RecordBatch) -> None:
    """Touch every value, so that one which lies elsewhere is found out."""
    for column in batch.columns:
        if pa.types.is_string(column.type):
            with suppress(UnicodeDecodeError):  # checked where it is brought to the stream's schema
                column.to_pylist()
        else:
            with suppress(ValueError, OverflowError):  # years that Python has not
                column.to_pylist()


def main(file: Path, seed: int, count: int) -> None:
    recorded = msgspec.msgpack.decode(file.read_bytes(), type=list[tuple[bytes, list[bytes], list[bytes], bool]])
    found: Counter[str] = Counter()
    for number in range(seed, seed + count):
        chance = random.Random(number)
        greeting, setup, answers, is_text = recorded[number % len(recorded)]
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        # One in ten of the damaged answers is one to the session's own questions.
        if chance.random() < 0.1:
            place = chance.randrange(len(setup))
            setup = [*setup[:place], damaged(setup[place], chance), *setup[place + 1 :]]
        else:
            place = chance.randrange(len(answers))
            answers = [*answers[:place], damaged(answers[place], chance), *answers[place + 1 :]]
        with closing(Replay(greeting, [*setup, *answers])) as server:
            try:
                read(server.port, is_text=is_text)
                found["read"] += 1
            except ConnectorError as error:
                found[type(error).__name__] += 1
    sys.stdout.write(f"{dict(found)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
