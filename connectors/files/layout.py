"""Into which files the records of a table go: a folder for each partition, and at most so many records a file.

The columns that folders name stay in the files as well: a folder's name is text, and says less than the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from ..errors import FatalConnectorError
from .partitions import Partition
from .table import Staged, Staging

#: Files that are written at once; one more closes the one that was longest without a record.
MOST_OPEN = 200

#: Files of one commit.
MOST_FILES = 10_000


class Layout(Struct, frozen=True):
    """How the records of a table are spread over files; nothing said: they are in one."""

    partitions: tuple[Partition, ...] = ()
    file_records: int | None = None
    #: Bytes with which a file gets no further batch.
    file_bytes: int | None = None

    @property
    def is_plain(self) -> bool:
        """Tell whether one write makes one file."""
        return not self.partitions and self.file_records is None and self.file_bytes is None

    @property
    def written(self) -> Mapping[str, Any]:
        """Return what all files of a table must have in common."""
        said = [f"{each.part}({each.column})" if each.part else each.column for each in self.partitions]
        return {"partition_by": said} if said else {}

    def split(self, batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield the folders of a batch, each with its records in their order."""
        if not self.partitions:
            yield "", batch
            return
        parts = [each.folders(batch) for each in self.partitions]
        encoded = (parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "/")).dictionary_encode()
        if len(encoded.dictionary) == 1:
            yield encoded.dictionary[0].as_py(), batch
            return
        batch = batch.take(pc.array_sort_indices(encoded.indices))  # stable
        start = 0
        counts = {pair["values"]: pair["counts"] for pair in pc.value_counts(encoded.indices).to_pylist()}
        for code in sorted(counts):
            yield encoded.dictionary[code].as_py(), batch.slice(start, counts[code])
            start += counts[code]


class Output:
    """Files of one schema that are written at once."""

    def __init__(self, begin: Callable[[pa.Schema, str], Staging], schema: pa.Schema, layout: Layout) -> None:
        self.schema = schema
        self._begin = begin
        self._layout = layout
        #: Folder -> its open file; the one that got a record last is the last.
        self._open: dict[str, Staging] = {}
        self._done: list[Staged] = []
        for each in layout.partitions:
            each.demand(schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write records, each into the file of its folder."""
        for folder, part in self._layout.split(batch):
            while part.num_rows:
                staging = self._opened(folder)
                most = self._layout.file_records
                room = part.num_rows if most is None else min(part.num_rows, most - staging.records)
                staging.write(part.slice(0, room))
                part = part.slice(room)
                is_full = most is not None and staging.records >= most
                if is_full or staging.size_bytes() >= (self._layout.file_bytes or math.inf):
                    self._close(folder)

    def _opened(self, folder: str) -> Staging:
        staging = self._open.pop(folder, None)
        if staging is None:
            if len(self._open) + len(self._done) >= MOST_FILES:
                raise FatalConnectorError(
                    f"one commit would write more than {MOST_FILES:,} files: use a coarser partition, or raise "
                    "`file_records` or `file_bytes`",
                    key="partition_by",
                )
            if len(self._open) >= MOST_OPEN:
                self._close(next(iter(self._open)))
            staging = self._begin(self.schema, folder)
        self._open[folder] = staging
        return staging

    def finish(self) -> list[Staged]:
        """Make all files durable; without a record it is one that is empty."""
        if not self._open and not self._done:
            self._open[""] = self._begin(self.schema, "")
        while self._open:
            self._close(next(iter(self._open)))
        return self._done

    def _close(self, folder: str) -> None:
        """Make a file durable; one that fails stays for `abandon`: a deleted file takes its space while it is open."""
        self._done.append(self._open[folder].finish())
        del self._open[folder]

    def abandon(self) -> None:
        """Close all files as they are."""
        for staging in self._open.values():
            staging.abandon()


__all__ = ["MOST_OPEN", "Layout", "Output"]
