"""Cast batches to the exact types of a table's columns, before a driver gets them.

Drivers do not check types: ADBC stores the bits of a float64 in a bigint column, without an error."""

from __future__ import annotations

import pyarrow as pa

from ..errors import FatalConnectorError
from . import compute as pc
from .decimals import from_texts
from .fidelity import as_text
from .times import has_leaf, is_infinite, is_last_nanosecond
from .type_names import type_text


def cast_batch(batch: pa.RecordBatch, schema: pa.Schema, stream: str) -> pa.RecordBatch:
    """Return the batch with the names and types of `schema`, column by column in order.

    Raises:
        FatalConnectorError: a value does not fit; the message names column and types.
    """
    if batch.num_columns != len(schema):
        raise FatalConnectorError(
            f"a batch has {batch.num_columns} columns where its stream has {len(schema)}", stream=stream
        )
    columns = [
        cast_array(batch.column(place), field.type, batch.schema.field(place).name, stream)
        for place, field in enumerate(schema)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def cast_array(array: pa.Array, kind: pa.DataType, column: str, stream: str) -> pa.Array:
    """Cast one column without loss."""
    if array.type == kind:
        return array
    try:
        return _cast(array, kind)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise FatalConnectorError(
            f"column {column!r}: a value of type {type_text(array.type)} does not fit {type_text(kind)}: "
            f"{_first_line(error)}; change the column's type in the destination, or exclude the column with "
            "`columns`",
            stream=stream,
        ) from error


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
        if array.type == kind:
            return array
    is_uuid = array.type == pa.uuid()
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if is_uuid and pa.types.is_string(kind):
        return uuid_text(array)
    if kind == pa.uuid() and pa.types.is_string(array.type):
        from .text import from_text  # imports kernels that most loads do not need

        return from_text(array, kind, is_empty_null=False)
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(_cast(array, kind.storage_type))
    if array.type == kind:
        return array
    if pa.types.is_nested(array.type) and pa.types.is_string(kind):
        return json_text(array)
    if pa.types.is_decimal(array.type) and pa.types.is_string(kind):
        return as_text(array, "")  # Arrow writes small decimals with an exponent
    if pa.types.is_decimal(kind) and (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return from_texts(array, kind)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    return pc.cast(array, kind, safe=True)


def json_text(array: pa.Array) -> pa.Array:
    """Write lists and structs as JSON, through Python objects, since Arrow has no kernel for it."""
    from .text import to_json  # imports kernels that most loads do not need

    kind = array.type
    return pa.array([None if value is None else to_json(value, kind) for value in array.to_pylist()], pa.string())


def refuse_nanoseconds(batch: pa.RecordBatch, stream: str) -> None:
    """Raise for an interval with nanoseconds: drivers cut them off without an error.

    Raises:
        FatalConnectorError: with the column.
    """
    for field, array in zip(batch.schema, batch.columns, strict=True):
        if field.type == pa.month_day_nano_interval() and len(array):
            # 16 bytes a value: months and days, then the nanoseconds.
            halves = pa.Array.from_buffers(pa.int64(), 2 * len(array), [None, array.buffers()[1]], 0, 2 * array.offset)
            nanos = halves.take(pa.array(range(1, 2 * len(array), 2)))
            rest = pc.subtract(nanos, pc.multiply(pc.divide(nanos, 1000), 1000))
            if pc.any(pc.and_(array.is_valid(), pc.not_equal(rest, 0))).as_py():
                raise FatalConnectorError(
                    f"column {field.name!r}: an interval is finer than the microseconds of its column; round it in "
                    "a transformer, or exclude the column with `columns`",
                    stream=stream,
                )


def refuse_infinite(batch: pa.RecordBatch, stream: str, *, is_kept: bool) -> None:
    """Raise for a date or timestamp that DuckDB calls infinite: another system would take it for a finite one.

    Nanoseconds pass: their highest number is a finite instant (pandas' Timestamp.max).

    Raises:
        FatalConnectorError: with the column.
    """
    is_odd = is_last_nanosecond if is_kept else is_infinite
    problem = "the first or last nanosecond, which is infinite there" if is_kept else "an infinite date or time"
    for field, array in zip(batch.schema, batch.columns, strict=True):
        if has_leaf(array, is_odd):
            raise FatalConnectorError(
                f"column {field.name!r} contains {problem}, which the destination cannot store; read it through a "
                "view that casts it to text, correct it in a transformer, or exclude the column with `columns`",
                stream=stream,
            )


def uuid_text(storage: pa.Array) -> pa.Array:
    """Write 16-byte values as 8-4-4-4-12 hexadecimal digits."""
    import uuid

    return pa.array(
        [None if value is None else str(uuid.UUID(bytes=value)) for value in storage.to_pylist()], pa.string()
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


__all__ = [
    "cast_array",
    "cast_batch",
    "json_text",
    "refuse_infinite",
    "refuse_nanoseconds",
]
