"""Merge of records in files: the old records are written anew, then those that arrived.

Memory holds the keys that arrived since the last commit, never the table: a few more than 8 bytes for an integer, about
100 bytes more than its length for another key. Keys compare by value in the types of the table. A record without a
complete key is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import null_in_key
from ..write_spec import ConflictMethod, WriteSpec
from .text import is_bytes, is_text, is_uuid, to_text

Batches = Callable[[], Iterable[pa.RecordBatch]]


def merged(
    old: Batches,
    arrived: Callable[[Sequence[str] | None], Iterable[pa.RecordBatch]],
    key_properties: Sequence[str],
    write: WriteSpec,
    removed: Iterable[pa.RecordBatch] = (),
    note_gone: Callable[[int], None] = lambda _: None,
    note_replaced: Callable[[int], None] = lambda _: None,
    marked: pa.Table | None = None,
    without_deleted: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda batch: batch,
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of the merged table; of the records of a key the last one counts, or the latest one.

    Args:
        old: batches of the table.
        arrived: batches since the last commit, with some or all columns of the table's schema.
        key_properties: columns that identify a record.
        write: which record of a key counts (IGNORE: the first one), and what an old one keeps.
        removed: keys whose old records are removed, in the types of the table.
        note_gone: is told how many old records of removed keys are left out.
        note_replaced: called with the number of records that another one replaced, see `Commit.replaced`.
        marked: keys and one more column, whose values old records of these keys get; in the types of the table.
        without_deleted: leaves out what does not stay of the records that arrived and count.
    """
    keys, conflict_method = all_keys(arrived(key_properties), key_properties), write.conflict_method
    age, is_first = write.latest_by, conflict_method is ConflictMethod.IGNORE
    latest = Latest(keys, arrived((age,)), write) if age else None
    is_wanted, lookup = _counts(keys, is_first=is_first) if latest is None else latest.is_wanted, _Lookup(keys)
    is_last, counted = is_wanted, len(keys)
    gone = _Lookup(all_keys(removed, key_properties))
    marks = None if marked is None else _Marks(marked, key_properties)
    held, before = [], _Before(write.kept)
    for batch in old():
        before_removal = batch.num_rows
        batch = batch.filter(pc.invert(gone.contains(keys_of(batch, key_properties))))
        note_gone(before_removal - batch.num_rows)
        own = keys_of(batch, key_properties)
        batch = batch if marks is None else marks.set(batch, own)
        is_known = lookup.contains(own)
        if conflict_method is not ConflictMethod.UPDATE:
            held.append(own.filter(is_known))
        if latest is not None:
            is_known = latest.without_newer(own, batch.column(age), is_known)
        if is_first:
            yield batch
        else:
            before.note(own, batch, is_known)
            yield batch.filter(pc.invert(is_known))
    if latest is not None:
        is_wanted = latest.is_wanted
    if conflict_method is not ConflictMethod.UPDATE and len(keys):  # of no record at all the keys have no type
        is_held = pc.is_in(keys, value_set=pa.chunked_array(held, keys.type).combine_chunks())
        is_last, counted = pc.and_(is_last, is_held), pc.sum(is_held).as_py()
        is_wanted = pc.and_(is_wanted, is_held if conflict_method is ConflictMethod.UPDATE_ONLY else pc.invert(is_held))
    note_replaced(0 if is_first or not len(keys) else counted - pc.sum(is_last).as_py())
    done = 0
    for batch in arrived(None):
        given = before.given(batch, keys.slice(done, batch.num_rows))
        yield without_deleted(given.filter(is_wanted.slice(done, batch.num_rows)))
        done += batch.num_rows


def newest(
    arrived: Callable[[Sequence[str] | None], Iterable[pa.RecordBatch]],
    key_properties: Sequence[str],
    write: WriteSpec,
) -> Iterator[pa.RecordBatch]:
    """Yield the batches that arrived, of each key with its latest record; all records if nothing says which that is."""
    if not write.latest_by:
        yield from arrived(None)
        return
    keys = all_keys(arrived(key_properties), key_properties)
    is_wanted, done = Latest(keys, arrived((write.latest_by,)), write).is_wanted, 0
    for batch in arrived(None):
        yield batch.filter(is_wanted.slice(done, batch.num_rows))
        done += batch.num_rows


