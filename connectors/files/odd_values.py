"""Columns of a file that are text because of a few values: how many, which, and what to write against it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.compute import constant
from ..arrow.type_names import yaml_text

#: More different values than these are no exceptions.
_MOST_ODD = 5

#: What one value of a kind is not, and what several are not.
_WORDS = {
    "bool": ("is not true or false", "are not true or false"),
    "integer": ("is not a number", "are not numbers"),
    "number": ("is not a number", "are not numbers"),
    "date": ("is no date", "are no dates"),
    "naive": ("is not a time", "are not times"),
    "zoned": ("is not a time", "are not times"),
}


class OddValues:
    """Counts the values of one column that have not the kind of the others."""

    def __init__(self, patterns: dict[str, str], seen: int) -> None:
        """Begin with the first batch that has an odd value.

        Args:
            patterns: kind -> pattern of its values, of the kinds that all values before had.
            seen: number of these values.
        """
        self._patterns = patterns
        self._kind = ""
        self._total = seen
        self._odd: dict[str, int] = {}
        self._is_given_up = False

    def add(self, texts: pa.Array) -> None:
        """Take more texts into account, none of which is empty or NULL."""
        if self._is_given_up or not len(texts):
            return
        if not self._kind:
            counts = {
                kind: pc.sum(pc.match_substring_regex(texts, pattern)).as_py()
                for kind, pattern in self._patterns.items()
            }
            self._kind = max(counts, key=lambda kind: counts[kind])
        is_odd = pc.invert(pc.match_substring_regex(texts, self._patterns[self._kind]))
        self._total += len(texts)
        for each in pc.value_counts(texts.filter(is_odd)).slice(0, _MOST_ODD + 1).to_pylist():
            self._odd[each["values"]] = self._odd.get(each["values"], 0) + each["counts"]
        # A digit: a number in another form, such as a code with a leading zero, which only text keeps.
        is_code = any(any(map(str.isdigit, text)) for text in self._odd)
        self._is_given_up = is_code or len(self._odd) > _MOST_ODD or 2 * sum(self._odd.values()) > self._total

    def notice(self, column: str, nulls: list[str]) -> str:
        """Say it in a sentence; empty: the column is text for more than a few values.

        Args:
            column: its name.
            nulls: texts that mean NULL now.
        """
        if self._is_given_up or not self._odd:
            return ""
        count = sum(self._odd.values())
        named = ", ".join(f"{text!r} {number:,}" for text, number in self._odd.items())
        are = f"{count:,} of {self._total:,} values {_WORDS[self._kind][count > 1]}"
        listed, said = ", ".join(map(_quoted, [*nulls, *self._odd])), f"`types: {{{yaml_text(column)}: string}}`"
        return (
            f"column {column!r} is read as text: {are} ({named}). `null_values: [{listed}]` in the source's config "
            f"reads them as NULL (use --full-refresh if the table exists); {said} keeps the text without this "
            "message"
        )


def _quoted(text: str) -> str:
    """Write a text for a list in YAML."""
    return "'" + text.replace("'", "''") + "'"


def without_empty(column: pa.Array) -> pa.Array:
    """Return the texts that are neither empty nor NULL."""
    is_text = pc.fill_null(pc.not_equal(column, constant("")), constant(False))
    return column if pc.all(is_text).as_py() else column.filter(is_text)


__all__ = ["OddValues", "without_empty"]
