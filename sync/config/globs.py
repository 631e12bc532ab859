"""Globs for names of streams and columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase

#: Longest glob: it is compared with every name.
MAX_CHARACTERS = 1000

_SPECIAL = re.compile(r"[*?\[]")
_QUOTED = re.compile(r"\[([*?\[])\]")


def glob_matches(pattern: str, name: str) -> bool:
    """Tell whether a glob matches a whole name; case-sensitive, and `*` also matches dots."""
    return pattern == name or fnmatchcase(name, pattern)


def matches_any(patterns: Iterable[str], name: str) -> bool:
    """Tell whether one of the globs matches a whole name."""
    return any(glob_matches(pattern, name) for pattern in patterns)


def matcher(patterns: Collection[str]) -> Callable[[str], bool]:
    """Return what tells whether one of the globs matches a whole name: fast for thousands that are names."""
    exact = {name for pattern in patterns for name in (pattern, exact_name(pattern)) if name is not None}
    globs = [pattern for pattern in patterns if exact_name(pattern) is None]
    return lambda name: name in exact or matches_any(globs, name)


def is_glob(pattern: str) -> bool:
    """Tell whether a text is a glob, not an exact name."""
    return _SPECIAL.search(pattern) is not None


def exact_name(pattern: str) -> str | None:
    """Return the only name that a pattern matches, without the brackets of `[*]`, `[?]` and `[[]`; None for a glob."""
    return None if is_glob(_QUOTED.sub("", pattern)) else _QUOTED.sub(r"\1", pattern)


def exact_pattern(name: str) -> str:
    """Return the pattern that matches one name only."""
    return _SPECIAL.sub(r"[\g<0>]", name)


def glob_error(pattern: str) -> str | None:
    """Say what is wrong with a glob; None if it is valid."""
    if len(pattern) > MAX_CHARACTERS:
        return f"it has more than {MAX_CHARACTERS:,} characters"
    rest = pattern
    while "[" in rest:
        rest = rest.partition("[")[2]
        # A "]" right after "[" or "[!" is a member of the set, not its end.
        start = 2 if rest.startswith("!") else 1
        end = rest.find("]", start)
        if end < 0:
            return "'[' is never closed; for the character itself write '[[]'"
        rest = rest[end + 1 :]
    return None
