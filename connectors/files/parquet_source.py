"""Source of Parquet files."""

from __future__ import annotations

from collections.abc import Sequence

from .parquet_format import AHEAD_BYTES, Footer, ParquetFormat
from .paths import DataFile
from .settings import ParquetSourceSettings
from .source import TypedSource


class ParquetSource(TypedSource):
    """Reads Parquet files."""

    connector = "parquet"
    settings = ParquetSourceSettings
    formats = ParquetFormat

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """Give each of up to eight streams an equal part for reading ahead."""
        assert isinstance(self._format, ParquetFormat)
        self._format.ahead_bytes = min(AHEAD_BYTES, size_bytes // 8)

    def _footers(self, files: Sequence[DataFile]) -> Sequence[Footer]:
        assert isinstance(self._format, ParquetFormat)
        return [self._format.footer(file) for file in files]
