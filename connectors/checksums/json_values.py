"""Compare JSON texts by value, and write them as PostgreSQL's jsonb does. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from json.encoder import encode_basestring
from operator import itemgetter
from typing import Any

import pyarrow as pa

from ..arrow.decimals import MOST_FRACTION, MOST_WHOLE


def jsonb_text(text: str) -> str:
    """Write a JSON text as jsonb does: each key once, in its order, all digits; return invalid JSON as it is."""
    return _rewritten(text, _as_numeric)


def value_text(text: str) -> str:
    """Write a JSON text as jsonb does, but numbers without trailing zeros."""
    return _rewritten(text, _as_value)


def is_same_json(left: str, right: str, kind: pa.DataType | None = None) -> bool:
    """Tell whether two JSON texts have the same value, whatever the digits and the order of keys.

    Args:
        left: a JSON text.
        right: a JSON text.
        kind: the type that both were written from: its floats are compared as floats; None: unknown.
    """
    try:
        return _is_same(_read(left), _read(right), kind)
    except (ValueError, ArithmeticError, RecursionError):
        return False


def _read(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _rewritten(text: str, number: Callable[[Decimal], str]) -> str:
    try:
        result = _written(_read(text), number)
        result.encode()  # a lone surrogate is no text
    except (ValueError, ArithmeticError, RecursionError):
        return text
    return result


def _written(value: Any, number: Callable[[Decimal], str]) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, Decimal):
        return number(value)
    if isinstance(value, list):
        return f"[{', '.join([_written(item, number) for item in value])}]"
    if isinstance(value, dict):
        pairs = sorted([(_key(name), item) for name, item in value.items()], key=itemgetter(0))
        return "{" + ", ".join([f"{name}: {_written(item, number)}" for (_, _, name), item in pairs]) + "}"
    return "null" if value is None else "true" if value else "false"


@lru_cache(maxsize=4096)
def _key(name: str) -> tuple[int, bytes, str]:
    """Return the sort value of a key and its JSON; cached, since documents repeat their keys."""
    content = name.encode()
    return len(content), content, encode_basestring(name)


def _as_numeric(value: Decimal) -> str:
    if not -MOST_FRACTION <= value.adjusted() < MOST_WHOLE:
        raise ValueError("no numeric")
    text = format(value if value else abs(value), "f")  # it has no negative zero
    if len(text.partition(".")[2]) > MOST_FRACTION:
        raise ValueError("no numeric")
    return text


def _as_value(value: Decimal) -> str:
    text = _as_numeric(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _is_same(left: Any, right: Any, kind: pa.DataType | None) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(
            _is_same(mine, other, item) for mine, other, item in zip(left, right, _items(kind, len(left)), strict=True)
        )
    if isinstance(left, dict) and isinstance(right, dict):
        fields = {field.name: field.type for field in kind} if kind is not None and pa.types.is_struct(kind) else {}
        return left.keys() == right.keys() and all(
            _is_same(value, right[name], fields.get(name)) for name, value in left.items()
        )
    if isinstance(left, Decimal) and isinstance(right, Decimal):
        return float(left) == float(right) if kind is not None and pa.types.is_floating(kind) else left == right
    # Python's True is 1.
    return type(left) is type(right) and bool(left == right)


def _items(kind: pa.DataType | None, number: int) -> list[pa.DataType | None]:
    """Return the type of each item of a list; a map is a list of pairs, taken for structs here."""
    if kind is None or not pa.types.is_nested(kind):
        return [None] * number
    if pa.types.is_struct(kind):
        return [field.type for field in kind] if kind.num_fields == number else [None] * number
    if pa.types.is_map(kind):
        return [pa.struct([("key", kind.key_type), ("value", kind.item_type)])] * number
    return [kind.value_type] * number


__all__ = ["is_same_json", "jsonb_text", "value_text"]
