"""What a request orders: its body as JSON, and the options of a run in it."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import ClientDisconnect, Request

from ...config.globs import glob_error
from ...errors import nearest_match
from ...store.ticks import TickOptions
from .answers import Refused

#: Most bytes of a body.
MOST_BYTES = 256 * 1024
#: Most levels of objects and lists in a body: each who shows it goes through them.
MOST_LEVELS = 64
#: Keys of the order of a run.
RUN_KEYS = ("event", "variables", "streams", "full_refresh", "execution_date", "interval_start", "interval_end")


async def body_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request brings; empty without a body.

    Raises:
        Refused: it is too large (413), no JSON by its type (415) or by its text (400).
    """
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:12]) > MOST_BYTES:
        raise _too_large()
    text = b""
    try:
        async for chunk in request.stream():
            text += chunk
            if len(text) > MOST_BYTES:
                raise _too_large()
    except ClientDisconnect:
        raise Refused(400, "the body did not arrive") from None
    if not text:
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "the body must be JSON: `Content-Type: application/json`")
    try:
        document = json.loads(
            text.decode("utf-8"), parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_object
        )
    except Refused:
        raise
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON") from None
    if not isinstance(document, dict):
        raise Refused(400, "the body must be a JSON object: {...}")
    if _is_deeper(document, MOST_LEVELS):
        raise Refused(400, f"the body has more than {MOST_LEVELS} levels of objects and lists")
    return document


def demand_keys(document: Mapping[str, Any], known: Collection[str], what: str = "key") -> None:
    """Refuse a document with a key that is not known (400)."""
    for key in document:
        if key not in known:
            near = nearest_match(key, known)
            guess = "" if near is None else f"; did you mean {near!r}?"
            there = f" Allowed: {', '.join(known)}" if known else " None is allowed"
            raise Refused(400, f"unknown {what} {key[:100]!r}{guess}{there}")


def run_options(document: Mapping[str, Any]) -> TickOptions:
    """Return the options of a run.

    Raises:
        Refused: a key is unknown, or a value is wrong (400).
    """
    demand_keys(document, RUN_KEYS)
    for key, kind, what in (("event", dict, "an object"), ("variables", dict, "an object")):
        if not isinstance(document.get(key, {}), kind):
            raise Refused(400, f"{key!r} must be {what}")
    if not isinstance(document.get("full_refresh", False), bool):
        raise Refused(400, "'full_refresh' must be true or false")
    start, end = moment_of(document, "interval_start"), moment_of(document, "interval_end")
    if (start is None) != (end is None):
        raise Refused(400, "give both 'interval_start' and 'interval_end', or none")
    if start is not None and end is not None and start >= end:
        raise Refused(400, "'interval_start' must be before 'interval_end'")
    return TickOptions(
        event=document.get("event", {}),
        variables=document.get("variables", {}),
        streams=_streams(document.get("streams")),
        full_refresh=document.get("full_refresh", False),
        execution_date=moment_of(document, "execution_date"),
        interval=None if start is None or end is None else (start, end),
    )


def moment_of(document: Mapping[str, Any], key: str) -> datetime | None:
    """Return a time; without a zone it is UTC.

    Raises:
        Refused: it is none (400).
    """
    text = document.get(key)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise Refused(400, f"{key!r} must be a time such as 2024-01-31T06:00:00Z") from None


def hash_of(document: Mapping[str, Any]) -> str:
    """Return the same text for documents that order the same."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _streams(given: Any) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not given or not all(isinstance(each, str) and each for each in given):
        raise Refused(400, "'streams' must be a list of names or globs")
    for each in given:
        if (mistake := glob_error(each)) is not None:
            raise Refused(400, f"'streams': {each[:100]!r}: {mistake}")
    return tuple(given)


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is not None and (levels == 0 or any(_is_deeper(each, levels - 1) for each in inner))


def _too_large() -> Refused:
    return Refused(413, f"the body is larger than {MOST_BYTES // 1024} KB", {"Connection": "close"})


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Refuse two values for one key, because the order means only one of them."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        raise Refused(400, f"the body has the key {twice[:100]!r} twice in one object")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError
    return number


def _no_number(_constant: str) -> Any:
    raise ValueError
