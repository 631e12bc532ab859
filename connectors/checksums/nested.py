"""Tell which nested types have one JSON, who can write it, and which of two types write the same. Pure."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ..arrow.fidelity import plain

_UUID = pa.uuid()


def is_written(kind: pa.DataType) -> bool:
    """Tell whether `arrow.text.to_json` writes each value of a nested type in one way."""
    types = pa.types
    if types.is_union(kind):
        return False
    if types.is_struct(kind):
        names = {field.name for field in kind}
        return len(names) == kind.num_fields and all(is_written(field.type) for field in kind)
    if types.is_map(kind):
        return is_written(kind.key_type) and is_written(kind.item_type)
    if types.is_nested(kind):
        return is_written(kind.value_type)
    return kind in (pa.uuid(), pa.json_()) or not isinstance(kind, pa.BaseExtensionType)


def is_carried(kind: pa.DataType) -> bool:
    """Tell whether DuckDB takes a nested type as it is, and writes the same JSON as `arrow.text`."""
    types = pa.types
    if types.is_struct(kind):
        names = {field.name.casefold() for field in kind}
        return 0 < len(names) == kind.num_fields and all(is_carried(field.type) for field in kind)
    if types.is_map(kind):
        return is_carried(kind.key_type) and is_carried(kind.item_type)
    if types.is_nested(kind):
        return not types.is_union(kind) and is_carried(kind.value_type)
    return kind == pa.uuid() or any(is_type(kind) for is_type in _CARRIED)


_CARRIED = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_decimal128,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_date32,
    lambda kind: pa.types.is_time(kind) and kind.unit != "ns",
    lambda kind: pa.types.is_timestamp(kind) and not (kind.unit == "ns" and kind.tz),
)


def is_same_shape(source: pa.DataType, destination: pa.DataType) -> bool:
    """Tell whether equal values of two nested types have equal JSON; a text may hold a UUID."""
    there = _shape(destination)
    return bool(_shape(source) == there or _shape(source, uuid=pa.string()) == there)


def _shape(kind: pa.DataType, uuid: pa.DataType = _UUID) -> Any:
    types, kind = pa.types, plain(kind)
    if types.is_struct(kind):
        return ("struct", *((field.name, _shape(field.type, uuid)) for field in kind))
    if types.is_map(kind):
        return ("map", _shape(kind.key_type, uuid), _shape(kind.item_type, uuid))
    if types.is_nested(kind):
        return ("list", _shape(kind.value_type, uuid))
    if types.is_timestamp(kind):
        return ("timestamp", kind.unit, kind.tz is not None)
    if types.is_decimal(kind):
        return ("decimal", kind.scale)
    for is_type in (types.is_integer, types.is_floating, types.is_date, types.is_fixed_size_binary):
        if is_type(kind):
            return is_type.__name__ if is_type is not types.is_fixed_size_binary else pa.binary()
    return uuid if kind == _UUID else kind


__all__ = ["is_carried", "is_same_shape", "is_written"]
