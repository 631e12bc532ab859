"""How long a client may take to send a request, and how many connections there may be: each of them holds a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .guard import OPEN_PATHS

#: Seconds within which a request must arrive, counted from its connection or from the answer before.
ARRIVES_S = 5.0
#: A process may usually open 1,024 files; the store and the processes of runs need some.
MOST_CONNECTIONS = 300
#: Further connections on which only health checks are answered.
RESERVED = 20
#: Most connections of one address.
MOST_PER_ADDRESS = 50
#: Seconds after a request of a session or token during which the connections of its address have no limit.
TRUSTED_S = 60.0
#: Key of the scope of a request. Its value is called if the request has a valid session or token.
SIGNED_IN = "syncblocks.signed_in"

_Client = tuple[str, int]


def note_signed_in(scope: Any) -> None:
    """Note that a request has a valid session or token."""
    scope.get(SIGNED_IN, lambda: None)()


class Patience:
    """An ASGI application around another one, and the limits of its connections. For one event loop."""

    def __init__(self, app: ASGIApp, *, arrives_s: float = ARRIVES_S, most: int = MOST_CONNECTIONS) -> None:
        self._app = app
        self.arrives_s = arrives_s
        self._most = most
        #: Client -> its connection, the oldest first.
        self._connections: dict[_Client, _Limited] = {}
        #: Address -> monotonic time of its last request with a session or token.
        self._trusted: dict[str, float] = {}

    def admit(self, connection: _Limited) -> bool:
        """Return true if a new connection may stay. One that waits for its request longest may end in its place."""
        address, now = connection.client[0], asyncio.get_running_loop().time()
        self._trusted = {each: at for each, at in self._trusted.items() if now - at <= TRUSTED_S}
        self._connections[connection.client] = connection
        if address not in self._trusted:
            siblings = [each for each in self._connections.values() if each.client[0] == address]
            if len(siblings) > MOST_PER_ADDRESS and not _end_one(siblings[:-1]):
                return False
        if len(self._connections) > self._most and not _end_one(list(self._connections.values())[:-1]):
            connection.is_reserved = True
        return len(self._connections) <= self._most + RESERVED

    def forget(self, connection: _Limited) -> None:
        """Free the place of a connection. Idempotent."""
        if self._connections.get(connection.client) is connection:
            del self._connections[connection.client]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note whether its client is to send more."""
        client = cast("_Client", scope.get("client"))
        connection = self._connections.get(client)
        if connection is None:  # its place was given to another one
            return
        if connection.is_reserved and scope["path"] not in OPEN_PATHS:
            busy = PlainTextResponse("too many connections: try again later\n", status_code=503)
            await busy(scope, receive, send)
            return

        async def received() -> Message:
            connection.expect()
            message = await receive()
            if not message.get("more_body"):
                connection.arrived()
            return message

        def signed_in() -> None:
            self._trusted[client[0]] = asyncio.get_running_loop().time()

        loop = asyncio.get_running_loop()
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope.get("headers", ()))
        connection.begin()
        try:
            with suppress(ClientDisconnect):
                # Pages read their session in another thread.
                named = {**scope, SIGNED_IN: lambda: loop.call_soon_threadsafe(signed_in)}
                await self._app(named, received if has_body else receive, send)
        finally:
            connection.end()

    def limited(self, make: Callable[..., asyncio.Protocol]) -> type[asyncio.Protocol]:
        """Return what makes connections with these limits; `make` makes those without."""
        return cast("type[asyncio.Protocol]", lambda *args, **kwargs: _Limited(self, make(*args, **kwargs)))


def _end_one(connections: list[_Limited]) -> bool:
    """End the connection that waits for its request longest. Return false if none waits."""
    waiting = [each for each in connections if each.waits_since is not None]
    oldest = min(waiting, key=lambda each: each.waits_since or 0.0, default=None)
    if oldest is not None:
        oldest.abort()
    return oldest is not None


class _Limited(asyncio.Protocol):
    """A connection around another one."""

    def __init__(self, patience: Patience, inner: Any) -> None:
        self._patience = patience
        self._inner = inner
        self._transport: Any = None
        self.client: _Client = ("", 0)
        #: True if only health checks are answered.
        self.is_reserved = False
        #: Since when a request is expected, by the time of the event loop. `None` while one is answered.
        self.waits_since: float | None = None
        self._left_s = patience.arrives_s
        self._timer: asyncio.TimerHandle | None = None
        #: Requests that are being answered. The next one may begin before the former one has ended.
        self._answering = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.client = tuple(transport.get_extra_info("peername", ("", 0))[:2])
        self._inner.connection_made(transport)
        if self._patience.admit(self):
            self.expect()
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> Any:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.forget(self)
        self.arrived()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def abort(self) -> None:
        """End the connection at once."""
        self._patience.forget(self)
        self.arrived()
        self._transport.abort()

    def begin(self) -> None:
        """Note that a request is being answered."""
        self._answering += 1
        self.arrived()

    def end(self) -> None:
        """Note that a request was answered. The next one must arrive in time."""
        self._answering -= 1
        self._left_s = self._patience.arrives_s
        if not self._answering and not self._transport.is_closing():
            self.expect()

    def expect(self) -> None:
        """Wait for the request, or the remaining part of it, for the time that it has left."""
        self.arrived()
        loop = asyncio.get_running_loop()
        self.waits_since = loop.time()
        self._timer = loop.call_later(max(self._left_s, 0.0), self.abort)

    def arrived(self) -> None:
        """Note that the request has arrived as a whole."""
        if self.waits_since is not None:
            self._left_s -= asyncio.get_running_loop().time() - self.waits_since
            self.waits_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
