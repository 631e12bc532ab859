"""`pyarrow.compute`, imported at its first use: records that pass as bytes do not need it.

Also scalars and arrays made without `pyarrow.scalar`, which imports pandas.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=256, typed=True)
def constant(value: str | bool | int | float, kind: Any = None) -> Any:
    """Make a scalar from the bytes of a plain value; the default type is string, boolean, int64 or double.

    `pyarrow.scalar`, and each function that takes a plain value, imports pandas: a third of a small run's time.

    Raises:
        pyarrow.ArrowInvalid: (a ValueError) the value does not have that type.
        struct.error: the value is no 64-bit integer.
    """
    import struct

    import pyarrow as pa

    if isinstance(value, str):
        data = value.encode()
        buffers, own = [struct.pack("=ii", 0, len(data)), data], pa.string()
    elif isinstance(value, bool):
        buffers, own = [bytes([value])], pa.bool_()
    elif isinstance(value, int):
        buffers, own = [struct.pack("=q", value)], pa.int64()
    else:
        buffers, own = [struct.pack("=d", value)], pa.float64()
    found = pa.Array.from_buffers(own, 1, [None, *map(pa.py_buffer, buffers)])[0]
    return found if kind is None or kind == own else _functions().cast(found, kind)


def flags(values: Sequence[bool]) -> Any:
    """Make an array of booleans without pandas."""
    import pyarrow as pa

    array = pa.Array.from_buffers(pa.uint8(), len(values), [None, pa.py_buffer(bytes(values))])
    return _functions().cast(array, pa.bool_())


def fill_null(values: Any, value: Any) -> Any:
    """Replace NULLs by a value, or by the values of another array."""
    import pyarrow as pa

    if not isinstance(value, pa.Scalar | pa.Array | pa.ChunkedArray):
        value = constant(value, values.type)
    elif value.type != values.type:
        value = _functions().cast(value, values.type)
    return _functions().coalesce(values, value)


def _functions() -> Any:
    return importlib.import_module("pyarrow.compute")


def __getattr__(name: str) -> Any:
    function = getattr(_functions(), name)
    globals()[name] = function
    return function
