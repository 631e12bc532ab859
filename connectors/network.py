"""Timeouts for a network that no longer answers. They never limit a statement.

A server's kernel answers keepalives whatever its statement does. Where packets are lost in silence, only a missing
answer shows that the connection is gone.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: Seconds for opening a connection, login included.
CONNECT_TIMEOUT_S = 30
#: Seconds without an answer after which a connection is closed.
NETWORK_TIMEOUT_S = 60

CONNECT_TIMEOUT = "Maximum of seconds for a connection, including login"
NETWORK_TIMEOUT = "Seconds without an answer to keepalives until a connection is given up"

#: Unanswered probes after which a connection is closed.
_PROBES = 3


class Keepalive(NamedTuple):
    """When a silent connection is probed, and when it is closed."""

    idle_s: int
    interval_s: int
    probes: int


def keepalive(network_timeout_s: int) -> Keepalive:
    """Return the probes for a timeout: half of it passes before the first one, and the last one ends with it."""
    interval_s = max(1, network_timeout_s // (2 * _PROBES))
    return Keepalive(max(1, network_timeout_s - _PROBES * interval_s), interval_s, _PROBES)


def libpq_parameters(connect_timeout_s: int, network_timeout_s: int) -> dict[str, str]:
    """Return the limits as parameters of libpq's URLs."""
    idle_s, interval_s, probes = keepalive(network_timeout_s)
    return {
        "connect_timeout": str(connect_timeout_s),
        "keepalives_idle": str(idle_s),
        "keepalives_interval": str(interval_s),
        "keepalives_count": str(probes),
        "tcp_user_timeout": str(1000 * network_timeout_s),
    }


#: Parameters of libpq's that are options of a socket -> level, option.
_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}

#: Parameters of a URL that `limit_socket` takes from libpq.
SOCKET_PARAMETERS = frozenset({"keepalives", *_OPTIONS})


def is_unix(connected: Any) -> bool:
    """Tell whether a driver's socket is one in the file system of this machine."""
    return bool(connected.family == getattr(socket, "AF_UNIX", None))


def limit_socket(connected: Any, parameters: Mapping[str, str]) -> None:
    """Set the options on a driver's socket that libpq sets on its own; leave a Unix socket as it is.

    Args:
        connected: the socket, or an object with its methods.
        parameters: as in libpq's URLs; others have no effect.
    """
    if is_unix(connected):
        return
    is_probed = parameters.get("keepalives", "1") != "0"
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(is_probed))
    for name, option in _OPTIONS.items():
        number = getattr(socket, option, None)  # not every system has all of them
        if number is not None and int(parameters.get(name, "0")) > 0:
            connected.setsockopt(socket.IPPROTO_TCP, number, int(parameters[name]))


#: Seconds of silence after which a server is taken for one that does not speak first, and of one such question.
SILENT_S = 2

#: Bytes by which a client asks PostgreSQL for TLS; the answer is one letter.
_SSL_REQUEST = bytes.fromhex("00000008 04d2162f")


def speaks_postgres(host: str, port: int) -> bool:
    """Tell whether a server says nothing until it is spoken to, and then answers as PostgreSQL does."""
    answer = _answer(host, port, _SSL_REQUEST, 2)
    return answer in (b"S", b"N")


def speaks_mysql(host: str, port: int) -> bool:
    """Tell whether a server greets as MySQL and MariaDB do: size, number 0, version 10 of the protocol, or an error."""
    greeting = _answer(host, port, b"", 64)
    return len(greeting) > 5 and greeting[3] == 0 and greeting[4] in (10, 255)


def _answer(host: str, port: int, question: bytes, size: int) -> bytes:
    """Return the first bytes that a server says; none if it cannot be reached or says nothing."""
    try:
        with socket.create_connection((host, port), timeout=SILENT_S) as connected:
            connected.sendall(question)
            return connected.recv(size)
    except (OSError, UnicodeError):
        return b""


class Canceller:
    """Cancels a statement in a thread of its own: most drivers open a second connection for it, which may hang.

    It also closes the session's connection: no driver allows that during a call that cancels.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_asking = self._is_closed = False
        self._close: Callable[[], None] | None = None

    def start(self, ask: Callable[[], None]) -> None:
        """Call `ask` in the background, unless one is under way or the session is closed; `ask` must not raise."""
        with self._lock:
            if self._is_asking or self._is_closed:
                return
            self._is_asking = True

        def run() -> None:
            try:
                ask()
            finally:
                with self._lock:
                    self._is_asking, close = False, self._close
                if close is not None:
                    close()

        threading.Thread(target=run, name="cancel", daemon=True).start()

    def close(self, close: Callable[[], None]) -> None:
        """Call `close` once: now, or when the background call has ended; `close` must not raise."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            if self._is_asking:
                self._close = close
                return
        close()


__all__ = [
    "CONNECT_TIMEOUT",
    "CONNECT_TIMEOUT_S",
    "NETWORK_TIMEOUT",
    "NETWORK_TIMEOUT_S",
    "SILENT_S",
    "SOCKET_PARAMETERS",
    "Canceller",
    "Keepalive",
    "is_unix",
    "keepalive",
    "libpq_parameters",
    "limit_socket",
    "speaks_mysql",
    "speaks_postgres",
]
