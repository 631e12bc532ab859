"""DuckDB, as a source and as a destination."""

from __future__ import annotations

from .destination import DuckDBDestination
from .source import DuckDBSource

__all__ = ["DuckDBDestination", "DuckDBSource"]
