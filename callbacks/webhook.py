"""Webhook: POST an event to a URL as JSON, signed if there is a secret.

Headers: `Content-Type: application/json`, and `Idempotency-Key`, the same for every delivery of one event. With a
secret also `X-Syncblocks-Timestamp` (Unix seconds of this attempt) and `X-Syncblocks-Signature: sha256=<hex>`: the
HMAC-SHA256 of the timestamp, a full stop and the body. The time is signed too, so that a receiver can refuse a replayed
request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from .errors import HookFailed

#: Maximum of an answer's bytes that are shown.
_SHOWN_BYTES = 2000


def post(
    url: str,
    event: Mapping[str, Any],
    *,
    key: str,
    secret: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
) -> None:
    """Send the event. Any answer except 2xx is a failure, also a redirect, since it could lead to another host.

    Raises:
        HookFailed: no connection, no answer in time, or not 2xx; the answer's text goes to stdout.
    """
    body = json.dumps(event, separators=(",", ":")).encode()
    sent = {"Content-Type": "application/json"}
    sent |= {name.title(): value for name, value in (headers or {}).items()}
    sent["Idempotency-Key"] = key
    if secret is not None:
        moment = str(int(time.time()))
        sent |= {"X-Syncblocks-Timestamp": moment, "X-Syncblocks-Signature": signature(secret, moment, body)}
    # Shorter than the deadline of the call, so that the error names the reason.
    try:
        status, said = ask(url, "POST", timeout_s=timeout_s * 0.9, headers=sent, data=body)
    except HookFailed as error:
        raise HookFailed(f"webhook: {error}") from None
    if 200 <= status < 300:
        return
    if said:
        print(said.decode("utf-8", "replace"))  # noqa: T201 (the output of the call)
    hint = "; redirects are not followed: use the address to which it redirects" if 300 <= status < 400 else ""
    raise HookFailed(f"webhook: the receiver answered {status} {http.client.responses.get(status, '')}".rstrip() + hint)


def ask(
    url: str, method: str, *, timeout_s: float, headers: Mapping[str, str] | None = None, data: bytes | None = None
) -> tuple[int, bytes]:
    """Send one request; return the status and the beginning of the answer. Follows no redirect.

    Raises:
        HookFailed: no connection, or no answer in time. Shows no part of the URL.
    """
    try:
        address, credentials = _without_credentials(url)
        sent = {"User-Agent": "syncblocks", **credentials, **(headers or {})}
        request = urllib.request.Request(address, data=data, headers=sent, method=method)
        with _opener().open(request, timeout=timeout_s) as answer:
            return answer.status, answer.read(_SHOWN_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Without the cause, which may contain the URL or a header.
        raise HookFailed(f"no answer from the receiver: {_reason(error)}") from None


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return `sha256=<hex>` of timestamp, full stop and body."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that follows no redirect, raises for no status, and uses the configured proxies."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
        opener.add_handler(handler())
    return opener


def _without_credentials(url: str) -> tuple[str, dict[str, str]]:
    """Split user and password from a URL: `http.client` would treat them as part of the host."""
    parts = urlsplit(url)
    user, separator, host = parts.netloc.rpartition("@")
    address = urlunsplit((parts.scheme, host, parts.path or "/", parts.query, ""))
    if not separator:
        return address, {}
    return address, {"Authorization": "Basic " + base64.b64encode(unquote(user).encode()).decode()}


def _reason(error: BaseException) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "it took too long"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(cause).__name__
