"""Bookmarks of INCREMENTAL streams: from batches to checkpoints, and past the records committed before.

A bookmark is a dict of JSON values: one entry a bookmark property, and under `BOUNDARY` hashes of the records that
stood exactly at it when it was committed. Sources read `>=` the bookmark, never `>`; the hashes tell which of the
records at the boundary were committed already. Whole records are hashed, not keys alone: a record that changed
within the same tick of a coarse clock must get through.

A record whose bookmark is incomplete (a NULL or NaN in one of its bookmark properties) compares with none: it is read
from scratch, once, and never again. Where no record had a complete one, the bookmark's values are all null.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from hashlib import blake2b
from math import isfinite
from typing import Any

import pyarrow as pa

from . import compute as pc
from .errors import ConnectorConfigError, FatalConnectorError
from .stream import Bookmark, Checkpoint, Event, Stream

#: Key of a bookmark under which the hashes are kept; no column may be named like it.
BOUNDARY = "_boundary"

#: A checkpoint at least every so many records, or seconds: each costs the destination a commit.
CHECKPOINT_RECORDS = 100_000
CHECKPOINT_S = 30.0


def values(bookmark: Bookmark | None) -> dict[str, Any] | None:
    """Return the bookmark as people read it: without the boundary's hashes."""
    return None if bookmark is None else {k: v for k, v in bookmark.items() if k != BOUNDARY}


def to_json(value: Any) -> Any:
    """Turn one bookmark value, a Python value or an Arrow scalar, into a JSON value that loses nothing."""
    if isinstance(value, pa.Scalar):
        if getattr(value.type, "unit", "") == "ns" and value.is_valid:
            return _from_nanoseconds(value)
        value = value.as_py()
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


def _from_nanoseconds(value: pa.Scalar) -> str:
    """ISO form with nine digits: Python's own times end at microseconds."""
    is_time = pa.types.is_time(value.type)
    microseconds, rest = divmod(value.value, 1000)
    kind = pa.time64("us") if is_time else pa.timestamp("us", value.type.tz)
    text: str = pa.scalar(microseconds, kind).as_py().isoformat(timespec="microseconds")
    place = len("00:00:00.000000") if is_time else len("0000-00-00T00:00:00.000000")
    return f"{text[:place]}{rest:03d}{text[place:]}" if rest else text


def _to_nanoseconds(text: str, coarse: pa.Scalar, kind: pa.DataType) -> pa.Scalar:
    digits = re.search(r"\.\d{6}(\d{1,3})", text)
    return pa.scalar(coarse.value * 1000 + int(digits[1].ljust(3, "0") if digits else 0), kind)


def from_json(value: Any, kind: pa.DataType, *, column: str = "", stream: str = "") -> pa.Scalar:
    """Turn a JSON value back into a scalar of the column's own type.

    Raises:
        ConnectorConfigError: the value is no value of that type (a bookmark set by hand, or a column retyped).
    """
    try:
        return _scalar(value, kind)
    except (pa.ArrowException, ValueError, TypeError, ArithmeticError) as error:
        raise ConnectorConfigError(
            f"bookmark of {column!r}: {value!r} is no {kind}; mend it with `syncblocks state set` or `state reset`",
            stream=stream,
        ) from error


def _scalar(value: Any, kind: pa.DataType) -> pa.Scalar:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(value)
    if any(is_kind(kind) for is_kind in _BINARY):
        return pa.scalar(bytes.fromhex(str(value)), kind)
    if pa.types.is_decimal(kind):
        return pa.scalar(Decimal(str(value)), kind)
    if pa.types.is_timestamp(kind):
        moment = datetime.fromisoformat(str(value))
        if (moment.tzinfo is None) != (kind.tz is None):
            raise ValueError("zoned and naive times do not compare")
        if kind.unit == "ns":
            return _to_nanoseconds(str(value), pa.scalar(moment, pa.timestamp("us", kind.tz)), kind)
        return pa.scalar(moment, kind)
    if pa.types.is_date(kind):
        return pa.scalar(date.fromisoformat(str(value)), kind)
    if pa.types.is_time(kind):
        moment_of_day = time_of_day.fromisoformat(str(value))
        if kind.unit == "ns":
            return _to_nanoseconds(str(value), pa.scalar(moment_of_day, pa.time64("us")), kind)
        return pa.scalar(moment_of_day, kind)
    if pa.types.is_integer(kind):
        if int(value) != Decimal(value):
            raise ValueError(value)
        return pa.scalar(int(value), kind)
    if pa.types.is_floating(kind):
        return pa.scalar(float(value), kind)
    return pa.scalar(str(value), kind)


