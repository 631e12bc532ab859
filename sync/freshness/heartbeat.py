"""The heartbeat of a server: a URL that is called, so that an outside watcher notices when no server lives."""

from __future__ import annotations

import os
from collections.abc import Mapping

from syncblocks.callbacks.errors import HookFailed
from syncblocks.callbacks.webhook import ask

from ..errors import ConfigError

TIMEOUT_S = 10.0


def heartbeat_url(name: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the URL of an environment variable.

    Raises:
        ConfigError: it is not set, or is no URL. Shows no part of it.
    """
    url = (os.environ if environ is None else environ).get(name, "").strip()
    if not url.startswith(("https://", "http://")):
        what = "holds no URL: https://..." if url else "is not set: it holds a URL"
        raise ConfigError(f"the environment variable {name!r} {what}", key="--heartbeat")
    return url


def heartbeat(url: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """Call the URL once (GET); return why this has failed, without the URL. Follows no redirect."""
    try:
        status, _ = ask(url, "GET", timeout_s=timeout_s)
    except HookFailed as error:
        return str(error)
    return None if 200 <= status < 300 else f"the receiver answered {status}; redirects are not followed"
