"""Passwords in clear text: drivers send them to any server that asks; here only a verified server gets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Message; `settings` are the driver's.
REFUSED = (
    "the server asks for the password in clear text, which is only sent over TLS that verifies the server: set "
    "{settings}"
)

_FULL_LOGIN = (
    "the server asks for the password in a form that it can decrypt (the full login of caching_sha2_password or "
    "sha256_password), which is only sent over TLS that verifies the server: set {settings}"
)

#: Setting that stops libpq from sending it, and the first version with this setting.
LIBPQ = {"require_auth": "!password"}
LIBPQ_SINCE = 160_000

#: Login methods of MySQL and MariaDB that reveal the password, or enough of it for others to log in.
_PLUGINS = ("mysql_clear_password", "dialog", "mysql_old_password")

#: Settings of PyMySQL that verify a server.
_SETTINGS = "ssl_ca, or ssl_verify_identity"

#: Login packets that ask the server for the key that encrypts the password: for sha256_password and for
#: caching_sha2_password.
_KEY_REQUESTS = (b"\x01", b"\x02")

#: For a driver in which a plugin cannot be used.
_CANNOT_LOAD = 2059


def pymysql_plugins() -> Mapping[str, type[Any]]:
    """Return the plugins that PyMySQL calls for such login methods, as its `auth_plugin_map`."""
    from pymysql.err import OperationalError

    class Refusing:
        def __init__(self, _connection: object) -> None:
            """Send nothing."""

        def authenticate(self, _packet: object) -> None:
            """Refuse."""
            raise OperationalError(_CANNOT_LOAD, REFUSED.format(settings=_SETTINGS))

    return dict.fromkeys(_PLUGINS, Refusing)


def pymysql_connection() -> type[Any]:
    """Return PyMySQL's connection for an unverified server: its login never reveals the password.

    A hash of the password, by which a server recognises a user who has logged in before, is still sent. The full
    password could be read on the way: it is sent in plain text through TLS, else encrypted with a key from the server.
    """
    from pymysql.connections import Connection
    from pymysql.err import OperationalError

    class Guarded(Connection):  # type: ignore[misc]
        _auth_plugin_name: str
        _is_logging_in = False

        def _request_authentication(self) -> None:
            if self._auth_plugin_name == "sha256_password":
                # Its first packet contains the password already; the server will ask again.
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
