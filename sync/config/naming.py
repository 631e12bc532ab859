"""`naming` of a destination: what its tables and columns are called, made from the source's names."""

from __future__ import annotations

import re
from collections.abc import Iterable

KEEP = "keep"

#: Words that Mage's destinations write with `_` in front.
_MAGE_RESERVED = frozenset(
    ("as", "default", "from", "group", "join", "limit", "order", "references", "select", "to", "user", "where")
)
#: Where a word begins inside of a name: at B in aB and 9B, and at B in ABc.
_WORD_START = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=\d)(?=[A-Z])|(?<=[A-Z])(?=[A-Z][^\W\d_A-Z])")


def name_by(naming: str, name: str) -> str:
    """Return what a destination calls a column or table: `naming` is keep, lower, snake_case or mage."""
    if naming == "lower":
        return name.lower()
    if naming == "mage":
        cleaned = re.sub(r"\W", "_", name.lower())
        return f"_{cleaned}" if cleaned in _MAGE_RESERVED else cleaned
    if naming == "snake_case":
        words = re.sub(r"\W+", "_", _WORD_START.sub("_", name)).lower()
        return re.sub(r"(?<=[^_])_+", "_", words).rstrip("_") or "_"
    return name


def one_named(naming: str, names: Iterable[str]) -> tuple[str, str, str] | None:
    """Return the first two names that become one, and that one; None: all stay apart."""
    seen: dict[str, str] = {}
    for name in names:
        made = name_by(naming, name)
        first = seen.setdefault(made, name)
        if first != name:
            return first, name, made
    return None


def collision(what: str, naming: str, first: str, second: str, made: str) -> str:
    """Say which two columns or tables become one name, and what to do."""
    way = "a transformer's `rename`" if what == "columns" else "`destination_table` in one of the two streams"
    return f"`naming: {naming}` makes {made!r} of two {what}, {first!r} and {second!r}: give one another name by {way}"
