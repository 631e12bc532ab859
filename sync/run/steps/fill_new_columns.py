"""The step of `fill_new_columns`: read key and columns of all records, and write the columns by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.stream import Bookmark, Checkpoint, Event, Stream
from syncblocks.connectors.struct_helpers import replace

from ...failpoints import failpoint
from ...flow.transform import Transformer, declared_stream
from ...plan.columns import ColumnMapping, map_columns
from ...plan.features.fill_new_columns import PlannedFill
from ...plan.plan import PlannedStream
from .protocol import Step, StepHost

#: Records in one transaction.
RECORDS_AT_ONCE = 200_000


class FillStep(Step):
    """Fills columns of the records that are already in the table."""

    def __init__(self, host: StepHost, planned: PlannedFill) -> None:
        self._host = host
        self._columns = planned.columns

    def before_read(self) -> None:
        """Fill the columns. A stream that starts from scratch reads all records anyway."""
        host, start = self._host, self._host.position.start
        if start is None:
            return
        host.check()
        failpoint("stream.before_fill")
        filling = _Filling(host.planned, self._columns, host.blocks.transformers)
        write = replace(host.planned.write, kept=(), max_rejected=None)
        order = replace(host.load_order(filling.arriving), write=write, fills=True, filling=self._columns)
        for commit in host.context.destination.load(order, filling.events(host.context.source, start), "arrow"):
            host.check()
            host.note_schema_changes(commit)
            failpoint("stream.after_fill_commit")
        host.position.note_altered_table()
        host.context.progress.message(f"{host.planned.name}: filled in older records: {', '.join(self._columns)}")


class _Filling:
    """The values of some columns of a stream, as events of a load."""

    def __init__(self, planned: PlannedStream, columns: Sequence[str], transformers: list[Transformer]) -> None:
        whole = planned.stream
        wanted = {*whole.key_properties, *columns}
        self._stream = replace(
            whole,
            schema=pa.schema([field for field in whole.schema if field.name in wanted]),
            read=replace(
                whole.read,
                method=ReplicationMethod.FULL_TABLE,
                bookmark_properties=(),
                null_bookmarks=NullBookmarks.FAIL,
                lookback=None,
                is_above_bookmark=False,
                max_rejected=None,
            ),
        )
        self._transformers = transformers
        self._mapping: ColumnMapping = map_columns(declared_stream(self._stream, transformers), planned.schema.rules)

    @property
    def arriving(self) -> Stream:
        """The key and the columns as they arrive."""
        return self._mapping.arriving

    def events(self, source: Source, bookmark: Bookmark | None) -> Iterator[Event]:
        """Yield the values, with checkpoints whose bookmark does not move.

        The first checkpoint precedes all values: the ledger knows the columns before the table changes.
        """
        at_bookmark, count = Checkpoint(bookmark=bookmark), 0
        yield at_bookmark
        events: Any = source.read([self._stream], {self._stream.name: None})
        with closing(events):
            for _, event in events:
                if isinstance(event, Stream):
                    raise FatalConnectorError("columns changed while they were filled: run again", stream=event.name)
                if not isinstance(event, pa.RecordBatch) or not event.num_rows:
                    continue
                yield self._converted(event)
                count += event.num_rows
                if count >= RECORDS_AT_ONCE:
                    yield at_bookmark
                    count = 0
        yield at_bookmark

    def _converted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        stream = self._stream
        for transformer in self._transformers:
            batch, stream = transformer.apply(batch, stream), transformer.stream(stream)
        return self._mapping.convert(batch)
