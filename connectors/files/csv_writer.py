"""Write CSV: Arrow writes texts quoted and other values bare, unless the settings say otherwise."""

from __future__ import annotations

import codecs
import csv
import io
import re
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ..arrow.conform import shown
from ..arrow.text import to_text
from ..errors import FatalConnectorError
from .settings import CSVSourceSettings

#: What is quoted: texts, all values but NULL, or the texts that need it.
Quoting = Literal["texts", "all", "needed"]


class CSVWriter:
    """Writes texts quoted and other values bare; types that CSV lacks as `arrow.text` does."""

    def __init__(
        self, sink: BinaryIO, schema: pa.Schema, settings: CSVSourceSettings, quoting: Quoting = "texts"
    ) -> None:
        self._sink = sink
        self._settings = settings
        self._quoting = quoting
        self._encoder = None if settings.encoding == "utf-8" else codecs.getincrementalencoder(settings.encoding)()
        if schema.names and settings.header:
            self._sink.write(self._encoded(self._header(schema.names)))

    def _header(self, names: list[str]) -> str:
        settings, text = self._settings, io.StringIO()
        quoting: Any = csv.QUOTE_MINIMAL if settings.quote else csv.QUOTE_NONE
        if self._quoting == "all":
            quoting = csv.QUOTE_ALL
        try:
            csv.writer(
                text,
                delimiter=settings.delimiter or ",",
                quotechar=settings.quote or None,
                quoting=quoting,
                lineterminator="\r\n",  # which makes it quote names with either
            ).writerow(names)
        except csv.Error as error:
            raise self._bare(error) from error
        return text.getvalue().removesuffix("\r\n") + "\n"

    def write(self, batch: pa.RecordBatch) -> None:
        if not batch.num_columns:
            return
        columns = [_column(batch.column(name), name) for name in batch.schema.names]
        texts = pa.record_batch(columns, names=batch.schema.names)
        delimiter = self._settings.delimiter or ","
        if self._quoting == "needed":
            self._sink.write(self._encoded(_lines(texts, delimiter)))
            return
        quoted = "all_valid" if self._quoting == "all" else "needed"  # Arrow's word for all texts
        style: Any = quoted if self._settings.quote else "none"
        options = pyarrow.csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style=style)
        if self._encoder is None and self._settings.quote:
            pyarrow.csv.write_csv(texts, self._sink, options)
            return
        buffer = pa.BufferOutputStream()
        try:
            pyarrow.csv.write_csv(texts, buffer, options)
        except pa.ArrowInvalid as error:
            raise self._bare(error) from error
        self._sink.write(self._encoded(buffer.getvalue().to_pybytes().decode()))

    def _encoded(self, text: str) -> bytes:
        if self._encoder is None:
            return text.encode()
        try:
            return self._encoder.encode(text)
        except UnicodeEncodeError as error:
            letter = error.object[error.start]
            raise FatalConnectorError(
                f"a text contains {letter!r}, which {self._settings.encoding} does not have: choose another `encoding`",
                key="encoding",
            ) from error

    @staticmethod
    def _bare(error: Exception) -> FatalConnectorError:
        return FatalConnectorError(
            f'a text needs quotes ({shown(str(error))}), but `quote: ""` turns them off: choose another delimiter, '
            "or remove `quote`",
            key="quote",
        )

    def close(self) -> None:
        """Nothing is buffered."""

    def abandon(self) -> None:
        """Nothing is open."""


def _column(column: pa.Array, name: str) -> pa.Array:
    kind = column.type
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return column
    if types.is_decimal(kind):
        text = to_text(column, name)
        # Arrow writes a tiny decimal with an exponent.
        return text if pc.any(pc.match_substring(column.cast(pa.string()), "E")).as_py() else column
    if types.is_date32(kind):
        to_text(column, name)
        return column
    return to_text(column, name)


def _lines(texts: pa.RecordBatch, delimiter: str) -> str:
    """Return lines in which only texts are quoted that need it; the empty one does, since NULL is nothing."""
    columns = [_where_needed(column.cast(pa.string()), delimiter) for column in texts.columns]
    lines = pc.binary_join_element_wise(*columns, delimiter)
    whole = pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines)
    joined: str = pc.binary_join(whole, "\n")[0].as_py()
    return joined + "\n"


def _where_needed(column: pa.Array, delimiter: str) -> pa.Array:
    needs = pc.match_substring_regex(column, rf'[{re.escape(delimiter)}"\r\n]|^$')
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(column, '"', '""'), '"', "")
    return pc.fill_null(pc.if_else(needs, quoted, column), "")


__all__ = ["CSVWriter", "Quoting"]
