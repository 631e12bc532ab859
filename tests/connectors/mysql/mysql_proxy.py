"""A loopback proxy in front of MariaDB that refuses some commands, as proxies do that do not know them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

PREPARE, EXECUTE = 0x16, 0x17


class Proxy:
    """Forwards everything but the commands that it refuses, by an error of this number; `refused` counts these."""

    def __init__(self, url: str, command: int, error: int) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 3306)
        self._listener = socket.create_server(("127.0.0.1", 0))
        user = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self._listener.getsockname()[1]}"))
        self.refused = 0
        self._command = command
        payload = b"\xff" + error.to_bytes(2, "little") + b"#HY000refused"
        self._answer = len(payload).to_bytes(3, "little") + b"\1" + payload
        self._sockets: list[socket.socket] = [self._listener]

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._sockets += [client, server]
            for pump in (self._ask, self._tell):
                threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        """Forward what the client sends, packet by packet."""
        with suppress(OSError), client.makefile("rb") as packets:
            while header := packets.read(4):
                payload = packets.read(int.from_bytes(header[:3], "little"))
                # The first packet of a command has the number 0; others are passed on.
                if header[3] == 0 and payload[:1] == bytes([self._command]):
                    self.refused += 1
                    client.sendall(self._answer)
                else:
                    server.sendall(header + payload)
        _end(client, server)

    def _tell(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            greeting = bytearray(server.recv(1 << 16))
            # Behind a version, a number, a salt and a zero: what the server can, of which we hide TLS.
            greeting[greeting.index(0, 5) + 15] &= ~0x08
            data = bytes(greeting)
            while data:
                client.sendall(data)
                data = server.recv(1 << 16)
        _end(client, server)

    def close(self) -> None:
        # `close` alone does not end a connection that another thread reads: the server would keep its transaction.
        _end(*self._sockets)


P = TypeVar("P", bound=Proxy)


def _end(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextmanager
def proxy(url: str, command: int, error: int) -> Iterator[Proxy]:
    """Run a proxy until the block is left."""
    with serving(Proxy(url, command, error)) as made:
        yield made


@contextmanager
def serving(made: P) -> Iterator[P]:
    """Run it until the block is left."""
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join(5)
