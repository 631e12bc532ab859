"""Find the records that a step (a conversion, an insert) rejects: try the whole batch, and halve each part that fails.

A batch that passes is tried once: no record is looked at alone before its batch has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from ..errors import FatalConnectorError, Interrupted, RetriableError, StatementRefused, TakenOver
from ..stream import RejectedRecord
from .limits import too_many
from .records import rejections

T = TypeVar("T")

#: Errors that are no record's fault: they pass through, and reject no record.
_NOT_THE_RECORD = (Interrupted, RetriableError, StatementRefused, TakenOver)


class Sliceable(Protocol):
    """Records that can be halved: a RecordBatch, or a sequence with its two members."""

    @property
    def num_rows(self) -> int: ...
    def slice(self, offset: int, length: int, /) -> Any: ...


def convert_by_halves(
    batch: Sliceable, convert: Callable[[Any], T], limit: int
) -> tuple[list[T], list[tuple[int, str]]]:
    """Convert a batch; halve each part that fails, down to single records.

    Args:
        batch: the records, in order.
        convert: raises `FatalConnectorError`, `ValueError` or an Arrow error for a record that does not fit.
        limit: stop after more rejected records than this.

    Returns:
        The conversions of the parts that fit, in order; position and reason of each rejected record.

    Raises:
        TooManyRejected: more than `limit` records are rejected.
    """
    converted: list[T] = []
    rejected: list[tuple[int, str]] = []
    waiting = [(0, batch.num_rows)]
    while waiting:
        start, size = waiting.pop()
        try:
            converted.append(convert(batch.slice(start, size)))
            continue
        except _NOT_THE_RECORD:
            raise
        except (FatalConnectorError, ValueError, ArithmeticError, TypeError, pa.ArrowException) as error:
            reason = str(error).strip() or type(error).__name__
        if size > 1:
            half = size // 2
            waiting += [(start + half, size - half), (start, half)]
            continue
        rejected.append((start, reason))
        if len(rejected) > limit:
            raise too_many(limit, reason)
    return converted, rejected


def find_unfit(columns: Iterable[tuple[Sliceable, Callable[[Any], object]]], limit: int) -> dict[int, str]:
    """Find the records that a conversion column by column rejects; the others can then be converted at once.

    Args:
        columns: of the same records; what converts each of them, as in `convert_by_halves`.
        limit: as there.

    Returns:
        Position -> reason, in order; of several reasons that of the first column.

    Raises:
        TooManyRejected: as there.
    """
    reasons: dict[int, str] = {}
    for column, convert in columns:
        _, found = convert_by_halves(column, convert, limit)
        reasons = dict(found) | reasons
    if len(reasons) > limit:
        raise too_many(limit, next(iter(reasons.values())))
    return dict(sorted(reasons.items()))


def convert_or_reject(
    batch: pa.RecordBatch, convert: Callable[[pa.RecordBatch], pa.RecordBatch], limit: int | None
) -> tuple[list[pa.RecordBatch], list[RejectedRecord]]:
    """Convert a batch; return up to `limit` rejected records apart, or let the error pass if it is None."""
    if limit is None:
        return [convert(batch)], []
    converted, rejected = convert_by_halves(batch, convert, limit)
    if not rejected:
        return converted, []
    reasons = [reason for _, reason in rejected]
    return converted, rejections(batch.take(pa.array([place for place, _ in rejected])), reasons.__getitem__)


__all__ = ["convert_by_halves", "convert_or_reject", "find_unfit"]
