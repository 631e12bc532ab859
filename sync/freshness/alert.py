"""Alerts about late, stuck and broken pipelines: one message for all that is new, to each Apprise URL of a variable."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from syncblocks.callbacks.errors import HookFailed
from syncblocks.callbacks.notify import is_known, send

from ..errors import ConfigError, StateError
from ..secrets import Redactor
from ..store.alerts import Alert, AlertKey, Finding, key_of
from .judge import LATE
from .look import FolderLook, Looked, StoreLook

#: Between two URLs: white space or a comma, if a URL follows.
_BETWEEN = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")

#: Most alerts of one message.
_MOST_LINES = 50


def alert_urls(name: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the Apprise URLs of an environment variable.

    Raises:
        ConfigError: it is not set, Apprise is not installed, or does not know a URL. Shows no part of a URL.
    """
    text = (os.environ if environ is None else environ).get(name, "").strip()
    if not text:
        raise ConfigError(f"the environment variable {name!r} is not set: it holds Apprise URLs", key="--alert")
    urls = tuple(_BETWEEN.split(text))
    try:
        unknown = [str(place) for place, url in enumerate(urls, 1) if not is_known(url)]
    except HookFailed as error:
        raise ConfigError(str(error).replace("notify needs", "--alert needs"), key="--alert") from None
    if unknown:
        numbers = ", ".join(unknown)
        raise ConfigError(f"${name}: Apprise does not know URL {numbers} of {len(urls)}", key="--alert")
    return urls


def alert(look: FolderLook, urls: Sequence[str], warn: Callable[[str], None]) -> int:
    """Tell what is new since the last look, and what is over; return the number of messages that were sent.

    What could not be sent is sent at the next look. Of several processes that look at once, one tells.

    Args:
        look: the look, its stores open.
        urls: of `alert_urls`.
        warn: told why a message was not sent.
    """
    count = 0
    for each in look.stores:
        try:
            count += _of_store(look, each, urls, warn)
        except StateError as error:
            warn(f"alert: {error}; the next look tries again")
    return count


def _of_store(look: FolderLook, each: StoreLook, urls: Sequence[str], warn: Callable[[str], None]) -> int:
    files = {str(one.file) for one in look.looked}
    # A file that can be read is no longer broken, whichever store knows of it.
    findings: dict[str, tuple[Finding, ...]] = {one.file.name: () for one in look.looked if one.head is not None}
    findings |= {one.pipeline: one.judgement.findings for one in each.looked}

    def is_gone(file: str) -> bool:
        return Path(file).parent == look.folder and file not in files

    store = each.store.alerts()
    alerts = store.note(
        findings,
        {one.pipeline: str(one.file) for one in each.looked},
        {one.pipeline: one.judgement.unjudged for one in each.looked},
        is_gone=is_gone,
        urls=len(urls),
    )
    if not alerts:
        return 0
    reached: dict[AlertKey, set[int]] = {key_of(one): set() for one in alerts}
    count = 0
    try:
        for place, url in enumerate(urls):
            to_tell = [one for one in alerts if place not in one.reached]
            if to_tell and _is_sent(place, url, to_tell, {one.pipeline: one for one in each.looked}, warn):
                count += 1
                for one in to_tell:
                    reached[key_of(one)].add(place)
    finally:
        store.told(alerts, reached, len(urls))
    return count


def _is_sent(
    place: int, url: str, alerts: Sequence[Alert], looked: Mapping[str, Looked], warn: Callable[[str], None]
) -> bool:
    title, body = message(alerts, looked)
    refusal = send(url, body, title=title, status="success" if all(one.is_over for one in alerts) else "failure")
    if refusal is not None:
        said = f": {' '.join(refusal.said)}" if refusal.said else ""
        warn(f"alert: URL {place + 1} {refusal.what}{said}; the next look tries again")
    return refusal is None


def message(alerts: Sequence[Alert], looked: Mapping[str, Looked]) -> tuple[str, str]:
    """Return title and text of the message about some alerts."""
    new, over = [one for one in alerts if not one.is_over], [one for one in alerts if one.is_over]
    counts = [f"{len(some)} {word}" for some, word in ((new, "new"), (over, "over")) if some]
    if len(alerts) == 1:
        counts = [f"{_name(alerts[0])}: {alerts[0].kind}{' is over' if over else ''}"]
    lines = [" ".join(_line(one, looked.get(one.pipeline)).split()) for one in (*new, *over)[:_MOST_LINES]]
    if len(alerts) > _MOST_LINES:
        lines.append(f"and {len(alerts) - _MOST_LINES:,} more: `syncblocks status` shows what is wrong")
    return f"syncblocks: {', '.join(counts)}", Redactor().redact("\n".join(lines))


def _name(one: Alert) -> str:
    return f"{one.pipeline}, stream {one.stream}" if one.stream else one.pipeline


def _line(one: Alert, looked: Looked | None) -> str:
    if one.is_over:
        return f"{_name(one)}: over since {_time(one.ended_at)}: {one.what}"
    parts = [one.what, f"since {_time(one.since)}" if one.since else ""]
    if one.last_success is not None or one.kind == LATE:
        parts.append(f"last success {_time(one.last_success)}" if one.last_success else "no success yet")
    head = None if looked is None else looked.head
    if head is not None:
        parts += [f"owner {head.owner}" if head.owner else "", f"tags {', '.join(head.tags)}" if head.tags else ""]
        parts.append(f"runbook {head.runbook}" if head.runbook else "")
    return f"{_name(one)}: {'; '.join(part for part in parts if part)}"


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"
