"""Arrow -> JSON Schema, to declare a stream to a target; `types` does the reverse."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa

from ..stream import Stream

_is = pa.types

#: Digits of an integer that every target holds.
_INTEGER_DIGITS = 18

#: Any JSON value. Old targets drop a column without a type; many take the first one.
_ANY = {"type": ["object", "array", "string", "number", "boolean", "null"]}


def json_schema(stream: Stream) -> dict[str, Any]:
    """Return the JSON Schema of a stream's records; keys are not nullable."""
    properties = {
        field.name: property_schema(field.type, nullable=field.nullable and field.name not in stream.key_properties)
        for field in stream.schema
    }
    return {"type": "object", "properties": properties}


def property_schema(kind: pa.DataType, *, nullable: bool) -> dict[str, Any]:
    """Return the JSON Schema of a column's type."""
    schema = _plain(kind)
    if not nullable or schema == _ANY:
        return schema
    return {**schema, "type": [schema["type"], "null"]}


def _plain(kind: pa.DataType) -> dict[str, Any]:
    if _is.is_dictionary(kind):
        return _plain(kind.value_type)
    if kind == pa.uuid():
        return {"type": "string", "format": "uuid"}
    if isinstance(kind, pa.BaseExtensionType):
        return _ANY if kind.extension_name == "arrow.json" else _plain(kind.storage_type)
    if _is.is_boolean(kind):
        return {"type": "boolean"}
    if _is.is_integer(kind):
        return _integer(kind)
    if _is.is_floating(kind):
        return {"type": "number"}
    if _is.is_decimal(kind):
        return _decimal(kind.precision, kind.scale)
    if _is.is_timestamp(kind):
        naive = {} if kind.tz else {"x-sql-datatype": "timestamp"}
        return {"type": "string", "format": "date-time", **naive}
    if _is.is_date(kind):
        return {"type": "string", "format": "date"}
    if _is.is_time(kind):
        return {"type": "string", "format": "time"}
    if _is_binary(kind):
        return {"type": "string", "contentEncoding": "base64"}
    if _is_list(kind):
        return {"type": "array", "items": property_schema(kind.value_type, nullable=True)}
    if _is.is_struct(kind):
        fields = {field.name: property_schema(field.type, nullable=True) for field in kind}
        return {"type": "object", "properties": fields}
    if _is.is_map(kind):
        return {"type": "array"}
    return {"type": "string"}


def _integer(kind: pa.DataType) -> dict[str, Any]:
    if kind == pa.int64():
        return {"type": "integer"}
    bits = kind.bit_width
    low, high = (0, 2**bits - 1) if _is.is_unsigned_integer(kind) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return {"type": "integer", "minimum": low, "maximum": high}


def _decimal(precision: int, scale: int) -> dict[str, Any]:
    """Say the digits by `precision` and `scale`: to a target that checks with floats 0.07 is no multiple of 0.01."""
    most = Decimal((0, (9,) * precision, -scale))  # exact, for any precision of the decimal context
    if scale <= 0 and precision - scale <= _INTEGER_DIGITS:
        return {"type": "integer", "minimum": -int(most), "maximum": int(most)}
    return {"type": "number", "precision": precision, "scale": scale, "minimum": most.copy_negate(), "maximum": most}


def _is_binary(kind: pa.DataType) -> bool:
    return bool(_is.is_binary(kind) or _is.is_large_binary(kind) or _is.is_fixed_size_binary(kind)) or bool(
        _is.is_binary_view(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(_is.is_list(kind) or _is.is_large_list(kind) or _is.is_fixed_size_list(kind))


__all__ = ["json_schema", "property_schema"]
