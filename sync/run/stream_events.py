"""The events of one attempt at a stream: transformed batches, checkpoints, new columns and rejected records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest

import pyarrow as pa

from syncblocks.connectors.field_facts import notices_of
from syncblocks.connectors.incremental.bookmarks import not_below
from syncblocks.connectors.log_based import changes_stream, renamed_changes
from syncblocks.connectors.stream import (
    Block,
    Bookmark,
    Checkpoint,
    Event,
    FileRead,
    Rejected,
    RejectedRecord,
    Stream,
    Warned,
)
from syncblocks.connectors.struct_helpers import replace

from ..flow.feed import Feed, Item, size_of
from ..flow.log_based import LoggedFunctions
from ..flow.transform import Transformer, declared_stream
from ..plan.features.log_based import is_logged
from .arriving_columns import ArrivingColumns, keys_not_null
from .progress import Progress
from .record_stages import Records, chosen_stages
from .stream_blocks import StreamBlocks


class StreamEvents:
    """Passes the batches of one attempt through the blocks of a stream."""

    def __init__(
        self,
        blocks: StreamBlocks,
        progress: Progress,
        *,
        start: Bookmark | None,
        floor: Bookmark | None,
        check: Callable[[], None],
        send_final: Callable[[Bookmark | None, Sequence[FileRead]], Checkpoint],
    ) -> None:
        self.blocks = blocks
        self.planned = blocks.planned
        self._progress = progress
        self._start = start
        #: No checkpoint has a bookmark below it.
        self._floor = floor
        #: Raises if the stream was cancelled.
        self._check = check
        self._send_final = send_final
        self._columns = ArrivingColumns(blocks, progress)
        self._stages = chosen_stages(blocks, self._columns)
        #: None: no function of a transformer sees changes.
        self._functions: LoggedFunctions | None = None
        if is_logged(self.planned.stream) and not self.planned.is_schema_decided:
            changes = self.planned.write.changes
            self._functions = LoggedFunctions(self.planned.stream, blocks.transformers, is_of_changes=changes)

    def read(self, feed: Feed) -> tuple[Stream, Iterator[Event | Block]]:
        """Return the arriving stream, and its events."""
        events = self._events(feed)
        first, stream = self._first(events)
        return stream, chain(() if first is None else (first,), events)

    def _first(self, events: Iterator[Event | Block]) -> tuple[Event | Block | None, Stream]:
        """Pull the first event: a transformer's first batch decides which columns arrive."""
        if self.planned.wire != "arrow":  # the columns cannot change, so the destination can begin at once
            return None, self.planned.arriving
        first = next(events)
        if isinstance(first, Stream):
            return next(events), first
        stream = self._arriving()
        return first, stream if self.planned.is_schema_decided else self._columns.map(stream).arriving

    def _arriving(self) -> Stream:
        planned = self.planned
        if planned.is_schema_decided:
            return planned.arriving
        functions = self._functions
        schema = self.blocks.transformers[-1].schema if functions is None else functions.arrived
        if schema is not None:
            schema = planned.policy.added.schema(schema)
            return replace(planned.arriving, schema=keys_not_null(schema, planned.arriving))
        if planned.table.schema is not None:  # no records: the table keeps its columns
            return replace(planned.arriving, schema=planned.table.schema)
        stream = planned.stream if functions is None else functions.seen
        empty = _empty(stream.schema)
        for transformer in self.blocks.transformers:
            empty = self._apply(transformer, empty, stream)
            stream = transformer.stream(stream)
        schema = planned.policy.added.schema(empty.schema if functions is None else functions.schema(empty.schema))
        return replace(planned.arriving, schema=keys_not_null(schema, planned.arriving))

    def _events(self, feed: Feed) -> Iterator[Event | Block]:
        """Yield the events for the destination, the final checkpoint last."""
        bookmark, waiting = self._raised(Checkpoint(bookmark=self._start)).bookmark, None
        #: Files of checkpoints that are not committed yet.
        files: list[FileRead] = []
        rejected: list[RejectedRecord] = []
        for item in self._items(feed):
            self._check()
            if isinstance(item.event, Warned):
                self.blocks.warned += item.event
                continue
            if isinstance(item.event, Checkpoint):
                if rejected and self._columns.mapping is not None:
                    yield self._rejected(rejected)
                waiting = self._raised(item.event)
                bookmark = waiting.bookmark
                files += item.event.files
                continue
            if waiting is not None and not rejected and not self.planned.commits_once:
                yield replace(waiting, files=tuple(files))
                files.clear()
                for stage in self._stages:
                    stage.begin_commit()
            waiting = None
            if isinstance(item.event, Stream):
                yield from self._described(item.event)
            elif isinstance(item.event, Rejected):
                self.blocks.stages[0].rejected += len(item.event.records)
                rejected += item.event.records
            elif not isinstance(item.event, pa.RecordBatch):
                self.blocks.stages[0].is_complete |= item.is_last
                block = item.event
                self._progress.advanced(self.planned.name, records=0, size_bytes=size_of(block))
                del item  # frees its memory before the next one is read
                yield block
                del block
            else:
                records = self._transform(item)
                del item
                yield from self._staged(records)
                rejected += records.rejected
                del records
                if rejected:
                    yield self._rejected(rejected)
        for stage in self._stages:
            self.blocks.notice(stage.notices())
        mapping = self._columns.mapping
        self.blocks.close_spools(None if mapping is None else mapping.arriving.schema)
        if rejected:
            yield self._rejected(rejected)
        yield self._send_final(bookmark, files)

    def _described(self, stream: Stream) -> Iterator[Event]:
        """Take the source's description of what it reads from here on."""
        if (estimated := stream.estimated_records) is not None:
            self._progress.expected(self.planned.name, records=estimated)
        self.blocks.notice(notices_of(stream.schema))
        if (changed := self._columns.note_stream(stream)) is not None:
            yield self._written(changed)

    def _staged(self, records: Records) -> Iterator[Event]:
        """Pass records through the stages. Yields the batches, each of which is released before the next one."""
        for stage in self._stages if records.batches else ():
            if (changed := stage.apply(records)) is not None:
                yield self._written(changed)
        while records.batches:
            yield records.batches.pop(0)

    def _rejected(self, records: list[RejectedRecord]) -> Rejected:
        """Return rejected records in stored form, without secrets, and empty the list.

        Reasons quote settings, and places may be paths; both may contain secrets.
        """
        redact = self.blocks.redact
        kept = [replace(each, reason=redact(each.reason), place=redact(each.place)) for each in records]
        records.clear()
        return Rejected(records=tuple(kept))

    def _raised(self, checkpoint: Checkpoint) -> Checkpoint:
        if self._floor is None:
            return checkpoint
        stream = self.planned.stream
        return replace(checkpoint, bookmark=not_below(stream, checkpoint.bookmark, self._floor))

    def _items(self, feed: Feed) -> Iterator[Item]:
        items = iter(feed)
        while True:
            try:
                item = next(items, None)
            except Exception:
                self.blocks.fail_in_source()
                raise
            if item is None:
                return
            yield item
            del item

    def _taken_apart(self, item: Item) -> pa.RecordBatch | None:
        """Return the columns of a change batch besides the record."""
        if not self.planned.write.changes:
            return None
        assert isinstance(item.event, pa.RecordBatch)
        stream = self.planned.stream
        extra = item.event.select(item.event.schema.names[len(stream.schema) :])
        arriving = declared_stream(stream, self.blocks.transformers).schema.names
        if arriving == stream.schema.names:
            return extra
        return renamed_changes(extra, stream, dict(zip(stream.schema.names, arriving, strict=True)))

    def _transform(self, item: Item) -> Records:
        """Return a batch as it leaves the transformers."""
        batch, stream, functions = item.event, self.planned.stream, self._functions
        assert isinstance(batch, pa.RecordBatch)
        if functions is not None:
            self._note_read(batch.select(stream.schema.names), item)
            for stage in self.blocks.stages[1:-1]:  # a batch of deletes does not reach them
                stage.is_complete |= item.is_last
            batch, extra = functions.through(batch, lambda given: self._chained(given, functions.seen, item))
            return Records(batches=[batch] if batch.num_rows else [], extra=extra)
        extra = self._taken_apart(item)
        if self.planned.write.changes:
            batch = batch.select(stream.schema.names)
        if not self._columns.ignored.isdisjoint(batch.schema.names):
            batch = batch.select([name for name in batch.schema.names if name not in self._columns.ignored])
        self._note_read(batch, item)
        batch = self._chained(batch, stream, item)
        return Records(batches=[batch] if batch.num_rows else [], extra=extra)

    def _note_read(self, batch: pa.RecordBatch, item: Item) -> None:
        if self.planned.wire == "arrow":
            self.blocks.stages[0].note(batch, is_last=item.is_last)
            self._progress.advanced(self.planned.name, records=batch.num_rows, size_bytes=batch.nbytes)
        else:  # inside raw blocks: counted at the commit
            self.blocks.stages[0].is_complete |= item.is_last

    def _chained(self, batch: pa.RecordBatch, stream: Stream, item: Item) -> pa.RecordBatch:
        """Pass records through all transformers."""
        # The destination's naming is the last step; it belongs to no block.
        for transformer, stage in zip_longest(self.blocks.transformers, self.blocks.stages[1:-1]):
            batch = self._apply(transformer, batch, stream)
            stream = transformer.stream(stream)
            if stage is not None:
                stage.note(batch, is_last=item.is_last)
        return batch

    def _written(self, stream: Stream) -> Stream:
        return changes_stream(stream) if self.planned.write.changes else stream

    def _apply(self, transformer: Transformer, batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
        try:
            return transformer.apply(batch, stream)
        except Exception:
            self.blocks.failed = transformer.block
            raise


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
