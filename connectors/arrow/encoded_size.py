"""Size of the widest value of an encoded column: dictionary, run ends or views hold a value once for many records."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def widest_values(column: pa.Array) -> int:
    """Return the size in bytes of a column's widest value, decoded; 0: the column is not encoded."""
    kind = column.type
    types = pa.types
    if types.is_dictionary(kind):
        return _widest(column.dictionary)
    if types.is_run_end_encoded(kind):
        return _widest(column.values)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return _widest(column)
    if types.is_struct(kind):
        return sum(map(widest_values, column.flatten()))
    if types.is_list_view(kind) or types.is_large_list_view(kind):  # lists may overlap
        return _longest(column) * _widest(column.values)
    if types.is_map(kind):
        return _longest(column) * (widest_values(column.keys) + widest_values(column.items))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = widest_values(column.values)
        return inner and inner * _longest(column)
    return 0


def _widest(values: pa.Array) -> int:
    kind = values.type
    types = pa.types
    if not len(values):
        return 0
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return int(pc.max(pc.binary_length(values)).as_py() or 0)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        # A view has 16 bytes; the first four are the value's length.
        numbers = pa.Array.from_buffers(
            pa.int32(), 4 * len(values), [None, values.buffers()[1]], offset=4 * values.offset
        )
        return max(0, int(numbers.to_numpy()[::4].max()))
    return widest_values(values) or (values.nbytes if types.is_nested(kind) else values.nbytes // len(values))


def _longest(column: pa.Array) -> int:
    return int(pc.max(pc.list_value_length(column)).as_py() or 0)


__all__ = ["widest_values"]
