"""Bookmarks of INCREMENTAL streams: from batches to checkpoints, and past the records committed before.

A bookmark is a dict of JSON values: one entry a bookmark property, and under `BOUNDARY` hashes of the records that
stood exactly at it when it was committed. Sources read `>=` the bookmark, never `>`; the hashes tell which of the
records at the boundary were committed already. Whole records are hashed, not keys alone: a record that changed
within the same tick of a coarse clock must get through.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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
    """Turn one bookmark value into a JSON value that loses nothing."""
    if isinstance(value, datetime | date | time_of_day):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


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
    if value is None or isinstance(value, bool):
        raise ValueError(value)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pa.scalar(bytes.fromhex(value), kind)
    if pa.types.is_decimal(kind):
        return pa.scalar(Decimal(str(value)), kind)
    if pa.types.is_timestamp(kind):
        moment = datetime.fromisoformat(str(value))
        if (moment.tzinfo is None) != (kind.tz is None):
            raise ValueError("zoned and naive times do not compare")
        return pa.scalar(moment, kind)
    if pa.types.is_date(kind):
        return pa.scalar(date.fromisoformat(str(value)), kind)
    if pa.types.is_time(kind):
        return pa.scalar(time_of_day.fromisoformat(str(value)), kind)
    if pa.types.is_integer(kind):
        return pa.scalar(int(value), kind)
    if pa.types.is_floating(kind):
        return pa.scalar(float(value), kind)
    return pa.scalar(str(value), kind)


def bookmark_values(stream: Stream, bookmark: Bookmark | None) -> tuple[pa.Scalar, ...] | None:
    """Return the bookmark in the types of its columns, or None where the stream starts from scratch.

    Raises:
        ConnectorConfigError: it lacks a bookmark property, or holds a value of another type.
    """
    if not bookmark or not stream.bookmark_properties:
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
    rows = zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
    return [blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() for row in rows]


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
        is_ordered: the batches come in ascending order of the bookmark, by the source's own comparison (NULLs
            anywhere). Unordered ones get a single checkpoint, after the last batch, compared by Arrow.
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
        if is_ordered and pending and (pending >= checkpoint_records or clock() - since >= checkpoint_s):
            yield Checkpoint(bookmark=tracker.bookmark())
            pending, since = 0, clock()
    yield Checkpoint(bookmark=tracker.bookmark())


class _Tracker:
    """Highest bookmark seen, and how many records of each hash stand exactly at it."""

    def __init__(self, stream: Stream, bookmark: Bookmark | None, is_ordered: bool) -> None:
        self._stream = stream
        self._names = list(stream.bookmark_properties)
        self._is_ordered = is_ordered
        self._columns = list(stream.schema.names)
        self._start = bookmark_values(stream, bookmark)
        self._high = self._start
        self._committed = Counter[str]()
        boundary: Mapping[str, Any] = (bookmark or {}).get(BOUNDARY) or {}
        if set(boundary.get("columns", ())) <= set(self._columns) and boundary:
            # The columns of then: a column added since must not make old records look new.
            self._columns = list(boundary["columns"])
            self._committed = Counter(boundary["hashes"])
        self._at_high = Counter(self._committed)

    def take(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch without records committed before, and note what it holds."""
        if self._start is not None and batch.num_rows:
            batch = self._drop_committed(batch)
        if batch.num_rows:
            self._note(batch)
        return batch

    def bookmark(self) -> Bookmark | None:
        """Return the bookmark up to here; None while no record had one."""
        if self._high is None:
            return None
        boundary = {"columns": self._columns, "hashes": dict(self._at_high)}
        shown = {name: to_json(value.as_py()) for name, value in zip(self._names, self._high, strict=True)}
        return {**shown, BOUNDARY: boundary}

    def _drop_committed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        assert self._start is not None
        if not self._is_ordered:
            keep = _not_below(batch, self._names, self._start)
            batch = batch.filter(keep)
        if not self._committed:
            return batch
        at_start = _equal(batch, self._names, self._start)
        if not pc.any(at_start).as_py():
            return batch
        mask = at_start.to_pylist()
        hashes = iter(record_hashes(batch.filter(at_start), self._columns))
        for position, is_at_start in enumerate(mask):
            if is_at_start:
                digest = next(hashes)
                if self._committed[digest] > 0:
                    self._committed[digest] -= 1
                else:
                    mask[position] = False
        return batch.filter(pa.array([not drop for drop in mask]))

    def _note(self, batch: pa.RecordBatch) -> None:
        valid = _valid(batch, self._names)
        known = batch if pc.all(valid).as_py() else batch.filter(valid)
        if not known.num_rows:
            return
        high = self._highest(known)
        if self._high is None or not _same(high, self._high):
            if self._high is not None and not self._is_ordered and not _is_above(high, self._high):
                return
            self._high, self._at_high = high, Counter()
            if not self._committed:
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


def _valid(batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    mask = pc.is_valid(batch.column(names[0]))
    for name in names[1:]:
        mask = pc.and_(mask, pc.is_valid(batch.column(name)))
    return mask


def _equal(batch: pa.RecordBatch, names: Sequence[str], bookmark: Sequence[pa.Scalar]) -> pa.Array:
    mask = None
    for name, value in zip(names, bookmark, strict=True):
        same = pc.fill_null(pc.equal(batch.column(name), value), False)
        mask = same if mask is None else pc.and_(mask, same)
    return mask


def _not_below(batch: pa.RecordBatch, names: Sequence[str], bookmark: Sequence[pa.Scalar]) -> pa.Array:
    """Lexicographic >=; records with a NULL are below everything (they were read from scratch once)."""
    result = pc.fill_null(pc.greater_equal(batch.column(names[-1]), bookmark[-1]), False)
    for name, value in reversed(list(zip(names[:-1], bookmark[:-1], strict=True))):
        above = pc.fill_null(pc.greater(batch.column(name), value), False)
        same = pc.fill_null(pc.equal(batch.column(name), value), False)
        result = pc.or_(above, pc.and_(same, result))
    return result


def _same(left: Sequence[pa.Scalar], right: Sequence[pa.Scalar]) -> bool:
    return all(a.equals(b) for a, b in zip(left, right, strict=True))


def _is_above(left: Sequence[pa.Scalar], right: Sequence[pa.Scalar]) -> bool:
    for a, b in zip(left, right, strict=True):
        if not a.equals(b):
            return bool(pc.greater(a, b).as_py())
    return False


__all__ = ["BOUNDARY", "bookmark_values", "from_json", "incremental", "record_hashes", "to_json", "values"]
