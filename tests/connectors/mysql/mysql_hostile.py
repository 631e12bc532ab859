"""A loopback proxy in front of MariaDB that, instead of an answer, asks the client for one of its files."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from syncblocks.connectors.errors import ConnectorError
from tests.connectors.mysql.mysql_proxy import Proxy, _end, serving


class Hostile(Proxy):
    """Asks for a file in the place of the answer to one command, by its number over all connections.

    `received` is all that clients have sent, `reached` whether there was a command of that number.
    """

    def __init__(self, url: str, number: int, file: Path) -> None:
        super().__init__(url, 0, 0)
        self._number = number
        self._count = itertools.count()
        payload = b"\xfb" + str(file).encode()
        self._request = len(payload).to_bytes(3, "little") + b"\1" + payload
        self.received = bytearray()
        self.reached = False

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        is_asked = is_known = False
        with suppress(OSError), client.makefile("rb") as packets:
            while header := packets.read(4):
                payload = packets.read(int.from_bytes(header[:3], "little"))
                self.received += payload
                # The first packet of a command has the number 0; the content of a file has others.
                is_command = header[3] == 0 and not is_asked
                if is_command and payload[:1] != b"\1" and next(self._count) == self._number:
                    self.reached = is_asked = True
                    client.sendall(self._request)
                elif is_asked and header[3] == 0:
                    break  # the client took no notice, and goes on
                elif not is_asked:
                    server.sendall(header + payload)
                elif not payload and not is_known:
                    is_known = True
                    client.sendall(b"\7\0\0" + bytes([header[3] + 1]) + b"\0\0\0\2\0\0\0")
        _end(client, server)


def sent_to_a_hostile_server(url: str, file: Path, operate: Callable[[str], object]) -> tuple[int, bytes]:
    """Operate over and over, with each command answered that way once; return how many there are, and all was sent."""
    received = bytearray()
    for number in itertools.count():
        # Errors are what is expected; nothing else may come out.
        with serving(Hostile(url, number, file)) as between, suppress(ConnectorError):
            operate(between.url)
        received += between.received
        if not between.reached:
            return number, bytes(received)
    raise AssertionError
