"""Calls transformer functions with one record at a time, in the form that Mage uses.

The DataFrame has one row, pandas' own dtypes and JSON values. A time is its ISO text, a decimal is a float, binary is
base64, a JSON column is an object. A value that a function leaves unchanged keeps the source's full precision.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from .inferred import check_inferred, check_levels

#: A user's functions: a DataFrame of one row -> the DataFrame that they return.
Call = Callable[[Any], Any]


class SecondRow(Exception):
    """A function returned more than one row for one record."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.rows = rows


def by_record(batch: pa.RecordBatch, json_columns: Collection[str], call: Call) -> dict[str, pa.Array]:
    """Call a function with each record of a batch; return the results in order.

    Args:
        batch: columns of types that pandas knows.
        json_columns: names of the text columns whose values are JSON.
        call: takes a DataFrame of one row and returns one.

    Returns:
        The result has a column for each returned name. A known column keeps its type if all values fit.

    Raises:
        SecondRow: the function returned more than one row for a record; an empty result drops the record.
        pa.ArrowInvalid, pa.ArrowTypeError: a column has values of mixed types.
        pa.ArrowException: a column has values without a type.
    """
    import pandas as pd

    known = {
        name: _Known(column, is_json=name in json_columns)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    origins: list[int] = []
    returned: list[dict[str, Any]] = []
    for place in range(batch.num_rows):
        frame = call(pd.DataFrame([{name: column.given[place] for name, column in known.items()}]))
        if len(frame) > 1:
            raise SecondRow(len(frame))
        if len(frame):
            origins.append(place)
            returned.append({str(name): value for name, value in frame.to_dict("records")[0].items()})
    names = list(dict.fromkeys(name for record in returned for name in record)) if returned else list(known)
    columns = {}
    for name in names:
        values = [record.get(name) for record in returned]
        new = [_or_none(value) for value in values]
        columns[name] = known[name].changed(origins, values) if name in known else _inferred(new)
    return columns


class _Known:
    """A column of the source."""

    def __init__(self, column: pa.Array, *, is_json: bool) -> None:
        self._column = column
        self._natives = column.to_pylist()
        read = _read_json if is_json else _plain
        #: One JSON value for each record.
        self.given = [read(value) for value in self._natives]

    def changed(self, origins: Sequence[int], values: Sequence[Any]) -> pa.Array:
        """Return the column with the values returned for records at these positions."""
        is_kept = [_is_same(value, self.given[place]) for value, place in zip(values, origins, strict=True)]
        if all(is_kept):
            return self._column.take(pa.array(origins, pa.int64()))
        kind = self._column.type
        rows = list(zip(origins, [_or_none(value) for value in values], is_kept, strict=True))
        with suppress(pa.ArrowException, ValueError, TypeError, ArithmeticError):
            made = [self._natives[place] if same else _native(value, kind) for place, value, same in rows]
            return pa.array(made, kind)
        return _inferred([value for _, value, _ in rows])


def _inferred(values: list[Any]) -> pa.Array:
    check_levels(values)
    column = pa.array(values)
    check_inferred(values, column.type)
    return column


def _read_json(value: Any) -> Any:
    with suppress(ValueError, TypeError, RecursionError):
        return json.loads(value)
    return value


def _plain(value: Any) -> Any:
    """Return a value in JSON form."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _native(value: Any, kind: pa.DataType) -> Any:
    """Return a JSON value in the form of a column's type.

    Raises:
        ValueError, ArithmeticError: it does not fit.
    """
    types = pa.types
    if isinstance(value, dict | list) and types.is_string(kind):
        return json.dumps(value)
    if types.is_decimal(kind) and isinstance(value, str | int | float):
        return Decimal(str(value))
    if isinstance(value, str):
        if types.is_timestamp(kind):
            value = datetime.fromisoformat(value)
        elif types.is_date(kind):
            value = date.fromisoformat(value)
        elif types.is_time(kind):
            value = time.fromisoformat(value)
        elif types.is_binary(kind) or types.is_large_binary(kind):
            value = base64.b64decode(value, validate=True)
    if isinstance(value, datetime) and types.is_timestamp(kind) and (value.tzinfo is None) != (kind.tz is None):
        raise ValueError("one has a time zone, the other none")
    return value


def _or_none(value: Any) -> Any:
    """Return None for pandas' missing values."""
    import pandas as pd

    is_nothing = value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value))
    return None if is_nothing else value


def _is_same(value: Any, given: Any) -> bool:
    if given is None or (isinstance(given, float) and math.isnan(given)):
        return _or_none(value) is None
    with suppress(ValueError, TypeError):  # the truth value of an array
        return bool(value == given)
    return False
