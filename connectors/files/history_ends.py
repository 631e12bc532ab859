"""HISTORY for files, of records that the source no longer has: their versions end; those of keys that are back begin.

The rules are those of `connectors/sql/load/history_ends.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from ..arrow.merge import all_keys, keys_of
from ..stream import VALID_FROM, VALID_TO
from .history import KeyPlaces, times_of, with_times
from .history_versions import NEVER

Batches = Callable[[], Iterable[pa.RecordBatch]]


def ended(old: Batches, marked: pa.Table, keys: Sequence[str]) -> Batches:
    """Return the batches of a table once `Load.marked` is applied to them.

    Args:
        old: batches of the table.
        marked: keys and times, in the types of the table.
        keys: columns that identify a record.
    """
    known = KeyPlaces(all_keys(marked.select(keys).to_batches(), keys))
    begin, end = (
        np.concatenate([times_of(part) for part in marked.column(name).chunks] or [np.zeros(0, np.int64)])
        for name in (VALID_FROM, VALID_TO)
    )
    is_back = end == NEVER
    newest = np.full(len(end), np.iinfo(np.int64).min)

    def places(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        number = known.of(keys_of(batch, keys))
        at = np.flatnonzero(number >= 0)
        return at, number[at]

    for batch in old() if is_back.any() else ():
        at, number = places(batch)
        np.maximum.at(newest, number, times_of(batch.column(VALID_FROM))[at])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in old():
            at, number = places(batch)
            begun, closed = (times_of(batch.column(name))[at] for name in (VALID_FROM, VALID_TO))
            is_gone = (closed == NEVER) & ~is_back[number]
            returns = (closed != NEVER) & is_back[number] & (begun == newest[number])
            # A key begins again where its last version ended, or later if it is said when it was found back.
            again = np.where(begin[number] == NEVER, closed, np.maximum(begin[number], closed))
            reopens = returns & (again == begun)
            times = np.where(reopens, NEVER, np.maximum(end[number], begun))
            is_other = is_gone | reopens
            yield with_times(batch, VALID_TO, at[is_other], times[is_other]) if is_other.any() else batch
            follows = returns & ~reopens
            if follows.any():
                copies, every = batch.take(pa.array(at[follows])), np.arange(int(follows.sum()))
                copies = with_times(copies, VALID_FROM, every, again[follows])
                yield with_times(copies, VALID_TO, every, np.full(len(every), NEVER))

    return batches


__all__ = ["ended"]