class _Before:
    """What old records have in some columns, for the records that take their place: a value a key and column."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._keys: list[pa.Array] = []
        self._values: list[pa.RecordBatch] = []

    def note(self, keys: pa.Array, batch: pa.RecordBatch, is_known: pa.Array) -> None:
        """Note the old records whose keys come again."""
        if self._names:
            self._keys.append(keys.filter(is_known))
            self._values.append(batch.select(self._names).filter(is_known))

    def given(self, batch: pa.RecordBatch, keys: pa.Array) -> pa.RecordBatch:
        """Return arriving records with the values of the old ones of the same keys."""
        if not self._keys:
            return batch
        places = pc.index_in(keys, value_set=pa.chunked_array(self._keys).combine_chunks())
        table, is_old, columns = pa.Table.from_batches(self._values), pc.is_valid(places), list(batch.columns)
        for name in self._names:
            place = batch.schema.get_field_index(name)
            if place >= 0:
                held = table.column(name).combine_chunks().take(places)
                columns[place] = pc.if_else(is_old, held, columns[place])
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


class _Marks:
    """Values of one column for the records of some keys."""

    def __init__(self, marked: pa.Table, key_properties: Sequence[str]) -> None:
        (self._name,) = (name for name in marked.schema.names if name not in key_properties)
        self._keys = all_keys(marked.select(key_properties).to_batches(), key_properties)
        self._values = marked.column(self._name).combine_chunks()

    def set(self, batch: pa.RecordBatch, keys: pa.Array) -> pa.RecordBatch:
        """Return a batch with these values in the records of these keys."""
        places = pc.index_in(keys, value_set=self._keys)
        at, columns = batch.schema.get_field_index(self._name), list(batch.columns)
        columns[at] = pc.if_else(pc.is_valid(places), self._values.take(places), columns[at])
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


class Latest:
    """Which arrived record of each key has the highest (or lowest) value of a column, and which an old one surpasses.

    Memory holds the values that arrived since the last commit, beside their keys.
    """

    def __init__(self, keys: pa.Array, batches: Iterable[pa.RecordBatch], write: WriteSpec) -> None:
        import numpy as np

        self._is_lowest = write.latest_is_lowest
        parts = [batch.column(write.latest_by) for batch in batches]
        values = pa.chunked_array(parts, None if parts else pa.null()).combine_chunks()
        codes = keys.dictionary_encode()
        #: Each key once, and where its record stands among those that arrived.
        self._keys, self._places = codes.dictionary, np.zeros(len(codes.dictionary), dtype=np.int64)
        order = _ascending(values, is_lowest=self._is_lowest)
        # For repeated indexes NumPy keeps the last assignment.
        self._places[codes.indices.to_numpy()[order]] = order
        self._values = values.take(pa.array(self._places))
        self._is_newest = np.ones(len(self._keys), dtype=bool)
        self._count = len(keys)

    @property
    def is_wanted(self) -> pa.Array:
        """A mask of the records that count, as far as old ones are known."""
        import numpy as np

        mask = np.zeros(self._count, dtype=bool)
        mask[self._places[self._is_newest]] = True
        return pa.array(mask)

    def without_newer(self, keys: pa.Array, values: pa.Array, is_known: pa.Array) -> pa.Array:
        """Return a mask of old records whose keys arrived, without those that are newer than what arrived."""
        import numpy as np

        known = np.flatnonzero(is_known.to_numpy(zero_copy_only=False))
        if not len(known):
            return is_known
        places = pc.index_in(keys.take(pa.array(known)), value_set=self._keys).to_numpy()
        held, arrived = values.take(pa.array(known)), self._values.take(pa.array(places))
        is_newer = _is_newer(held, arrived, is_lowest=self._is_lowest).to_numpy(zero_copy_only=False)
        self._is_newest[places[is_newer]] = False
        mask = is_known.to_numpy(zero_copy_only=False).copy()
        mask[known[is_newer]] = False
        return pa.array(mask)


def _ascending(values: pa.Array, *, is_lowest: bool) -> Any:
    """Return the places of values, the one that counts last; equal ones stay as they came."""
    import numpy as np

    rank = _rank(values, is_lowest=is_lowest)
    table = pa.table({"rank": rank, "value": values, "place": pa.array(np.arange(len(values)))})
    keys = [(name, "descending" if is_lowest and name == "value" else "ascending") for name in table.schema.names]
    return pc.sort_indices(table, sort_keys=keys).to_numpy().astype(np.int64)


def _is_newer(one: pa.Array, other: pa.Array, *, is_lowest: bool) -> pa.Array:
    """Compare values one by one."""
    rank, other_rank = (_rank(each, is_lowest=is_lowest) for each in (one, other))
    is_above = pc.fill_null((pc.less if is_lowest else pc.greater)(one, other), False)
    return pc.or_(pc.greater(rank, other_rank), pc.and_(pc.equal(rank, other_rank), is_above))


def _rank(values: pa.Array, *, is_lowest: bool) -> pa.Array:
    """Return ranks: of NULL, which counts less than all values, of NaN, which is above all others, and of these."""
    rank = pc.is_valid(values).cast(pa.int8())
    if not _has_nan(values):
        return rank
    is_first = pc.fill_null(pc.equal(pc.is_nan(values), not is_lowest), False)
    return pc.add(rank, is_first.cast(pa.int8()))


def _has_nan(values: pa.Array) -> bool:
    return bool(pa.types.is_floating(values.type))


def all_keys(batches: Iterable[pa.RecordBatch], key_properties: Sequence[str]) -> pa.Array:
    parts = [keys_of(batch, key_properties) for batch in batches]
    return pa.chunked_array(parts, parts[0].type if parts else pa.binary()).combine_chunks()


class _Lookup:
    """Tells which keys have arrived. Arrow's `is_in` would build its hash table for each batch."""

    def __init__(self, keys: pa.Array) -> None:
        self._keys = keys
        self._is_numeric = pa.types.is_integer(keys.type)
        self._known: Any = None

    def contains(self, keys: pa.Array) -> pa.Array:
        import numpy as np

        if not len(self._keys):
            return pa.array(np.zeros(len(keys), dtype=bool))
        if self._is_numeric:
            if self._known is None:
                self._known = np.sort(self._keys.to_numpy())
            wanted = keys.to_numpy()
            places = np.minimum(np.searchsorted(self._known, wanted), len(self._known) - 1)
            return pa.array(self._known[places] == wanted)
        if self._known is None:
            self._known = set(self._keys.to_pylist())
        return pa.array([key in self._known for key in keys.to_pylist()], pa.bool_())


