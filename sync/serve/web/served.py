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
#: Scheme -> the port that browsers leave out.
_IMPLIED = {"http": ":80", "https": ":443"}


class Served(Struct, frozen=True, kw_only=True):
    """The store, the files, and the addresses of a server."""

    store: Store
    files: PipelineFiles
    #: Absolute.
    folder: Path
    clock: Clock
    #: As `addresses` returns them; the first one is where people are sent to.
    urls: tuple[str, ...]
    #: Masks secrets in answers.
    redactor: Redactor = field(default_factory=Redactor)
    #: Whether the server was asked to stop.
    is_stopping: Callable[[], bool] = lambda: False
    #: Environment variable of `--alert`; `None` if this server sends no alerts.
    alert_variable: str | None = None
    #: Returns why the server starts nothing, without data, or `None` if it does.
    why_not_ready: Callable[[], str | None] = lambda: None
    #: Returns the file with the output of the process of a tick.
    output_of: Callable[[int], Path | None] = lambda tick: None

    @property
    def url(self) -> str:
        """The address that is told to people."""
        return self.urls[0]

    def url_for(self, host: str) -> str:
        """Return the address that an allowed `Host` header names."""
        return self.by_host[host.lower()]

    @property
    def by_host(self) -> dict[str, str]:
        """What a `Host` header may say, in lower case -> the address; also with the port that the scheme implies."""
        found: dict[str, str] = {}
        for url in self.urls:
            host = urlsplit(url).netloc
            found.setdefault(host, url)
            found.setdefault(f"{host}{_IMPLIED[urlsplit(url).scheme]}", url)
        return found

    @property
    def origins(self) -> frozenset[str]:
        """What an `Origin` header may say, in lower case."""
        return frozenset(self.urls)


def sign_in_link(url: str, access: Access) -> str:
    """Return a new link that signs a browser in once."""
    return f"{url}/login?code={access.make_code()}"


def addresses(host: str, port: int, public_urls: tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses under which a server answers, as browsers write them: those named, then the bound one."""
    own = f"[{host}]" if ":" in host else host
    bound = (own, *_LOOPBACK) if is_loopback(host) else ()
    return tuple(dict.fromkeys(map(_as_origin, (*public_urls, *(f"http://{name}:{port}" for name in bound)))))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _as_origin(url: str) -> str:
    scheme, _, host = url.lower().partition("://")
    return f"{scheme}://{host.removesuffix(_IMPLIED[scheme])}"
