"""Columns as the server sends them -> the types of a stream, and words for what no Arrow type holds."""

from __future__ import annotations

import re
from datetime import time

import pyarrow as pa

from ..arrow import compute as pc
from ..arrow.casts import cast_array
from ..arrow.type_names import type_text
from ..errors import FatalConnectorError
from ..sql.dialect.types import native_of
from ..stream import Stream
from .failures import broken_answer

_VALUE = re.compile(r"string: '(.*?)'", re.DOTALL)


def to_schema(batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
    """Return the records with the stream's schema.

    Raises:
        FatalConnectorError: a value that no Arrow type holds (zero dates, times past 24 hours), or not the stream's.
    """
    if batch.num_columns != len(stream.schema):
        raise broken_answer(f"{batch.num_columns} columns instead of {len(stream.schema)}")
    columns = [
        _converted(column, field, stream.name) for column, field in zip(batch.columns, stream.schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=stream.schema)


def _converted(column: pa.Array, field: pa.Field, stream: str) -> pa.Array:
    if pa.types.is_boolean(field.type) and pa.types.is_integer(column.type):
        limits = pc.min_max(column).as_py()
        odd = [each for each in limits.values() if each not in (0, 1, None)]
        if odd:
            raise _misfit(str(odd[0]), field, stream)
    if pa.types.is_string(column.type):
        try:
            column.validate(full=True)  # the server keeps what is no UTF-8
            if pa.types.is_time(field.type):
                texts = column.to_pylist()
                column = pa.array([text if text is None else time.fromisoformat(text) for text in texts], field.type)
            elif pa.types.is_temporal(field.type):
                column = pc.cast(column, pa.timestamp("us") if pa.types.is_timestamp(field.type) else field.type)
        except ValueError as error:
            found = _VALUE.search(str(error))
            raise _misfit(found[1] if found else str(error), field, stream) from error
    return cast_array(column, field.type, field.name, stream)


def _misfit(value: str, field: pa.Field, stream: str) -> FatalConnectorError:
    kind = native_of(field, "mysql").partition("(")[0]
    hint = "correct the value, or exclude the column with `columns`"
    reason = f"which is no {type_text(field.type)}"
    if kind == "tinyint":
        reason, hint = "which is not a boolean", "set `tinyint1_as_bool: false` to read tinyint(1) as an integer"
    elif kind in ("date", "datetime", "timestamp"):
        reason = "a zero date, which other systems do not have"
        hint = (
            "`zero_dates_as_null: true` in the source's `config` reads it as NULL, except in a primary key: "
            "there, correct the value, or exclude the column with `columns`"
        )
    elif kind == "time":
        reason = "which is a time span and not a time of day"
        hint = "read it through a view with TIME_TO_SEC, or exclude the column with `columns`"
    return FatalConnectorError(
        f"column {field.name!r} holds {value}, {reason}: {hint}", connector="mysql", stream=stream
    )


__all__ = ["to_schema"]
