"""Bring batches into the columns of a table: each value is exact, or refused."""

from __future__ import annotations

import pyarrow as pa

from ..errors import FatalConnectorError
from .text import first_invalid, from_text, is_text, to_text
from .type_names import type_text

#: Most characters of a value, and of a library's reason, in a message.
_SHOWN, _SHOWN_REASON = 40, 400


def conformed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch in the schema's columns, order and types.

    Raises:
        FatalConnectorError: a value does not fit, or a key is NULL.
    """
    if batch.schema.equals(schema) and all(field.nullable for field in schema):
        return batch
    columns = [_conformed(batch, field) for field in schema]
    if not columns:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * batch.num_rows, pa.struct([])))
    return pa.record_batch(columns, schema=schema)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type without encodings that exist in memory only: dictionaries, run ends, views."""
    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    return kind


def shown(value: object) -> str:
    """Return a value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(str(value))} characters)"


def reason(error: Exception) -> str:
    """Return what a library says of a failure, for a message: in one line, and cut where it has no end."""
    text = " ".join(str(error).split())
    return text if len(text) <= _SHOWN_REASON else f"{text[:_SHOWN_REASON]}... ({len(text)} characters)"


def python_value(value: pa.Scalar) -> object:
    """Return a value for a message; what a damaged file holds may be none of Python's: then its type."""
    try:
        return value.as_py()
    except (ArithmeticError, ValueError):
        return value.type


def _conformed(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    place = batch.schema.get_field_index(field.name)
    if place < 0:
        column = pa.nulls(batch.num_rows, field.type)
    else:
        column = _plain(batch.column(place))
        try:
            column = _cast(column, field.type, field.name)
        except (pa.ArrowException, ValueError) as error:
            value = python_value(column[first_invalid(column, lambda part: _cast(part, field.type, field.name))])
            raise FatalConnectorError(
                f"column {field.name!r}: {shown(value)} does not fit into {type_text(field.type)}"
            ) from error
    if not field.nullable and column.null_count:
        raise FatalConnectorError(f"column {field.name!r} may not be NULL, and a record has no value for it")
    return column


def _plain(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    kind = plain_type(column.type)
    return column if kind.equals(column.type) else column.cast(kind)


def _cast(column: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    if column.type.equals(kind):
        return column
    if is_text(kind):
        return to_text(column, name).cast(kind)
    if is_text(column.type) and isinstance(kind, pa.BaseExtensionType):
        return from_text(column.cast(pa.string()), kind, is_empty_null=False)
    return column.cast(kind)