def bookmark_values(stream: Stream, bookmark: Bookmark | None) -> tuple[pa.Scalar, ...] | None:
    """Return the bookmark in the types of its columns, or None where there is no lower bound.

    Raises:
        ConnectorConfigError: it lacks a bookmark property, or holds a value of another type.
    """
    if not bookmark or not stream.bookmark_properties:
        return None
    if all(bookmark.get(name, name) is None for name in stream.bookmark_properties):
        return None
    missing = [name for name in stream.bookmark_properties if name not in bookmark]
    if missing:
        raise ConnectorConfigError(
            f"bookmark of stream {stream.name!r} has no {', '.join(missing)}: bookmark_properties changed; "
            "`syncblocks state reset` starts it from scratch",
            stream=stream.name,
        )
    return tuple(
        from_json(bookmark[name], stream.schema.field(name).type, column=name, stream=stream.name)
        for name in stream.bookmark_properties
    )


def record_hashes(batch: pa.RecordBatch, columns: Sequence[str]) -> list[str]:
    """Hash each record of a (small) batch over the named columns."""
    rows = zip(*(_hashable(batch.column(name)) for name in columns), strict=True)
    return [blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() for row in rows]


def _hashable(column: pa.Array) -> list[Any]:
    """Python values whose `repr` is the same everywhere, whatever zone database is installed."""
    if pa.types.is_temporal(column.type) and not pa.types.is_interval(column.type):
        # As integers: databases hold times past Python's, such as PostgreSQL's infinity.
        column = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64())
    return list(column.to_pylist())


def has_bookmark(records: pa.RecordBatch | pa.Table, names: Sequence[str]) -> pa.Array:
    """Tell of each record whether its bookmark is complete: no NULL, no NaN."""
    mask = pc.invert(pc.is_null(records.column(names[0]), nan_is_null=True))
    for name in names[1:]:
        mask = pc.and_(mask, pc.invert(pc.is_null(records.column(name), nan_is_null=True)))
    return mask


def at_or_past(records: pa.RecordBatch | pa.Table, names: Sequence[str], bookmark: Sequence[pa.Scalar]) -> pa.Array:
    """Tell of each record whether it stands at or past the bookmark, most significant property first."""
    result = pc.fill_null(pc.greater_equal(records.column(names[-1]), bookmark[-1]), False)
    for name, value in reversed(list(zip(names[:-1], bookmark[:-1], strict=True))):
        above = pc.fill_null(pc.greater(records.column(name), value), False)
        same = pc.fill_null(pc.equal(records.column(name), value), False)
        result = pc.or_(above, pc.and_(same, result))
    return pc.and_(result, has_bookmark(records, names))


def incremental(
    stream: Stream,
    batches: Iterable[pa.RecordBatch],
    bookmark: Bookmark | None,
    *,
    is_ordered: bool,
    checkpoint_records: int = CHECKPOINT_RECORDS,
    checkpoint_s: float = CHECKPOINT_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Event]:
    """Drop what was committed before, pass the batches on, and yield checkpoints between them.

    Args:
        stream: its bookmark_properties are columns of every batch.
        batches: records at or past the bookmark; others are dropped here if `is_ordered` is False.
        bookmark: as the ledger holds it; None: from scratch.
        is_ordered: the batches come in ascending order of the bookmark, by the source's own comparison; from
            scratch, records with an incomplete bookmark come before all others, since no checkpoint's reader
            will see them again. Unordered ones get a single checkpoint, after the last batch, compared by Arrow.
        checkpoint_records: records between two checkpoints, at least.
        checkpoint_s: seconds after which a checkpoint comes earlier.
        clock: seconds, monotonic.
    """
    tracker = _Tracker(stream, bookmark, is_ordered)
    pending, since = 0, clock()
    for batch in batches:
        kept = tracker.take(batch)
        if kept.num_rows:
            yield kept
            pending += kept.num_rows
        is_due = pending >= checkpoint_records or clock() - since >= checkpoint_s
        if is_ordered and pending and is_due and tracker.may_checkpoint:
            tracker.has_checkpoint = True
            yield Checkpoint(bookmark=tracker.bookmark())
            pending, since = 0, clock()
    yield Checkpoint(bookmark=tracker.bookmark())


