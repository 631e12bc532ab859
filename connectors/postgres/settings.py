"""Settings of the postgres connector, and the addresses made of them."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

from pydantic import BaseModel, Field, PositiveInt, SecretStr, model_validator

from ..network import SOCKET_PARAMETERS, libpq_parameters
from ..sql import address as shared
from ..sql.address import ServerSettings, check_url, split_url
from ..sql.clear_text import LIBPQ
from ..struct_helpers import replace

#: Query parameters of a URL that asyncpg takes as well; with any other the raw wire is not offered.
_RAW_PARAMETERS = {
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "application_name", "connect_timeout"),
    *SOCKET_PARAMETERS,
}


class LogSettings(BaseModel, frozen=True, extra="forbid"):
    """What LOG_BASED streams are read from."""

    slot: str | None = Field(default=None, description="Replication slot; default: a name of the pipeline's own")
    publication: str | None = Field(default=None, description="Publication; default: the same name")
    max_retained: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]{0,5}(MB|GB|TB)$",
        description="Kept log past which `plan` and `run` warn, such as 10GB",
    )
    on_retained: Literal["warn"] = Field(default="warn", description="What becomes of more log than that")

    @property
    def max_retained_bytes(self) -> int | None:
        """The size of `max_retained`."""
        said = self.max_retained
        return None if said is None else int(said[:-2]) * {"MB": 10**6, "GB": 10**9, "TB": 10**12}[said[-2:]]


class PostgresSettings(ServerSettings):
    """Config of a PostgreSQL source or destination."""

    url: SecretStr | None = Field(None, description="postgresql://user:password@host:port/dbname?sslmode=require")
    host: str | None = Field(None, description="Host name, address or socket folder; with `url`: overrides it")
    port: int | None = Field(None, ge=1, le=65535, description="Port, 5432 by default")
    dbname: str | None = Field(None, description="Database")
    schema_: str | None = Field(
        None,
        alias="schema",
        min_length=1,
        description="Destination: schema of tables named without one (public). Source: the only schema offered.",
    )
    batch_size_bytes: PositiveInt = Field(2 << 20, description="Rough size of a batch that is read")
    create_schemas: bool = Field(
        True, description="Destination: create schemas that tables need; false: refuse such a table"
    )
    arrays_as_json: bool = Field(
        False, description="Source: arrays are JSON, `[1, null]`; false: the text of PostgreSQL, `{1,NULL}`"
    )
    log: LogSettings | None = Field(None, description="Source: slot and publication of LOG_BASED streams")
    text_columns: tuple[str, ...] = Field(
        (),
        description="Source: columns read as text (`schema.table.column`), for values that only PostgreSQL has: NaN "
        "in numeric, infinite dates and times",
    )

    @model_validator(mode="after")
    def _names_a_place(self) -> PostgresSettings:
        if self.url is None and self.host is None and self.dbname is None:
            raise ValueError("name the database: url, or host, port, user, password and dbname")
        if self.url is not None:
            url = self.url.get_secret_value()
            if not url.startswith(("postgresql://", "postgres://")):
                raise ValueError("url must begin with postgresql://")
            check_url(url)
        return self

    @cached_property
    def address(self) -> PostgresAddress:
        """Return where and as whom to connect."""
        address = parse_address(self.url.get_secret_value()) if self.url else PostgresAddress()
        own = {"host": self.host, "user": self.user, "dbname": self.dbname}
        changes: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        if self.port is not None:
            changes["port"] = str(self.port)
        if self.password is not None:
            changes["password"] = self.password.get_secret_value()
        return replace(address, **changes).limited(self.connect_timeout_s, self.network_timeout_s)


class PostgresAddress(shared.Address, frozen=True, kw_only=True):
    """Parts of a URL, decoded."""

    verifying = "`sslmode=verify-full` and `sslrootcert` in `url`"

    port: str = ""
    dbname: str = ""

    @property
    def is_plain(self) -> bool:
        """Tell whether drivers other than libpq understand all of it."""
        is_known = "," not in self.host and set(self.parameters) <= _RAW_PARAMETERS
        return is_known and (bool(self.password) or not _has_escapes())

    @property
    def is_verified(self) -> bool:
        """Tell whether the certificate has to be one of an authority's."""
        return self.parameters.get("sslmode") in ("verify-ca", "verify-full")

    def limited(self, connect_timeout_s: int, network_timeout_s: int) -> PostgresAddress:
        """Return the address with limits for a network that does not answer; those of the URL itself stay."""
        parameters = {**libpq_parameters(connect_timeout_s, network_timeout_s), **self.parameters}
        return replace(self, parameters=parameters)

    def uri(self, *, application_name: bool = True, is_libpq: bool = True) -> str:
        """Return the URI with credentials, for libpq or for drivers that know its main parameters only."""
        login = quote(self.user, safe="")
        if self.password:
            login += f":{quote(self.password, safe='')}"
        host = quote(self.host, safe=",.:[]-_")
        port = f":{self.port}" if self.port else ""
        named = {"application_name": "syncblocks"} if application_name else {}
        guard = LIBPQ if is_libpq and not self.may_get_clear_text else {}
        query = urlencode({**named, **guard, **self.parameters}, quote_via=quote)
        place = f"{login}{'@' if login else ''}{host}{port}/{quote(self.dbname, safe='')}"
        return f"postgresql://{place}{'?' if query else ''}{query}"

    def identity(self) -> str:
        """Return the place without credentials, spelled the same however it was given."""
        port = "" if self.port in ("", "5432") else f":{self.port}"
        return f"postgres://{self.place}{port}/{self.dbname or self.user}"


def _has_escapes() -> bool:
    """Tell whether the file of passwords holds a backslash: asyncpg leaves the escapes in a password."""
    try:
        file = Path(os.environ.get("PGPASSFILE") or Path.home() / ".pgpass")
        return b"\\" in file.read_bytes()
    except (OSError, RuntimeError):  # there is none, or no home
        return False


def parse_address(url: str) -> PostgresAddress:
    """Take a URL apart."""
    user, password, host, port, dbname, parameters = split_url(url)
    named = {name: parameters.pop(name, "") for name in ("host", "port", "user", "password", "dbname")}
    return PostgresAddress(
        host=named["host"] or host,
        port=named["port"] or port,
        user=named["user"] or user,
        password=named["password"] or password,
        dbname=named["dbname"] or dbname,
        parameters=parameters,
    )


__all__ = ["LogSettings", "PostgresAddress", "PostgresSettings", "parse_address"]
