"""Decimals for numbers without a limit of digits: chosen for all numbers that are there, and widened by later ones."""

from __future__ import annotations

import re
from decimal import Decimal

import pyarrow as pa
from msgspec import Struct

from ..field_facts import facts_of
from . import compute as pc
from .decimals import bounded

#: Most digits of a decimal that every destination takes.
MOST_DIGITS = 38

#: Digits of a decimal that every destination keeps in 8 bytes, and how many stay free for larger numbers.
USUAL_DIGITS, SPARE_DIGITS = 18, 3


#: A double stores every integer up to this one exactly.
MOST_EXACT = 2**53

#: Numbers without an exponent, and numbers with one, NaN and infinities.
_PLAIN = r"^-?[0-9]+(\.[0-9]+)?$"
_ODD = re.compile(r"-?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]+|nan|NaN|-?inf|-?Infinity")


#: A database's own name of a type of numbers.
_NUMBER = re.compile(r"(numeric|decimal|number)\b", re.IGNORECASE)


def is_number_in_text(field: pa.Field) -> bool:
    """Tell whether a column holds a database's numbers as texts: by setting, or for their many digits."""
    native = facts_of(field).native_type
    return pa.types.is_string(field.type) and _NUMBER.match(native) is not None


class Digits(Struct, frozen=True):
    """Most digits of a column's numbers."""

    #: Before the point, without leading zeros.
    whole: int
    #: After the point, as they are written.
    fraction: int
    #: After the point, without zeros at their end.
    least_fraction: int


class DigitsSeen:
    """The most digits of all numbers of a column, from their texts."""

    def __init__(self) -> None:
        self._whole = self._fraction = self._least = 0
        #: Numbers that no decimal holds -> how many there are.
        self.special: dict[str, int] = {}

    @property
    def digits(self) -> Digits:
        """What was seen so far."""
        return Digits(self._whole, self._fraction, self._least)

    def add(self, texts: pa.Array) -> None:
        """Take more strings into account; those that are no numbers, and NULL, count for nothing."""
        is_plain = pc.fill_null(pc.match_substring_regex(texts, _PLAIN), pc.constant(False))
        self._measure(texts.filter(is_plain))
        others = texts.filter(pc.and_(pc.invert(is_plain), texts.is_valid()))
        for text in others.to_pylist() if len(others) else ():
            self._add_odd(text)

    def _measure(self, texts: pa.Array) -> None:
        if not len(texts):
            return
        # Without the zero before a point, which is no digit of the number.
        texts = pc.replace_substring_regex(texts, r"^(-?)0\.", r"\1.")
        wholes, fractions = _lengths(texts)
        trimmed = pc.if_else(pc.match_substring(texts, "."), pc.ascii_rtrim(texts, "0"), texts)
        self._whole = max(self._whole, pc.max(wholes).as_py())
        self._fraction = max(self._fraction, pc.max(fractions).as_py())
        self._least = max(self._least, pc.max(_lengths(trimmed)[1]).as_py())

    def _add_odd(self, text: str) -> None:
        if _ODD.fullmatch(text) is None:
            return
        try:
            number = bounded(Decimal(text))
        except (ArithmeticError, ValueError):  # a giant exponent
            number = Decimal("NaN")
        if number.is_finite():
            self._measure(pa.array([format(number, "f")], pa.string()))
        else:
            self.special[text] = self.special.get(text, 0) + 1


def _lengths(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the digits before and after the point of numbers without an exponent."""
    size, point = pc.binary_length(texts), pc.find_substring(texts, ".")
    has_point = pc.greater_equal(point, pc.constant(0))
    wholes = pc.subtract(pc.if_else(has_point, point, size), pc.cast(pc.starts_with(texts, "-"), pa.int32()))
    return wholes, pc.if_else(has_point, pc.subtract(pc.subtract(size, point), pc.constant(1)), pc.constant(0))


def widened(kind: pa.DataType, texts: pa.Array) -> pa.DataType:
    """Return the decimal that also holds the numbers written in some texts; leave out those that no decimal holds.

    Args:
        kind: a decimal.
        texts: strings such as `-12.50`; other texts (`NaN`) and NULL count for nothing.
    """
    whole, scale = kind.precision - kind.scale, kind.scale
    wholes, fractions = _lengths(texts)
    if (pc.max(wholes).as_py() or 0) <= whole and (pc.max(fractions).as_py() or 0) <= scale:
        return kind
    needed = pc.add(pc.max_element_wise(wholes, pc.constant(whole)), pc.max_element_wise(fractions, pc.constant(scale)))
    is_number = pc.match_substring_regex(texts, _PLAIN)
    is_held = pc.and_(is_number, pc.less_equal(needed, pc.constant(MOST_DIGITS)))
    whole = max(whole, pc.max(wholes.filter(is_held)).as_py() or 0)
    scale = max(scale, pc.max(fractions.filter(is_held)).as_py() or 0)
    return pa.decimal128(whole + scale, scale) if whole + scale <= MOST_DIGITS else kind


__all__ = ["MOST_DIGITS", "Digits", "DigitsSeen", "widened"]
