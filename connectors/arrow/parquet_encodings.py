"""Which columns of a Parquet file get a dictionary, and which get statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

#: Values of more bytes than this, on average, are wide.
WIDE_BYTES = 1 << 20

#: First records of a file that say whether the values of a column repeat.
_SAMPLE_RECORDS = 20_000


def encoded_leaves(schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> tuple[list[str], list[str]]:
    """Return the names in Parquet of what gets a dictionary, and of what gets statistics, by a file's first batches.

    Wide columns get neither, each of which would copy the values. Columns whose values hardly repeat get no dictionary
    either: it takes a third of the time, and makes the file larger.
    """
    records = max(1, sum(batch.num_rows for batch in batches))
    narrow = [
        place
        for place in range(len(schema))
        if sum(batch.column(place).nbytes for batch in batches) <= WIDE_BYTES * records
    ]
    repeating = [place for place in narrow if _repeats(schema.field(place).type, place, batches)]
    dictionary, statistics = ([schema.field(place) for place in places] for places in (repeating, narrow))
    return _leaves(dictionary), _leaves(statistics)


def _repeats(kind: Any, place: int, batches: Sequence[pa.RecordBatch]) -> bool:
    """Tell whether the values of a column repeat; those of nested columns may."""
    kind = _stored(kind)
    if pa.types.is_nested(kind):
        return True
    columns = [batch.column(place) for batch in batches]
    storages = [column.storage if isinstance(column, pa.ExtensionArray) else column for column in columns]
    sample = pa.chunked_array(storages, kind)[:_SAMPLE_RECORDS]
    try:
        return 2 * len(sample.unique()) <= len(sample)
    except pa.ArrowNotImplementedError:  # narrow decimals, which Arrow compares by no kernel
        return True


def _stored(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _leaves(fields: Sequence[pa.Field]) -> list[str]:
    return [path for field in fields for path in _leaf_paths(field.name, field.type)]


def _leaf_paths(path: str, kind: pa.DataType) -> Iterator[str]:
    """Yield the names in Parquet of what an Arrow column holds, as Arrow writes it."""
    kind = _stored(kind)
    if pa.types.is_map(kind):
        yield from _leaf_paths(f"{path}.key_value.key", kind.key_type)
        yield from _leaf_paths(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaf_paths(f"{path}.{field.name}", field.type)
    elif pa.types.is_nested(kind):
        yield from _leaf_paths(f"{path}.list.element", kind.value_type)
    else:
        yield path
