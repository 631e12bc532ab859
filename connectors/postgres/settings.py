"""Settings of the postgres connector, and addresses built from them."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

from pydantic import BaseModel, Field, PositiveInt, SecretStr, model_validator

from ..network import SOCKET_PARAMETERS, libpq_parameters
from ..settings import pattern_like
from ..sql import address as shared
from ..sql.address import ServerSettings, check_url, split_url
from ..sql.clear_text import LIBPQ
from ..struct_helpers import replace

#: URL parameters that asyncpg understands; with any other parameter the raw format is not offered.
_RAW_PARAMETERS = {
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "application_name", "connect_timeout"),
    *SOCKET_PARAMETERS,
}


class LogSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of LOG_BASED streams."""

    slot: str | None = Field(default=None, description="Replication slot; default: a name for this pipeline")
    publication: str | None = Field(default=None, description="Publication; default: the slot's name")
    max_retained: str | None = Field(
        default=None,
        pattern=pattern_like(r"^[1-9][0-9]{0,5}(MB|GB|TB)$", "`500MB`, `10GB` or `1TB`"),
        description="Most log that the source may keep, such as 10GB: past it, see `on_retained`",
    )
    on_retained: Literal["warn", "recopy", "drop"] = Field(
        default="warn",
        description="What a run does past `max_retained`: `warn`; `recopy` copies the streams anew that hold the log "
        "and are not read; `drop` drops the slot and copies all anew",
    )

    @model_validator(mode="after")
    def _has_a_limit(self) -> LogSettings:
        if self.on_retained != "warn" and self.max_retained is None:
            raise ValueError(f"`on_retained: {self.on_retained}` needs `max_retained`")
        return self

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
        description="Destination: schema of tables without schema in their name (public). Source: the only schema.",
    )
    batch_size_bytes: PositiveInt = Field(2 << 20, description="Approximate size of a batch when reading")
    create_schemas: bool = Field(True, description="Destination: create missing schemas; false: refuse tables in them")
    arrays_as_json: bool = Field(
        False, description="Source: read arrays as JSON, `[1, null]`; false: as PostgreSQL's text, `{1,NULL}`"
    )
    log: LogSettings | None = Field(None, description="Source: slot and publication of LOG_BASED streams")
    text_columns: tuple[str, ...] = Field(
        (),
        description="Source: columns to read as text (`schema.table.column`), for values that only PostgreSQL has: "
        "NaN in numeric, infinite dates and times",
    )

    @model_validator(mode="after")
    def _names_a_place(self) -> PostgresSettings:
        if self.url is None and self.host is None and self.dbname is None:
            raise ValueError("the database is missing: set url, or host, port, user, password and dbname")
        if self.url is not None:
            url = self.url.get_secret_value()
            if not url.startswith(("postgresql://", "postgres://")):
                raise ValueError("url must begin with postgresql://")
            check_url(url)
        return self

    @cached_property
    def address(self) -> PostgresAddress:
        """Return address and user for a connection."""
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
        """Return whether drivers other than libpq understand the whole URL."""
        is_known = "," not in self.host and set(self.parameters) <= _RAW_PARAMETERS
        return is_known and (bool(self.password) or not _has_escapes())

    @property
    def is_verified(self) -> bool:
        """Return whether the certificate must come from a trusted authority."""
        return self.parameters.get("sslmode") in ("verify-ca", "verify-full")

    def limited(self, connect_timeout_s: int, network_timeout_s: int) -> PostgresAddress:
        """Return the address with timeouts for a network that does not answer; timeouts in the URL stay."""
        parameters = {**libpq_parameters(connect_timeout_s, network_timeout_s), **self.parameters}
        return replace(self, parameters=parameters)

    def uri(self, *, application_name: bool = True, is_libpq: bool = True) -> str:
        """Return the URI with credentials, for libpq or for drivers that only know its main parameters."""
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
        """Return the server and database without credentials, in one spelling for all forms of the address."""
        port = "" if self.port in ("", "5432") else f":{self.port}"
        return f"postgres://{self.place}{port}/{self.dbname or self.user}"


def _has_escapes() -> bool:
    """Return whether the password file contains a backslash: asyncpg does not decode its escapes."""
    try:
        file = Path(os.environ.get("PGPASSFILE") or Path.home() / ".pgpass")
        return b"\\" in file.read_bytes()
    except (OSError, RuntimeError):  # there is no file, or no home directory
        return False


def parse_address(url: str) -> PostgresAddress:
    """Split a URL into its parts."""
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
