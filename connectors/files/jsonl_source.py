"""Source of JSON lines."""

from __future__ import annotations

from .jsonl_format import JSONLFormat
from .settings import JSONLSourceSettings
from .source import JSONTextSource


class JSONLSource(JSONTextSource):
    """Reads files of one JSON object a line."""

    connector = "jsonl"
    settings = JSONLSourceSettings
    formats = JSONLFormat
