"""What holds for every answer: the hosts that are answered, and the headers that keep a page to itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from .paths import decoded_path
from .served import Served

#: Answered for any host, since they tell nothing.
OPEN_PATHS = frozenset({"/healthz", "/readyz"})

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_Message = MutableMapping[str, Any]
_App = Callable[[_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]], Awaitable[None]]


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: _App, served: Served) -> None:
        self._app = app
        self._hosts = served.hosts

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """Answer a request; a request for another host gets 421, and one with a NUL in its path 404."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: _Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        scope = {**scope, "path": decoded_path(scope)}
        host = Headers(scope=scope).get("host", "").lower()
        if scope["path"] not in OPEN_PATHS and host not in self._hosts:
            refused = PlainTextResponse(
                f"this server does not answer for the host {host!r}: name it with --public-url\n", status_code=421
            )
            await refused(scope, receive, send_with_headers)
            return
        if "\0" in scope["path"]:  # PostgreSQL takes none, and no name has one
            await PlainTextResponse("there is no such page\n", status_code=404)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)
