"""`pyarrow.compute`, imported when the first function is asked for: records that go by as bytes never need it."""

from __future__ import annotations

import threading
from typing import Any

from .imports import without_numpy


def import_ahead() -> None:
    """Import it in the background, for a caller who waits for a database first."""
    threading.Thread(target=_import, name="import", daemon=True).start()


def _import() -> Any:
    import pyarrow.lib

    if pyarrow.lib.np is not None:
        import pyarrow.compute

        return pyarrow.compute
    # Arrow was imported without NumPy, so this part of it must not find any either.
    with without_numpy():
        import pyarrow.compute

        return pyarrow.compute


def __getattr__(name: str) -> Any:
    function = globals()[name] = getattr(_import(), name)
    return function
