"""Batches that arrived since the last commit, in a temporary file without a name: a merge reads them several times."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa


class Spool:
    """Batches of one schema."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.records = self.size_bytes = 0
        self._file = tempfile.TemporaryFile(prefix="syncblocks-")  # noqa: SIM115 (closed by `close`)
        self._writer: Any = pa.ipc.new_file(
            pa.PythonFile(self._file, mode="w"), schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
        )

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        self.records += batch.num_rows
        self.size_bytes += batch.nbytes

    def batches(self, names: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the batches, with all columns or some; nothing is written afterwards."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        places = [self.schema.get_field_index(name) for name in (self.schema.names if names is None else names)]
        options = pa.ipc.IpcReadOptions(included_fields=[place for place in places if place >= 0])
        reader = pa.ipc.open_file(pa.PythonFile(self._file, mode="r"), options=options)
        for place in range(reader.num_record_batches):
            yield reader.get_batch(place)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
