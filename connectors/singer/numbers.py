"""Numbers of JSON that stay exact: which a double holds, and what Arrow's JSON reader gets wrong. Pure."""

from __future__ import annotations

import struct
from decimal import Context, Decimal
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .types import LONG, Column

#: So many digits in a row (a point among them) may be more than a double holds.
LONG_RUN = 16
_STRIDE = LONG_RUN // 2
#: Digits and points as 0, signs as -, the e of exponents; anything else as a space.
NUMERALS = bytes(
    48 if 48 <= byte < 58 or byte == 46 else 101 if byte in b"eE" else byte if byte in b"+-" else 32
    for byte in range(256)
)

#: Keeps the digits of any number: Python's own context rounds to 28 of them.
EXACT = Context(prec=5000)


class Wider(Exception):
    """A value needs a wider type than its column's; the block is to be read again with it."""

    def __init__(self, column: Column, kind: pa.DataType | None) -> None:
        super().__init__(column.name)
        self.column = column
        #: A decimal type; None: digits as text.
        self.kind = kind


def may_have_long_numbers(block: bytes) -> bool:
    """Tell whether a number may have more digits than every double holds: `LONG_RUN` or more in a row.

    Every such run covers two places in a row of those that are a stride apart, so most blocks need a look at a part of
    their bytes only.
    """
    return b"00" in block[::_STRIDE].translate(NUMERALS)


#: A number with an exponent, also where decimals come as texts. A text that holds the like does no harm.
_EXPONENT = r"[:,\[]\s*-?[0-9][0-9.]*[eE]"
_EXPONENT_IN_TEXT = r"[:,\[]\s*\"?\s*[-+]?[0-9.]+[eE]"
#: One so near to zero that Arrow reads past its table of powers, and may crash, where it takes it for a decimal.
_TINY = r"[:,\[]\s*\"?\s*[-+]?[0-9.]+[eE]-[0-9]{3,}\s*[\",\]}]"
_NEGATIVE_ZERO = r"[:,\[]\s*-[0.]+[^0-9.]"


def has_exponents(block: bytes, *, in_texts: bool) -> bool:
    """Tell whether there may be a number with an exponent: hexadecimal digits in a text are none."""
    return _matches(block, _EXPONENT_IN_TEXT if in_texts else _EXPONENT)


def has_tiny(block: bytes) -> bool:
    """Tell whether there may be a number, also one in a text, at which Arrow's reader of decimals crashes."""
    return (b"e-" in block or b"E-" in block) and _matches(block, _TINY)


def has_negative_zero(block: bytes) -> bool:
    """Tell whether there may be a number -0, which as a decimal has no sign."""
    return _matches(block, _NEGATIVE_ZERO)


def _matches(block: bytes, pattern: str) -> bool:
    offsets = struct.pack("=qq", 0, len(block))
    whole = pa.Array.from_buffers(pa.large_binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(block)])
    return pc.match_substring_regex(whole, pattern)[0].as_py() is True


def room(kind: pa.DataType) -> int:
    """Return with how many digits Arrow's JSON reader may get a decimal wrong, once it is scaled."""
    return (38 if pa.types.is_decimal128(kind) else 76) - int(kind.scale) + 1


def has_zero(decimals: pa.Array) -> bool:
    # pa.scalar would import pandas, which takes longer than a small sync.
    zero = pa.Array.from_buffers(decimals.type, 1, [None, pa.py_buffer(bytes(decimals.type.byte_width))])[0]
    return pc.any(pc.equal(decimals, zero)).as_py() is True


def is_near(decimals: pa.Array, doubles: pa.Array) -> bool:
    doubles = doubles.cast(pa.float64())
    gap = pc.abs(pc.subtract(decimals.cast(pa.float64()), doubles))
    is_near = pc.less_equal(gap, pc.multiply(pc.abs(doubles), 1e-6))
    return pc.all(is_near).as_py() is not False


def plain_digits(found: pa.Array) -> pa.Array:
    """Write decimals without the zeros that their common scale gives them."""
    text = found.cast(pa.string())
    if pc.any(pc.match_substring(text, "E")).as_py():
        values = [None if value is None else format(value, "f") for value in found.to_pylist()]
        text = pa.array(values, pa.string())
    return pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")


def holds(column: Column, doubles: pa.Array, decimals: pa.Array) -> bool:
    """Tell whether the doubles hold every digit of the decimals; False where the decimals may be wrong themselves.

    Raises:
        Wider: they do not.
    """
    same = pc.equal(doubles.cast(pa.string()).cast(LONG), decimals)
    if pc.all(same).as_py() is not False:
        return True
    is_other = pc.invert(pc.fill_null(same, True))
    others = zip(doubles.filter(is_other).to_pylist(), decimals.filter(is_other).to_pylist(), strict=True)
    for double, value in others:
        if not 1e-30 < abs(double) < 1e30:
            return False
        if not is_exact(value):
            raise Wider(column, decimal_for(decimals))
    return True


def is_exact(value: Decimal | int) -> bool:
    """Tell whether a double holds all digits, or the digits are those of a double written with 17 of them."""
    try:
        double = float(value)
    except OverflowError:
        return False
    if not isfinite(double):
        return False
    number = Decimal(value)
    return Decimal(repr(double)) == number or Decimal(f"{double:.17g}") == number


def decimal_for(values: Any) -> pa.DataType | None:
    """Return a decimal type that holds these values; None where there is none of 38 digits."""
    scale = whole = 0
    for value in values.to_pylist() if isinstance(values, pa.Array) else values:
        if value is None:
            continue
        _, digits, exponent = value.normalize(EXACT).as_tuple()
        scale = max(scale, -exponent)
        whole = max(whole, len(digits) + exponent)
    if whole + scale > 38:
        return None
    # Room for more digits behind the point, as far as that leaves room before it.
    return pa.decimal128(38, max(scale, min(18, 38 - max(whole, 15))))
