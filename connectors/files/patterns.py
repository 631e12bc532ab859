"""Find the files that patterns match: one listing of a folder for all patterns in it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .storage import Entry, Listing, Storage

_SPECIAL = frozenset("*?[")


class Matches:
    """The files of one storage, listed once for each folder in which a pattern begins."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._listed: dict[str, Listing] = {}

    def of(self, patterns: Iterable[str]) -> list[Entry]:
        """Return each file that one of the patterns matches once, sorted by name.

        In a folder, files and folders whose names begin with `.` or `_` are matched by no pattern, but by their name.
        """
        return sorted(self.listing(patterns).entries(), key=lambda entry: entry.name)

    def listing(self, patterns: Iterable[str]) -> Listing:
        """Do so in the order in which they are found."""
        listings = [self._matches(pattern) for pattern in patterns]
        if len(listings) == 1:
            return listings[0]
        found, seen = Listing(), set[str]()
        for listing in listings:
            for place, name in enumerate(listing.names):
                if name not in seen:
                    found.add(listing.entry(place))
            seen.update(listing.names)
        return found

    def _matches(self, pattern: str) -> Listing:
        parts = pattern.split("/")
        first = next((place for place, part in enumerate(parts) if _SPECIAL & set(part)), None)
        if first is None:
            found, entry = Listing(), self._storage.entry(pattern)
            if entry is not None:
                found.add(entry)
            return found
        folder = "/".join(parts[:first])
        if folder not in self._listed:
            self._listed[folder] = self._storage.listing(folder)
        matches, listing = _compiled(parts).fullmatch, self._listed[folder]
        return listing.taken([place for place, name in enumerate(listing.names) if matches(name)])


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
