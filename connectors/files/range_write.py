"""REPLACE_RANGE for files: write the table anew, without what it had of the range, then the records that arrived.

As in `merge`, memory holds the keys that arrived since the last commit, and also the values of the range's column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.merge import KeyLookup, newest
from ..replace_range import RangeWatch
from ..stream import Checkpoint, Load, RejectedRecord

Batches = Callable[[], Iterable[pa.RecordBatch]]
Arrived = Callable[[Sequence[str] | None], Iterable[pa.RecordBatch]]


class RangeWrite:
    """The range of one load."""

    def __init__(self, load: Load) -> None:
        self._watch = RangeWatch(load)
        self._keys, self._write = load.stream.key_properties, load.write

    def begin(self) -> None:
        """Begin the records of another commit."""
        self._watch.begin()

    def check(self, batch: pa.RecordBatch) -> None:
        """Look at the next batch; raises for a record outside of the range."""
        self._watch.check(batch)

    def is_due(self, checkpoint: Checkpoint) -> bool:
        """Tell whether a commit deletes something although no record arrived."""
        return bool(checkpoint.files) if self._watch.range.is_by_files else checkpoint.is_final

    def records(
        self,
        old: Batches,
        arrived: Arrived,
        schema: pa.Schema,
        checkpoint: Checkpoint,
        rejected: Iterable[RejectedRecord],
    ) -> Iterator[pa.RecordBatch]:
        """Yield the batches of the table after the commit.

        Args:
            old: batches of the table.
            arrived: batches since the last commit, with some or all columns of the table's schema.
            schema: of the table.
            checkpoint: of the commit.
            rejected: records that were rejected since the last commit.
        """
        watch, kind = self._watch, self._watch.field(schema).type
        name = watch.range.column
        paths = watch.demand_files(checkpoint.files) if watch.range.is_by_files else []
        values, keys = pa.array([], kind), KeyLookup(self._keys, arrived)
        if watch.range.interval is None and not watch.range.is_by_files:
            found = [pc.unique(batch.column(name)) for batch in arrived([name])]
            values = pc.unique(pa.concat_arrays([values, *found, watch.of_rejected(rejected, values.type)]))
        for batch in old():
            is_gone = pc.or_(watch.deleted(batch.column(name), values, paths), keys.of(batch))
            yield batch.filter(pc.invert(is_gone))
        yield from newest(arrived, self._keys, self._write)


__all__ = ["RangeWrite"]
