"""Fill columns of existing records: read only key and columns of all records, and write them by key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pyarrow as pa

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.stream import Bookmark, Checkpoint, Event, Stream
from syncblocks.connectors.struct_helpers import replace

from ..flow.transform import Transformer, declared_stream
from ..plan.columns import ColumnMapping, map_columns
from ..plan.plan import PlannedStream

#: Records in one transaction.
RECORDS_AT_ONCE = 200_000


class Filling:
    """The values of some columns of a stream, as events of a load."""

    def __init__(self, planned: PlannedStream, transformers: list[Transformer]) -> None:
        whole = planned.stream
        wanted = {*whole.key_properties, *planned.fills}
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
        self._mapping: ColumnMapping = map_columns(declared_stream(self._stream, transformers), planned.rules)

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
