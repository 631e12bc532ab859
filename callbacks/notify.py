"""Notifications by Apprise: Slack, Teams, Discord, e-mail and others, by URL."""

from __future__ import annotations

import logging
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import unquote

from .errors import HookFailed

#: Message if Apprise is not installed.
MISSING = "notify needs Apprise: pip install 'syncblocks[notify]'"

#: Status -> Apprise's type, which decides colour and icon. Other statuses are warnings.
_TYPES = {"success": "success", "recovered": "success", "failure": "failure", "crashed": "failure"}

#: Loggers used while a notification is sent.
_LOGGERS = ("apprise", "urllib3", "requests", "requests_oauthlib")

#: Delivery -> places of the URLs already notified; another attempt skips them.
_reached: OrderedDict[str, set[int]] = OrderedDict()
_REMEMBERED = 1000


def notify(urls: Sequence[str], body: str, *, title: str = "", status: str = "", key: str = "") -> None:
    """Send one message to every URL.

    Args:
        urls: Apprise URLs.
        body: the text, sent unchanged.
        title: shown above the text if the service can.
        status: status of the event; decides colour and icon.
        key: the delivery; URLs that an earlier attempt reached are not notified again.

    Raises:
        HookFailed: Apprise is not installed, does not know a URL, or a service refused. Shows only number and scheme.
    """
    reached = _reached.setdefault(key, set()) if key else set()
    while len(_reached) > _REMEMBERED:
        _reached.popitem(last=False)
    failed = []
    for place, url in enumerate(urls):
        if place in reached:
            continue
        refusal = send(url, body, title=title, status=status)
        if refusal is None:
            reached.add(place)
            continue
        for line in refusal.said:
            print(line)  # noqa: T201 (the output of the call)
        failed.append(f"URL {place + 1} {refusal.what}")
    if failed:
        raise HookFailed(f"notify: {'; '.join(failed)}")


class Refusal(NamedTuple):
    """Why a URL was not notified. Shows only its scheme."""

    what: str
    #: What Apprise has logged, with every part of the URL masked.
    said: tuple[str, ...]


def send(url: str, body: str, *, title: str = "", status: str = "") -> Refusal | None:
    """Send one message to one URL; return why it was not sent, if it was not.

    Raises:
        HookFailed: Apprise is not installed.
    """
    apprise = _apprise()
    # Apprise must not treat messages as templates, and must not load plugins from files.
    asset = apprise.AppriseAsset(secure_logging=True, plugin_paths=[])
    said: list[str] = []
    with _quietly(said):
        target = apprise.Apprise(asset=asset)
        is_known = target.add(url)
        is_sent = is_known and bool(
            target.notify(body=body, title=title, notify_type=_TYPES.get(status, "warning"), body_format="text")
        )
    if is_sent:
        return None
    what = "was not notified" if is_known else "is not a URL that Apprise knows"
    return Refusal(f"({url.partition(':')[0]}) {what}", tuple(hidden(line, url) for line in said))


def is_installed() -> bool:
    """Tell whether Apprise is installed, without importing it."""
    from importlib.util import find_spec

    return find_spec("apprise") is not None


def is_known(url: str) -> bool:
    """Tell whether Apprise can use a URL; connects to nothing."""
    apprise = _apprise()
    with _quietly([]):
        return apprise.Apprise.instantiate(url, suppress_exceptions=True) is not None


def hidden(text: str, url: str) -> str:
    """Mask every part of a URL that could be a secret: user, password, host, path and query."""
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
    """Collect the log lines of Apprise and its HTTP client, which may contain parts of URLs.

    Also ignores deprecation warnings from the import of Apprise's plugins.
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
    """Collects warnings and errors."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())
