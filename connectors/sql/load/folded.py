"""Changes that arrive together, without those that a later change of the same key makes needless."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import pyarrow as pa

from ...arrow import compute as pc


def last_of_each_key(changes: pa.Table, key: Sequence[str]) -> pa.Table | None:
    """Return the last change of each key, in the order of the keys: an index then finds neighbours in one page.

    None: Arrow cannot order the key, or does not tell its values apart as a database does.
    """
    columns = [_plain(changes.column(name).combine_chunks()) for name in key]
    if any(column.null_count or pa.types.is_floating(column.type) for column in columns):
        return None
    names = [str(place) for place in range(len(columns))]
    try:
        order = pc.sort_indices(pa.table(columns, names), sort_keys=[(name, "ascending") for name in names])
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return None
    ordered = [column.take(order) for column in columns]
    is_last = reduce(pc.or_, (pc.not_equal(column[:-1], column[1:]) for column in ordered))
    return changes.take(order.filter(pa.concat_arrays([is_last, pc.flags([True])])))


def _plain(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array.type, pa.BaseExtensionType) else array


__all__ = ["last_of_each_key"]
