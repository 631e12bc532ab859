"""Patterns for names of streams: shared by the file's filters, the engine and the callbacks' filters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

_SPECIAL = re.compile(r"[*?\[]")


def glob_matches(pattern: str, name: str) -> bool:
    """Tell whether a pattern matches a whole name; case counts, and `*` matches dots too."""
    return pattern == name or fnmatchcase(name, pattern)


def matches_any(patterns: Iterable[str], name: str) -> bool:
    """Tell whether one of the patterns matches a whole name."""
    return any(glob_matches(pattern, name) for pattern in patterns)


def is_glob(pattern: str) -> bool:
    """Tell a pattern from an exact name. Views and the like are selected by exact names only."""
    return _SPECIAL.search(pattern) is not None


def glob_error(pattern: str) -> str | None:
    """Return what is wrong with a pattern, None if it is one."""
    rest = pattern
    while "[" in rest:
        rest = rest.partition("[")[2]
        # A "]" right after the opening (or its "!") is a member of the set, not its end.
        start = 2 if rest.startswith("!") else 1
        end = rest.find("]", start)
        if end < 0:
            return "'[' is never closed; for the character itself write '[[]'"
        rest = rest[end + 1 :]
    return None
