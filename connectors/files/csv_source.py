"""Source of CSV files."""

from __future__ import annotations

from .csv_format import CSVFormat
from .settings import CSVSourceSettings
from .source import TextSource


class CSVSource(TextSource):
    """Reads CSV files."""

    connector = "csv"
    settings = CSVSourceSettings
    formats = CSVFormat
