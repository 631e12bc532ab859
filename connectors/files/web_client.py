"""The client of files on web servers. What settings send along, such as a key, goes to the server they name alone."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("syncblocks")

_TOLD = (
    "%s redirects to %s: the request there has no headers or cookies of `storage_options`; if they are needed, "
    "use that address as `path`"
)
#: What goes along to another server: it says what is asked for, and not who asks.
_OF_THE_REQUEST = frozenset({"accept", "accept-encoding", "range", "user-agent"})


async def web_client(**settings: Any) -> Any:
    """Return a session of aiohttp that sends no header and no cookie of the settings to where a redirect leads.

    Another scheme, host or port is another server. The first redirect to it is told.
    """
    import aiohttp  # here: most pipelines read no file of a web server

    told: set[tuple[str, str]] = set()

    async def redirected(session: Any, _context: Any, redirect: Any) -> None:
        headers = redirect.headers
        location = redirect.response.headers.get("Location") or redirect.response.headers.get("URI") or ""
        try:
            places = redirect.url.origin(), redirect.url.join(type(redirect.url)(location)).origin()
        except ValueError:
            return  # no place at all: aiohttp says so
        if places[0] == places[1]:
            return
        for name in {name.lower() for name in headers} - _OF_THE_REQUEST:
            headers.popall(name)
        session.cookie_jar.clear(lambda cookie: not cookie["domain"])  # those of the settings
        if (way := (str(places[0]), str(places[1]))) not in told:
            told.add(way)
            log.warning(_TOLD, *way)

    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(redirected)
    return aiohttp.ClientSession(**settings, trace_configs=[tracing])


__all__ = ["web_client"]
