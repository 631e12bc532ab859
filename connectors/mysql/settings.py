"""Settings of the mysql and mariadb connectors, and the addresses made of them."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from pydantic import Field, PositiveInt, SecretStr, model_validator

from ..errors import ConnectorConfigError
from ..network import CONNECT_TIMEOUT_S, NETWORK_TIMEOUT_S
from ..settings import choice
from ..sql import address as shared
from ..sql.address import ServerSettings, check_url, split_url
from ..sql.clear_text import pymysql_plugins
from ..struct_helpers import replace

_SCHEMES = ("mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql")

#: What a URL may carry behind `?`.
_PARAMETERS = {
    *("ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_cert", "ssl_verify_identity", "unix_socket", "charset"),
    "connect_timeout",
}

_PORT = 3306

_TRUE = ("1", "true", "yes", "on")


class MySQLSettings(ServerSettings):
    """Config of a MySQL or MariaDB source or destination."""

    url: SecretStr | None = Field(None, description="mysql://user:password@host:port/database?ssl_ca=ca.pem")
    host: str | None = Field(None, description="Host name or address; with `url`: overrides it")
    port: int | None = Field(None, ge=1, le=65535, description="Port, 3306 by default")
    database: str | None = Field(
        None,
        description="Source: the database to read. Destination: database of tables without a database in their name",
    )
    tinyint1_as_bool: bool = Field(
        True,
        description="Source: read tinyint(1) as boolean; false: as integer, for columns with other values than 0 and 1",
    )
    zero_dates_as_null: bool = Field(
        False,
        description="Source: read dates and times with month or day 0 as NULL; false refuses or rejects them",
    )
    create_schemas: bool = Field(
        True, description="Destination: create missing databases; false: refuse tables in them"
    )
    lock_timeout_s: PositiveInt = Field(300, description="How long to wait for another transaction's locks")

    @model_validator(mode="after")
    def _names_a_place(self) -> MySQLSettings:
        url = self.url.get_secret_value() if self.url is not None else ""
        if url and url.partition("://")[0] not in _SCHEMES:
            raise ValueError("url must begin with mysql:// or mariadb://")
        check_url(url)
        parameters, database = split_url(url).parameters, split_url(url).database
        unknown = set(parameters) - _PARAMETERS
        if unknown:
            name = min(unknown)
            raise ValueError(f"url: unknown parameter {name}{choice(name, _PARAMETERS)}")
        if not re.fullmatch("0*[1-9][0-9]{0,6}", parameters.get("connect_timeout", "1")):
            raise ValueError("url: connect_timeout must be whole seconds, at least 1")
        if not (self.database or database.strip("/")):
            raise ValueError("the database is missing: put it at the end of url (/database), or set `database`")
        return self

    @cached_property
    def address(self) -> MySQLAddress:
        """Return where and as whom to connect."""
        address = MySQLAddress()
        if self.url is not None:
            user, password, host, port, database, parameters = split_url(self.url.get_secret_value())
            address = MySQLAddress(
                host=host.strip("[]") or "localhost",
                port=int(port or _PORT),
                user=user,
                password=password,
                database=database,
                parameters=parameters,
            )
        own = {"host": self.host, "user": self.user, "database": self.database, "port": self.port}
        changes: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        if self.password is not None:
            changes["password"] = self.password.get_secret_value()
        changes["connect_timeout_s"] = int(address.parameters.get("connect_timeout", self.connect_timeout_s))
        changes["network_timeout_s"] = self.network_timeout_s
        return replace(address, **changes)


class MySQLAddress(shared.Address, frozen=True, kw_only=True):
    """Parts of a URL, decoded; and how long to wait."""

    verifying = "`ssl_ca` (a file), or `ssl_verify_identity=true` for the system's authorities, in `url`"

    host: str = "localhost"
    port: int = _PORT
    database: str = ""
    connect_timeout_s: int = CONNECT_TIMEOUT_S
    network_timeout_s: int = NETWORK_TIMEOUT_S

    def identity(self) -> str:
        """Return the place without credentials, spelled the same however it was given."""
        port = "" if self.port == _PORT else f":{self.port}"
        return f"mysql://{self.place}{port}/{self.database}"

    @property
    def is_socket(self) -> bool:
        """Look at the parameter of the URL as well."""
        return "unix_socket" in self.parameters or super().is_socket

    @property
    def is_verified(self) -> bool:
        """Tell whether the certificate has to be one of an authority's."""
        return self._is_on("ssl_verify_cert", bool({"ssl_ca", "ssl_verify_identity"} & set(self.parameters)))

    def _is_on(self, name: str, default: bool) -> bool:
        value = self.parameters.get(name)
        return default if value is None else value.lower() in _TRUE

    def _context(self) -> ssl.SSLContext | None:
        """Return how to encrypt: `ssl_ca` verifies certificate and name; None: as the driver does by itself.

        Not left to the driver, which with `ssl_ca` alone verifies nothing.
        """
        if not any(name.startswith("ssl_") for name in self.parameters):
            return None
        with self._files_of("ssl_ca"):
            context = ssl.create_default_context(cafile=self.parameters.get("ssl_ca"))
        # The certificates that MySQL makes for itself would not pass.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = self.is_verified and self._is_on("ssl_verify_identity", True)
        context.verify_mode = ssl.CERT_REQUIRED if self.is_verified else ssl.CERT_NONE
        if "ssl_cert" in self.parameters:
            with self._files_of("ssl_cert", "ssl_key"):
                context.load_cert_chain(self.parameters["ssl_cert"], self.parameters.get("ssl_key"))
        return context

    @contextmanager
    def _files_of(self, *names: str) -> Iterator[None]:
        """Name the files that cannot be read, which the error does not."""
        try:
            yield
        except OSError as error:
            files = ", ".join(f"{name}={self.parameters[name]}" for name in names if name in self.parameters)
            reason = error.strerror or error
            raise ConnectorConfigError(f"url: {files}: {reason}", connector="mysql", key="url") from error

    def driver_arguments(self) -> dict[str, Any]:
        """Return what the driver takes."""
        arguments: dict[str, Any] = {
            "host": self.host or "localhost",
            "port": self.port,
            "user": self.user or None,
            # Of text the driver would make Latin-1.
            "password": self.password.encode("utf-8", "surrogateescape"),
            "connect_timeout": self.connect_timeout_s,
        }
        if "unix_socket" in self.parameters:
            arguments["unix_socket"] = self.parameters["unix_socket"]
        if (context := self._context()) is not None:
            arguments["ssl"] = context
        if not self.may_get_clear_text:
            arguments["auth_plugin_map"] = pymysql_plugins()
        return arguments


__all__ = ["MySQLAddress", "MySQLSettings"]
