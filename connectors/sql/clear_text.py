"""Passwords in clear text: drivers send them to any server that asks; ours goes only where the server is verified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Message; `settings` are the driver's.
REFUSED = (
    "the server asks for the password in clear text, which is sent only over TLS that verifies the server: "
    "set {settings}"
)

#: What keeps libpq from it, and the first version that knows this.
LIBPQ = {"require_auth": "!password"}
LIBPQ_SINCE = 160_000

#: Ways of logging in to MySQL and MariaDB that give the password away, or as much of it as lets others log in.
_PLUGINS = ("mysql_clear_password", "dialog", "mysql_old_password")

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
            raise OperationalError(_CANNOT_LOAD, REFUSED.format(settings="ssl_ca, or ssl_verify_identity"))

    return dict.fromkeys(_PLUGINS, Refusing)


__all__ = ["LIBPQ", "LIBPQ_SINCE", "REFUSED", "pymysql_plugins"]
