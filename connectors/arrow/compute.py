"""`pyarrow.compute`, imported when a function is asked for that needs it: records that go by as bytes never do.

Importing it wraps and documents three hundred functions, a twentieth of a small run's time. The few that incremental
reads need are called without: their options by name only.
"""

from __future__ import annotations

import importlib
import struct
import threading
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

from ..imports import without_numpy

#: Functions that are called without the wrappers -> Arrow's name, and the class of the options that they take by name.
_DIRECT = {
    "all": ("all", "ScalarAggregateOptions"),
    "and_": ("and", ""),
    "and_not": ("and_not", ""),
    "any": ("any", "ScalarAggregateOptions"),
    "binary_length": ("binary_length", ""),
    "equal": ("equal", ""),
    "filter": ("filter", "FilterOptions"),
    "greater": ("greater", ""),
    "greater_equal": ("greater_equal", ""),
    "invert": ("invert", ""),
    "is_null": ("is_null", "NullOptions"),
    "match_substring": ("match_substring", "MatchSubstringOptions"),
    "max": ("max", "ScalarAggregateOptions"),
    "min": ("min", "ScalarAggregateOptions"),
    "or_": ("or", ""),
}


def import_ahead() -> None:
    """Import what calls functions in the background, for a caller who waits for a database first."""
    threading.Thread(target=_core, name="import", daemon=True).start()


def cast(values: Any, kind: Any = None, *, safe: bool = True, options: Any = None) -> Any:
    """Cast an array or a scalar to a type, or as the options say."""
    core = _core()
    if options is None:
        options = core.CastOptions.safe(kind) if safe else core.CastOptions.unsafe(kind)
    return core.call_function("cast", [values], options)


@lru_cache(maxsize=256, typed=True)
def constant(value: str | bool | int | float, kind: Any = None) -> Any:
    """Make a scalar of a plain value out of its bytes; by itself a string, boolean, int64 or double.

    `pyarrow.scalar`, and whatever takes a plain value, imports pandas first: a third of a small run's time.

    Raises:
        pyarrow.ArrowInvalid: (a ValueError) it is no value of that type.
        struct.error: it is no 64-bit integer.
    """
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
    return found if kind is None or kind == own else cast(found, kind)


def flags(values: Sequence[bool]) -> Any:
    """Make an array of booleans, as `constant` makes one of them."""
    import pyarrow as pa

    return cast(pa.Array.from_buffers(pa.uint8(), len(values), [None, pa.py_buffer(bytes(values))]), pa.bool_())


def fill_null(values: Any, value: Any) -> Any:
    """Put a value, or another array's, in the place of NULLs."""
    import pyarrow as pa

    if not isinstance(value, pa.Scalar | pa.Array | pa.ChunkedArray):
        value = constant(value, values.type)
    elif value.type != values.type:
        value = cast(value, values.type)
    return _core().call_function("coalesce", [values, value])


@cache
def _core() -> ModuleType:
    """Return the part of Arrow that calls functions."""
    return _import("pyarrow._compute")


def _import(name: str) -> ModuleType:
    """Import a part of Arrow; where Arrow was imported without NumPy, its parts must not find any either."""
    import pyarrow.lib

    if pyarrow.lib.np is not None:
        return importlib.import_module(name)
    with without_numpy():
        return importlib.import_module(name)


def _direct(name: str, options: str) -> Callable[..., Any]:
    core = _core()

    def call(*values: Any, **named: Any) -> Any:
        return core.call_function(name, values, getattr(core, options)(**named) if named else None)

    return call


def __getattr__(name: str) -> Any:
    if name in _DIRECT:
        function: Any = _direct(*_DIRECT[name])
    else:
        function = getattr(_import("pyarrow.compute"), name)
    globals()[name] = function
    return function
