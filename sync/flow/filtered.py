"""A source whose FULL_TABLE reads the engine limits (`limit`) and filters, where the connector does not."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.capabilities import OF_DESTINATIONS, Adaptation, Capabilities
from syncblocks.connectors.protocols import ReadsRanges, Source
from syncblocks.connectors.ranges import OpenRanges, Range
from syncblocks.connectors.read_spec import Condition, ReplicationMethod
from syncblocks.connectors.stream import Block, Bookmark, Event, Stream
from syncblocks.connectors.struct_helpers import replace

_WHOLE = ReplicationMethod.FULL_TABLE


#: A capability whose methods read records must be wrapped, unless its source filters them itself.
ADAPTATION = Adaptation(
    passed_on=frozenset(
        {
            "bounds_records",
            "filters_records",
            "finds_streams",
            "finds_types",
            "flattens_objects",
            "has_former_names",
            "holds_memory",
            "knows_limits",
            "knows_place",
            "listed",
            "lists_streams",
            "lists_unreadable",
            "looks_at_times",
            "prepares",
            "reads_log",
            "reads_queries",
            "runs_statements",
            "shows_address",
            "skips_late",
            "tracks_files",
            "verifies_server",
        }
    ),
    wrapped=frozenset({"computes_checksums", "reads_ranges"}),
    dropped=OF_DESTINATIONS,
)


class FilteredSource:
    """A source with filtered streams; the engine applies the conditions that the source does not, batch by batch."""

    def __init__(self, source: Source, can: Capabilities) -> None:
        self._source = source
        self._can = can

    def adapted(self) -> Capabilities:
        """Return the source's capabilities, adapted."""
        is_filtering = self._can.filters_records is not None
        return ADAPTATION.of(
            self._can,
            reads_ranges=lambda ranges: _FilteredRanges(self, ranges),
            # A source that computes checksums filters itself.
            computes_checksums=lambda checksums: checksums if is_filtering else None,
        )

    def left(self, stream: Stream) -> tuple[Condition, ...]:
        """Return the conditions of a stream that its source does not apply."""
        can = self._can.filters_records
        return tuple(each for each in stream.read.where if can is None or not can.filters(stream, each))

    def inner(self, stream: Stream) -> Stream:
        """Return the stream to read from the source: with the columns of the engine's conditions added."""
        left = self.left(stream)
        if not left:
            return stream
        known = stream.schema.names
        added = {each.field.name: each.field for each in left if each.field.name not in known}
        where = tuple(each for each in stream.read.where if each not in left)
        read = replace(stream.read, where=where, engine_where=left)
        return replace(stream, read=read, schema=pa.schema([*stream.schema, *added.values()]))

    # ---------------------------------------------------------------- protocol
    def identity(self) -> str:
        """See `Source`."""
        return self._source.identity()

    def check(self) -> None:
        """See `Source`."""
        self._source.check()

    def discover(self) -> Sequence[Stream]:
        """See `Source`."""
        return self._source.discover()

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        """See `Source`."""
        own = {stream.name: stream for stream in streams}
        groups = self._source.groups([self.inner(stream) for stream in streams])
        return [[own[stream.name] for stream in group] for group in groups]

    def offers(self, stream: Stream) -> Sequence[str]:
        """Offer raw bytes only for a stream that the source filters itself and that is read to its end."""
        return ("arrow",) if self.left(stream) or stream.read.limit is not None else self._source.offers(stream)

    def count(self, stream: Stream) -> int:
        """Count the records that pass; read them if the source cannot count them."""
        left = self.left(stream)
        if not left:
            return self._source.count(stream)
        names = {each.field.name for each in left}
        narrow = [field for field in stream.schema if field.name in names] or list(stream.schema)[:1]
        only = replace(
            stream, schema=pa.schema(narrow), read=replace(stream.read, method=_WHOLE, bookmark_properties=())
        )
        with closing(self._filtered([only], {only.name: None}, "arrow")) as events:
            return sum(event.num_rows for _, event in events if isinstance(event, pa.RecordBatch))

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        """See `Source`."""
        events: Any
        if any(self.left(stream) for stream in group):
            events = self._filtered(group, bookmarks, wire)
        else:
            events = self._source.read(group, bookmarks, wire)
        return _limited(group, events) if any(map(_is_limited, group)) else events

    def interrupt(self, stream: str) -> None:
        """See `Source`."""
        self._source.interrupt(stream)

    def close(self) -> None:
        """See `Source`."""
        self._source.close()

    # ----------------------------------------------------------------- helpers
    def _filtered(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str
    ) -> Generator[tuple[str, Event | Block]]:
        filters = {stream.name: RecordFilter(self.left(stream), stream) for stream in group}
        events: Any = self._source.read([self.inner(stream) for stream in group], bookmarks, wire)
        with closing(events):
            for name, event in events:
                yield name, filters[name].applied(event)


