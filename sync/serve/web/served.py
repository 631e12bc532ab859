"""What the answers of a server are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct, field

from ...clock import Clock
from ...secrets import Redactor
from ...store import Store
from ...store.access import Access
from ..files import PipelineFiles

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Served(Struct, frozen=True, kw_only=True):
    """The store, the files, and the addresses of a server."""

    store: Store
    files: PipelineFiles
    #: Absolute.
    folder: Path
    clock: Clock
    #: With scheme and without a path; the first one is where people are sent to.
    urls: tuple[str, ...]
    #: Masks secrets in answers.
    redactor: Redactor = field(default_factory=Redactor)
    #: Whether the server was asked to stop.
    is_stopping: Callable[[], bool] = lambda: False
    #: Returns the file with the output of the process of a tick.
    output_of: Callable[[int], Path | None] = lambda tick: None

    @property
    def url(self) -> str:
        """The address that is told to people."""
        return self.urls[0]

    def url_for(self, host: str) -> str:
        """Return the address that a `Host` header names."""
        return next((url for url in self.urls if urlsplit(url).netloc.lower() == host.lower()), self.url)

    @property
    def hosts(self) -> frozenset[str]:
        """What a `Host` header may say, in lower case."""
        return frozenset(urlsplit(url).netloc.lower() for url in self.urls)

    @property
    def origins(self) -> frozenset[str]:
        """What an `Origin` header may say, in lower case."""
        return frozenset(url.lower() for url in self.urls)


def sign_in_link(url: str, access: Access) -> str:
    """Return a new link that signs a browser in once."""
    return f"{url}/login?code={access.make_code()}"


def addresses(host: str, port: int, public_urls: tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses under which a server answers: those that the user names, then the bound one."""
    bound = _LOOPBACK if is_loopback(host) else ()
    return tuple(dict.fromkeys((*public_urls, *(f"http://{name}:{port}" for name in bound))))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    return host in ("localhost", "::1") or host.startswith("127.")
