"""Merge for files: the table is written anew, old records first, then those that arrived.

In memory are the keys that arrived since the last commit (their bytes and some 60 more each), never the table. Keys
compare by value in the table's own types; a record without a complete key is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import FatalConnectorError
from ..stream import ConflictMethod
from .text import is_bytes, is_text, is_uuid, to_text

Batches = Callable[[], Iterable[pa.RecordBatch]]


def merged(
    old: Batches, arrived: Batches, key_properties: Sequence[str], conflict_method: ConflictMethod
) -> Iterator[pa.RecordBatch]:
    """Yield the table's batches after the merge; of records of one key the last one that arrived counts.

    Args:
        old: the table's batches; may be asked for twice.
        arrived: the batches that came since the last commit, in the table's schema; asked for twice.
        key_properties: columns that identify a record.
        conflict_method: UPDATE replaces old records, IGNORE keeps them.
    """
    keys = [_keys(batch, key_properties) for batch in arrived()]
    all_keys = pa.chunked_array(keys, keys[0].type if keys else pa.binary()).combine_chunks()
    is_last = _is_last(all_keys)
    if conflict_method is ConflictMethod.UPDATE:
        for batch in old():
            yield batch.filter(pc.invert(_is_in(_keys(batch, key_properties), all_keys)))
    else:
        for batch in old():
            known = _is_in(all_keys, _keys(batch, key_properties))
            is_last = pc.and_(is_last, pc.invert(known))
            yield batch
    done = 0
    for batch in arrived():
        yield batch.filter(is_last.slice(done, batch.num_rows))
        done += batch.num_rows


def _is_in(keys: pa.Array, among: pa.Array) -> pa.Array:
    return pc.is_in(keys, value_set=among)


def _is_last(keys: pa.Array) -> pa.Array:
    """Return a mask of the last record of each key."""
    import numpy as np

    if not len(keys):
        return pa.array([], pa.bool_())
    codes = keys.dictionary_encode()
    places = codes.indices.to_numpy()
    last = np.zeros(len(codes.dictionary), dtype=np.int64)
    # Of repeated indexes numpy keeps the last assignment.
    last[places] = np.arange(len(keys), dtype=np.int64)
    mask = np.zeros(len(keys), dtype=bool)
    mask[last] = True
    return pa.array(mask)


def _keys(batch: pa.RecordBatch, key_properties: Sequence[str]) -> pa.Array:
    """Return one comparable value a record: the key itself, or its parts behind each other, lengths first."""
    parts = []
    for name in key_properties:
        column = batch.column(name)
        if column.null_count:
            raise FatalConnectorError(
                f"key column {name!r} is NULL in a record: it can neither be merged nor found again"
            )
        parts.append(column)
    if len(parts) == 1 and (pa.types.is_integer(parts[0].type) or is_text(parts[0].type)):
        return parts[0]
    pieces: list[pa.Array] = []
    for name, column in zip(key_properties, parts, strict=True):
        text = _bytes(column, name)
        length = pc.binary_length(text).cast(pa.string()).cast(pa.binary())
        pieces += [length, pa.scalar(b":", pa.binary()), text]
    return pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.binary()))


def _bytes(column: pa.Array, name: str) -> pa.Array:
    if is_uuid(column.type):
        return column.storage.cast(pa.binary())
    if is_bytes(column.type):
        return column.cast(pa.binary())
    if pa.types.is_temporal(column.type) and not pa.types.is_interval(column.type):
        width = pa.int32() if column.type.bit_width == 32 else pa.int64()
        return column.view(width).cast(pa.string()).cast(pa.binary())
    return to_text(column, name).cast(pa.string()).cast(pa.binary())
