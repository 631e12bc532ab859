"""Columns of a table whose stream changes its schema."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from ..errors import FatalConnectorError
from .text import is_text
from .type_names import type_text


def unified(table: str, before: pa.Schema, arriving: pa.Schema, texts: Collection[str] = ()) -> pa.Schema:
    """Return the table's columns after the arriving columns are added.

    Columns keep their position, new ones come last, and a column that one side lacks may be NULL. A type becomes wider
    where the wider one keeps every value (each value is checked later: integers past 2^53 do not fit a double). Those
    of `texts` become text where they arrive as texts.

    Raises:
        FatalConnectorError: no type holds both.
    """
    fields = []
    for field in before:
        place = arriving.get_field_index(field.name)
        if place < 0:
            fields.append(field.with_nullable(True))
            continue
        new = arriving.field(place)
        kind = new.type if field.name in texts and is_text(new.type) else wider(table, field, new.type)
        fields.append(field.with_type(kind).with_nullable(field.nullable or new.nullable))
    names = set(before.names)
    return pa.schema([*fields, *(field.with_nullable(True) for field in arriving if field.name not in names)])


def both_held(kind: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return a type that holds the values of both types.

    Raises:
        pa.ArrowTypeError: there is no such type.
    """
    signed = pa.types.is_signed_integer
    if (kind == pa.uint64() and signed(other)) or (signed(kind) and other == pa.uint64()):
        return pa.decimal128(20)  # Arrow would choose an int64
    for day, moment in ((kind, other), (other, kind)):
        if pa.types.is_date32(day) and pa.types.is_timestamp(moment) and moment.tz is None and moment.unit != "ns":
            return moment
    if _would_round(kind, other):
        raise pa.ArrowTypeError(f"{kind} and {other} have no type that keeps both")
    if pa.types.is_decimal(kind) or pa.types.is_decimal(other):
        kind, other = _whole(kind), _whole(other)
    both = [pa.schema([("c", kind)]), pa.schema([("c", other)])]
    return pa.unify_schemas(both, promote_options="permissive").field(0).type


def is_held(arriving: pa.DataType, kind: pa.DataType) -> bool:
    """Tell whether a type holds the values of another, or a cast refuses the values that it cannot hold.

    Arrow's safe casts take a number for a date, cut off a time, and round a double.
    """
    types = pa.types
    if types.is_string(arriving) or types.is_large_string(arriving):
        return True  # a text is parsed, and refused if it is no such value
    if types.is_timestamp(arriving) and types.is_timestamp(kind):
        return (arriving.tz is None) == (kind.tz is None)
    exact = (types.is_integer, types.is_decimal, types.is_time)
    if any(test(arriving) and test(kind) for test in exact):
        return True
    try:
        return bool(both_held(kind, arriving).equals(kind))
    except pa.ArrowException:
        return False


def changes(before: pa.Schema | None, after: pa.Schema) -> tuple[Mapping[str, Any], ...]:
    """Return the columns added or changed; none for a table that was not there."""
    if before is None:
        return ()
    types = {field.name: str(field.type) for field in before}
    return tuple(
        {
            "column": field.name,
            "change": "changed" if field.name in types else "added",
            "before": types.get(field.name),
            "after": str(field.type),
        }
        for field in after
        if types.get(field.name) != str(field.type)
    )


def wider(table: str, field: pa.Field, arriving: pa.DataType) -> pa.DataType:
    """Return the type of a table's column after another type arrives.

    Raises:
        FatalConnectorError: no type holds both.
    """
    kind = field.type
    if kind.equals(arriving) or pa.types.is_null(arriving):
        return kind
    if pa.types.is_null(kind):
        return arriving
    if is_text(kind):
        return kind
    try:
        return both_held(kind, arriving)
    except pa.ArrowException as error:
        raise FatalConnectorError(
            f"column {field.name!r} of table {table!r} is {type_text(kind)}, and {type_text(arriving)} arrives, which "
            "does not fit: rename or cast it in a transformer, or replace the table"
        ) from error


def _whole(kind: Any) -> pa.DataType:
    """Return the decimal that holds all values of an integer type; Arrow takes one with a digit too few."""
    if not pa.types.is_integer(kind):
        return kind
    return pa.decimal128(len(str(2 ** (kind.bit_width - pa.types.is_signed_integer(kind)))))


def _would_round(kind: Any, arriving: Any) -> bool:
    """Tell whether one type is a decimal and one a float: Arrow rounds such decimals to floats in silence."""
    types = pa.types
    if types.is_struct(kind) and types.is_struct(arriving):
        common = {field.name for field in kind} & {field.name for field in arriving}
        return any(_would_round(kind.field(name).type, arriving.field(name).type) for name in common)
    if types.is_map(kind) and types.is_map(arriving):
        return _would_round(kind.item_type, arriving.item_type)
    if types.is_nested(kind) and types.is_nested(arriving) and hasattr(kind, "value_type"):
        return hasattr(arriving, "value_type") and _would_round(kind.value_type, arriving.value_type)
    pairs = ((kind, arriving), (arriving, kind))
    return any(types.is_decimal(one) and types.is_floating(other) for one, other in pairs)
