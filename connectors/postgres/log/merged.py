"""Changes of a table -> changes that are merged: upserts and deletes in order, and where left out values are.

The server allows no key twice at any moment, so the last change of a key counts, and a change of a key is a delete of
the former one and an upsert of the new one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct

from ...arrow.gather import Mask, array_of
from ...log_based import DELETE as DELETED
from ...log_based import MARK, MARK_ALL, UPSERT
from ...log_based import TRUNCATE as TRUNCATED
from .decoder import Changes
from .messages import DELETE, INSERT, TRUNCATE, UPDATE

Numbers = npt.NDArray[np.int64]

_MOMENT = pa.timestamp("us", "UTC")


class Merged(Struct, frozen=True):
    """Records of a batch; a place is one in a column's new values and, behind them, its old ones."""

    operations: pa.Array
    #: Column of the log -> the place of each record's value; -1: none.
    places: Mapping[int, Numbers]
    #: Names of the columns that are left out, as JSON; None: no record lacks one.
    unchanged: pa.Array
    #: The commit time of what is marked.
    deleted_at: pa.Array
    #: Of the former key, in each column of the key; -1: the record lacks nothing.
    origins: Mapping[int, Numbers]


def truncated(columns: Sequence[int], key: Sequence[int], committed_at: Numbers, *, is_soft: bool) -> Merged:
    """Return the batch of a TRUNCATE."""
    none = np.full(1, -1, np.int64)
    return Merged(
        pa.array([MARK_ALL if is_soft else TRUNCATED]),
        dict.fromkeys(columns, none),
        pa.nulls(1, pa.string()),
        array_of(_MOMENT, committed_at),
        dict.fromkeys(key, none),
    )


def merged(
    changes: Changes, first: int, columns: Mapping[int, str], key: Sequence[int], *, deletes: str
) -> Iterator[Merged]:
    """Yield the changes from one of them on; a TRUNCATE is a batch of its own.

    Args:
        changes: of one table.
        first: the first one that counts.
        columns: column of the log -> its name, of those that are read.
        key: columns of the log by which records are merged.
        deletes: see `log_based.DELETES`.
    """
    rows = _Rows(changes, key, deletes)
    bounds = np.flatnonzero(changes.operations == TRUNCATE)
    start = first
    for end in [*bounds[bounds >= first].tolist(), len(changes.operations)]:
        if end > start and len((found := rows.batch(np.arange(start, end), columns)).operations):
            yield found
        if end < len(changes.operations) and deletes != "ignore":
            yield truncated(list(columns), key, changes.committed_at[end : end + 1], is_soft=deletes == "soft")
        start = end + 1


