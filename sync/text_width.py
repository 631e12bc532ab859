"""How many columns of a terminal a text takes."""

from __future__ import annotations

import unicodedata


def text_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(map(char_width, text))


def char_width(char: str) -> int:
    """Return how many columns of a terminal one character takes: 0, 1 or 2."""
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def beginning(text: str, width: int) -> str:
    """Return the longest beginning of a text that takes at most so many columns."""
    taken = 0
    for place, char in enumerate(text):
        taken += char_width(char)
        if taken > width:
            return text[:place]
    return text


__all__ = ["beginning", "char_width", "text_width"]
