"""Split a tap's STATE by stream, and join the parts again. Pure.

A STATE covers all streams of a tap, but each stream is committed alone. So each stream's bookmark holds the stream's
entry of the last committed STATE, and the rest that belongs to no stream. One start of the tap can resume only streams
with the same rest: `starts` finds them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..errors import ConnectorConfigError
from ..stream import Bookmark

#: Key of a stream's part of the STATE in its bookmark.
STATE = "singer_state"

#: The stream at which the tap was: a tap that starts there would leave streams out.
_PLACES = ("currently_syncing", "current_stream")

#: Parts of an entry that describe a run's progress, not where the next run begins.
_PROGRESS = frozenset(
    {"progress_markers", "replication_key_signpost", "starting_replication_value", "Note", "currently_syncing"}
)


def part_of(value: Any, own: Collection[str], others: Collection[str]) -> Any:
    """Return a stream's part of a STATE: its own entry, and the rest that is no other stream's.

    Args:
        value: the STATE message's value.
        own: names of the stream.
        others: names of the tap's other streams.
    """
    if not isinstance(value, Mapping):
        return value
    foreign = set(others) - set(own)
    kept = {key: item for key, item in value.items() if key not in foreign and key not in _PLACES}
    if isinstance(kept.get("bookmarks"), Mapping):
        kept["bookmarks"] = {key: item for key, item in kept["bookmarks"].items() if key not in foreign}
    return kept


def entry_of(value: Any, own: Collection[str]) -> Any:
    """Return a stream's own entry; None: there is none."""
    if not isinstance(value, Mapping):
        return None
    for place in (value.get("bookmarks"), value):
        if isinstance(place, Mapping):
            for name in own:
                if name in place and name != "bookmarks":
                    return place[name]
    return None


def resumable(entry: Any) -> str:
    """Return where the next run begins by a stream's entry, as a text to compare; "": unknown.

    Unsorted streams of the SDK have `progress_markers` while they run: until those are gone, a run begins where the
    last run did.
    """
    if _is_in_progress(entry):
        return ""
    place = _without_progress(entry)
    return json.dumps(place, sort_keys=True) if place else ""


def _is_in_progress(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value.get("progress_markers")) or any(_is_in_progress(item) for item in value.values())
    return isinstance(value, list) and any(_is_in_progress(item) for item in value)


def _without_progress(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_progress(item) for key, item in value.items() if key not in _PROGRESS}
    if isinstance(value, list):
        return [_without_progress(item) for item in value]
    return value


def of_bookmark(bookmark: Bookmark | None, stream: str) -> Any:
    """Return the part of the STATE that a bookmark holds.

    Raises:
        ConnectorConfigError: the bookmark is another connector's.
    """
    if not bookmark:
        return None
    if STATE in bookmark:
        return bookmark[STATE]
    if "bookmarks" in bookmark:  # a whole STATE, as Meltano keeps it
        return dict(bookmark)
    raise ConnectorConfigError(
        f'stream {stream!r}: the bookmark is not a state of a Singer tap; set it as {{"{STATE}": {{"bookmarks": '
        "...}} with `syncblocks state set`, or start over with `syncblocks state reset`",
        connector="singer",
        stream=stream,
    )


def rest_of(part: Any, own: Collection[str]) -> Any:
    """Return a part without its stream's entry; None: nothing is left."""
    if not isinstance(part, Mapping):
        return part
    rest = {key: item for key, item in part.items() if key not in own}
    if isinstance(rest.get("bookmarks"), Mapping):
        rest["bookmarks"] = {key: item for key, item in rest["bookmarks"].items() if key not in own}
        if not rest["bookmarks"]:
            del rest["bookmarks"]
    return rest or None


def starts(parts: Mapping[str, Any], names: Mapping[str, Collection[str]]) -> Sequence[tuple[tuple[str, ...], Any]]:
    """Return the starts of the tap: the streams of each, and its STATE (None: from scratch).

    Args:
        parts: stream -> its part of the STATE; None: from scratch.
        names: stream -> names of its entry.
    """
    by_rest: dict[str, list[str]] = {}
    for stream, part in parts.items():
        rest = rest_of(part, names[stream])
        by_rest.setdefault(json.dumps(rest, sort_keys=True), []).append(stream)
    return [(tuple(streams), _merged([parts[stream] for stream in streams])) for streams in by_rest.values()]


def _merged(parts: Sequence[Any]) -> Any:
    """Join parts with the same rest."""
    merged: Any = None
    for part in parts:
        if part is None:
            continue
        if not isinstance(merged, dict) or not isinstance(part, Mapping):
            merged = dict(part) if isinstance(part, Mapping) else part
            continue
        bookmarks = merged.get("bookmarks")
        merged = {**merged, **part}
        if isinstance(bookmarks, Mapping) and isinstance(part.get("bookmarks"), Mapping):
            merged["bookmarks"] = {**bookmarks, **part["bookmarks"]}
    return merged


def replication_value(entry: Any, column: str) -> Any:
    """Return the replication key's value in a stream's entry; None: unknown."""
    if not isinstance(entry, Mapping):
        return entry if isinstance(entry, str | int | float) and not isinstance(entry, bool) else None
    if column in entry:
        return entry[column]
    if entry.get("partitions"):
        return None
    return entry.get("replication_key_value")
