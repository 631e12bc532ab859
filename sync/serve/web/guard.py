"""What holds for every answer: the hosts that are answered, and the headers that keep a page to itself."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

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
        """Answer a request; a request for another host gets 421."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: _Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        scope = {**scope, "path": path_of(scope)}
        host = Headers(scope=scope).get("host", "").lower()
        if scope["path"] not in OPEN_PATHS and host not in self._hosts:
            refused = PlainTextResponse(
                f"this server does not answer for the host {host!r}: name it with --public-url\n", status_code=421
            )
            await refused(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def path_of(scope: _Message) -> str:
    """Return the path of a request, decoded but for slashes and percent signs within one of its parts.

    A name may hold a slash. The convertor `name` decodes what is left.
    """
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    text = re.sub(rb"%(?=2[Ff]|25)", b"%25", raw).decode("ascii", "replace")
    return unquote(text)


class NameConvertor(Convertor[str]):
    """`{pipeline:name}` in a route: one part of the path, which may hold any character."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        """Return the name."""
        return unquote(value)

    def to_string(self, value: str) -> str:
        """Return the name as a part of a path."""
        return quote(value, safe="")


register_url_convertor("name", NameConvertor())
