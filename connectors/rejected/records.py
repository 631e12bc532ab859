"""Rejected records: they do not fit, and are kept beside their table if the stream says `on_rejected: keep`.

The interface for connectors, all of it:

- A source looks at `Stream.max_rejected`. None: it raises at the first rejected record, as ever. A number: it leaves
  rejected records out of its batches and yields them as one `Rejected` event, before or after the batch that they came with but
  before the next checkpoint; `sift` finds them by halving a batch whose conversion fails, and `rejection` makes one of
  a record, or of raw text that is none. It need not count: whoever writes them does.
- A destination with `keeps_rejected` takes `Rejected` among its events, adds them and those that it finds itself to
  a `Rejections` (which raises `TooManyRejected` past the limit), and writes them into the table `_syncblocks_rejected`
  (files: a folder of that name) beside the data, in the same commit. `Commit.rejected` says how many.

The good path costs nothing: no record is looked at alone before a batch has failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from math import isfinite
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from ..errors import FatalConnectorError, Interrupted, RetriableError, StatementRefused, TakenOver
from ..stream import Load, Rejected, RejectedRecord, ReplicationMethod, Stream, WriteDisposition

#: Table beside the destination table that holds what was set aside.
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

#: Longest record and reason that are kept, in characters.
MAX_RECORD, MAX_REASON = 1_000_000, 2_000

T = TypeVar("T")

#: Says whose fault it is not: these are never taken for a rejected record.
_NOT_THE_RECORD = (Interrupted, RetriableError, StatementRefused, TakenOver)


class TooManyRejected(FatalConnectorError):
    """More records were bad than `max_rejected` allows."""


def rejection(record: Any, reason: str, place: str = "") -> RejectedRecord:
    """Make what is kept of a rejected record.

    Args:
        record: a dict of a record's values, or the raw text (or bytes) of what is none.
        reason: why it was set aside; no credential.
        place: where it was found, such as `people.csv:12`.
    """
    if isinstance(record, bytes):
        record = record.decode("utf-8", "backslashreplace")
    text = json.dumps(_plain(record))
    if len(text) > MAX_RECORD:
        text = json.dumps({"cut": text[:MAX_RECORD]})
    return RejectedRecord(record=text, reason=_storable(reason[:MAX_REASON]), place=_storable(place))


def rejections(batch: pa.RecordBatch, reason: str | Callable[[int], str]) -> list[RejectedRecord]:
    """Make what is kept of each record of a (small) batch; `reason` may depend on the record's place in it."""
    columns = {name: _values(batch.column(place)) for place, name in enumerate(batch.schema.names)}
    return [
        rejection(
            {name: values[place] for name, values in columns.items()},
            reason if isinstance(reason, str) else reason(place),
        )
        for place in range(batch.num_rows)
    ]


class Sliceable(Protocol):
    """What `sift` halves: a RecordBatch, or anything else of so many records."""

    @property
    def num_rows(self) -> int: ...
    def slice(self, offset: int, length: int, /) -> Any: ...


def sift(batch: Sliceable, converts: Callable[[Any], T], limit: int) -> tuple[list[T], list[tuple[int, str]]]:
    """Convert a batch, by halves where it fails, down to the records that are at fault.

    Args:
        batch: as it came.
        converts: raises `FatalConnectorError`, `ValueError` or an Arrow error for what does not fit; each part of the
            batch is converted once more than it is halved.
        limit: more rejected records than this are not looked for.

    Returns:
        The conversions of the parts without rejected records, in order, and place and reason of each rejected record.

    Raises:
        TooManyRejected: more than `limit` are bad.
    """
    good: list[T] = []
    bad: list[tuple[int, str]] = []
    waiting = [(0, batch.num_rows)]
    while waiting:
        start, size = waiting.pop()
        try:
            good.append(converts(batch.slice(start, size)))
            continue
        except _NOT_THE_RECORD:
            raise
        except (FatalConnectorError, ValueError, ArithmeticError, TypeError, pa.ArrowException) as error:
            reason = str(error).strip() or type(error).__name__
        if size > 1:
            half = size // 2
            waiting += [(start + half, size - half), (start, half)]
            continue
        bad.append((start, reason))
        if len(bad) > limit:
            raise TooManyRejected(too_many(limit, reason))
    return good, bad


def sifted(
    batch: pa.RecordBatch, converts: Callable[[pa.RecordBatch], pa.RecordBatch], stream: Stream
) -> tuple[list[pa.RecordBatch], list[RejectedRecord]]:
    """Convert a batch; of a stream that keeps them return its rejected records beside the rest."""
    if stream.max_rejected is None:
        return [converts(batch)], []
    good, bad = sift(batch, converts, stream.max_rejected)
    if not bad:
        return good, []
    reasons = [reason for _, reason in bad]
    return good, rejections(batch.take(pa.array([place for place, _ in bad])), reasons.__getitem__)


def too_many(limit: int, reason: str) -> str:
    """Say that the limit is passed."""
    return (
        f"more than {limit} rejected records (`max_rejected`); nothing after the last commit was kept. "
        f"The last one: {reason}"
    )


def may_come_again(load: Load, records: Iterable[RejectedRecord]) -> list[RejectedRecord]:
    """Return the records of which a destination must look whether it has set them aside before.

    INCREMENTAL reads files as a whole, so it finds the same bad lines in each run. Out of a database it reads again
    what stands at its bookmark or, as no bookmark moves to a rejected record, past it.
    """
    is_read_again = load.stream.replication_method is ReplicationMethod.INCREMENTAL
    return list(records) if is_read_again and load.write_disposition is not WriteDisposition.REPLACE else []


class Rejections:
    """What one load has to set aside, up to a limit over all its commits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._written = 0
        #: To be written by the commit under way.
        self.records: list[RejectedRecord] = []

    def add(self, records: Iterable[RejectedRecord]) -> None:
        """Take rejected records.

        Raises:
            TooManyRejected: they are more than `max_rejected`.
        """
        self.records += records
        if self._written + len(self.records) > self._limit:
            raise TooManyRejected(too_many(self._limit, self.records[-1].reason))

    def leave_out(self, known: Collection[tuple[str, str]]) -> None:
        """Drop what an earlier load has set aside: place and record of each."""
        self.records = [each for each in self.records if (each.place, each.record) not in known]

    def forget(self) -> None:
        """A transaction begins; what the last one did not commit is nowhere."""
        self.records = []

    def written(self) -> int:
        """Count what was written as committed; return how many that were."""
        number = len(self.records)
        self._written += number
        self.records = []
        return number


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


def _plain(value: Any) -> Any:
    """Return a JSON value; what JSON lacks becomes text."""
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


__all__ = [
    "REJECTED_SCHEMA",
    "REJECTED_TABLE",
    "Rejected",
    "Rejections",
    "TooManyRejected",
    "may_come_again",
    "rejection",
    "rejections",
    "sift",
    "sifted",
    "too_many",
]
