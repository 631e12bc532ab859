"""Hashes of whole records, by which records at a bookmark are recognised.

A hash by value does not depend on the type of a number or a time: a column whose type becomes wider between two runs
(integers to fractions, one more digit, finer times) must not make old records look new. Bookmarks of earlier releases
hash numbers and times by type; `BY_VALUE` in a boundary says which kind its hashes are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from .bookmarks import HASH_BYTES

#: Key of a boundary whose hashes are by value.
BY_VALUE = "by_value"

_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY_NANOSECONDS = 86_400 * 10**9


def record_hashes(batch: pa.RecordBatch, columns: Sequence[str], *, by_value: bool = False) -> list[bytes]:
    """Hash each record of a (small) batch over the named columns, to `HASH_BYTES` each."""
    rows = zip(*(_hashable(batch.column(name), by_value=by_value) for name in columns), strict=True)
    return [blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest() for row in rows]


def _hashable(column: pa.Array, *, by_value: bool) -> list[Any]:
    """Return Python values whose `repr` does not depend on the installed time zones."""
    kind, types = column.type, pa.types
    if types.is_temporal(kind) and not types.is_interval(kind):
        # As integers: databases hold times that Python cannot, such as PostgreSQL's infinity.
        numbers = column.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
        return [None if each is None else each * _unit(kind) for each in numbers] if by_value else list(numbers)
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return [_digits(each) for each in column.to_pylist()] if by_value and is_number else list(column.to_pylist())


def forms(schema: pa.Schema, columns: Sequence[str]) -> str:
    """Return what hashes by value depend on besides the values: where it differs, all hashes differ."""
    shown = repr([_form(schema.field(name).type) for name in columns])
    return blake2b(shown.encode(), digest_size=HASH_BYTES).hexdigest()


def _form(kind: Any) -> str:
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "moment"
    return "clock" if types.is_time(kind) else str(kind)


def _unit(kind: Any) -> int:
    """Return the nanoseconds that one unit of a time column counts."""
    if pa.types.is_date32(kind):
        return _DAY_NANOSECONDS
    return _NANOSECONDS["ms" if pa.types.is_date64(kind) else kind.unit]


def _digits(number: Any) -> str | None:
    """Write a number without an exponent and without trailing zeros of a fraction."""
    if number is None:
        return None
    if isinstance(number, float):
        if not math.isfinite(number):
            return str(number)
        number = Decimal(repr(number))
    text = format(number, "f") if isinstance(number, Decimal) else str(number)
    return text.rstrip("0").rstrip(".") if "." in text else text


__all__ = ["BY_VALUE", "forms", "record_hashes"]