class _Rows:
    """Where the values of each change are."""

    def __init__(self, changes: Changes, key: Sequence[int], deletes: str) -> None:
        self._changes, self._key, self._deletes = changes, key, deletes
        count = len(changes.operations)
        self._new, self._old = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
        self._new[changes.with_new] = np.arange(len(changes.with_new))
        self._old[changes.with_old] = np.arange(len(changes.with_old)) + len(changes.with_new)
        self._whole = np.full(count, -1, np.int64)
        self._whole[changes.with_old[changes.is_old_whole]] = self._old[changes.with_old[changes.is_old_whole]]
        self._keys = [self._texts(place) for place in key]
        has_old = (changes.operations == UPDATE) & (self._old >= 0)
        self._moved = has_old & ~self._is_same_key(has_old)

    def _texts(self, place: int) -> pa.Array:
        return pa.concat_arrays([self._changes.new.texts(place), self._changes.old.texts(place)])

    def _is_same_key(self, where: Mask) -> Mask:
        is_same, at = np.ones(len(where), bool), np.flatnonzero(where)
        for texts in self._keys if len(at) else ():
            before, after = texts.take(pa.array(self._old[at])), texts.take(pa.array(self._new[at]))
            is_same[at] &= np.array([a == b for a, b in zip(before.to_pylist(), after.to_pylist(), strict=True)])
        return is_same

    def batch(self, some: Numbers, columns: Mapping[int, str]) -> Merged:
        """Return changes among which there is no TRUNCATE."""
        changes = self._changes
        moved = self._moved[some]
        change = np.repeat(some, 1 + moved)
        # Of a change of the key the first of two records is the delete.
        is_first = np.zeros(len(change), bool)
        is_first[np.cumsum(1 + moved)[moved] - 2] = True
        is_delete = is_first | (changes.operations[change] == DELETE)
        at = np.where(is_delete, self._old[change], self._new[change])
        places, lacking = dict[int, Numbers](), dict[int, Mask]()
        for column in columns:
            marks, own = changes.new.unchanged(column), at
            if marks is not None:
                is_left_out = np.zeros(len(self._new), bool)
                is_left_out[changes.with_new] = marks
                is_left_out = is_left_out[change] & ~is_delete
                whole = self._whole[change]
                own = np.where(is_left_out, whole, at)
                if (unknown := is_left_out & (whole < 0)).any():
                    lacking[column] = unknown
            # Of a delete only the key counts: the log may have former values that nothing but the server can hold.
            places[column] = own if column in self._key else np.where(is_delete, -1, own)
        if lacking:
            return self._folded(change, is_first, is_delete, at, places, lacking, columns)
        kept = np.arange(len(change)) if self._deletes != "ignore" else np.flatnonzero(~is_delete)
        own = np.full(len(kept), -1, np.int64)
        return self._merged(kept, change, is_first, is_delete, places, pa.nulls(len(kept), pa.string()), own)

    def _merged(
        self,
        kept: Numbers,
        change: Numbers,
        is_first: Mask,
        is_delete: Mask,
        places: Mapping[int, Numbers],
        unchanged: pa.Array,
        origins: Numbers,
    ) -> Merged:
        codes = is_delete.astype(np.int8)
        if self._deletes == "soft":  # a changed key moves the record, which marks nothing
            codes[is_delete & ~is_first] = 2
        words = pa.DictionaryArray.from_arrays(array_of(pa.int8(), codes[kept]), pa.array([UPSERT, DELETED, MARK]))
        moments = array_of(_MOMENT, self._changes.committed_at[change[kept]], codes[kept] != 2)
        taken = {column: each[kept] for column, each in places.items()}
        return Merged(words.dictionary_decode(), taken, unchanged, moments, dict.fromkeys(self._key, origins))

    def _folded(
        self,
        change: Numbers,
        is_first: Mask,
        is_delete: Mask,
        at: Numbers,
        places: Mapping[int, Numbers],
        lacking: Mapping[int, Mask],
        columns: Mapping[int, str],
    ) -> Merged:
        """Keep the last record of each key, with what earlier ones of the batch know of it."""
        keys = list(zip(*(texts.take(pa.array(at)).to_pylist() for texts in self._keys), strict=True))
        is_insert = (self._changes.operations[change] == INSERT).tolist()
        places = {column: each.copy() if column in lacking else each for column, each in places.items()}
        origins = np.full(len(change), -1, np.int64)
        #: Key -> its last record; a record that is moved is taken out.
        last: dict[tuple[bytes | None, ...], int] = {}
        #: Key -> what marks it behind its last record.
        marks: dict[tuple[bytes | None, ...], int] = {}
        before, base = -1, -1  # what a changed key had: its record of this batch, else where its former key stands
        for row, key in enumerate(keys):
            if is_delete[row] and not is_first[row] and self._deletes == "soft":
                marks[key] = row
                continue
            marks.pop(key, None)
            if is_delete[row]:
                before, base = last.get(key, -1), row
                if self._deletes != "ignore":
                    last[key] = row
                continue
            if not (row and is_first[row - 1]):
                before, base = last.get(key, -1), row
            last[key] = row
            for column, is_unknown in () if is_insert[row] else lacking.items():
                if not is_unknown[row]:
                    continue
                known = places[column][before] if before >= 0 else -1
                places[column][row] = known
                if known < 0:  # the table's, under the key that it has there
                    origins[row] = origins[before] if before >= 0 and origins[before] >= 0 else at[base]
        kept = np.sort(np.array([*last.values(), *marks.values()], np.int64))
        left_out: dict[int, list[str]] = {}
        for column, is_unknown in lacking.items():
            for row in np.flatnonzero(is_unknown & (places[column] < 0)).tolist():
                left_out.setdefault(row, []).append(columns[column])
        texts = [json.dumps(left_out[row], ensure_ascii=False) if row in left_out else None for row in kept.tolist()]
        own = np.where([text is not None for text in texts], origins[kept], -1)
        return self._merged(kept, change, is_first, is_delete, places, pa.array(texts, pa.string()), own)


__all__ = ["Merged", "merged"]
