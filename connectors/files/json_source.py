"""Source of JSON documents."""

from __future__ import annotations

from .json_format import JSONFormat
from .settings import JSONSourceSettings
from .source import JSONTextSource


class JSONSource(JSONTextSource):
    """Reads documents of JSON, each with an array of records."""

    connector = "json"
    settings = JSONSourceSettings
    formats = JSONFormat
