"""SQLite, as a source and as a destination."""

from __future__ import annotations

from .destination import SQLiteDestination
from .source import SQLiteSource

__all__ = ["SQLiteDestination", "SQLiteSource"]
