"""The events of one attempt at a stream: transformed batches, checkpoints, new columns and rejected records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, zip_longest

import pyarrow as pa

from syncblocks.connectors.field_facts import facts_of, notices_of
from syncblocks.connectors.incremental.bookmarks import not_below
from syncblocks.connectors.log_based import POSITION, changes_stream, renamed_changes
from syncblocks.connectors.rejected.halving import convert_or_reject
from syncblocks.connectors.stream import Block, Bookmark, Checkpoint, Event, FileRead, Rejected, RejectedRecord, Stream
from syncblocks.connectors.struct_helpers import replace

from ..flow.feed import Feed, Item, size_of
from ..flow.logged import LoggedFunctions
from ..flow.transform import Transformer, declared_stream
from ..flow.value_checks import Warnings, appended, checked, fitting_changes
from ..plan.columns import ColumnMapping, map_columns, table_changes
from ..plan.evolution import ignored, left_out_text, without_columns
from ..plan.log_based import is_logged
from ..plan.schema_snapshots import differences, shape_of
from ..plan.stream_settings import is_covered
from ..store.documents import change_in_words
from .block_runs import StreamBlocks
from .errors import ColumnsRefused
from .progress import Progress


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
        #: Columns that appeared during the read and that `on_schema_change: ignore` leaves out.
        self._ignored: frozenset[str] = frozenset()
        #: Columns with a message already shown.
        self._reported: set[str] = set()
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
        return first, stream if self.planned.is_schema_decided else self._map(stream).arriving

    def _arriving(self) -> Stream:
        planned = self.planned
        if planned.is_schema_decided:
            return planned.arriving
        functions = self._functions
        schema = self.blocks.transformers[-1].schema if functions is None else functions.arrived
        if schema is not None:
            schema = planned.policy.added.schema(schema)
            return replace(planned.arriving, schema=_keys_not_null(schema, planned.arriving))
        if planned.table.schema is not None:  # no records: the table keeps its columns
            return replace(planned.arriving, schema=planned.table.schema)
        stream = planned.stream if functions is None else functions.seen
        empty = _empty(stream.schema)
        for transformer in self.blocks.transformers:
            empty = self._apply(transformer, empty, stream)
            stream = transformer.stream(stream)
        schema = planned.policy.added.schema(empty.schema if functions is None else functions.schema(empty.schema))
        return replace(planned.arriving, schema=_keys_not_null(schema, planned.arriving))

    def _events(self, feed: Feed) -> Iterator[Event | Block]:
        """Yield the events for the destination, the final checkpoint last."""
        mapping: ColumnMapping | None = self.planned.mapping if self.planned.is_schema_decided else None
        bookmark, waiting = self._raised(Checkpoint(bookmark=self._start)).bookmark, None
        #: Files of checkpoints that are not committed yet.
        files: list[FileRead] = []
        rejected: list[RejectedRecord] = []
        warnings = Warnings(self.planned.warn_checks)
        for item in self._items(feed):
            self._check()
            if isinstance(item.event, Checkpoint):
                if rejected and mapping is not None:
                    yield self._rejected(rejected)
                    rejected.clear()
                waiting = self._raised(item.event)
                bookmark = waiting.bookmark
                files += item.event.files
                continue
            if waiting is not None and not rejected and not self.planned.commits_once:
                yield replace(waiting, files=tuple(files))
                files.clear()
            waiting = None
            if isinstance(item.event, Stream):
                if (estimated := item.event.estimated_records) is not None:
                    self._progress.expected(self.planned.name, records=estimated)
                self.blocks.notice(notices_of(item.event.schema))
                declared = declared_stream(self._without_ignored(item.event), self.blocks.transformers)
                changed = self.planned.policy.added.stream(declared)
                if self.planned.is_schema_decided and not _is_of(changed.schema, mapping):
                    mapping = self._map(changed)
                    yield self._written(mapping.arriving)
                continue
            if isinstance(item.event, Rejected):
                self.blocks.stages[0].rejected += len(item.event.records)
                rejected += item.event.records
                continue
            if not isinstance(item.event, pa.RecordBatch):
                self.blocks.stages[0].is_complete |= item.is_last
                block = item.event
                self._progress.advanced(self.planned.name, records=0, size_bytes=size_of(block))
                del item  # frees its memory before the next one is read
                yield block
                del block
                continue
            batch, extra = self._transform(item)
            if batch.num_rows == 0:
                continue
            if mapping is None or not _is_of(batch.schema, mapping):
                is_first, schema = mapping is None, _keys_not_null(batch.schema, self.planned.arriving)
                mapping = self._map(replace(self.planned.arriving, schema=schema))
                if not is_first:
                    yield self._written(mapping.arriving)
            told = extra if extra is not None else self._told(batch)
            if told is not None:
                checks, arriving = self.planned.checks, mapping.arriving
                good, (told, extra), bad = fitting_changes(batch, (told, extra), mapping.convert, checks, arriving)
            else:
                good, bad = convert_or_reject(batch, mapping.convert, self.planned.write.max_rejected)
            rejected += bad
            if self.planned.checks and told is None:
                passed = [checked(each, self.planned.checks, mapping.arriving) for each in good]
                good = [each for each, _ in passed if each.num_rows]
                rejected += [each for _, failed in passed for each in failed]
            warnings.note(good, told)  # in a function: a name of this one would hold a batch while it is written
            del item, batch, told
            while good:
                yield self._spooled(_beside(good.pop(0), extra))
            if rejected:
                yield self._rejected(rejected)
                rejected.clear()
        self.blocks.notice(warnings.sentences())
        self.blocks.close_spools(None if mapping is None else mapping.arriving.schema)
        if rejected:
            yield self._rejected(rejected)
        yield self._send_final(bookmark, files)

    def _rejected(self, records: Iterable[RejectedRecord]) -> Rejected:
        """Return rejected records in stored form, without secrets.

        Reasons quote settings, and places may be paths; both may contain secrets.
        """
        redact = self.blocks.redact
        kept = (replace(each, reason=redact(each.reason), place=redact(each.place)) for each in records)
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

    def _told(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        """Return what checks must know of each appended change; None: the batch has plain records."""
        planned, names = self.planned, self.planned.stream.schema.names
        if POSITION not in names or not (is_logged(planned.stream) and (planned.checks or planned.warn_checks)):
            return None
        arriving = declared_stream(planned.stream, self.blocks.transformers).schema.names
        return appended(batch, dict(zip(names, arriving, strict=True)))

    def _transform(self, item: Item) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
        """Return a batch as it leaves the transformers, and the columns of a change batch besides the record."""
        batch, stream, functions = item.event, self.planned.stream, self._functions
        assert isinstance(batch, pa.RecordBatch)
        extra = None if functions is not None else self._taken_apart(item)
        if functions is not None:
            self._note_read(batch.select(stream.schema.names), item)
            for stage in self.blocks.stages[1:-1]:  # a batch of deletes does not reach them
                stage.is_complete |= item.is_last
            batch, extra = functions.through(batch, lambda given: self._chained(given, functions.seen, item))
            return self.planned.policy.added.apply(batch), extra
        if self.planned.write.changes:
            batch = batch.select(stream.schema.names)
        if not self._ignored.isdisjoint(batch.schema.names):
            batch = batch.select([name for name in batch.schema.names if name not in self._ignored])
        self._note_read(batch, item)
        return self.planned.policy.added.apply(self._chained(batch, stream, item)), extra

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

    def _spooled(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Keep a batch of the destination for callbacks that ask for its data."""
        last = self.blocks.stages[-1]
        if last.spool is not None:
            last.spool.write(batch)
        return batch

    def _map(self, stream: Stream) -> ColumnMapping:
        """Map columns that appeared during the read; the plan has mapped all columns that it knew."""
        mapping = map_columns(stream, self.planned.rules)
        self._report_left_out(column.name for column in mapping.columns if column.is_left_out)
        refusals = list(mapping.refusals)
        if self.planned.rules.is_frozen and self.planned.is_schema_decided:
            changes = differences(shape_of(self.planned.mapping.declared), shape_of(stream))
            found = list(map(change_in_words, changes)) or table_changes(mapping, self.planned.rules.table)
            refusals += [f"frozen, but the source changed during the read: {change}" for change in found]
        if refusals:
            self.blocks.failed = self.blocks.stages[-2].block
            raise ColumnsRefused("; ".join(refusals))
        return mapping

    def _without_ignored(self, stream: Stream) -> Stream:
        """Leave out columns that are new since the plan, if `on_schema_change` demands it."""
        planned = self.planned
        known = planned.stream.schema.names
        excluded = planned.policy.excluded
        # Fields of an excluded object; the plan knows other columns.
        self._ignored |= {
            field.name
            for field in stream.schema
            if facts_of(field).path and field.name not in known and is_covered(field, excluded)
        }
        stream = without_columns(stream, self._ignored)
        if planned.ignored is None:
            return stream
        before = {**planned.shape, "ignored": planned.ignored}
        arriving = declared_stream(stream, self.blocks.transformers)
        found = ignored(stream, arriving, before, planned.rules, is_decided=True).columns
        self._report_left_out(found.difference(planned.ignored))
        self._ignored |= found
        return without_columns(stream, self._ignored)

    def _report_left_out(self, names: Iterable[str]) -> None:
        if new := sorted(set(names) - self._reported):
            self._reported.update(new)
            self._progress.message(left_out_text(self.planned.name, new))

    def _apply(self, transformer: Transformer, batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
        try:
            return transformer.apply(batch, stream)
        except Exception:
            self.blocks.failed = transformer.block
            raise


def _is_of(schema: pa.Schema, mapping: ColumnMapping | None) -> bool:
    """Return whether a schema has the columns of a mapping."""
    columns = [] if mapping is None else [(field.name, field.type) for field in mapping.declared.schema]
    return columns == [(field.name, field.type) for field in schema]


def _beside(batch: pa.RecordBatch, extra: pa.RecordBatch | None) -> pa.RecordBatch:
    if extra is None:
        return batch
    schema = pa.schema([*(field.with_nullable(True) for field in batch.schema), *extra.schema])
    return pa.RecordBatch.from_arrays([*batch.columns, *extra.columns], schema=schema)


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _keys_not_null(schema: pa.Schema, stream: Stream) -> pa.Schema:
    not_null = {field.name for field in stream.schema if not field.nullable}
    keys = not_null & set(stream.key_properties)
    return pa.schema([field.with_nullable(False) if field.name in keys else field for field in schema])
