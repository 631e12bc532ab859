"""What holds for every answer: the hosts that are answered, and the headers that keep a page to itself."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from .answers import traceback_of
from .paths import decoded_path
from .served import Served

log = logging.getLogger("syncblocks")

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
        self._hosts = frozenset(served.by_host)
        self._redactor = served.redactor

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """Answer a request; one for another host gets 421, one with a NUL in its address 404, and a fault of ours 500.

        A fault is logged here: the HTTP server would log it with all values that are in its message.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        has_begun = False

        async def send_with_headers(message: _Message) -> None:
            nonlocal has_begun
            has_begun = True
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
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:  # PostgreSQL takes none, and no name has one
            await PlainTextResponse("there is no such page\n", status_code=404)(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            raise
        except Exception as error:
            log.error("%s %r: %s", scope["method"], scope["path"], traceback_of(error, self._redactor))
            if not has_begun:  # else the connection ends without the rest
                fault = PlainTextResponse(f"{type(error).__name__}: the server's log says more\n", status_code=500)
                await fault(scope, receive, send_with_headers)
