"""`pyarrow.compute`, imported when the first function is asked for: records that go by as bytes never need it."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    import pyarrow.compute

    function = globals()[name] = getattr(pyarrow.compute, name)
    return function
