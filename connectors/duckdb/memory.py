"""Memory that a load needs and DuckDB cannot spill to disk. A lower limit makes the load fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ..sql.identifiers import literal

#: Each thread writes its own row group: blocks of 256 KiB for each column, before and after compression.
COLUMN_BYTES = 640 << 10

#: Number of records that DuckDB processes at once, with all their values.
VECTOR_RECORDS = 2048

#: Base memory of a load, even with narrow records.
_BASE_BYTES = 64_000_000


class MemoryNeed:
    """Memory that one load needs, estimated from the batches so far."""

    def __init__(self, schema: pa.Schema, threads: int) -> None:
        self._columns_bytes = sum(map(_columns, schema.types)) * threads * COLUMN_BYTES
        self._records = VECTOR_RECORDS * threads
        self._sent_bytes = 0
        #: Average record size of the batch with the widest records.
        self._width_bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the next batch."""
        self._sent_bytes += batch.nbytes
        self._width_bytes = max(self._width_bytes, batch.nbytes // max(1, batch.num_rows))

    @property
    def size_bytes(self) -> int:
        """Bytes that DuckDB needs for the load."""
        wide_bytes = min(self._sent_bytes, self._records * self._width_bytes)
        return max(self._columns_bytes, _BASE_BYTES + wide_bytes + wide_bytes // 4)

    @property
    def vector_bytes(self) -> int:
        """Bytes of one vector of the widest records."""
        return VECTOR_RECORDS * self._width_bytes


def _columns(kind: pa.DataType) -> int:
    """Return how many columns DuckDB stores for a type; a nested type has more than one."""
    return 1 + sum(_columns(kind.field(place).type) for place in range(kind.num_fields))


def widths(table: str, columns: Sequence[str]) -> str:
    """Write the query of a table's row groups by the file's statistics.

    It gives the number of records, and the bytes of the widest texts.

    Args:
        table: the quoted name.
        columns: their names.
    """
    listed = ", ".join(map(literal, columns))
    length = r"regexp_extract(stats::varchar, '(?i)max.string.length\D+(\d+)', 1)"
    return (
        "select max(records), sum(width)::bigint from (select row_group_id, max(start + count) as records, "
        f"max(try_cast({length} as bigint)) as width from pragma_storage_info({literal(table)}) "
        f"where column_name in ({listed}) group by row_group_id, column_id) group by row_group_id"
    )


def read_bytes(row_groups: Sequence[tuple[Any, ...]], threads: int) -> int:
    """Return the maximum that reading needs: each thread reads this many records at once, with all values, twice."""
    return _BASE_BYTES + 2 * max(
        (min(records * (width or 0), threads * VECTOR_RECORDS * (width or 0)) for records, width in row_groups),
        default=0,
    )


__all__ = ["COLUMN_BYTES", "VECTOR_RECORDS", "MemoryNeed", "read_bytes", "widths"]
