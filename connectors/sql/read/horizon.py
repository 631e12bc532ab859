"""Shared by the horizons of several systems; `postgres.horizon` and `mysql.horizon` explain why they are safe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from ...arrow import compute as pc
from ...arrow.unbounded_numerics import widens, with_wider
from ...incremental.bookmarks import BOUNDARY, bookmark_values, from_json, is_above
from ...incremental.checkpoints import PENDING
from ...rejected.halving import convert_or_reject
from ...stream import Bookmark, Stream
from ...struct_helpers import replace
from ..session import SessionLease

if TYPE_CHECKING:
    from .source import SqlSource

Values = tuple[pa.Scalar, ...]

#: At most this many are remembered for the next run.
MANY_RUNNING = 1000

#: Reason if running writers cannot be listed.
MAY_SKIP = "a record may be skipped if its transaction commits after records with a higher bookmark were read"


class Question(NamedTuple):
    """State of the search for a horizon: have all transactions that ran at the time of `newest` ended?"""

    newest: Values
    #: Open state of the last run: its newest values as "high", running transactions as "running"; None: none.
    held: Mapping[str, Any] | None


def ask(source: SqlSource, lease: SessionLease, stream: Stream, bookmark: Bookmark | None) -> Question | None:
    """Look up the newest record's bookmark; None: no record is past the bookmark, so no horizon is needed."""
    newest = _newest(source, lease, stream)
    start, held = bookmark_values(stream, bookmark), _pending(stream, bookmark)
    if newest is None or (start is not None and held is None and not is_above(newest, start)):
        return None
    return Question(newest=newest, held=held)


def wait(
    lease: SessionLease,
    look: Callable[[], set[str]],
    still: Callable[[set[str], set[str]], set[str]],
    wait_s: float,
    sleep: Callable[[float], None],
    pauses_s: tuple[float, float],
) -> tuple[set[str], set[str]]:
    """Wait for the running transactions to end; return them, and those that ran at each look.

    Args:
        lease: checked for an interrupt.
        look: returns the names of running transactions.
        still: given running transactions, returns which of some names may still run.
        wait_s: seconds to wait at most.
        sleep: seconds.
        pauses_s: seconds between two looks, the first and the longest.
    """
    before = look()
    left, waited, pause_s = before, 0.0, pauses_s[0]
    while left:
        lease.check()
        left = still(left, look())
        if not left or waited >= wait_s:
            break
        sleep(pause_s)
        waited, pause_s = waited + pause_s, min(pause_s * 2, pauses_s[1])
    return before, left


def begin_of_oldest(moment: datetime, kind: pa.DataType, newest: Values) -> Values:
    """Return the begin of the oldest running transaction, in the column's type; the newest values if they are older."""
    value = moment.date() if pa.types.is_date(kind) else None
    oldest = pa.scalar(value, kind) if value else pc.cast(pa.scalar(moment, pa.timestamp("us", kind.tz)), kind)
    return newest if is_above((oldest,), newest[:1]) else (oldest,)


def later(left: Values | None, right: Values | None) -> Values | None:
    """Return the higher of two limits by their first values; None: there is none."""
    if left is None or right is None:
        return right if left is None else left
    return right if is_above(right[:1], left[:1]) else left


def can_settle(stream: Stream) -> bool:
    """Return whether bookmarks of these types can have a horizon."""
    kinds = [stream.schema.field(name).type for name in stream.read.bookmark_properties]
    return all(is_time(kind) or _is_number(kind) for kind in kinds)


def is_time(kind: pa.DataType) -> bool:
    """Return whether values of a type come from a clock."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_decimal(kind) or types.is_floating(kind))


def _newest(source: SqlSource, lease: SessionLease, stream: Stream) -> Values | None:
    fields = [stream.schema.field(name) for name in stream.read.bookmark_properties]
    marks = [source.comparable(field) for field in fields]
    only = replace(stream, schema=pa.schema(fields))
    missing = " or ".join(filter(None, map(source.incomplete, fields)))
    # Records that the source rejects have no bookmark: it skips as many as allowed.
    many = 1 + (stream.read.max_rejected or 0)
    sql = (
        f"select {source.projection(only)} from {source.dialect.naming.table(source.table(stream))} as t "
        f"{f'where not ({missing}) ' if missing else ''}order by {', '.join(f'{mark} desc' for mark in marks)} "
        f"limit {many}"
    )
    # Read to the end: an open statement may block its connection.
    for batch in list(source.rows(lease, sql)):
        now = with_wider(only, batch) if widens(only) else only
        good, _ = convert_or_reject(batch, partial(source.converted, stream=now), now.read.max_rejected)
        for found in good:
            if found.num_rows:
                return tuple(found.column(place)[0] for place in range(len(fields)))
    return None


def _pending(stream: Stream, bookmark: Bookmark | None) -> dict[str, Any] | None:
    """Return the open state of the last run, with its values in their types."""
    kept = ((bookmark or {}).get(BOUNDARY) or {}).get(PENDING)
    if not kept or len(kept["high"]) != len(stream.read.bookmark_properties):
        return None
    fields = [stream.schema.field(name) for name in stream.read.bookmark_properties]
    high = tuple(from_json(value, field.type) for value, field in zip(kept["high"], fields, strict=True))
    return {**kept, "high": high}


__all__ = [
    "MANY_RUNNING",
    "MAY_SKIP",
    "Question",
    "Values",
    "ask",
    "begin_of_oldest",
    "can_settle",
    "is_time",
    "later",
    "wait",
]
