"""Write a load's rejected records into files of the table's format, below `_syncblocks_rejected` in the same folder.

Each commit that rejects records adds one file, named by the table's manifest. No file is ever deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import BinaryIO, cast
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.conform import conformed
from ..arrow.unified import unified
from ..rejected.halving import convert_or_reject
from ..rejected.limits import Rejections, may_come_again
from ..rejected.records import REJECTED_SCHEMA, REJECTED_TABLE, rejections
from ..stream import Load, RejectedRecord
from ..write_spec import WriteDisposition
from .manifest import TableFile
from .paths import DataFile
from .table import FilesTable, Staging


class FileRejections:
    """Finds and writes the rejected records of one load."""

    def __init__(self, table: FilesTable, load: Load, limit: int) -> None:
        self._table = table
        self._load = load
        self._limit = limit
        self._kept = Rejections(limit, load.write.max_rejected_percent)
        #: Columns of the table before this load; values must fit them, too.
        self._held: pa.Schema | None = None
        if load.write.disposition is not WriteDisposition.REPLACE:
            manifest = table.read()
            self._held = manifest.schema if table.has_files(manifest) else None

    @property
    def found(self) -> Sequence[RejectedRecord]:
        """Those since the last commit."""
        return self._kept.records

    def add(self, records: Iterable[RejectedRecord]) -> None:
        """Add rejected records of the source."""
        self._kept.add(records, is_of_source=True)

    def reject(self, batch: pa.RecordBatch, reason: str) -> None:
        """Add records that the destination rejects."""
        self._kept.add(rejections(batch.slice(0, self._limit + 1), reason))

    def fitting(self, batch: pa.RecordBatch, schema: pa.Schema, keys: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield a batch in the columns of a staged file, without its rejected records."""
        is_text = self._table.format.suffix != "parquet"
        wider = schema if self._held is None else unified(self._table.name, self._held, schema)

        def converts(part: pa.RecordBatch) -> pa.RecordBatch:
            fitted = conformed(part, schema)
            kept = conformed(fitted, wider)
            if is_text:  # some values have none
                self._table.format.writer(cast("BinaryIO", pa.MockOutputStream()), wider).write(kept)
            return fitted

        parts, rejected = convert_or_reject(
            self._without_null_keys(batch, keys), converts, self._load.write.max_rejected
        )
        self._kept.add(rejected)
        yield from (part for part in parts if part.num_rows)

    def written(self, begin: Callable[[pa.Schema], Staging], others: int) -> tuple[TableFile, ...]:
        """Write the records rejected since the last commit; return the files that the commit must name.

        Args:
            begin: begins a file.
            others: number of other records of the commit.

        Raises:
            TooManyRejected: see `Rejections.judge`.
        """
        self._kept.judge(others)
        self._kept.leave_out(self._known())
        if not self._kept.records:
            return ()
        key, now = self._load.key, datetime.now(UTC)
        whose = {
            "pipeline": key.pipeline,
            "stream": key.stream,
            "destination_table": key.destination_table,
            "run": self._load.run,
            "rejected_at": now,
        }
        records = [
            {**whose, "record": each.record, "reason": each.reason, "place": each.place} for each in self._kept.records
        ]
        staging = begin(REJECTED_SCHEMA)
        try:
            staging.write(pa.RecordBatch.from_pylist(records, schema=REJECTED_SCHEMA))
            staged = staging.finish()
        except BaseException:
            staging.abandon()
            raise
        table, number = self._table, f"{now:%Y%m%dT%H%M%S}-{uuid4().hex[:12]}"
        return (table.placed(staged, f"{REJECTED_TABLE}/{table.quoted}/part-{number}{table.extension}"),)

    def _known(self) -> set[tuple[str, str]]:
        """Return place and record of the rejected records in the files that may come again."""
        asked = {(each.place, each.record) for each in may_come_again(self._load, self._kept.records)}
        table, key = self._table, self._load.key
        names = ("pipeline", "stream", "place", "record")
        wanted = pa.schema([REJECTED_SCHEMA.field(name) for name in names])
        found: set[tuple[str, str]] = set()
        for entry in table.storage.entries(f"{REJECTED_TABLE}/{table.quoted}") if asked else ():
            file = DataFile(table.storage, entry.name, schema=REJECTED_SCHEMA)
            for batch in table.format.read(file, wanted, frozenset(REJECTED_SCHEMA.names)):
                rows = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
                found |= {
                    (place, record)
                    for pipeline, stream, place, record in rows
                    if (pipeline, stream) == (key.pipeline, key.stream) and (place, record) in asked
                }
        return found

    def take_refused(self) -> tuple[RejectedRecord, ...]:
        """See `Rejections.take_refused`."""
        return self._kept.take_refused()

    def committed(self) -> int:
        """Count the written records as committed; return how many there were."""
        return self._kept.written()

    def _without_null_keys(self, batch: pa.RecordBatch, keys: Sequence[str]) -> pa.RecordBatch:
        for name in keys:
            if not batch.column(name).null_count:
                continue
            is_null = pc.is_null(batch.column(name))
            found = batch.filter(is_null).slice(0, self._limit + 1)
            self._kept.add(rejections(found, f"column {name!r}: NULL in the key"))
            batch = batch.filter(pc.invert(is_null))
        return batch


__all__ = ["FileRejections"]
