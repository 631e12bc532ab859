"""The form in which a rejected record is kept: its text, the reason, the place, and the table of all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from math import isfinite
from typing import Any

import pyarrow as pa

from ..stream import RejectedRecord

#: Table beside the destination table that keeps rejected records.
REJECTED_TABLE = "_syncblocks_rejected"

#: Columns of that table.
REJECTED_SCHEMA = pa.schema(
    [
        *(
            pa.field(name, pa.string(), nullable=name == "place")
            for name in ("pipeline", "stream", "destination_table", "run", "record", "reason", "place")
        ),
        pa.field("rejected_at", pa.timestamp("us", "UTC"), nullable=False),
    ]
)

#: Longer records and reasons are cut; in characters.
MAX_RECORD, MAX_REASON = 1_000_000, 2_000


def rejection(record: Any, reason: str, place: str = "", without_values: str = "") -> RejectedRecord:
    """Make the value that is kept of one rejected record.

    Args:
        record: the record's values by column, or raw text (or bytes) that is no record.
        reason: why the record does not fit; without credentials.
        place: where it was read, such as `people.csv:12`.
        without_values: as much of the reason as holds no value of the record.
    """
    if isinstance(record, bytes):
        record = record.decode("utf-8", "backslashreplace")
    text = json.dumps(_shallow(record))
    if len(text) > MAX_RECORD:
        text = json.dumps({"cut": text[:MAX_RECORD]})
    return RejectedRecord(
        record=text,
        reason=_storable(reason[:MAX_REASON]),
        reason_without_values=_storable(without_values),
        place=_storable(place),
    )


def rejections(batch: pa.RecordBatch, reason: str | Callable[[int], str]) -> list[RejectedRecord]:
    """Make the values that are kept of a small batch of rejected records; `reason` may depend on the position."""
    columns = {name: _values(batch.column(place)) for place, name in enumerate(batch.schema.names)}
    return [
        rejection(
            {name: values[place] for name, values in columns.items()},
            reason if isinstance(reason, str) else reason(place),
        )
        for place in range(batch.num_rows)
    ]


def _values(column: pa.Array) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, ArithmeticError):  # times past Python's, or a text that is none
        kind = pa.binary() if pa.types.is_string(column.type) else pa.string()
        try:
            return [_text(value) for value in column.cast(kind).to_pylist()]
        except pa.ArrowException:
            return [None] * len(column)


def _text(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _storable(text: str) -> str:
    """Return a text that every database takes: without NUL and lone surrogates."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _shallow(record: Any) -> Any:
    """Return a record as a JSON value; of one that is nested too deeply for Python its deep columns as their text."""
    try:
        return _plain(record)
    except RecursionError:
        if isinstance(record, Mapping):
            return {str(name): _plain_or_text(value) for name, value in record.items()}
        return _plain_or_text(record)


def _plain_or_text(value: Any) -> Any:
    try:
        return _plain(value)
    except RecursionError:
        pass
    try:
        return json.dumps(value, default=str)  # it counts levels as the parser does that has read the value
    except RecursionError:
        return "... (nested too deeply)"


def _plain(value: Any) -> Any:
    """Return a JSON value; what JSON lacks becomes text.

    Raises:
        RecursionError: it is nested in some hundred levels.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.hex() if isinstance(value, bytes) else str(value)


__all__ = ["REJECTED_SCHEMA", "REJECTED_TABLE", "rejection", "rejections"]
