"""Parse texts as decimals exactly, and refuse numbers with giant exponents.

Arrow's cast (and its JSON reader) is right for plain digits that fit the type. For other texts it may be wrong without
an error: `8864084658405480605985331` as decimal128(38,18) wraps around, `9069` becomes a value of decimal128(38,38),
`1e-45` and a number of more than 38 digits may become 0. Such texts are parsed here, one by one.

`1e99999999` is ten characters, and 100 million digits as an integer or a text: Python works on it for hours with its
lock held. For a decimal such as `1e-9999999` Arrow reads past the end of a table and crashes. So each number of JSON,
of a text or of user code passes `bounded` or `fitting` first.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa

from . import compute as pc
from .type_names import type_text

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,9})?")

#: Rounds no decimal of up to 76 digits.
_EXACT = Context(prec=400)

#: Most digits before and after the point of any database's numbers (PostgreSQL's numeric).
MOST_WHOLE, MOST_FRACTION = 131_072, 16_383


def bounded(value: Decimal) -> Decimal:
    """Return a number that can be written in full; zero without its exponent.

    Raises:
        ValueError: the number is too large, or too near to zero, for every database.
    """
    if not value.is_finite():
        return value
    if not value:
        return value if -MOST_FRACTION <= value.adjusted() <= 0 else Decimal(0).copy_sign(value)
    if not -MOST_FRACTION <= value.adjusted() < MOST_WHOLE:
        raise ValueError(f"the exponent of {_shown(value)} is too large for any number")
    return value


def plain_number(text: str) -> str:
    """Write a number without exponent, trailing zeros and the sign of a zero; one that is too large stays as it is."""
    try:
        shown = format(bounded(Decimal(text)), "f")
    except (ValueError, ArithmeticError):
        return text
    shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
    return "0" if shown == "-0" else shown


def as_number(value: Decimal) -> int | float:
    """Return a number for Python's JSON writer: whole numbers exactly.

    Raises:
        ValueError: the number is too large to be written.
    """
    value = bounded(value)
    return int(value) if value == value.to_integral_value() else float(value)


def fitting(value: Decimal, kind: Any) -> Decimal:
    """Return a finite number in a form that Arrow takes safely for a decimal type.

    Raises:
        ValueError: the type cannot hold all digits.
    """
    if not value.is_finite():
        raise ValueError(f"{value} is not a number of {type_text(kind)}")
    value = bounded(value)
    if not value:
        return Decimal(0)
    if value.adjusted() < kind.precision - kind.scale:
        # A number with too many digits keeps an exponent that `normalize` cannot remove.
        normal = value.normalize(_EXACT)
        exponent = normal.as_tuple().exponent
        if normal == value and isinstance(exponent, int) and -exponent <= kind.scale:
            return normal
    raise ValueError(f"{type_text(kind)} has too few digits for {_shown(value)}")


def from_texts(texts: pa.Array, kind: Any) -> pa.Array:
    """Parse a column of texts as decimals.

    Args:
        texts: strings; NULL stays NULL.
        kind: decimal128 or decimal256.

    Raises:
        ValueError: (`pa.ArrowInvalid` is one) a text is no number, or the type cannot hold all digits.
    """
    whole, scale = kind.precision - kind.scale, kind.scale
    is_plain = _longest(texts) <= whole and not any(_any(pc.match_substring(texts, pattern=each)) for each in "eE")
    if scale >= 0 and not is_plain:
        fitting = pc.match_substring_regex(texts, rf"^[-+]?[0-9]{{0,{whole}}}(\.[0-9]{{0,{scale}}})?$")
        odd = pc.fill_null(pc.invert(fitting), False)
        if _any(odd):
            exact = pa.array([_exact(text, kind) for text in texts.filter(odd).to_pylist()], kind)
            return pc.replace_with_mask(pc.if_else(odd, None, texts).cast(kind), odd, exact)
    elif scale < 0:
        return pa.array([None if text is None else _exact(text, kind) for text in texts.to_pylist()], kind)
    return pc.cast(texts, kind)


def _exact(text: str, kind: Any) -> Decimal:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no number")
    return fitting(Decimal(text), kind)


def _shown(value: Decimal) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _longest(texts: pa.Array) -> int:
    return pc.max(pc.binary_length(texts)).as_py() or 0


def _any(mask: pa.Array) -> bool:
    return pc.any(mask).as_py() is True


__all__ = ["MOST_FRACTION", "MOST_WHOLE", "as_number", "bounded", "fitting", "from_texts", "plain_number"]
