"""How pages write numbers, times and names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from ...freshness.judge import span
from ...store.documents import change_in_words
from ...store.model import ErrorInfo
from .paths import path_of

Item = TypeVar("Item")

#: Stands for what is not known.
NOTHING = "\N{EN DASH}"


def count(number: int | None) -> str:
    """Return `1,234`; a dash for an unknown number."""
    return NOTHING if number is None else f"{number:,}"


def compact(number: float | None) -> str:
    """Return `1.2M` for 1,234,567; a dash for an unknown number."""
    if number is None:
        return NOTHING
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def size(size_bytes: int | None) -> str:
    """Return `1.5 MB`; a dash for an unknown size."""
    if size_bytes is None:
        return NOTHING
    text = compact(size_bytes)
    return f"{text[:-1]} {text[-1]}B" if text[-1].isalpha() else f"{text} B"


def roughly(seconds: float | None) -> str:
    """Return a span in at most two units: `2d3h`, `3m5s`, `0.4s`; a dash for an unknown one."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}s"
    rest = next((size for least, size in ((10 * 86_400, 86_400), (86_400, 3600), (600, 60)) if seconds >= least), 1)
    return span(seconds // rest * rest)


def ago(at: datetime | None, now: datetime) -> str:
    """Return `3m5s ago`, `in 2h`, or a dash."""
    if at is None:
        return NOTHING
    seconds = (now - at).total_seconds()
    return f"in {roughly(-seconds)}" if seconds < 0 else f"{roughly(seconds)} ago"


def moment(at: datetime | None, zone: str = "UTC") -> str:
    """Return a time in a zone, to the second."""
    if at is None:
        return NOTHING
    return f"{at.astimezone(UTC if zone == 'UTC' else ZoneInfo(zone)):%Y-%m-%d %H:%M:%S}"


def zone_word(at: datetime, zone: str) -> str:
    """Return the short name of a zone at a time, such as `CEST`; of zones that have none `+03`."""
    return "UTC" if zone == "UTC" else f"{at.astimezone(ZoneInfo(zone)):%Z}"


def moment_after(at: datetime, zone: str) -> str:
    """Return the UTC time beside that of a zone: with its date only if it has another one."""
    local, utc = at.astimezone(ZoneInfo(zone)), at.astimezone(UTC)
    return f"{utc:%H:%M:%S}" if local.date() == utc.date() else f"{utc:%Y-%m-%d %H:%M:%S}"


def short(text: str) -> str:
    """Return what `moment` returns, to the minute."""
    return text[:16]


def machine_time(at: datetime) -> str:
    """Return a time as `<time datetime>` takes it."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def beginning(text: str, length: int = 160) -> str:
    """Return the text, cut to a length."""
    return text if len(text) <= length else f"{text[:length]}…"


def moment_of(text: str) -> datetime:
    """Read a time that the store keeps within a document."""
    return datetime.fromisoformat(text)


def line(text: str) -> str:
    """Return a text in one line."""
    return " ".join(text.split())


def first_line(text: str) -> str:
    """Return the first line of a text: of an error it says what is wrong."""
    return text.strip().partition("\n")[0]


def tally(words: Sequence[str]) -> str:
    """Return `28 success, 2 failure`."""
    return ", ".join(f"{number} {word}" for word, number in Counter(words).most_common())


def json_text(value: Any) -> str:
    """Return a document as JSON that people read."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def query_of(values: Mapping[str, str]) -> str:
    """Return a query of the values that are not empty."""
    return urlencode({name: value for name, value in values.items() if value})


def same_failures(items: Iterable[Item], error_of: Callable[[Item], ErrorInfo | None]) -> list[list[Item]]:
    """Return items in groups of neighbors with the same error. An item without an error is its own group."""
    groups: list[list[Item]] = []
    former = None
    for item in items:
        error = error_of(item)
        key = None if error is None else (error.type, error.message, error.stream, error.block)
        if key is not None and key == former:
            groups[-1].append(item)
        else:
            groups.append([item])
        former = key
    return groups


FILTERS: dict[str, Callable[..., Any]] = {
    "count": count,
    "compact": compact,
    "size": size,
    "json": json_text,
    "roughly": roughly,
    "ago": ago,
    "moment": moment,
    "moment_after": moment_after,
    "zone_word": zone_word,
    "short": short,
    "moment_of": moment_of,
    "change_in_words": change_in_words,
    "machine_time": machine_time,
    "beginning": beginning,
    "line": line,
    "first_line": first_line,
    "tally": tally,
    "query": query_of,
    "path": path_of,
}
