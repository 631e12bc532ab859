"""Notifications through Apprise: Slack, Teams, Discord, e-mail and a hundred others, by URL."""

from __future__ import annotations

import logging
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from .errors import HookFailed

#: What needs the extra says so in these words.
MISSING = "notify needs Apprise: pip install 'syncblocks[notify]'"

#: How a status is shown: the service's colour and icon. Others are warnings.
_TYPES = {"success": "success", "recovered": "success", "failure": "failure", "crashed": "failure"}

#: What logs while a notification is sent.
_LOGGERS = ("apprise", "urllib3", "requests", "requests_oauthlib")

#: Deliveries of this process that reached some of their URLs: a further try leaves those out.
_reached: OrderedDict[str, set[int]] = OrderedDict()
_REMEMBERED = 1000


def notify(urls: Sequence[str], body: str, *, title: str = "", status: str = "", key: str = "") -> None:
    """Send one message to every URL.

    Args:
        urls: Of Apprise.
        body: Text, sent as it is.
        title: Shown above it where the service can.
        status: Of the event; decides about colour and icon.
        key: Names the delivery: what an earlier try reached is not notified again.

    Raises:
        HookFailed: Apprise is missing, a URL is none of its, or a service refused; URLs are told by number and kind.
    """
    apprise = _apprise()
    reached = _reached.setdefault(key, set()) if key else set()
    while len(_reached) > _REMEMBERED:
        _reached.popitem(last=False)
    # Messages come from elsewhere: they are no templates for Apprise, and its plugins are its own.
    asset = apprise.AppriseAsset(secure_logging=True, plugin_paths=[])
    failed = []
    for place, url in enumerate(urls):
        if place in reached:
            continue
        said: list[str] = []
        with _quietly(said):
            target = apprise.Apprise(asset=asset)
            is_known = target.add(url)
            is_sent = is_known and bool(
                target.notify(body=body, title=title, notify_type=_TYPES.get(status, "warning"), body_format="text")
            )
        if is_sent:
            reached.add(place)
            continue
        for line in said:
            print(hidden(line, url))  # noqa: T201 (the output of the call)
        what = "was not notified" if is_known else "is no URL that Apprise knows"
        failed.append(f"URL {place + 1} ({url.partition(':')[0]}) {what}")
    if failed:
        raise HookFailed(f"notify: {'; '.join(failed)}")


def is_installed() -> bool:
    """Tell whether Apprise is there, without importing it."""
    from importlib.util import find_spec

    return find_spec("apprise") is not None


def is_known(url: str) -> bool:
    """Tell whether Apprise can make something of a URL; connects to nothing."""
    apprise = _apprise()
    with _quietly([]):
        return apprise.Apprise.instantiate(url, suppress_exceptions=True) is not None


def hidden(text: str, url: str) -> str:
    """Return the text without any part of a URL that could be a secret: user, password, host, path and query."""
    rest = url.partition("://")[2]
    parts = {part for part in re.split(r"[/?&=:@#,]+", rest) if len(part) >= 4} | {url, rest}
    spellings = {spelling for part in parts for spelling in (part, unquote(part)) if spelling}
    pattern = "|".join(re.escape(part) for part in sorted(spellings, key=len, reverse=True))
    return re.sub(pattern, "***", text) if pattern else text


def _apprise() -> Any:
    try:
        import apprise
    except ModuleNotFoundError as error:
        if error.name != "apprise":
            raise
        raise HookFailed(MISSING) from None
    return apprise


@contextmanager
def _quietly(lines: list[str]) -> Iterator[None]:
    """Keep what Apprise and its HTTP client log from every other handler: their lines may hold parts of URLs.

    Apprise's plugins are imported when the first URL is met, and warn of what Python is going to drop.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    former = [(logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.propagate, logger.handlers = False, [_Keeper(lines)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for logger, (propagate, handlers) in zip(loggers, former, strict=True):
            logger.propagate, logger.handlers = propagate, handlers


class _Keeper(logging.Handler):
    """Keeps the lines from warnings up."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


__all__ = ["MISSING", "hidden", "is_installed", "is_known", "notify"]
