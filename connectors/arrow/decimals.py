"""Texts to decimals, exactly.

Arrow's own cast (and its JSON reader) is right for plain digits that the type has room for. Past that it may be wrong
without an error: `8864084658405480605985331` as decimal128(38,18) wraps around, `9069` becomes a value of
decimal128(38,38), `1e-45` and a number of more than 38 digits may become 0. Such texts are parsed here, one by one.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa

from . import compute as pc

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,9})?")

#: Rounds nothing that a decimal of 76 digits holds.
_EXACT = Context(prec=400)


def from_texts(texts: pa.Array, kind: Any) -> pa.Array:
    """Parse a column of texts as decimals.

    Args:
        texts: strings; NULL stays NULL.
        kind: decimal128 or decimal256.

    Raises:
        ValueError: (`pa.ArrowInvalid` is one) a text is no number, or the type has no room for all of its digits.
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
    value = Decimal(text).normalize(_EXACT)
    if not value:
        return Decimal(0)
    exponent = value.as_tuple().exponent
    if value.adjusted() >= kind.precision - kind.scale or not isinstance(exponent, int) or -exponent > kind.scale:
        raise ValueError(f"{kind} has no room for {text[:60]}")
    return value


def _longest(texts: pa.Array) -> int:
    return pc.max(pc.binary_length(texts)).as_py() or 0


def _any(mask: pa.Array) -> bool:
    return pc.any(mask).as_py() is True


__all__ = ["from_texts"]
