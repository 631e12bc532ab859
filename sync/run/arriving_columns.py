"""The columns of one attempt at a stream, with their mapping to the destination."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from syncblocks.connectors.field_facts import facts_of
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace

from ..flow.transform import declared_stream
from ..plan.columns import ColumnMapping, map_columns, table_changes
from ..plan.evolution import ignored, left_out_text, without_columns
from ..plan.schema_snapshots import differences, shape_of
from ..plan.stream_settings import is_covered
from ..store.documents import change_in_words
from .errors import ColumnsRefused
from .progress import Progress
from .stream_blocks import StreamBlocks


class ArrivingColumns:
    """The columns that arrive at the destination. They may change during the read."""

    def __init__(self, blocks: StreamBlocks, progress: Progress) -> None:
        self._blocks = blocks
        self._planned = blocks.planned
        self._progress = progress
        #: `None` until the first batch, if functions of transformers decide the columns.
        self.mapping: ColumnMapping | None = self._planned.mapping if self._planned.is_schema_decided else None
        #: Columns that appeared during the read and that `on_schema_change: ignore` leaves out.
        self.ignored: frozenset[str] = frozenset()
        #: Columns with a message already shown.
        self._reported: set[str] = set()

    @property
    def arriving(self) -> Stream:
        """The stream as it arrives at the destination."""
        assert self.mapping is not None
        return self.mapping.arriving

    def convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with the destination's types."""
        assert self.mapping is not None
        return self.mapping.convert(batch)

    def note_stream(self, stream: Stream) -> Stream | None:
        """Take the columns that the source yields from here on.

        Returns:
            The arriving stream if it has changed.

        Raises:
            ColumnsRefused: the destination cannot store a column, or the columns are frozen.
        """
        declared = declared_stream(self._without_ignored(stream), self._blocks.transformers)
        changed = self._planned.policy.added.stream(declared)
        if not self._planned.is_schema_decided or self._are(changed.schema):
            return None
        self.mapping = self.map(changed)
        return self.arriving

    def note_batch(self, schema: pa.Schema) -> Stream | None:
        """Take the columns of a batch as `note_stream` does. The first batch changes nothing."""
        if self._are(schema):
            return None
        is_first, planned = self.mapping is None, self._planned.arriving
        self.mapping = self.map(replace(planned, schema=keys_not_null(schema, planned)))
        return None if is_first else self.arriving

    def map(self, stream: Stream) -> ColumnMapping:
        """Map columns that appeared during the read. The plan has mapped all columns that it knew."""
        rules = self._planned.schema.rules
        mapping = map_columns(stream, rules)
        self._report_left_out(column.name for column in mapping.columns if column.is_left_out)
        refusals = list(mapping.refusals)
        if rules.is_frozen and self._planned.is_schema_decided:
            changes = differences(shape_of(self._planned.mapping.declared), shape_of(stream))
            found = list(map(change_in_words, changes)) or table_changes(mapping, rules.table)
            refusals += [f"frozen, but the source changed during the read: {change}" for change in found]
        if refusals:
            self._blocks.failed = self._blocks.stages[-2].block
            raise ColumnsRefused("; ".join(refusals))
        return mapping

    def _are(self, schema: pa.Schema) -> bool:
        """Return whether a schema has the columns of the mapping."""
        columns = [] if self.mapping is None else self.mapping.declared.schema
        return [(field.name, field.type) for field in columns] == [(field.name, field.type) for field in schema]

    def _without_ignored(self, stream: Stream) -> Stream:
        """Leave out columns that are new since the plan, if `on_schema_change` demands it."""
        planned = self._planned
        known = planned.stream.schema.names
        excluded = planned.policy.excluded
        # Fields of an excluded object that the plan did not know.
        self.ignored |= {
            field.name
            for field in stream.schema
            if facts_of(field).path and field.name not in known and is_covered(field, excluded)
        }
        stream = without_columns(stream, self.ignored)
        if planned.schema.ignored is None:
            return stream
        before = {**planned.schema.shape, "ignored": planned.schema.ignored}
        arriving = declared_stream(stream, self._blocks.transformers)
        found = ignored(stream, arriving, before, planned.schema.rules, is_decided=True).columns
        self._report_left_out(found.difference(planned.schema.ignored))
        self.ignored |= found
        return without_columns(stream, self.ignored)

    def _report_left_out(self, names: Iterable[str]) -> None:
        if new := sorted(set(names) - self._reported):
            self._reported.update(new)
            self._progress.message(left_out_text(self._planned.name, new))


def keys_not_null(schema: pa.Schema, stream: Stream) -> pa.Schema:
    """Return a schema with NOT NULL for the keys of a stream that have it there."""
    not_null = {field.name for field in stream.schema if not field.nullable}
    keys = not_null & set(stream.key_properties)
    return pa.schema([field.with_nullable(False) if field.name in keys else field for field in schema])


__all__ = ["ArrivingColumns", "keys_not_null"]
