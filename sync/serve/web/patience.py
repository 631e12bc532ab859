"""How long a client may take to send a request, and how many connections there may be: each of them holds a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A request must arrive so long after its connection was made; the connection ends after at most half as much more.
ARRIVES_S = 20.0
#: A process may usually open 1,024 files; the store and the processes of runs need some.
MOST_CONNECTIONS = 300

_Client = tuple[str, int]


class Patience:
    """An ASGI application around another one, and the limits of its connections. For one event loop."""

    def __init__(self, app: ASGIApp, *, arrives_s: float = ARRIVES_S, most: int = MOST_CONNECTIONS) -> None:
        self._app = app
        self.arrives_s = arrives_s
        self.most = most
        #: Clients that are connected.
        self.connected: set[_Client] = set()
        #: Clients whose request has arrived, and is not answered.
        self.answering: set[_Client] = set()
        #: Clients of which a request was answered since the last look at them.
        self.answered: set[_Client] = set()

    def is_silent(self, client: _Client) -> bool:
        """Whether no request of a client was answered since the last look, nor has arrived."""
        is_silent = client not in self.answered and client not in self.answering
        self.answered.discard(client)
        return is_silent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note whether its client is to send more."""
        client = cast("_Client", scope.get("client"))

        async def received() -> Message:
            self.answering.discard(client)
            message = await receive()
            if not message.get("more_body"):
                self.answering.add(client)
            return message

        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope.get("headers", ()))
        self.answering.add(client)
        try:
            with suppress(ClientDisconnect):
                await self._app(scope, received if has_body else receive, send)
        finally:
            self.answering.discard(client)
            if client in self.connected:
                self.answered.add(client)

    def limited(self, make: Callable[..., asyncio.Protocol]) -> type[asyncio.Protocol]:
        """Return what makes connections with these limits; `make` makes those without."""
        return cast("type[asyncio.Protocol]", lambda *args, **kwargs: _Limited(self, make(*args, **kwargs)))


class _Limited(asyncio.Protocol):
    """A connection around another one."""

    def __init__(self, patience: Patience, inner: Any) -> None:
        self._patience = patience
        self._inner = inner
        self._transport: Any = None
        self._client: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._silences = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._client = tuple(transport.get_extra_info("peername", ("", 0))[:2])
        self._patience.connected.add(self._client)
        self._inner.connection_made(transport)
        if len(self._patience.connected) > self._patience.most:
            self._transport.abort()
        else:
            self._look_later()

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> Any:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.connected.discard(self._client)
        self._patience.answered.discard(self._client)
        if self._timer is not None:
            self._timer.cancel()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._patience.arrives_s / 2, self._look)

    def _look(self) -> None:
        self._silences = self._silences + 1 if self._patience.is_silent(self._client) else 0
        if self._silences > 1:
            self._transport.abort()
        else:
            self._look_later()
