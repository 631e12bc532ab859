"""Who may use a server: tokens of the API, codes that sign in once, and sessions of browsers. Only digests are kept."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta

from msgspec import Struct

from ..config.globs import glob_error, glob_matches
from ..errors import StateError
from .connection import Row, StoreConnection, value_of
from .statements import insert, update
from .table_names import SESSION, TOKEN
from .transactions import Transactions

#: How long a code signs in, and a session lasts.
CODE_S, SESSION_S = 600, 12 * 3600
#: When a token was last used is written at most so often.
_USED_S = 3600
#: Scopes; the third one is followed by a glob for names of pipelines.
READ, OPERATE, RUN = "read", "operate", "run:"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_OF_DIGEST = f"SELECT * FROM {TOKEN} WHERE digest = :digest"
_NEW_TOKEN = f"""{insert(TOKEN, "name digest scopes created_at expires_at")}
    ON CONFLICT (name) DO NOTHING"""
_NEW_SESSION = insert(SESSION, "digest is_code created_at expires_at")
_USE_CODE = f"DELETE FROM {SESSION} WHERE digest = :digest AND is_code = TRUE AND expires_at > :now"
_SIGNED_IN = f"SELECT digest FROM {SESSION} WHERE digest = :digest AND is_code = FALSE AND expires_at > :now"


class Token(Struct, frozen=True, kw_only=True):
    """A token of the API, without its secret."""

    name: str
    #: `read`, `operate` or `run:GLOB`.
    scopes: tuple[str, ...]
    created_at: datetime
    #: None: never.
    expires_at: datetime | None
    #: To the hour; None: never.
    used_at: datetime | None

    @property
    def may_read(self) -> bool:
        """Whether it may see everything."""
        return READ in self.scopes

    def may_run(self, pipeline: str) -> bool:
        """Whether it may start a pipeline."""
        return any(glob_matches(scope.removeprefix(RUN), pipeline) for scope in self.scopes if scope.startswith(RUN))


class Access:
    """Tokens, codes and sessions of a store. Rows that have expired are removed by the next write."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    # -- tokens of the API ---------------------------------------------------------------------------------------

    def make_token(self, name: str, scopes: Collection[str], *, lasts: timedelta | None = None) -> str:
        """Make a token, and return its secret, which nobody can read again; `lasts` None: until it is revoked.

        Raises:
            StateError: the name or a scope is wrong, or there is a token of that name.
        """
        if not _NAME.fullmatch(name):
            raise StateError(f"token name {name!r}: at most 100 letters, digits and ._@- are allowed")
        for scope in scopes:
            if (mistake := scope_error(scope)) is not None:
                raise StateError(f"scope {scope!r} {mistake}")
        secret = f"sbt_{secrets.token_urlsafe(32)}"
        with self._transactions.write("make_token") as connection:
            now = self._clear(connection)
            row = {
                "name": name,
                "digest": _digest(secret),
                "scopes": list(dict.fromkeys(scopes)),
                "created_at": now,
                "expires_at": None if lasts is None else now + lasts,
            }
            if connection.changed(_NEW_TOKEN, row) != 1:
                raise StateError(f"there is a token {name!r} already: revoke it first, or take another name")
        return secret

    def token(self, secret: str) -> Token | None:
        """Return the token of a secret; None: there is none, or it has expired."""
        with self._transactions.read() as connection:
            row = connection.row(_OF_DIGEST, {"digest": _digest(secret)})
            now = self._transactions.now(connection)
        if row is None or (row.expires_at is not None and row.expires_at <= now):
            return None
        if row.used_at is None or now - row.used_at >= timedelta(seconds=_USED_S):
            with self._transactions.write("use_token") as connection:
                connection.run(update(TOKEN, "used_at", "name = :name"), {"name": row.name, "used_at": now})
        return _decoded(row)

    def tokens(self) -> list[Token]:
        """Return the tokens that have not expired, by name."""
        with self._transactions.write("list_tokens") as connection:
            self._clear(connection)
            return [_decoded(row) for row in connection.rows(f"SELECT * FROM {TOKEN} ORDER BY name")]

    def revoke_token(self, name: str) -> None:
        """Let a token open nothing any more.

        Raises:
            StateError: there is none.
        """
        with self._transactions.write("revoke_token") as connection:
            if connection.changed(f"DELETE FROM {TOKEN} WHERE name = :name", {"name": name}) != 1:
                raise StateError(f"there is no token {name!r}: `syncblocks token list` shows the names")

    # -- codes and sessions --------------------------------------------------------------------------------------

    def make_code(self) -> str:
        """Return a new code that signs in once."""
        with self._transactions.write("make_code") as connection:
            return self._insert(connection, self._clear(connection), is_code=True)

    def sign_in(self, code: str) -> str | None:
        """Use a code up, and return the secret of a new session; None: the code is unknown, used or too old."""
        with self._transactions.write("sign_in") as connection:
            now = self._clear(connection)
            if connection.changed(_USE_CODE, {"digest": _digest(code), "now": now}) != 1:
                return None
            return self._insert(connection, now, is_code=False)

    def is_signed_in(self, secret: str) -> bool:
        """Whether a session of this secret lasts."""
        with self._transactions.read() as connection:
            now = self._transactions.now(connection)
            return connection.row(_SIGNED_IN, {"digest": _digest(secret), "now": now}) is not None

    def sign_out(self, secret: str) -> None:
        """End a session. Idempotent."""
        with self._transactions.write("sign_out") as connection:
            connection.run(f"DELETE FROM {SESSION} WHERE digest = :digest", {"digest": _digest(secret)})

    # -- in a transaction ----------------------------------------------------------------------------------------

    def _clear(self, connection: StoreConnection) -> datetime:
        """Remove what has expired; return the store's time."""
        now = self._transactions.now(connection)
        for table in (TOKEN, SESSION):
            connection.run(f"DELETE FROM {table} WHERE expires_at <= :now", {"now": now})
        return now

    @staticmethod
    def _insert(connection: StoreConnection, now: datetime, *, is_code: bool) -> str:
        secret = secrets.token_urlsafe(32)
        until = now + timedelta(seconds=CODE_S if is_code else SESSION_S)
        row = {"digest": _digest(secret), "is_code": is_code, "created_at": now, "expires_at": until}
        connection.run(_NEW_SESSION, row)
        return secret


def scope_error(scope: str) -> str | None:
    """Say what is wrong with a scope; None: it is right."""
    if scope in (READ, OPERATE):
        return None
    glob = scope.removeprefix(RUN)
    if glob in (scope, ""):
        return "is none of read, run:GLOB and operate"
    mistake = glob_error(glob)
    return None if mistake is None else f"has no valid glob: {mistake}"


def _digest(secret: str) -> str:
    """Return what is kept of a secret: it has so many random bits that a plain hash tells nothing of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _decoded(row: Row) -> Token:
    return value_of(Token, row, scopes=tuple(row.scopes))
