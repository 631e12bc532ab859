"""The token of a request to the API: in its header, and nowhere else."""

from __future__ import annotations

from starlette.requests import Request

from ...store.access import Access, Token
from .answers import Refused
from .patience import note_signed_in

#: No secret is longer.
_LONGEST = 256


def token_of(request: Request, access: Access) -> Token:
    """Return the token of a request. Reads the run store.

    Raises:
        Refused: there is none, or it opens nothing (401).
    """
    given = request.headers.getlist("authorization")
    scheme, _, secret = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise Refused(401, "say which token you have: `Authorization: Bearer TOKEN`", _challenge())
    secret = secret.strip()
    token = access.token(secret) if len(secret) <= _LONGEST else None
    if token is None:
        way = "`syncblocks token create` makes one"
        raise Refused(401, f"the token is unknown, revoked or has expired: {way}", _challenge("invalid_token"))
    note_signed_in(request.scope)
    return token


def lacks(token: Token, scope: str) -> Refused:
    """Return what refuses a token that has not the scope which a request needs."""
    return Refused(403, f"token {token.name!r} has no scope {scope!r}", _challenge("insufficient_scope"))


def _challenge(error: str = "") -> dict[str, str]:
    return {"WWW-Authenticate": 'Bearer realm="syncblocks"' + (f', error="{error}"' if error else "")}
