"""Source of Arrow files."""

from __future__ import annotations

from .arrow_format import ArrowFormat
from .settings import ArrowSourceSettings
from .source import TypedSource


class ArrowSource(TypedSource):
    """Reads Arrow IPC files (Feather) and streams."""

    connector = "arrow"
    settings = ArrowSourceSettings
    formats = ArrowFormat
