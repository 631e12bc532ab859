"""Source of JSON lines."""

from __future__ import annotations

from .jsonl_format import JSONLFormat
from .settings import JSONLSourceSettings
from .source import ObjectSource, TextSource


class JSONLSource(TextSource, ObjectSource):
    """Reads files of one JSON object a line."""

    connector = "jsonl"
    settings = JSONLSourceSettings
    formats = JSONLFormat
    finds_objects = True

    def has_one_null(self) -> bool:
        """Return True: a missing key and `null` are the same."""
        return True
