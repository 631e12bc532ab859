"""How long to wait for a network that does not answer any more. A server that works is never given up.

The kernel of a server answers keepalives whatever its statement does, so that none of this limits a statement. Where
packets are lost without a word, nobody else would ever say that the connection is gone.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: Seconds until a connection has to be there, login included.
CONNECT_TIMEOUT_S = 30
#: Seconds without any sign of life after which a connection is given up.
NETWORK_TIMEOUT_S = 60

CONNECT_TIMEOUT = "Seconds until a connection has to be there, login included"
NETWORK_TIMEOUT = "Seconds after which a connection is given up whose other end answers no keepalive, whatever it does"

#: Probes that stay without an answer before a connection is given up.
_PROBES = 3


class Keepalive(NamedTuple):
    """When a silent connection is probed, and given up."""

    idle_s: int
    interval_s: int
    probes: int


def keepalive(network_timeout_s: int) -> Keepalive:
    """Return probes of which the last one is overdue when the time is up: half of it passes before the first one."""
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


def limit_socket(connected: Any, parameters: Mapping[str, str]) -> None:
    """Set on a driver's socket what libpq would set on its own; one of the machine itself (no TCP) stays as it is.

    Args:
        connected: the socket, or what has its methods.
        parameters: as libpq's URLs have them; others are of no effect.
    """
    if connected.family == getattr(socket, "AF_UNIX", None):
        return
    is_probed = parameters.get("keepalives", "1") != "0"
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(is_probed))
    for name, option in _OPTIONS.items():
        number = getattr(socket, option, None)  # not every system has all of them
        if number is not None and int(parameters.get(name, "0")) > 0:
            connected.setsockopt(socket.IPPROTO_TCP, number, int(parameters[name]))


class Canceller:
    """Asks for a statement's end in a thread of its own: most drivers open a second connection, which may hang.

    It closes the session's connection as well: no driver likes that while it is asked something.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_asking = self._is_closed = False
        self._close: Callable[[], None] | None = None

    def start(self, ask: Callable[[], None]) -> None:
        """Call in the background, unless such a call is under way or the session is closed; it must not raise."""
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
        """Call once: now, or when the call in the background is over; it must not raise."""
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
    "SOCKET_PARAMETERS",
    "Canceller",
    "Keepalive",
    "keepalive",
    "libpq_parameters",
    "limit_socket",
]
