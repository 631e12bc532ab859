"""Source of JSON documents."""

from __future__ import annotations

from .json_format import JSONFormat
from .settings import JSONSourceSettings
from .source import ObjectSource, TextSource


class JSONSource(TextSource, ObjectSource):
    """Reads documents of JSON, each with an array of records."""

    connector = "json"
    settings = JSONSourceSettings
    formats = JSONFormat
    finds_objects = True

    def has_one_null(self) -> bool:
        """Return True: a missing key and `null` are the same."""
        return True
