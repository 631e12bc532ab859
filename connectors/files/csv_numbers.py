"""Numbers of CSV with a decimal comma or groups of digits, as texts of plain numbers."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.compute import constant
from .odd_values import without_empty

#: Numbers with a decimal comma, and those that have only groups of digits or may be either.
_COMMA, _GROUPS = r"^-?(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+),[0-9]+$", r"^-?[0-9]{1,3}(?:,[0-9]{3})+$"

#: How many texts tell how numbers look.
_FIRST_TEXTS = 1000


class WrittenNumbers:
    """How the numbers of a file are written, where that is not with a decimal point alone."""

    def __init__(self, decimal: str, thousands: str | None) -> None:
        self._decimal, self._thousands = decimal, thousands
        groups = rf"[0-9]{{1,3}}(?:{re.escape(thousands)}[0-9]{{3}})+|" if thousands else ""
        self._pattern = rf"^[-+]?(?:{groups}[0-9]+)(?:{re.escape(decimal)}[0-9]+)?(?:[eE][-+]?[0-9]+)?$"

    def plain(self, texts: pa.Array) -> pa.Array:
        """Return texts in which numbers are plain, and other texts as they are, unless they look like plain numbers.

        Those get a blank in front: with a decimal comma, `1.5` is no number.
        """
        signs = {self._decimal, self._thousands or self._decimal, "."}
        if not any(pc.any(pc.match_substring(texts, sign)).as_py() for sign in signs):
            return texts
        numbers = pc.replace_substring(texts, self._thousands, "") if self._thousands else texts
        numbers = pc.replace_substring(numbers, self._decimal, ".")
        others = texts
        if self._decimal != ".":
            is_other = pc.match_substring_regex(texts, r"^[-+]?[0-9]*\.[0-9]*(?:[eE][-+]?[0-9]+)?$")
            others = pc.if_else(is_other, pc.binary_join_element_wise(constant(" "), texts, constant("")), texts)
        return pc.if_else(pc.match_substring_regex(texts, self._pattern), numbers, others)


def has_decimal_commas(texts: pa.Array) -> bool:
    """Tell whether the first texts are all numbers with a decimal comma, and not all may be groups of digits."""
    first = without_empty(texts.slice(0, _FIRST_TEXTS))
    if not len(first) or not pc.match_substring(first.slice(0, 1), ",")[0].as_py():
        return False
    is_comma = pc.match_substring_regex(first, _COMMA)
    return bool(pc.all(is_comma).as_py()) and not pc.all(pc.match_substring_regex(first, _GROUPS)).as_py()


__all__ = ["WrittenNumbers", "has_decimal_commas"]