def _is_limited(stream: Stream) -> bool:
    """Return whether the engine ends a read; an INCREMENTAL read ends itself, with the bookmark of its last record."""
    return stream.read.limit is not None and stream.read.method is _WHOLE


def _limited(group: Sequence[Stream], events: Any) -> Generator[tuple[str, Event | Block]]:
    """Yield at most `limit` records of each stream, and stop reading when all streams have enough."""
    left = {stream.name: stream.read.limit or 0 for stream in group if _is_limited(stream)}
    with closing(events):
        for name, event in events:
            most = left.get(name)
            if most is None or not isinstance(event, pa.RecordBatch):
                yield name, event
                continue
            part = event.slice(0, most)
            left[name] = most - part.num_rows
            if part.num_rows:
                yield name, part
            if len(left) == len(group) and not any(left.values()):
                return


class RecordFilter(Struct, frozen=True):
    """Passes records that meet some conditions, without the columns read only for these conditions."""

    conditions: tuple[Condition, ...]
    #: With the wanted columns.
    stream: Stream

    def applied(self, event: Event | Block) -> Event | Block:
        """Return an event with the records that pass; checkpoints and rejected records unchanged."""
        if not self.conditions:
            return event
        if isinstance(event, pa.RecordBatch):
            from syncblocks.connectors.filters import matches

            return self._wanted(event.filter(matches(event, self.conditions)))
        if isinstance(event, Stream):
            read = replace(event.read, where=self.stream.read.where, engine_where=())
            return replace(event, read=read, schema=self._columns(event.schema))
        return event

    def _wanted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        schema = self._columns(batch.schema)
        return batch if len(schema) == len(batch.schema) else batch.select(schema.names)

    def _columns(self, schema: pa.Schema) -> pa.Schema:
        """Remove columns that were read only for the conditions."""
        wanted = self.stream.schema.names
        extra = {each.field.name for each in self.conditions if each.field.name not in wanted}
        return pa.schema([field for field in schema if field.name not in extra]) if extra else schema


class _FilteredRanges:
    """The ranges of a source, filtered by the engine."""

    def __init__(self, source: FilteredSource, ranges: ReadsRanges) -> None:
        self._source = source
        self._ranges = ranges

    def plan_ranges(self, stream: Stream, readers: int) -> tuple[int | None, str]:
        """See `ReadsRanges`."""
        return self._ranges.plan_ranges(self._source.inner(stream), readers)

    def open_ranges(self, stream: Stream, readers: int, wire: str) -> AbstractContextManager[OpenRanges]:
        """See `ReadsRanges`."""
        left = self._source.left(stream)
        if not left:
            return self._ranges.open_ranges(stream, readers, wire)
        return _filtering(
            self._ranges.open_ranges(self._source.inner(stream), readers, wire), RecordFilter(left, stream)
        )


@contextmanager
def _filtering(opened: AbstractContextManager[OpenRanges], only: RecordFilter) -> Iterator[OpenRanges]:
    with opened as ranges:
        yield _FilteredOpenRanges(ranges, only)


class _FilteredOpenRanges(Struct, frozen=True):
    """Open ranges with filtered records. No load is resumed: its record count is the count after the filter."""

    inner: OpenRanges
    only: RecordFilter
    moment: None = None

    @property
    def ranges(self) -> Sequence[Range]:
        """See `OpenRanges`."""
        return self.inner.ranges

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, int]) -> bool:
        """Resume nothing."""
        return False

    def read(self, part: Range) -> Generator[Event | Block]:
        """See `OpenRanges`."""
        with closing(self.inner.read(part)) as events:
            for event in events:
                yield self.only.applied(event)
