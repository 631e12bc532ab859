"""Settings of the postgres connector, and the addresses made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from pydantic import Field, PositiveInt, SecretStr, model_validator

from ..incremental.bookmarks import CHECKPOINT_RECORDS, CHECKPOINT_S
from ..network import (
    CONNECT_TIMEOUT,
    CONNECT_TIMEOUT_S,
    NETWORK_TIMEOUT,
    NETWORK_TIMEOUT_S,
    SOCKET_PARAMETERS,
    libpq_parameters,
)
from ..ranges import RANGE_BYTES
from ..settings import Settings

#: Query parameters of a URL that asyncpg takes as well; with any other the raw wire is not offered.
_RAW_PARAMETERS = {
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "application_name", "connect_timeout"),
    *SOCKET_PARAMETERS,
}

_LOCAL = {"", "localhost", "127.0.0.1", "::1", "[::1]"}


class PostgresSettings(Settings):
    """Config of a PostgreSQL source or destination."""

    url: SecretStr | None = Field(None, description="postgresql://user:password@host:port/dbname?sslmode=require")
    host: str | None = Field(None, description="Host name, address or socket folder; with `url`: overrides it")
    port: int | None = Field(None, ge=1, le=65535, description="Port, 5432 by default")
    user: str | None = Field(None, description="User to connect as")
    password: SecretStr | None = Field(None, description="Password; better in the environment or a secret")
    dbname: str | None = Field(None, description="Database")
    schema_: str | None = Field(
        None,
        alias="schema",
        min_length=1,
        description="Destination: schema of tables named without one (public). Source: the only schema offered.",
    )
    batch_size_bytes: PositiveInt = Field(2 << 20, description="Rough size of a batch that is read")
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
    text_columns: tuple[str, ...] = Field(
        (),
        description="Source: columns read as text (`schema.table.column`), for values that no other system "
        "has: NaN in numeric, infinite dates and times",
    )

    @model_validator(mode="after")
    def _names_a_place(self) -> PostgresSettings:
        if self.url is None and self.host is None and self.dbname is None:
            raise ValueError("say where the database is: url, or host, port, user, password and dbname")
        if self.url is not None:
            url = self.url.get_secret_value()
            if not url.startswith(("postgresql://", "postgres://")):
                raise ValueError("url must begin with postgresql://")
            if any(character.isspace() for character in url):
                raise ValueError("url holds a space or line break; write it as %20, and check for a stray line end")
        return self

    @cached_property
    def address(self) -> Address:
        """Return where and as whom to connect."""
        address = parse_address(self.url.get_secret_value()) if self.url else Address()
        own = {"host": self.host, "user": self.user, "dbname": self.dbname}
        changes: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        if self.port is not None:
            changes["port"] = str(self.port)
        if self.password is not None:
            changes["password"] = self.password.get_secret_value()
        return replace(address, **changes).limited(self.connect_timeout_s, self.network_timeout_s)


@dataclass(frozen=True, kw_only=True)
class Address:
    """Parts of a URL, decoded."""

    host: str = ""
    port: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    dbname: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Tell whether drivers other than libpq understand all of it."""
        return "," not in self.host and set(self.parameters) <= _RAW_PARAMETERS

    def limited(self, connect_timeout_s: int, network_timeout_s: int) -> Address:
        """Return the address with limits for a network that does not answer; those of the URL itself stay."""
        parameters = {**libpq_parameters(connect_timeout_s, network_timeout_s), **self.parameters}
        return replace(self, parameters=parameters)

    def uri(self, *, application_name: bool = True) -> str:
        """Return the URI for libpq, with credentials."""
        login = quote(self.user, safe="")
        if self.password:
            login += f":{quote(self.password, safe='')}"
        host = quote(self.host, safe=",.:[]-_")
        port = f":{self.port}" if self.port else ""
        named = {"application_name": "syncblocks"} if application_name else {}
        query = urlencode({**named, **self.parameters}, quote_via=quote)
        place = f"{login}{'@' if login else ''}{host}{port}/{quote(self.dbname, safe='')}"
        return f"postgresql://{place}{'?' if query else ''}{query}"

    def identity(self) -> str:
        """Return the place without credentials, spelled the same however it was given."""
        host = self.host.lower()
        port = "" if self.port in ("", "5432") else f":{self.port}"
        return f"postgres://{'localhost' if host in _LOCAL else host}{port}/{self.dbname or self.user}"

    def scrub(self, text: str) -> str:
        """Take the password out of a text, as it is and as a URL spells it."""
        for secret in sorted({self.password, quote(self.password, safe=""), quote(self.password)}, key=len):
            if secret:
                text = text.replace(secret, "***")
        return text


def parse_address(url: str) -> Address:
    """Take a URL apart."""
    rest = url.partition("://")[2]
    rest, _, query = rest.partition("?")
    place, _, dbname = rest.partition("/")
    login, _, hosts = place.rpartition("@")
    user, _, password = login.partition(":")
    host, port = hosts, ""
    if "," not in hosts:
        head, colon, tail = hosts.rpartition(":")
        if colon and tail.isdigit():
            host, port = head, tail
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    named = {name: parameters.pop(name, "") for name in ("host", "port", "user", "password", "dbname")}
    return Address(
        host=named["host"] or unquote(host),
        port=named["port"] or port,
        user=named["user"] or unquote(user),
        password=named["password"] or unquote(password),
        dbname=named["dbname"] or unquote(dbname),
        parameters=parameters,
    )


__all__ = ["Address", "PostgresSettings", "parse_address"]
