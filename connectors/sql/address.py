"""Addresses of database servers, and their common settings."""

from __future__ import annotations

from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple
from urllib.parse import parse_qsl, quote, unquote

from msgspec import StructMeta
from pydantic import Field, PositiveInt, SecretStr

from ..incremental.bookmarks import CHECKPOINT_RECORDS, CHECKPOINT_S
from ..network import CONNECT_TIMEOUT, CONNECT_TIMEOUT_S, NETWORK_TIMEOUT, NETWORK_TIMEOUT_S
from ..ranges import RANGE_BYTES
from ..secret_texts import masked
from ..settings import Settings, refuse_ambiguous
from ..stream import Place
from ..struct_helpers import Guarded

#: Part of a server's message about a failed login without a password.
NO_PASSWORD = "no password was given: set `password` in this block's `config`, preferably from {{ env_var('NAME') }}"

#: Names of this machine.
LOCAL = {"", "localhost", "127.0.0.1", "::1", "[::1]"}


class ServerSettings(Settings):
    """Config of a source or destination on a server; a subclass adds `url`, `host`, `port` and the database."""

    user: str | None = Field(None, description="User to connect as")
    password: SecretStr | None = Field(None, description="Password; better in the environment or a secret")
    checkpoint_records: PositiveInt = Field(CHECKPOINT_RECORDS, description="Number of records between two checkpoints")
    checkpoint_s: float = Field(CHECKPOINT_S, gt=0, description="Seconds after which a checkpoint comes earlier")
    settle_s: float = Field(
        0.25,
        ge=0,
        le=3600,
        description="Source: how long an INCREMENTAL read waits for transactions that may still write below its "
        "newest record; while one runs, the bookmark stays below its possible values",
    )
    range_bytes: PositiveInt = Field(
        RANGE_BYTES, description="Source: minimum size of a range when `parallel_reads` splits a table"
    )
    connect_timeout_s: PositiveInt = Field(CONNECT_TIMEOUT_S, description=CONNECT_TIMEOUT)
    network_timeout_s: PositiveInt = Field(NETWORK_TIMEOUT_S, description=NETWORK_TIMEOUT)


def check_url(url: str) -> None:
    """Raise ValueError for a URL with a space, or with a password whose end is ambiguous."""
    refuse_ambiguous(url, other="`user` and `password` besides `url`")
    if any(character.isspace() for character in url):
        raise ValueError("url contains a space or line break; write it as %20, and check for a stray line end")


class _AbstractStruct(StructMeta, ABCMeta):
    """Class of Structs with abstract methods."""


class Address(Guarded, metaclass=_AbstractStruct, frozen=True, kw_only=True):
    """Parts of a URL, decoded; a subclass adds port and database."""

    _hidden = ("password",)

    #: Settings by which the server is verified, for a warning.
    verifying: ClassVar[str]

    host: str = ""
    user: str = ""
    password: str = ""
    parameters: Mapping[str, str] = {}

    @abstractmethod
    def identity(self) -> str:
        """Return the server and database without credentials, in one spelling for all forms of the address."""

    @property
    def shown(self) -> str:
        """Return the same for messages, with the host as the file writes it."""
        return self.identity().replace(f"://{self.place}", f"://{self.host or self.place}", 1)

    @property
    def place(self) -> str:
        """Return the host, in one spelling for all forms of the address."""
        host = self.host.lower()
        return "localhost" if host in LOCAL else host

    @property
    def is_on_this_machine(self) -> bool:
        """Return whether all traffic stays on this machine."""
        return self.place == "localhost" or self.is_socket

    @property
    def is_socket(self) -> bool:
        """Return whether it is a socket in the file system, which only the server's user can create."""
        return self.host.startswith("/")

    @property
    def is_verified(self) -> bool:
        """Return whether TLS verifies the server; a subclass knows."""
        return False

    @property
    def may_get_clear_text(self) -> bool:
        """Return whether the password may be sent in clear text."""
        return self.is_verified or self.is_socket

    @property
    def may_get_full_login(self) -> bool:
        """Return whether the password may be sent encrypted with the server's own key, or over any TLS."""
        return self.may_get_clear_text or self.is_on_this_machine

    def reach(self) -> Place:
        """Return where this address leads to the same server: on this machine, or everywhere."""
        return "host" if self.is_on_this_machine else "anywhere"

    def unverified(self) -> str:
        """Return a warning if a third party could impersonate the server; empty: it is verified, or local."""
        if self.is_verified or self.is_on_this_machine:
            return ""
        return (
            f"the server at {self.host} is not verified: another machine on the network can impersonate it; set "
            f"{self.verifying}"
        )

    def scrub(self, text: str) -> str:
        """Remove the password from a text, in plain and in URL-encoded form."""
        return masked(text, (self.password, quote(self.password, safe=""), quote(self.password)))


class OnServer(ABC):
    """A source or destination on a database server: facts known from its address, without a connection."""

    @property
    @abstractmethod
    def address(self) -> Address:
        """The server's address, from the settings."""

    def identity(self) -> str:
        """Return host, port and database."""
        return self.address.identity()

    def shown_address(self) -> str:
        """Return the same with the host as the settings write it."""
        return self.address.shown

    def unverified_server(self) -> str:
        """Return the settings that would verify the server; see `VerifiesServer`."""
        return self.address.unverified()

    def place(self) -> Place:
        """Return whether every machine reaches this server by its address."""
        return self.address.reach()


class UrlParts(NamedTuple):
    """Decoded parts of a URL; the port of a multi-host URL stays with its hosts."""

    user: str
    password: str
    host: str
    port: str
    database: str
    parameters: dict[str, str]


def split_url(url: str) -> UrlParts:
    """Split a server's URL into its parts."""
    rest, _, query = url.partition("://")[2].partition("?")
    place, _, database = rest.partition("/")
    login, _, host = place.rpartition("@")
    user, _, password = login.partition(":")
    head, _, port = host.rpartition(":")
    if port == host or not port.isdigit() or "," in host:
        head, port = host, ""
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    return UrlParts(unquote(user), unquote(password), unquote(head), port, unquote(database), parameters)


__all__ = ["LOCAL", "Address", "ServerSettings", "UrlParts", "check_url", "split_url"]
