"""Columns read in a type that somebody says: each value is exact in that type, or refused."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ..errors import FatalConnectorError
from .fidelity import as_text, plain


def is_readable(kind: pa.DataType, said: pa.DataType) -> bool:
    """Tell whether values of a type may be values of another one: numbers are numbers, and texts may be anything."""
    own, said = plain(kind), plain(said)
    if own == said or pa.types.is_null(own) or pa.types.is_string(said):
        return True
    if pa.types.is_string(own):
        return not pa.types.is_nested(said)
    return _family(own) == _family(said) != ""


def read_as(array: pa.Array, said: pa.DataType, column: str) -> pa.Array:
    """Return a column in another type.

    Raises:
        FatalConnectorError: with the first value that is none of the type.
    """
    if array.type == said:
        return array
    from .conform import python_value, shown
    from .text import first_invalid  # its kernels take time to load, and few streams need them

    try:
        return _read(array, said)
    except (pa.ArrowException, ValueError, ArithmeticError) as error:
        value = python_value(array[first_invalid(array, lambda part: _read(part, said))])
        raise FatalConnectorError(
            f"column {column!r}: {shown(value)} is no {said}, as `types` says: say another type there"
        ) from error


def _read(array: pa.Array, said: pa.DataType) -> pa.Array:
    from . import compute as pc
    from .decimals import from_texts
    from .text import from_text

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), said)
    if pa.types.is_string(plain(said)):
        return as_text(array, "").cast(said)
    if pa.types.is_string(plain(array.type)):
        return from_text(array.cast(pa.string()), said, is_empty_null=False)
    if pa.types.is_floating(array.type) and pa.types.is_decimal(said):
        return from_texts(as_text(array, ""), said)  # Arrow would round; 10.1 is what its text says
    made = pc.cast(array, said, safe=True)
    if not made.cast(array.type).equals(array):
        raise ValueError("changed")
    return made


def _family(kind: Any) -> str:
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_timestamp(kind):
        return "zoned" if kind.tz else "moment"
    if types.is_date(kind):
        return "moment"
    if types.is_time(kind):
        return "time"
    if types.is_binary(kind) or types.is_fixed_size_binary(kind):
        return "bytes"
    return ""


__all__ = ["is_readable", "read_as"]
