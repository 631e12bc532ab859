"""Hashes of whole records, by which those at a bookmark are known again.

By value a number or a time is the same whatever type its column has: one that becomes wider between two runs (integers
that get fractions, a decimal with one digit more, finer times) must not make old records look new. Bookmarks of before
hash numbers and times as their types have them; a boundary says which it is, under `BY_VALUE`.
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
    """Python values whose `repr` is the same everywhere, whatever zone database is installed."""
    kind, types = column.type, pa.types
    if types.is_temporal(kind) and not types.is_interval(kind):
        # As integers: databases hold times past Python's, such as PostgreSQL's infinity.
        numbers = column.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
        return [None if each is None else each * _unit(kind) for each in numbers] if by_value else list(numbers)
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return [_digits(each) for each in column.to_pylist()] if by_value and is_number else list(column.to_pylist())


def forms(schema: pa.Schema, columns: Sequence[str]) -> str:
    """Sum up what hashes by value depend on beside the values: where it differs no record has the same hash."""
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
    """Return the nanoseconds that one of a column's integers counts."""
    if pa.types.is_date32(kind):
        return _DAY_NANOSECONDS
    return _NANOSECONDS["ms" if pa.types.is_date64(kind) else kind.unit]


def _digits(number: Any) -> str | None:
    """Write a number without an exponent, and without zeros that are no part of its value."""
    if number is None:
        return None
    if isinstance(number, float):
        if not math.isfinite(number):
            return str(number)
        number = Decimal(repr(number))
    text = format(number, "f") if isinstance(number, Decimal) else str(number)
    return text.rstrip("0").rstrip(".") if "." in text else text


__all__ = ["BY_VALUE", "forms", "record_hashes"]
