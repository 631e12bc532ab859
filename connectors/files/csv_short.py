"""Records of a CSV file with fewer fields than there are columns, put back in their places with NULL at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from .read_rejections import RaggedRecords


class ShortRecords:
    """Completes the batches of one file with the short records that the parser has set aside."""

    def __init__(self, ragged: RaggedRecords, names: list[str], delimiter: str, options: tuple[Any, Any, Any]) -> None:
        self._ragged = ragged
        self._names = names
        self._delimiter = delimiter
        self._options = options
        #: Whole records so far.
        self._done = 0

    def joined(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the parser's next batch with the short records that stand before its end."""
        found = self._until(self._done + batch.num_rows)
        pieces, at = [], 0
        if found:
            short = self._parsed([number for _, number in found])
            for place, (index, _) in enumerate(found):
                pieces += [batch.slice(at, index - self._done - at), short.slice(place, 1)]
                at = index - self._done
        self._done += batch.num_rows
        return pa.concat_batches([*pieces, batch.slice(at)]) if pieces else batch

    def left(self) -> Iterator[pa.RecordBatch]:
        """Yield the short records after the last whole one, and leave only the long ones set aside."""
        if found := self._until(None):
            yield self._parsed([number for _, number in found])
        for number in self._ragged.joined:
            del self._ragged.rows[number]
        self._ragged.joined = set()

    def _until(self, end: int | None) -> list[tuple[int, int]]:
        """Take the short records before a whole one: the number of whole records before each, and its own number."""
        found = []
        for before, number in enumerate(sorted(self._ragged.rows)):
            index = number - 1 - before
            if end is not None and index >= end:
                break
            if number not in self._ragged.joined and self._ragged.rows[number][1] < len(self._names):
                found.append((index, number))
        self._ragged.joined.update(number for _, number in found)
        return found

    def _parsed(self, numbers: list[int]) -> pa.RecordBatch:
        """Parse short records as the parser does whole ones."""
        rows = [self._ragged.rows[number] for number in numbers]
        lines = [text.rstrip("\r\n") + self._delimiter * (len(self._names) - fields) for text, fields in rows]
        data = ("\n".join(lines) + "\n").encode()
        read, parse, convert = self._options
        read = pyarrow.csv.ReadOptions(column_names=self._names, block_size=len(data) + 1, use_threads=False)
        (batch,) = pyarrow.csv.read_csv(pa.BufferReader(data), read, parse, convert).combine_chunks().to_batches()
        fields = pa.array([fields for _, fields in rows])
        columns = [
            pc.if_else(pc.greater(fields, pa.scalar(self._names.index(name))), batch.column(name), None)
            for name in batch.schema.names
        ]
        return pa.record_batch(columns, schema=batch.schema)


__all__ = ["ShortRecords"]