class _Tracker:
    """Highest bookmark seen, and how many records of each hash stand exactly at it."""

    def __init__(self, stream: Stream, bookmark: Bookmark | None, is_ordered: bool) -> None:
        self._stream = stream
        self._names = list(stream.bookmark_properties)
        self._is_ordered = is_ordered
        _demand_order(stream)
        self._columns = list(stream.schema.names)
        self._is_resumed = bool(bookmark)
        self._is_empty = not bookmark
        self._start = bookmark_values(stream, bookmark)
        self._high = self._start
        self._committed = Counter[str]()
        boundary: Mapping[str, Any] = (bookmark or {}).get(BOUNDARY) or {}
        if boundary and set(boundary["columns"]) <= set(self._columns):
            # The columns of then: a column added since must not make old records look new.
            self._columns = list(boundary["columns"])
            self._committed = Counter(boundary["hashes"])
        self._start_columns = self._columns
        self._at_high = Counter(self._committed)
        #: Whether a checkpoint was yielded before the last batch.
        self.has_checkpoint = False

    @property
    def may_checkpoint(self) -> bool:
        """False while no bookmark was seen: a run that went on from there would begin from scratch."""
        return self._high is not None

    def take(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch without records committed before, and note what it holds."""
        if self._is_resumed and batch.num_rows:
            batch = self._drop_committed(batch)
        if batch.num_rows:
            self._is_empty = False
            self._note(batch)
        return batch

    def bookmark(self) -> Bookmark | None:
        """Return the bookmark up to here; None while there was no record."""
        if self._is_empty:
            return None
        high = self._high or [None] * len(self._names)
        boundary = {"columns": self._columns, "hashes": dict(self._at_high)}
        return {
            **{name: self._to_json(name, value) for name, value in zip(self._names, high, strict=True)},
            BOUNDARY: boundary,
        }

    def _to_json(self, name: str, value: pa.Scalar | None) -> Any:
        try:
            return to_json(value)
        except (ValueError, ArithmeticError) as error:
            raise FatalConnectorError(
                f"bookmark property {name!r} of stream {self._stream.name!r} is past the year 9999",
                stream=self._stream.name,
            ) from error

    def _drop_committed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._start is None or self._is_ordered:
            batch = batch.filter(has_bookmark(batch, self._names))
        else:
            batch = batch.filter(at_or_past(batch, self._names, self._start))
        if not self._committed or self._start is None or not batch.num_rows:
            return batch
        at_start = _equal(batch, self._names, self._start)
        if not pc.any(at_start).as_py():
            return batch
        mask = at_start.to_pylist()
        hashes = iter(record_hashes(batch.filter(at_start), self._start_columns))
        for position, is_at_start in enumerate(mask):
            if is_at_start:
                digest = next(hashes)
                if self._committed[digest] > 0:
                    self._committed[digest] -= 1
                else:
                    mask[position] = False
        return batch.filter(pa.array([not drop for drop in mask]))

    def _note(self, batch: pa.RecordBatch) -> None:
        known = batch.filter(has_bookmark(batch, self._names))
        if self.has_checkpoint and known.num_rows < batch.num_rows:
            raise FatalConnectorError(
                f"stream {self._stream.name!r}: a record without {self._names} came after a checkpoint, where no later "
                "run would read it; the source must yield such records first",
                stream=self._stream.name,
            )
        if not known.num_rows:
            return
        high = self._highest(known)
        if self._high is None or not _same(high, self._high):
            if self._high is not None and not self._is_ordered and not _is_above(high, self._high):
                return
            self._high, self._at_high = high, Counter()
            self._columns = list(self._stream.schema.names)
        self._at_high.update(record_hashes(known.filter(_equal(known, self._names, high)), self._columns))

    def _highest(self, batch: pa.RecordBatch) -> tuple[pa.Scalar, ...]:
        if self._is_ordered:
            place = batch.num_rows - 1
        else:
            keys = [(name, "descending") for name in self._names]
            try:
                place = pc.sort_indices(batch.select(self._names), sort_keys=keys)[0].as_py()
            except pa.ArrowNotImplementedError as error:
                kinds = ", ".join(str(batch.schema.field(name).type) for name in self._names)
                raise FatalConnectorError(
                    f"bookmark_properties {self._names} of type {kinds} have no order",
                    stream=self._stream.name,
                ) from error
        return tuple(batch.column(name)[place] for name in self._names)


#: Types that have an order and a JSON form; `null` is a column without any value yet.
_BINARY = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)
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
    *_BINARY,
)


def _demand_order(stream: Stream) -> None:
    for name in stream.bookmark_properties:
        kind = stream.schema.field(name).type
        if name == BOUNDARY or not any(is_kind(kind) for is_kind in _ORDERED):
            raise ConnectorConfigError(
                f"stream {stream.name!r}: column {name!r} of type {kind} cannot be one of the bookmark_properties",
                stream=stream.name,
            )


def _equal(batch: pa.RecordBatch, names: Sequence[str], bookmark: Sequence[pa.Scalar]) -> pa.Array:
    mask = None
    for name, value in zip(names, bookmark, strict=True):
        same = pc.fill_null(pc.equal(batch.column(name), value), False)
        mask = same if mask is None else pc.and_(mask, same)
    return mask


def _same(left: Sequence[pa.Scalar], right: Sequence[pa.Scalar]) -> bool:
    return all(a.equals(b) for a, b in zip(left, right, strict=True))


def _is_above(left: Sequence[pa.Scalar], right: Sequence[pa.Scalar]) -> bool:
    for a, b in zip(left, right, strict=True):
        if not a.equals(b):
            return bool(pc.greater(a, b).as_py())
    return False


__all__ = [
    "BOUNDARY",
    "at_or_past",
    "bookmark_values",
    "from_json",
    "has_bookmark",
    "incremental",
    "record_hashes",
    "to_json",
    "values",
]
