"""Decimals for numbers without a limit of digits: chosen for all numbers that are there, and widened by later ones."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from . import compute as pc
from .compute import constant

#: Most digits of a decimal that every destination takes.
MOST_DIGITS = 38

#: Digits of a decimal that every destination keeps in 8 bytes, and how many of them are left for larger numbers.
USUAL_DIGITS, SPARE_DIGITS = 18, 3


@dataclass(frozen=True, slots=True)
class Digits:
    """Most digits of a column's numbers."""

    #: Before the point, without leading zeros.
    whole: int
    #: After the point, as they are written.
    fraction: int
    #: After the point, without zeros at their end.
    least_fraction: int


def decimal_of(digits: Digits) -> pa.DataType | None:
    """Return the decimal for a column of such numbers; None: 38 digits are not enough."""
    fractions = (digits.fraction, digits.least_fraction)
    for fraction in fractions:
        if digits.whole + fraction + SPARE_DIGITS <= USUAL_DIGITS:
            return pa.decimal128(USUAL_DIGITS, fraction)
    fitting = [fraction for fraction in fractions if digits.whole + fraction <= MOST_DIGITS]
    return pa.decimal128(MOST_DIGITS, fitting[0]) if fitting else None


def widened(kind: pa.DataType, texts: pa.Array) -> pa.DataType:
    """Return the decimal that also holds the numbers written in some texts; leave out those that no decimal holds.

    Args:
        kind: a decimal.
        texts: strings such as `-12.50`; other texts (`NaN`) and NULL count for nothing.
    """
    whole, scale = kind.precision - kind.scale, kind.scale
    size, point = pc.binary_length(texts), pc.find_substring(texts, ".")
    has_point = pc.greater_equal(point, constant(0))
    wholes = pc.subtract(pc.if_else(has_point, point, size), pc.cast(pc.starts_with(texts, "-"), pa.int32()))
    fractions = pc.if_else(has_point, pc.subtract(pc.subtract(size, point), constant(1)), constant(0))
    if (pc.max(wholes).as_py() or 0) <= whole and (pc.max(fractions).as_py() or 0) <= scale:
        return kind
    needed = pc.add(pc.max_element_wise(wholes, constant(whole)), pc.max_element_wise(fractions, constant(scale)))
    is_number = pc.match_substring_regex(texts, r"^-?[0-9]+(\.[0-9]+)?$")
    is_held = pc.and_(is_number, pc.less_equal(needed, constant(MOST_DIGITS)))
    whole = max(whole, pc.max(wholes.filter(is_held)).as_py() or 0)
    scale = max(scale, pc.max(fractions.filter(is_held)).as_py() or 0)
    return pa.decimal128(whole + scale, scale) if whole + scale <= MOST_DIGITS else kind


__all__ = ["MOST_DIGITS", "Digits", "decimal_of", "widened"]
