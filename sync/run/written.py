"""The counts of one stream's commits, and its notices at the end."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import Commit, LedgerRow, Warned
from syncblocks.connectors.struct_helpers import asdict
from syncblocks.connectors.write_spec import WriteDisposition

from ..plan.plan import PlannedStream
from ..store.documents import warnings_in_words


class Written(Struct):
    """Counts of the stream's commits."""

    rows: int = 0
    size_bytes: int = 0
    rejected: int = 0
    #: See `Commit.replaced`. `None` if it was not counted.
    replaced: int | None = None

    def add(self, commit: Commit) -> None:
        """Add a durable commit."""
        self.rows += commit.records
        self.size_bytes += commit.size_bytes
        self.rejected += commit.rejected
        if commit.replaced is not None:
            self.replaced = (self.replaced or 0) + commit.replaced

    def take(self, row: LedgerRow) -> int:
        """Take the number of records from the ledger, and return how many of them were not added before."""
        before, self.replaced = self.rows, None
        self.rows = before if row.rows is None else row.rows
        return self.rows - before


def end_notices(planned: PlannedStream, before: LedgerRow, written: Written, warned: Warned, read: int) -> list[str]:
    """Return what a successful stream reports at its end.

    Args:
        planned: the stream.
        before: its ledger row when it was planned.
        written: what it wrote.
        warned: lines of the source's log.
        read: number of records that were read.
    """
    return [*_emptied(planned, before, written), *_warned(planned, warned, read)]


def _emptied(planned: PlannedStream, before: LedgerRow, written: Written) -> Iterator[str]:
    """Report a table that a replace has emptied."""
    if planned.write.disposition is not WriteDisposition.REPLACE or written.rows or planned.table.schema is None:
        return
    # The ledger counts the last run's records: for INCREMENTAL, only the new ones.
    counted = before.rows if before.committed_at is not None and before.bookmark is None else None
    if not (counted if counted is not None else not planned.table.is_empty):
        return
    shown = "the records that it had" if counted is None else f"its {counted:,} record(s)"
    told = f"table {planned.key.destination_table!r} was replaced by no records, and {shown} are gone"
    if planned.stream.read.method is ReplicationMethod.FULL_TABLE:
        told += "; `min_records: 1` of the stream makes that a failure, and keeps them"
    yield told


def _warned(planned: PlannedStream, warned: Warned, read: int) -> Iterator[str]:
    """Report the lines of the source's log that may mean missing records."""
    if not warned:
        return
    found = f"{warnings_in_words(asdict(warned))} while it read the stream, so records may be missing"
    is_new = planned.table.schema is None or planned.stream.read.method is ReplicationMethod.INCREMENTAL
    if is_new and warned.error and not read:
        yield f"table {planned.key.destination_table!r} got no records, and the connector logged {found}"
    else:
        yield f"the connector logged {found}"


__all__ = ["Written", "end_notices"]
