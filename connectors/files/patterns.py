"""Find the files that patterns match: one listing of a folder for all patterns in it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .storage import Entry, Storage

_SPECIAL = frozenset("*?[")


class Matches:
    """The files of one storage, listed once for each folder in which a pattern begins."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._listed: dict[str, list[Entry]] = {}

    def of(self, patterns: Iterable[str]) -> list[Entry]:
        """Return each file that one of the patterns matches once, sorted by name.

        In a folder, files and folders whose names begin with `.` or `_` are matched by no pattern, but by their name.
        """
        found: dict[str, Entry] = {}
        for pattern in patterns:
            for entry in self._matches(pattern):
                found[entry.name] = entry
        return [found[name] for name in sorted(found)]

    def _matches(self, pattern: str) -> Iterable[Entry]:
        parts = pattern.split("/")
        first = next((place for place, part in enumerate(parts) if _SPECIAL & set(part)), None)
        if first is None:
            entry = self._storage.entry(pattern)
            return [] if entry is None else [entry]
        folder = "/".join(parts[:first])
        if folder not in self._listed:
            self._listed[folder] = self._storage.entries(folder)
        matches = _compiled(parts).fullmatch
        return (entry for entry in self._listed[folder] if matches(entry.name))


def _compiled(parts: list[str]) -> re.Pattern[str]:
    """Return the pattern as an expression: `**` stands for any folders, anything else for part of one name."""
    text = ""
    for place, part in enumerate(parts):
        is_last = place == len(parts) - 1
        if part == "**":
            text += ".*" if is_last else "(?:[^/]+/)*"
        else:
            text += _of_one_name(part) + ("" if is_last else "/")
    return re.compile(text, re.DOTALL)


def _of_one_name(part: str) -> str:
    text = ""
    for piece in re.split(r"(\[!?\]?[^\]]*\]|[*?])", part):
        if len(piece) > 2 and piece[0] == "[" and piece[-1] == "]":
            inner = piece[1:-1].replace("\\", r"\\").replace("]", r"\]").replace("[", r"\[")
            text += f"[^/{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
        else:
            text += {"*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))
    return text
