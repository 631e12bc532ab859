"""A loopback proxy in front of PostgreSQL that loses the answers to some COMMITs: the server has kept them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Forwards bytes; `lost` counts the commits whose answer was dropped, with the connection.

    `listener` has an address and may not listen yet: until it does, who connects is refused.
    """

    def __init__(self, url: str, listener: socket.socket | None = None) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        user = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self._listener.getsockname()[1]}"))
        #: Numbers of the commits, from 1, whose answers are lost.
        self.loses: set[int] = set()
        self.commits = self.lost = 0
        #: Whether no answer to a commit comes from now on, and the connection stays open; `held` is set with the first.
        self.holds, self.held = False, threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = [self._listener]

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            with self._lock:
                self._sockets += [client, server]
            state = {"drops": False, "holds": False}
            for pump in ((client, server, state, True), (server, client, state, False)):
                threading.Thread(target=self._pump, args=pump, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, state: dict[str, bool], is_client: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if is_client and b"commit\0" in data.lower():
                    with self._lock:
                        self.commits += 1
                        state["drops"] = self.commits in self.loses
                        state["holds"] = self.holds
                elif not is_client and state["drops"]:
                    self.lost += 1
                    break
                elif not is_client and state["holds"]:
                    self.held.set()
                    continue
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._sockets:
            each.close()


@contextmanager
def proxy(url: str) -> Iterator[Proxy]:
    """Run a proxy until the block is left."""
    made = Proxy(url)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join(5)