class KeyLookup:
    """Tells which records of a table have a key that arrived; of no key none has."""

    def __init__(
        self, key_properties: Sequence[str], arrived: Callable[[Sequence[str] | None], Iterable[pa.RecordBatch]]
    ) -> None:
        self._names = key_properties
        self._lookup = _Lookup(all_keys(arrived(key_properties), key_properties)) if key_properties else None

    def of(self, batch: pa.RecordBatch) -> pa.Array:
        """Return a mask of the records of the table."""
        if self._lookup is None:
            return pa.repeat(pa.scalar(False), batch.num_rows)
        return self._lookup.contains(keys_of(batch, self._names))


def _counts(keys: pa.Array, *, is_first: bool) -> pa.Array:
    """Return a mask of the last record of each key, or of the first."""
    import numpy as np

    if not len(keys):
        return pa.array([], pa.bool_())
    codes = keys.dictionary_encode()
    order = np.arange(len(keys), dtype=np.int64)[:: -1 if is_first else 1]
    counting = np.zeros(len(codes.dictionary), dtype=np.int64)
    # For repeated indexes NumPy keeps the last assignment.
    counting[codes.indices.to_numpy()[order]] = order
    mask = np.zeros(len(keys), dtype=bool)
    mask[counting] = True
    return pa.array(mask)


def keys_of(batch: pa.RecordBatch, key_properties: Sequence[str]) -> pa.Array:
    """Return one comparable value for each record: the key, or its joined parts with their lengths."""
    parts = []
    for name in key_properties:
        column = batch.column(name)
        if column.null_count:
            raise null_in_key(name)
        parts.append(column)
    if len(parts) == 1 and (pa.types.is_integer(parts[0].type) or is_text(parts[0].type)):
        return parts[0]
    pieces: list[pa.Array] = []
    for name, column in zip(key_properties, parts, strict=True):
        text = comparable_bytes(column, name)
        length = pc.binary_length(text).cast(pa.string()).cast(pa.binary())
        pieces += [length, pa.scalar(b":", pa.binary()), text]
    return pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.binary()))


def comparable_bytes(column: pa.Array, name: str) -> pa.Array:
    """Return bytes that are equal for equal values of a column, and for no others."""
    if is_uuid(column.type):
        return column.storage.cast(pa.binary())
    if is_bytes(column.type):
        return column.cast(pa.binary())
    if pa.types.is_temporal(column.type) and not pa.types.is_interval(column.type):
        width = pa.int32() if column.type.bit_width == 32 else pa.int64()
        return column.view(width).cast(pa.string()).cast(pa.binary())
    return to_text(column, name).cast(pa.string()).cast(pa.binary())
