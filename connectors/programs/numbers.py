"""Find JSON numbers that a double does not hold, or that Arrow's JSON reader may get wrong. Pure."""

from __future__ import annotations

import struct
from decimal import Context, Decimal
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .types import LONG, PropertyColumn

#: So many adjacent digits (with a point) may be more than a double holds.
LONG_RUN = 16
_STRIDE = LONG_RUN // 2
#: Maps digits and points to 0, signs to -, `E` to e, other bytes to a space.
NUMERALS = bytes(
    48 if 48 <= byte < 58 or byte == 46 else 101 if byte in b"eE" else byte if byte in b"+-" else 32
    for byte in range(256)
)

#: Keeps all digits: Python's default context rounds to 28.
EXACT = Context(prec=5000)


class Wider(Exception):
    """A value needs a wider type than its column has; read the block again with it."""

    def __init__(self, column: PropertyColumn, kind: pa.DataType | None) -> None:
        super().__init__(column.name)
        self.column = column
        #: A decimal type; None: digits as text.
        self.kind = kind


def may_have_long_numbers(block: bytes) -> bool:
    """Tell whether a number may have more digits than every double holds: `LONG_RUN` or more in a row.

    Such a run covers two adjacent positions of those that are a stride apart, so a part of the bytes is enough.
    """
    return b"00" in block[::_STRIDE].translate(NUMERALS)


#: A number with an exponent, also a text that holds one. Another text that matches does no harm.
_EXPONENT = r"[:,\[]\s*-?[0-9][0-9.]*[eE]"
_EXPONENT_IN_TEXT = r"[:,\[]\s*\"?\s*[-+]?[0-9.]+[eE]"
#: A number so near to zero that Arrow, for a decimal, reads past its table of powers and may crash.
_TINY = r"[:,\[]\s*\"?\s*[-+]?[0-9.]+[eE]-[0-9]{3,}\s*[\",\]}]"
_NEGATIVE_ZERO = r"[:,\[]\s*-[0.]+[^0-9.]"


def has_exponents(block: bytes, *, in_texts: bool) -> bool:
    """Tell whether a block may have a number with an exponent; hexadecimal digits do not count."""
    return _matches(block, _EXPONENT_IN_TEXT if in_texts else _EXPONENT)


def has_tiny(block: bytes) -> bool:
    """Tell whether a block may have a number, also in a text, at which Arrow's reader of decimals crashes."""
    return (b"e-" in block or b"E-" in block) and _matches(block, _TINY)


def has_negative_zero(block: bytes) -> bool:
    """Tell whether a block may have a -0, which loses its sign as a decimal."""
    return _matches(block, _NEGATIVE_ZERO)


def _matches(block: bytes, pattern: str) -> bool:
    offsets = struct.pack("=qq", 0, len(block))
    whole = pa.Array.from_buffers(pa.large_binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(block)])
    return pc.match_substring_regex(whole, pattern)[0].as_py() is True


def room(kind: pa.DataType) -> int:
    """Return the number of digits from which Arrow's JSON reader may scale a decimal wrong."""
    return (38 if pa.types.is_decimal128(kind) else 76) - int(kind.scale) + 1


def has_zero(decimals: pa.Array) -> bool:
    # `pa.scalar` would import pandas, which takes longer than a small run.
    zero = pa.Array.from_buffers(decimals.type, 1, [None, pa.py_buffer(bytes(decimals.type.byte_width))])[0]
    return pc.any(pc.equal(decimals, zero)).as_py() is True


def is_near(decimals: pa.Array, doubles: pa.Array) -> bool:
    doubles = doubles.cast(pa.float64())
    gap = pc.abs(pc.subtract(decimals.cast(pa.float64()), doubles))
    is_near = pc.less_equal(gap, pc.multiply(pc.abs(doubles), 1e-6))
    return pc.all(is_near).as_py() is not False


def plain_digits(found: pa.Array) -> pa.Array:
    """Write decimals without trailing zeros."""
    text = found.cast(pa.string())
    if pc.any(pc.match_substring(text, "E")).as_py():
        values = [None if value is None else format(value, "f") for value in found.to_pylist()]
        text = pa.array(values, pa.string())
    return pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")


def holds(column: PropertyColumn, doubles: pa.Array, decimals: pa.Array) -> bool:
    """Tell whether doubles hold all digits of decimals; False: the decimals themselves may be wrong.

    Raises:
        Wider: the doubles do not hold all digits.
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
    """Tell whether a double holds all digits, or the digits are a double written with 17 digits."""
    try:
        double = float(value)
    except OverflowError:
        return False
    if not isfinite(double):
        return False
    number = Decimal(value)
    return Decimal(repr(double)) == number or Decimal(f"{double:.17g}") == number


def decimal_for(values: Any) -> pa.DataType | None:
    """Return a decimal type of 38 digits that holds these values; None: there is none."""
    scale = whole = 0
    for value in values.to_pylist() if isinstance(values, pa.Array) else values:
        if value is None:
            continue
        _, digits, exponent = value.normalize(EXACT).as_tuple()
        scale = max(scale, -exponent)
        whole = max(whole, len(digits) + exponent)
    if whole + scale > 38:
        return None
    # More digits after the point, as far as enough remain before it.
    return pa.decimal128(38, max(scale, min(18, 38 - max(whole, 15))))
