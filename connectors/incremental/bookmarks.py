"""Bookmarks of INCREMENTAL streams: their JSON form, and how records compare with them.

A bookmark is a dict of JSON values: one entry for each bookmark property, and hashes of records under `BOUNDARY`. The
bookmark of a record is incomplete if a bookmark property is NULL or NaN: it compares with no other, and
`ReadSpec.null_bookmarks` decides about the record. If no record has a complete one, all values are null.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import ROUND_FLOOR, Decimal
from math import isfinite
from typing import Any

import pyarrow as pa

from ..arrow import compute as pc
from ..arrow.digits import is_number_in_text
from ..arrow.json_scalars import BINARY, scalar_from_json
from ..arrow.type_names import type_text
from ..errors import ConnectorConfigError, FatalConnectorError
from ..read_spec import NullBookmarks
from ..stream import Bookmark, Stream

#: Key of the hashes in a bookmark; no column may have this name.
BOUNDARY = "_boundary"

#: A checkpoint comes after so many records, or seconds: each costs the destination a commit.
CHECKPOINT_RECORDS = 100_000
CHECKPOINT_S = 30.0


#: Bytes of one record's hash.
HASH_BYTES = 8

#: Keys under `BOUNDARY` that describe the hashed records; other keys are the source's own.
_OF_RECORDS = ("columns", "by_value", "hashes", "keys", "through")


def values(bookmark: Bookmark | None) -> dict[str, Any] | None:
    """Return the bookmark for people to read: without the hashes."""
    return None if bookmark is None else {k: v for k, v in bookmark.items() if k != BOUNDARY}


def without_records(bookmark: Bookmark | None) -> Bookmark | None:
    """Return the bookmark without the hashes: a merge then sends the records at or past it again."""
    kept = (bookmark or {}).get(BOUNDARY)
    if bookmark is None or not kept:
        return bookmark
    rest = {name: value for name, value in kept.items() if name not in _OF_RECORDS}
    return {name: value for name, value in bookmark.items() if name != BOUNDARY} | ({BOUNDARY: rest} if rest else {})


def to_json(value: Any) -> Any:
    """Turn one bookmark value, a Python value or an Arrow scalar, into a JSON value that loses nothing."""
    if isinstance(value, pa.Scalar):
        if getattr(value.type, "unit", "") == "ns" and value.is_valid:
            return _from_nanoseconds(value)
        value = python_value(value)
    if isinstance(value, datetime | date | time_of_day):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not isfinite(value):
        return str(value)  # JSON has no infinity
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def python_value(value: pa.Scalar) -> Any:
    """Return what `as_py` returns. `as_py` imports pandas for a time: half the duration of a run without news."""
    kind = value.type
    if pa.types.is_timestamp(kind) and kind.unit == "us" and kind.tz in (None, "UTC") and value.is_valid:
        with suppress(OverflowError):  # `as_py` has an error for it
            moment = _EPOCH + timedelta(microseconds=value.value)
            return moment if kind.tz else moment.replace(tzinfo=None)
    return value.as_py()


_EPOCH = datetime.fromtimestamp(0, UTC)


def _from_nanoseconds(value: pa.Scalar) -> str:
    """ISO form with nine digits: Python's own times end at microseconds."""
    is_time = pa.types.is_time(value.type)
    microseconds, rest = divmod(value.value, 1000)
    kind = pa.time64("us") if is_time else pa.timestamp("us", value.type.tz)
    text: str = pa.scalar(microseconds, kind).as_py().isoformat(timespec="microseconds")
    place = len("00:00:00.000000") if is_time else len("0000-00-00T00:00:00.000000")
    return f"{text[:place]}{rest:03d}{text[place:]}" if rest else text


def from_json(value: Any, kind: pa.DataType, *, column: str = "", stream: str = "") -> pa.Scalar:
    """Turn a JSON value back into a scalar of the column's own type.

    Raises:
        ConnectorConfigError: the value does not have that type (a bookmark set by hand, or a column of a new type).
    """
    try:
        return scalar_from_json(value, kind)
    except (pa.ArrowException, ValueError, TypeError, ArithmeticError) as error:
        raise ConnectorConfigError(
            f"bookmark of {column!r}: {value!r} is not a {type_text(kind)}; correct it with `syncblocks state set` "
            "or `state reset`",
            stream=stream,
        ) from error


def bookmark_values(stream: Stream, bookmark: Bookmark | None) -> tuple[pa.Scalar, ...] | None:
    """Return the bookmark in the types of its columns, or None where there is no lower bound.

    Raises:
        ConnectorConfigError: it lacks a bookmark property, or holds a value of another type.
    """
    if not bookmark or not stream.read.bookmark_properties:
        return None
    if all(bookmark.get(name, name) is None for name in stream.read.bookmark_properties):
        return None
    missing = [name for name in stream.read.bookmark_properties if name not in bookmark]
    if missing:
        raise ConnectorConfigError(
            f"bookmark of stream {stream.name!r} has no {', '.join(missing)}: bookmark_properties changed; "
            "`syncblocks state reset` starts it from scratch",
            stream=stream.name,
        )
    return tuple(
        from_json(bookmark[name], stream.schema.field(name).type, column=name, stream=stream.name)
        for name in stream.read.bookmark_properties
    )


