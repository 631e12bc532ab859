"""Values out of a buffer of bytes: one from each of many places, without an object a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: So many bytes have to follow the last place from which a value of fixed width is read.
MARGIN = 16

Buffer = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def values_at(buffer: Buffer, at: Places, dtype: Any) -> npt.NDArray[Any]:
    """Return a value from each place, whatever it is aligned to."""
    size = np.dtype(dtype).itemsize
    return np.ndarray((len(buffer) - size + 1,), dtype, buffer, 0, (1,))[at]


def array_of(kind: pa.DataType, values: npt.NDArray[Any], nulls: Mask | None = None) -> pa.Array:
    """Return an array of a type of fixed width that shares the memory of `values`."""
    return pa.Array.from_buffers(kind, len(values), [bitmap(nulls), pa.py_buffer(np.ascontiguousarray(values))])


def bitmap(nulls: Mask | None) -> pa.Buffer | None:
    """Return Arrow's bitmap of the values that are there."""
    return None if nulls is None else pa.py_buffer(np.packbits(~nulls, bitorder="little"))


def pieces(
    buffer: Buffer, starts: Places, stops: Places, nulls: Mask | None = None, kind: pa.DataType | None = None
) -> pa.Array:
    """Return parts of a buffer as an array.

    Args:
        buffer: of less than 2 GiB.
        starts: where each part begins, not before the end of the one before it.
        stops: where it ends. Of a NULL it is where it begins.
        nulls: which parts are NULL.
        kind: string or, as by default, binary; nobody checks that a string is UTF-8.
    """
    # Each value and what lies between it and the next one are an element, so that Arrow picks every second of them.
    offsets = np.empty(2 * len(starts), np.int32)
    offsets[0::2] = starts
    offsets[1::2] = stops
    elements = pa.Array.from_buffers(
        pa.binary(), max(len(offsets) - 1, 0), [None, pa.py_buffer(offsets), pa.py_buffer(buffer)], null_count=0
    )
    picked = elements.take(array_of(pa.int32(), np.arange(0, len(offsets) - 1, 2, dtype=np.int32)))
    _, ends, data = picked.buffers()
    return pa.Array.from_buffers(kind or pa.binary(), len(starts), [bitmap(nulls), ends, data])


__all__ = ["MARGIN", "Buffer", "Mask", "Places", "array_of", "bitmap", "pieces", "values_at"]
