"""The HTTP server, in a thread of its own: the main thread keeps the signals and the turns."""

from __future__ import annotations

import logging
import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from .patience import ARRIVES_S, MOST_CONNECTIONS, Patience

#: Open answers get so long to end when the server stops.
_END_S = 3
#: A longer head of a request is refused.
MOST_HEADER_BYTES = 32 * 1024


class Listening:
    """A context manager: answers requests while it is open."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, *, arrives_s: float = ARRIVES_S, most: int = MOST_CONNECTIONS
    ) -> None:
        """Answer on a bound socket. `arrives_s` and `most` are limits of `Patience`, for tests."""
        patience = Patience(app, arrives_s=arrives_s, most=most)
        # It warns of each request that is none: whoever can connect could fill the log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        config = uvicorn.Config(
            patience,
            http="h11",
            h11_max_incomplete_event_size=MOST_HEADER_BYTES,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=_END_S,
        )
        config.load()
        config.http_protocol_class = patience.limited(config.http_protocol_class)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="http", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(2 * _END_S)


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; port 0: a free one.

    Raises:
        OSError: the address is taken, or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol: else asyncio does not know that it is TCP, and each second answer of a connection waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
        listener.set_inheritable(False)
    except OSError:
        listener.close()
        raise
    return listener