def has_bookmark(records: pa.RecordBatch | pa.Table, names: Sequence[str]) -> pa.Array:
    """Return a mask of the records whose bookmark is complete: no NULL, no NaN."""
    mask = pc.invert(_is_missing(records, names[0]))
    for name in names[1:]:
        mask = pc.and_not(mask, _is_missing(records, name))
    return mask


def _is_missing(records: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    column = records.column(name)
    missing = pc.is_null(column, nan_is_null=True)
    if not is_number_in_text(records.schema.field(name)):
        return missing
    return pc.or_(missing, pc.fill_null(pc.equal(column, pc.constant("NaN")), False))


def at_or_past(records: pa.RecordBatch | pa.Table, names: Sequence[str], bookmark: Sequence[pa.Scalar]) -> pa.Array:
    """Return a mask of the records at or past the bookmark, most significant property first.

    A bookmark with fewer values than names is below all records that begin with its values.
    """
    result = None
    for name, value in reversed(list(zip(names, bookmark, strict=False))):
        if result is None:
            result = pc.fill_null(pc.greater_equal(records.column(name), value), False)
            continue
        above = pc.fill_null(pc.greater(records.column(name), value), False)
        equal = pc.fill_null(pc.equal(records.column(name), value), False)
        result = pc.or_(above, pc.and_(equal, result))
    return pc.and_(result, has_bookmark(records, names))


def below_or_at(records: pa.RecordBatch, names: Sequence[str], limit: Sequence[pa.Scalar]) -> pa.Array:
    """Return a mask of the records at or below a limit; below it, if the limit has fewer values than names."""
    mask = pc.and_(pc.invert(at_or_past(records, names, limit)), has_bookmark(records, names))
    return mask if len(limit) < len(names) else pc.or_(mask, equal_to(records, names, limit))


def past(records: pa.RecordBatch, stream: Stream, bookmark: Bookmark | None) -> pa.Array:
    """Return a mask of the records past the bookmark, and of those that `unread` tells."""
    names, values = stream.read.bookmark_properties, bookmark_values(stream, bookmark)
    mask = pa.repeat(pc.constant(False), len(records))
    if values is not None:
        mask = pc.and_not(at_or_past(records, names, values), equal_to(records, names, values))
    return pc.or_(mask, unread(records, stream, bookmark))


def leaves_out_incomplete(stream: Stream, bookmark: Bookmark | None) -> bool:
    """Tell whether a read from a bookmark leaves out the records with an incomplete one."""
    policy = stream.read.null_bookmarks
    is_left_out = policy is NullBookmarks.NEVER or (policy is NullBookmarks.ONCE and bool(bookmark))
    return is_left_out and bool(stream.read.bookmark_properties)


def unread(records: pa.RecordBatch, stream: Stream, bookmark: Bookmark | None) -> pa.Array:
    """Return a mask of the records that a run from this bookmark does not read, since theirs is incomplete."""
    if not leaves_out_incomplete(stream, bookmark):
        return pa.repeat(pc.constant(False), len(records))
    return pc.invert(has_bookmark(records, stream.read.bookmark_properties))


def equal_to(records: pa.RecordBatch, names: Sequence[str], bookmark: Sequence[pa.Scalar]) -> pa.Array:
    """Return a mask of the records exactly at the bookmark."""
    mask = None
    for name, value in zip(names, bookmark, strict=True):
        equal = pc.fill_null(pc.equal(records.column(name), value), False)
        mask = equal if mask is None else pc.and_(mask, equal)
    return mask


def same(left: Sequence[pa.Scalar], right: Sequence[pa.Scalar]) -> bool:
    """Tell whether two bookmarks are equal."""
    return len(left) == len(right) and all(a.equals(b) for a, b in zip(left, right, strict=True))


def is_above(left: Sequence[pa.Scalar], right: Sequence[pa.Scalar]) -> bool:
    """Tell whether a bookmark is past another, as Arrow compares values."""
    for a, b in zip(left, right, strict=True):
        if not a.equals(b):
            return bool(pc.greater(a, b).as_py())
    return False


def is_ahead(stream: Stream, new: Sequence[pa.Scalar], old: Sequence[pa.Scalar]) -> bool:
    """Tell whether a bookmark of a stream is past another, numbers in texts compared as numbers."""
    fields = [stream.schema.field(name) for name in stream.read.bookmark_properties]
    for left, right, field in zip(new, old, fields, strict=True):
        if left.equals(right):
            continue
        if is_number_in_text(field):  # compared as texts, 9 would be above 10
            return Decimal(left.as_py()) > Decimal(right.as_py())
        return is_above((left,), (right,))
    return False


def not_below(stream: Stream, bookmark: Bookmark | None, floor: Bookmark | None) -> Bookmark | None:
    """Return a bookmark of a stream, or another one that is past it."""
    new, old = bookmark_values(stream, bookmark), bookmark_values(stream, floor)
    return floor if old is not None and (new is None or is_ahead(stream, old, new)) else bookmark


def lower_bound(stream: Stream, start: Sequence[pa.Scalar] | None) -> tuple[pa.Scalar, ...] | None:
    """Return where to read from: the bookmark, or its first value less the `lookback`; None: read everything."""
    if start is None or stream.read.lookback is None:
        return None if start is None else tuple(start)
    first, back = start[0], stream.read.lookback
    kind = first.type
    try:
        if pa.types.is_timestamp(kind):
            value = first.value - math.ceil(back * _PER_SECOND[kind.unit])
            _EPOCH + timedelta(seconds=value // _PER_SECOND[kind.unit])  # sources write times from the year 1 only
            return (pa.scalar(value, kind),)
        if pa.types.is_date(kind):
            return (pa.scalar(first.as_py() - timedelta(days=math.ceil(back / _DAY_S)), kind),)
        if pa.types.is_decimal(kind):
            lower = first.as_py() - Decimal(str(back))
            return (pa.scalar(lower.quantize(Decimal(1).scaleb(-kind.scale), ROUND_FLOOR), kind),)
        return (pa.scalar(first.as_py() - (math.ceil(back) if pa.types.is_integer(kind) else back), kind),)
    except (pa.ArrowException, OverflowError, ArithmeticError):
        return None  # below all values of the type


def query_start(stream: Stream, bookmark: Bookmark | None) -> pa.Scalar | None:
    """Return what `:bookmark` of a stream's query stands for (`Stream.is_query_bounded`); None: nobody has said it."""
    lower = lower_bound(stream, bookmark_values(stream, bookmark))
    if lower is not None:
        return lower[0]
    return None if stream.read.bookmark_start is None else stream.read.bookmark_start.values[0]


def can_look_back(kind: pa.DataType) -> bool:
    """Tell whether a `lookback` can be subtracted from values of a type."""
    types = pa.types
    is_moment = types.is_timestamp(kind) or types.is_date(kind)
    return bool(is_moment or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def missing_error(stream: Stream, counts: Sequence[int], *, is_all: bool) -> FatalConnectorError:
    """Return the error for incomplete bookmarks in a stream with `null_bookmarks: fail`.

    Args:
        stream: has the bookmark properties.
        counts: number of records without a value, for each bookmark property.
        is_all: False: there may be more such records.
    """
    found = [
        f"{count} in {name!r}" for name, count in zip(stream.read.bookmark_properties, counts, strict=True) if count
    ]
    number = f"{'' if is_all else 'at least '}{' and '.join(found)}"
    return FatalConnectorError(
        f"stream {stream.name!r}: records without a bookmark (NULL or NaN): {number}. INCREMENTAL cannot tell "
        "whether they are new. Set for this stream `null_bookmarks: once` (read only when the stream is read from "
        "scratch), `always` (read in every run; needs merge) or `never` (left out), or choose other "
        "bookmark_properties",
        stream=stream.name,
        key="null_bookmarks",
    )


def refuse_incomplete(records: pa.RecordBatch, stream: Stream) -> None:
    """Raise if an INCREMENTAL stream with `null_bookmarks: fail` has a record with an incomplete bookmark."""
    names = stream.read.bookmark_properties
    is_engines = names and not stream.keeps_own_bookmark and stream.read.null_bookmarks is NullBookmarks.FAIL
    if is_engines and not pc.all(has_bookmark(records, names)).as_py():
        counts = [len(records) - pc.sum(has_bookmark(records, [name])).as_py() for name in names]
        raise missing_error(stream, counts, is_all=False)


_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S = 86_400

#: Types with an order and a JSON form; `null` is a column that has no value yet.
_ORDERED = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_timestamp,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_null,
    *BINARY,
)


def has_order(field: pa.Field) -> bool:
    """Tell whether a column can be one of the bookmark_properties."""
    return field.name != BOUNDARY and any(is_kind(field.type) for is_kind in _ORDERED)


def demand_order(stream: Stream) -> None:
    """Refuse bookmark_properties whose types cannot be ordered.

    Raises:
        ConnectorConfigError: the message has the column and its type.
    """
    for name in stream.read.bookmark_properties:
        field = stream.schema.field(name)
        if not has_order(field):
            what = f"column {name!r} of type {type_text(field.type)}"
            raise ConnectorConfigError(
                f"stream {stream.name!r}: {what} cannot be one of the bookmark_properties", stream=stream.name
            )


__all__ = [
    "BOUNDARY",
    "at_or_past",
    "below_or_at",
    "bookmark_values",
    "can_look_back",
    "demand_order",
    "equal_to",
    "from_json",
    "has_bookmark",
    "has_order",
    "is_above",
    "is_number_in_text",
    "lower_bound",
    "missing_error",
    "past",
    "python_value",
    "query_start",
    "refuse_incomplete",
    "same",
    "to_json",
    "values",
    "without_records",
]
