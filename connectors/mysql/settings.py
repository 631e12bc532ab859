"""Settings of the mysql and mariadb connectors, and the addresses made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import Field, PositiveInt, SecretStr, model_validator

from ..incremental.bookmarks import CHECKPOINT_RECORDS, CHECKPOINT_S
from ..network import CONNECT_TIMEOUT, CONNECT_TIMEOUT_S, NETWORK_TIMEOUT, NETWORK_TIMEOUT_S
from ..ranges import RANGE_BYTES
from ..settings import Settings

_SCHEMES = ("mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql")

#: What a URL may carry behind `?`.
_PARAMETERS = {
    *("ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_cert", "ssl_verify_identity", "unix_socket", "charset"),
    "connect_timeout",
}

_LOCAL = {"", "localhost", "127.0.0.1", "::1"}
_PORT = 3306


class MySQLSettings(Settings):
    """Config of a MySQL or MariaDB source or destination."""

    url: SecretStr | None = Field(None, description="mysql://user:password@host:port/database?ssl_ca=ca.pem")
    host: str | None = Field(None, description="Host name or address; with `url`: overrides it")
    port: int | None = Field(None, ge=1, le=65535, description="Port, 3306 by default")
    user: str | None = Field(None, description="User to connect as")
    password: SecretStr | None = Field(None, description="Password; better in the environment or a secret")
    database: str | None = Field(
        None, description="Source: the database offered. Destination: that of tables named without one"
    )
    tinyint1_as_bool: bool = Field(
        True, description="Source: tinyint(1) is a boolean; false: an integer, for columns that hold more than 0 and 1"
    )
    checkpoint_records: PositiveInt = Field(CHECKPOINT_RECORDS, description="Records between two checkpoints")
    checkpoint_s: float = Field(CHECKPOINT_S, gt=0, description="Seconds after which a checkpoint comes earlier")
    settle_s: float = Field(
        0.25,
        ge=0,
        le=3600,
        description="Source: how long an INCREMENTAL read waits for transactions that may still write below its newest "
        "record; while one runs on, the bookmark stays below what it may write",
    )
    range_bytes: PositiveInt = Field(
        RANGE_BYTES, description="Source: least size of a range, where `parallel_reads` splits a table"
    )
    connect_timeout_s: PositiveInt = Field(CONNECT_TIMEOUT_S, description=CONNECT_TIMEOUT)
    network_timeout_s: PositiveInt = Field(NETWORK_TIMEOUT_S, description=NETWORK_TIMEOUT)
    lock_timeout_s: PositiveInt = Field(300, description="How long to wait for another transaction's locks")

    @model_validator(mode="after")
    def _names_a_place(self) -> MySQLSettings:
        url = self.url.get_secret_value() if self.url is not None else ""
        if url and url.partition("://")[0] not in _SCHEMES:
            raise ValueError("url must begin with mysql:// or mariadb://")
        if any(character.isspace() for character in url):
            raise ValueError("url holds a space or line break; write it as %20, and check for a stray line end")
        parameters = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        unknown = set(parameters) - _PARAMETERS
        if unknown:
            allowed = ", ".join(sorted(_PARAMETERS))
            raise ValueError(f"url: unknown parameter {', '.join(sorted(unknown))}; allowed: {allowed}")
        if not re.fullmatch("0*[1-9][0-9]{0,6}", parameters.get("connect_timeout", "1")):
            raise ValueError("url: connect_timeout takes whole seconds, from 1")
        if not (self.database or (url and urlsplit(url).path.strip("/"))):
            raise ValueError("say which database: url with /database at its end, or database")
        return self

    @cached_property
    def address(self) -> Address:
        """Return where and as whom to connect."""
        address = _parse(self.url.get_secret_value()) if self.url else Address()
        own = {"host": self.host, "user": self.user, "database": self.database, "port": self.port}
        changes: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        if self.password is not None:
            changes["password"] = self.password.get_secret_value()
        changes["connect_timeout_s"] = int(address.parameters.get("connect_timeout", self.connect_timeout_s))
        changes["network_timeout_s"] = self.network_timeout_s
        return replace(address, **changes)


@dataclass(frozen=True, kw_only=True)
class Address:
    """Parts of a URL, decoded."""

    host: str = "localhost"
    port: int = _PORT
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    connect_timeout_s: int = CONNECT_TIMEOUT_S
    network_timeout_s: int = NETWORK_TIMEOUT_S

    def identity(self) -> str:
        """Return the place without credentials, spelled the same however it was given."""
        host = self.host.lower()
        port = "" if self.port == _PORT else f":{self.port}"
        return f"mysql://{'localhost' if host in _LOCAL else host}{port}/{self.database}"

    def scrub(self, text: str) -> str:
        """Take the password out of a text, as it is and as a URL spells it."""
        for secret in sorted({self.password, quote(self.password, safe=""), quote(self.password)}, key=len):
            if secret:
                text = text.replace(secret, "***")
        return text

    def driver_arguments(self) -> dict[str, Any]:
        """Return what the driver takes."""
        arguments: dict[str, Any] = {
            "host": self.host or "localhost",
            "port": self.port,
            "user": self.user or None,
            "password": self.password,
            "connect_timeout": self.connect_timeout_s,
        }
        for name, value in self.parameters.items():
            if name == "unix_socket":
                arguments[name] = value
            elif name in ("ssl_verify_cert", "ssl_verify_identity"):
                arguments[name] = value.lower() in ("1", "true", "yes", "on")
            elif name not in ("charset", "connect_timeout"):
                arguments[name] = value
        return arguments


def _parse(url: str) -> Address:
    rest = url.partition("://")[2]
    rest, _, query = rest.partition("?")
    place, _, database = rest.partition("/")
    login, _, host = place.rpartition("@")
    user, _, password = login.partition(":")
    head, colon, tail = host.rpartition(":")
    port = _PORT
    if colon and tail.isdigit():
        host, port = head, int(tail)
    return Address(
        host=unquote(host).strip("[]") or "localhost",
        port=port,
        user=unquote(user),
        password=unquote(password),
        database=unquote(database),
        parameters=dict(parse_qsl(query, keep_blank_values=True)),
    )


__all__ = ["Address", "MySQLSettings"]
