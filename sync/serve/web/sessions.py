"""Who is signed in: the cookie of a session, and what a form must bring."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from ...store.access import SESSION_S
from .patience import note_signed_in
from .served import Served

#: Name of the field of a form that holds its token.
FORM_TOKEN = "form_token"
#: As whom somebody who is signed in does something: sessions have no names.
WHO = "page"


def served_by(request: Request) -> Served:
    """Return what the application of a request serves."""
    served: Served = request.app.state.served
    return served


def session_of(request: Request) -> str | None:
    """Return the secret of the session of who asks; None: nobody is signed in. Reads the run store."""
    secret = request.cookies.get(_cookie(request)[0])
    if not secret or not served_by(request).store.access.is_signed_in(secret):
        return None
    note_signed_in(request.scope)
    return secret


def form_token(secret: str) -> str:
    """Return what each form of a session brings: no other site knows it, and the session cannot be found from it."""
    return hmac.new(secret.encode(), b"form", hashlib.sha256).hexdigest()


def is_own_origin(request: Request) -> bool:
    """Whether a form comes from a page of this server. A missing origin and `null` are nobody's."""
    return request.headers.get("origin", "").lower() in served_by(request).origins


def is_own_form(request: Request, secret: str, token: str) -> bool:
    """Whether a form comes from a page of this server that the session has been shown."""
    return is_own_origin(request) and hmac.compare_digest(token.encode(), form_token(secret).encode())


def set_cookie(request: Request, response: Response, secret: str) -> None:
    """Let the browser send the secret of a session with each request."""
    name, is_secure = _cookie(request)
    response.set_cookie(name, secret, max_age=SESSION_S, path="/", httponly=True, samesite="lax", secure=is_secure)


def delete_cookie(request: Request, response: Response) -> None:
    """Let the browser forget the session."""
    name, is_secure = _cookie(request)
    response.delete_cookie(name, path="/", httponly=True, samesite="lax", secure=is_secure)


def _cookie(request: Request) -> tuple[str, bool]:
    """Return name and security of the cookie. A browser sends a host's cookies to each of its ports.

    With `__Host-` a browser takes it from this host alone: a neighbour under the same domain can set no session.
    """
    parts = urlsplit(served_by(request).url_for(request.headers["host"]))
    if parts.scheme == "https":
        return f"__Host-syncblocks_{parts.port or 443}", True
    return f"syncblocks_{parts.port or 80}", False
