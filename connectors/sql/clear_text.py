"""Passwords in clear text: drivers send them to any server that asks; ours goes only where the server is verified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Message; `settings` are the driver's.
REFUSED = (
    "the server asks for the password in clear text, which is sent only over TLS that verifies the server: "
    "set {settings}"
)

_FULL_LOGIN = (
    "the server asks for the password in a form that the server itself can read (the full login of "
    "caching_sha2_password or sha256_password), which is sent only over TLS that verifies the server: set {settings}"
)

#: What keeps libpq from it, and the first version that knows this.
LIBPQ = {"require_auth": "!password"}
LIBPQ_SINCE = 160_000

#: Ways of logging in to MySQL and MariaDB that give the password away, or as much of it as lets others log in.
_PLUGINS = ("mysql_clear_password", "dialog", "mysql_old_password")

#: Settings of PyMySQL that verify a server.
_SETTINGS = "ssl_ca, or ssl_verify_identity"

#: Packets of a login that ask the server for the key with which the password is encrypted: of sha256_password and of
#: caching_sha2_password.
_KEY_REQUESTS = (b"\x01", b"\x02")

#: Of a driver: a plugin cannot be used.
_CANNOT_LOAD = 2059


def pymysql_plugins() -> Mapping[str, type[Any]]:
    """Return what PyMySQL is to call for such a way, as its `auth_plugin_map`."""
    from pymysql.err import OperationalError

    class Refusing:
        def __init__(self, _connection: object) -> None:
            """Send nothing."""

        def authenticate(self, _packet: object) -> None:
            """Refuse."""
            raise OperationalError(_CANNOT_LOAD, REFUSED.format(settings=_SETTINGS))

    return dict.fromkeys(_PLUGINS, Refusing)


def pymysql_connection() -> type[Any]:
    """Return PyMySQL's connection for a server that is not verified: its login never gives the password away.

    A hash of the password, by which a server knows a user who has logged in before, is sent as ever. In full, the
    password goes to whoever is on the way: as it is through TLS, else encrypted with the key that the server sends.
    """
    from pymysql.connections import Connection
    from pymysql.err import OperationalError

    class Guarded(Connection):  # type: ignore[misc]
        _auth_plugin_name: str
        _is_logging_in = False

        def _request_authentication(self) -> None:
            if self._auth_plugin_name == "sha256_password":
                # Its first packet holds the password already; the server will ask again.
                self._auth_plugin_name = "caching_sha2_password"
            self._is_logging_in = True
            try:
                super()._request_authentication()
            finally:
                self._is_logging_in = False

        def write_packet(self, payload: bytes) -> None:
            if self._is_logging_in and self.password and payload in (self.password + b"\0", *_KEY_REQUESTS):
                raise OperationalError(_CANNOT_LOAD, _FULL_LOGIN.format(settings=_SETTINGS))
            super().write_packet(payload)

    return Guarded


__all__ = ["LIBPQ", "LIBPQ_SINCE", "REFUSED", "pymysql_connection", "pymysql_plugins"]
