"""Arrow without NumPy, where nothing in a run needs the two together: a sixth of a small run's time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from syncblocks.connectors.imports import without_numpy

if TYPE_CHECKING:
    from ..config import Pipeline

#: Connectors that exchange nothing of NumPy's with Arrow. Files sort a merge's keys with it, DuckDB imports it itself.
WITHOUT_NUMPY = frozenset({"postgres"})


def import_arrow(pipeline: Pipeline, *, is_inline: bool) -> None:
    """Import Arrow, for this process and whole pipeline, as lean as it may be.

    Arrow looks for NumPy once, when it is imported, and goes without where it is not installed. What it cannot do then
    is convert to NumPy and pandas: that do transformers, and callbacks that run in this process. NumPy itself can still
    be imported.
    """
    needs_numpy = is_inline or pipeline.transformers
    ends = {pipeline.source.connector, pipeline.destination.connector}
    if needs_numpy or not ends <= WITHOUT_NUMPY or {"numpy", "pyarrow"} & sys.modules.keys():
        return
    with without_numpy():
        import pyarrow  # noqa: F401
