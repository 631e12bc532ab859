"""A loopback proxy in front of PostgreSQL that counts round trips: how often a client waits for an answer."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.connectors.postgres.postgres_proxy import Proxy

#: The statement that locks a run's row, in a message that parses it; its name if it is a prepared one.
LOCK = re.compile(rb"P....([^\0]*)\0SELECT id, pipeline, attempt[^\0]*FOR UPDATE", re.DOTALL)


class Counting(Proxy):
    """Counts `trips`, and of them those `locked`: waits for an answer that began while a run's row was locked."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.trips = self.locked = 0

    def _pump(self, source: socket.socket, sink: socket.socket, state: dict[str, Any], is_client: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    if is_client:
                        self._ask(data, state)
                    elif state.pop("is_waiting", False):
                        self.trips += 1
                        self.locked += state.pop("was_locked", False)
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _ask(self, data: bytes, state: dict[str, Any]) -> None:
        names = state.setdefault("names", set())
        if not state.get("is_waiting"):  # not another part of what was sent before
            state["was_locked"] = state.get("is_locked", False)
        if found := LOCK.search(data):
            names.update({found[1]} - {b""})
        if found or any(b"\0" + name + b"\0" in data for name in names):
            state["is_locked"] = True
        if b"COMMIT" in data or b"ROLLBACK" in data:
            state["is_locked"] = False
        state["is_waiting"] = True


@contextmanager
def counted(url: str) -> Iterator[Counting]:
    """Run a proxy until the block is left."""
    made = Counting(url)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join(5)
