"""Tables and sentences that fit a terminal: by the columns that characters take, and with no word cut in two."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ..text_width import beginning, char_width, text_width

#: Columns of a terminal between two columns of a table.
GAP = 2
#: Width below which a name is not shortened.
_SHORTEST = 12
#: A word; what stands in backquotes is one, so that a command can be copied.
_WORD = re.compile(r"(?:`[^`\n]*`|\S)+")


def shortened(text: str, width: int) -> str:
    """Return a text of at most so many columns, with `…` in its middle if it is longer."""
    if text_width(text) <= width:
        return text
    tail = (width - 1) // 2
    end = beginning(text[::-1], tail)[::-1]
    while end and not char_width(end[0]):
        end = end[1:]  # a mark without its letter
    return f"{beginning(text, width - 1 - tail)}…{end}"


def wrapped(text: str, width: int, *, indent: str = "") -> list[str]:
    """Return the lines of one line of text, broken between words; a word that is longer than a line stays whole.

    Args:
        text: without line breaks.
        width: columns of a line.
        indent: begins each line but the first.
    """
    lines: list[str] = []
    start = end = 0
    for word in _WORD.finditer(text):
        room = width - (len(indent) if lines else 0)
        if end > start and text_width(text[start : word.end()]) > room:
            lines.append(text[start:end])
            start = word.start()
        end = word.end()
    lines.append(text[start:end])
    return [lines[0], *(indent + line for line in lines[1:])]


def cell_lines(text: str, width: int) -> list[str]:
    """Return the lines of a cell, broken between words; a word that does not fit is shortened."""
    return [shortened(line, width) for line in wrapped(text, width)] if text_width(text) > width else [text]


class ColumnGroup(NamedTuple):
    """Columns of a table that stand side by side."""

    #: Place of a column -> its width.
    widths: dict[int, int]


def parts_of(cells: Sequence[Sequence[str]], fixed: Collection[int], limit: int | None) -> list[ColumnGroup]:
    """Return the columns of a table side by side, and below each other where a line does not hold them.

    Args:
        cells: the header and all rows, with the columns that are shown.
        fixed: places of columns that are neither broken nor shortened.
        limit: columns of the terminal; None: a line may have any length.
    """
    natural = {place: max(text_width(row[place]) for row in cells) for place in range(len(cells[0]))}
    if limit is None or _total(natural) <= limit:
        return [ColumnGroup(natural)]
    words = {
        place: width if place in fixed else max(_longest_word(row[place]) for row in cells)
        for place, width in natural.items()
    }
    lowest = {place: width if place in fixed else min(width, _SHORTEST) for place, width in words.items()}
    if _total(lowest) <= limit:
        return [ColumnGroup(_narrowed(_narrowed(natural, words, limit), lowest, limit))]
    first = min(natural[0], limit // 3)
    parts = [ColumnGroup({0: first})]
    for place in range(1, len(natural)):
        width = min(natural[place], limit - first - GAP)
        if _total({**parts[-1].widths, place: width}) > limit:
            parts.append(ColumnGroup({0: first}))
        parts[-1].widths[place] = width
    return parts


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _longest_word(text: str) -> int:
    return max(map(text_width, text.split()), default=0)


def _narrowed(widths: dict[int, int], lowest: dict[int, int], limit: int) -> dict[int, int]:
    """Return the widths with the widest columns made narrower, until a line holds them or none can be."""
    widths = dict(widths)
    for _ in range(_total(widths) - limit):
        able = [place for place, width in widths.items() if width > lowest[place]]
        if not able:
            break
        widths[max(able, key=lambda place: widths[place])] -= 1
    return widths
