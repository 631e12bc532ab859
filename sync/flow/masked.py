"""A source whose columns are masked while they are read: no later step sees the original value."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, TypeVar, cast

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.arrow.masking import masked, masked_stream, rule_of, unmasked_stream
from syncblocks.connectors.capabilities import OF_DESTINATIONS, Adaptation, Capabilities
from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.log_based import (
    OLD_KEY,
    OPERATION,
    UNCHANGED,
    GivenUp,
    LogLag,
    LogLook,
    LogMoment,
    OpenLog,
    former_keys,
    plain_stream,
)
from syncblocks.connectors.protocols import (
    FindsStreams,
    FindsTypes,
    ListsStreams,
    LooksAtTimes,
    ReadsLog,
    ReadsQueries,
    ReadsRanges,
    SkipsLate,
    Source,
    TracksFiles,
)
from syncblocks.connectors.ranges import OpenRanges, Range
from syncblocks.connectors.read_spec import NULL, Masks
from syncblocks.connectors.stream import Block, Bookmark, Ended, Event, FileRead, LedgerRow, Rejected, Stream
from syncblocks.connectors.struct_helpers import replace

from .masked_errors import hidden_error, hidden_rejected, hidden_text, names_in

T = TypeVar("T")


#: A capability whose methods read records, or get a planned stream, must be wrapped.
ADAPTATION = Adaptation(
    passed_on=frozenset(
        {
            "bounds_records",
            "computes_checksums",
            "filters_records",
            "flattens_objects",
            "has_former_names",
            "holds_memory",
            "knows_limits",
            "knows_place",
            "listed",
            "lists_unreadable",
            "prepares",
            "runs_statements",
            "shows_address",
            "verifies_server",
        }
    ),
    wrapped=frozenset(
        {
            "finds_streams",
            "finds_types",
            "lists_streams",
            "looks_at_times",
            "reads_log",
            "reads_queries",
            "reads_ranges",
            "skips_late",
            "tracks_files",
        }
    ),
    dropped=OF_DESTINATIONS,
)


class MaskedSource:
    """A source whose streams may have masks; its errors show no value of a record."""

    def __init__(self, source: Source, can: Capabilities) -> None:
        self._source = source
        self._can = can

    def adapted(self) -> Capabilities:
        """Return the source's capabilities; methods that get a planned stream pass the source's own stream on."""
        return ADAPTATION.of(
            self._can,
            lists_streams=_MaskedLists,
            finds_streams=_MaskedFinds,
            tracks_files=_MaskedFiles,
            reads_queries=_MaskedQueries,
            finds_types=_MaskedTypes,
            looks_at_times=_MaskedTimes,
            skips_late=_MaskedLate,
            reads_ranges=_MaskedRanges,
            reads_log=_MaskedLog,
        )

    # ---------------------------------------------------------------- protocol
    def identity(self) -> str:
        """See `Source`."""
        return self._source.identity()

    def check(self) -> None:
        """See `Source`."""
        self._source.check()

    def discover(self) -> Sequence[Stream]:
        """See `Source`."""
        return _discovered(self._source.discover)

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        """See `Source`."""
        own = {stream.name: stream for stream in streams}
        groups = self._source.groups([unmasked_stream(stream) for stream in streams])
        return [[own[stream.name] for stream in group] for group in groups]

    def offers(self, stream: Stream) -> Sequence[str]:
        """Offer raw bytes and whole files only for a stream without masks."""
        return self._source.offers(stream) if stream.read.masks is None else ("arrow",)

    def count(self, stream: Stream) -> int:
        """See `Source`."""
        return _asked(lambda: self._source.count(unmasked_stream(stream)), stream)

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        """See `Source`."""
        if all(stream.read.masks is None for stream in group):
            return self._source.read(group, bookmarks, wire)
        return self._masked(group, bookmarks, wire)

    def interrupt(self, stream: str) -> None:
        """See `Source`."""
        self._source.interrupt(stream)

    def close(self) -> None:
        """See `Source`."""
        self._source.close()

    # ----------------------------------------------------------------- helpers
    def _masked(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str
    ) -> Generator[tuple[str, Event | Block]]:
        masks = {stream.name: _Mask(stream) for stream in group}
        columns = {name for stream in group for name in stream.schema.names}

        def events() -> Iterator[tuple[str, Event | Block]]:
            return iter(self._source.read([unmasked_stream(stream) for stream in group], bookmarks, wire))

        names = _names(group)
        yield from _told(events, columns, names, lambda each: (each[0], masks[each[0]].applied(each[1])))


class _Mask(Struct):
    """The masks of one stream, for the events of one read."""

    stream: Stream

    def applied(self, event: Event | Block) -> Event | Block:
        """Return an event with masked values; checkpoints as they are."""
        if isinstance(event, Ended) and event.error is not None:
            hidden = hidden_error(event.error, self.stream.schema.names, _names([self.stream]))
            return Ended(error=cast("ConnectorError", hidden))
        masks = self.stream.read.masks
        if masks is None:
            return event
        if isinstance(event, pa.RecordBatch):
            return masked(event, masks)
        if isinstance(event, Stream):
            self.stream = masked_stream(replace(event, read=replace(event.read, masks=masks)))
            return self.stream
        if isinstance(event, Rejected):
            return hidden_rejected(event, masks, self.stream.schema.names)
        return event


def _names(streams: Iterable[Stream]) -> set[str]:
    """Return the names of streams and of their queries, which no error needs to hide."""
    return {name for stream in streams for name in (*stream.name.split("."), *names_in(stream.query))}


def _told(
    make: Callable[[], Iterator[Any]], columns: Collection[str], names: Collection[str], apply: Callable[[Any], T]
) -> Generator[T]:
    """Yield masked events; an error while reading or masking shows no value of a record."""
    events: Any = None
    try:
        while True:
            failure: Exception | None = None
            try:
                if events is None:
                    events = make()
                event = next(events)
                found = apply(event)
            except StopIteration:
                return
            except Exception as error:
                failure = hidden_error(error, columns, names)
            if failure is not None:  # outside of the handler: otherwise the error would carry the hidden one as context
                raise failure
            del event
            yield found
            del found
    finally:
        if hasattr(events, "close"):
            events.close()


def _asked(ask: Callable[[], T], *streams: Stream) -> T:
    """Call the source; if a stream has masks or is not known yet, an error shows no value of a record."""
    failure: Exception | None = None
    try:
        return ask()
    except Exception as error:
        if streams and all(stream.read.masks is None for stream in streams):
            raise
        failure = hidden_error(error, {name for stream in streams for name in stream.schema.names}, _names(streams))
    raise failure


def _discovered(ask: Callable[[], Iterable[Stream]]) -> list[Stream]:
    """Return the opened streams; the reason of an unreadable one may quote a value of a file."""
    return [_opened(stream) for stream in _asked(ask)]


def _opened(stream: Stream) -> Stream:
    if not stream.unreadable:
        return stream
    return replace(stream, unreadable=stream.unreadable_without_values or hidden_text(stream.unreadable, ()))


class _MaskedLists(Struct, frozen=True):
    inner: ListsStreams

    def list_streams(self) -> Sequence[str]:
        """See `ListsStreams`."""
        return _asked(self.inner.list_streams)

    def open_streams(self, names: Collection[str]) -> Sequence[Stream]:
        """See `ListsStreams`."""
        return _discovered(lambda: self.inner.open_streams(names))


class _MaskedFinds(Struct, frozen=True):
    inner: FindsStreams

    def find_streams(self, names: Collection[str]) -> Sequence[Stream]:
        """See `FindsStreams`."""
        return _discovered(lambda: self.inner.find_streams(names))


class _MaskedFiles(Struct, frozen=True):
    inner: TracksFiles

    def open_tracked(self, name: str, read: Sequence[FileRead], bookmark: Bookmark) -> Stream:
        """See `TracksFiles`."""
        return _opened(_asked(lambda: self.inner.open_tracked(name, read, bookmark)))


class _MaskedQueries(Struct, frozen=True):
    inner: ReadsQueries

    def query_stream(
        self, name: str, query: str, values: Mapping[str, Any] | None = None, start: str | float | None = None
    ) -> Stream:
        """See `ReadsQueries`; a description reads no record, so its error is shown."""
        return self.inner.query_stream(name, query, values, start)

    def may_write(self) -> str:
        """See `ReadsQueries`."""
        return self.inner.may_write()


class _MaskedTypes(Struct, frozen=True):
    inner: FindsTypes

    def as_known(self, stream: Stream, bookmark: Bookmark | None) -> Stream:
        """See `FindsTypes`."""
        return masked_stream(self.inner.as_known(unmasked_stream(stream), bookmark))


class _MaskedTimes(Struct, frozen=True):
    inner: LooksAtTimes

    def nanoseconds(self, stream: Stream, columns: Sequence[str]) -> frozenset[str]:
        """See `LooksAtTimes`."""
        return _asked(lambda: self.inner.nanoseconds(unmasked_stream(stream), columns), stream)


class _MaskedLate(Struct, frozen=True):
    inner: SkipsLate

    def skips_late(self, stream: Stream) -> str:
        """See `SkipsLate`."""
        return self.inner.skips_late(unmasked_stream(stream))


class _MaskedRanges(Struct, frozen=True):
    inner: ReadsRanges

    def plan_ranges(self, stream: Stream, readers: int) -> tuple[int | None, str]:
        """See `ReadsRanges`."""
        return self.inner.plan_ranges(unmasked_stream(stream), readers)

    def open_ranges(self, stream: Stream, readers: int, wire: str) -> AbstractContextManager[OpenRanges]:
        """See `ReadsRanges`."""
        opened = self.inner.open_ranges(unmasked_stream(stream), readers, wire)
        return opened if stream.read.masks is None else _masking(opened, stream)


class _MaskedLog(Struct, frozen=True):
    inner: ReadsLog

    def why_not_logged(self, stream: Stream) -> str:
        """See `ReadsLog`."""
        return self.inner.why_not_logged(unmasked_stream(stream))

    def look_at_log(self, name: str, streams: Sequence[Stream], rows: Sequence[LedgerRow]) -> LogLook:
        """See `ReadsLog`; it reads no record."""
        return self.inner.look_at_log(name, [unmasked_stream(stream) for stream in streams], rows)

    def overdue_log(
        self,
        name: str,
        streams: Sequence[Stream],
        rows: Callable[[], Sequence[LedgerRow]],
        is_stuck: Callable[[str], bool],
    ) -> GivenUp:
        """See `ReadsLog`; it reads no record."""
        return self.inner.overdue_log(name, [unmasked_stream(stream) for stream in streams], rows, is_stuck)

    @contextmanager
    def open_log(
        self,
        name: str,
        streams: Sequence[Stream],
        rows: Sequence[LedgerRow],
        note: Callable[[str, Mapping[str, Any]], None],
        held: Callable[[], Sequence[Bookmark]],
        ended: Sequence[Bookmark] = (),
        reader: str = "",
    ) -> Iterator[OpenLog]:
        """See `ReadsLog`."""
        own = [_unmasked_changes(stream) for stream in streams]
        with self.inner.open_log(name, own, rows, note, held, ended, reader) as opened:
            yield opened if all(stream.read.masks is None for stream in streams) else _MaskedOpenLog(opened)

    def open_moment(
        self, name: str, streams: Sequence[Stream], rows: Sequence[LedgerRow]
    ) -> AbstractContextManager[LogMoment]:
        """See `ReadsLog`; it reads no record."""
        return self.inner.open_moment(name, streams, rows)

    def drop_log(self, rows: Sequence[LedgerRow], *, keeps_publication: bool = False) -> Sequence[str]:
        """See `ReadsLog`."""
        return self.inner.drop_log(rows, keeps_publication=keeps_publication)


class _MaskedOpenLog(Struct, frozen=True):
    inner: OpenLog

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Generator[tuple[str, Event | Block]]:
        """See `OpenLog`."""
        streams = {stream.name: stream for stream in group}
        columns = {name for stream in group for name in stream.schema.names}

        def applied(event: tuple[str, Event | Block]) -> tuple[str, Event | Block]:
            name, found = event
            masks, stream = streams[name].read.masks, streams[name]
            own = plain_stream(stream).schema.names
            if masks is not None and isinstance(found, Rejected):
                return name, hidden_rejected(found, masks, own)
            if masks is None or not isinstance(found, pa.RecordBatch):
                return event
            # Columns that the log adds to a record are not columns of the table, whatever a glob matches.
            others = found.schema.names[len(own) :]
            batch = masked(found.select(own), masks)
            extra = [_keyless(found.column(each), masks) if each == OLD_KEY else found.column(each) for each in others]
            if OPERATION in others and OLD_KEY not in others:  # changes that are merged
                place = others.index(UNCHANGED)
                extra[place] = _without_hidden(extra[place], masks)
                olds = found.select(list(former_keys(stream)))
                extra[-olds.num_columns :] = masked(olds.rename_columns(list(stream.key_properties)), masks).columns
            arrays = [*batch.columns, *extra]
            return name, pa.RecordBatch.from_arrays(arrays, schema=stream.schema)

        own = [_unmasked_changes(stream) for stream in group]
        yield from _told(lambda: iter(self.inner.read(own, bookmarks, wire)), columns, _names(own), applied)

    def confirm(self, streams: Collection[str]) -> None:
        """See `OpenLog`."""
        self.inner.confirm(streams)

    def lag(self, stream: str) -> LogLag:
        """See `OpenLog`."""
        return self.inner.lag(stream)


def _without_hidden(unchanged: pa.Array, masks: Masks) -> pa.Array:
    """Leave out columns that are masked as NULL: the table has no value of theirs that stays."""
    if unchanged.null_count == len(unchanged):
        return unchanged
    hidden = {name for name in masks.fields if (rule := rule_of(masks, name)) is not None and rule.how == NULL}
    listed = ([each for each in json.loads(text or "[]") if each not in hidden] for text in unchanged.to_pylist())
    return pa.array([json.dumps(names, ensure_ascii=False) if names else None for names in listed], pa.string())


def _keyless(old_keys: pa.Array, masks: Masks) -> pa.Array:
    """Hide masked columns of former keys: a replica identity may have other columns than the primary key."""
    if old_keys.null_count == len(old_keys):
        return old_keys
    found = []
    for text in old_keys.storage.to_pylist():
        key = {} if text is None else json.loads(text)
        shown = {name: value if rule_of(masks, name) is None else None for name, value in key.items()}
        found.append(None if text is None else json.dumps(shown, ensure_ascii=False))
    return pa.ExtensionArray.from_storage(old_keys.type, pa.array(found, pa.string()))


def _unmasked_changes(stream: Stream) -> Stream:
    """Return a stream without its masks; if a change lacks a value, each column may be NULL."""
    found, olds = unmasked_stream(stream), former_keys(stream)
    return replace(
        found,
        schema=pa.schema(
            [
                found.schema.field(olds.get(field.name, field.name)).with_name(field.name).with_nullable(field.nullable)
                for field in stream.schema
            ]
        ),
    )


@contextmanager
def _masking(opened: AbstractContextManager[OpenRanges], stream: Stream) -> Iterator[OpenRanges]:
    with opened as ranges:
        yield _MaskedOpenRanges(ranges, stream)


class _MaskedOpenRanges(Struct, frozen=True):
    """Open ranges with masked records; their labels may contain key values, and are not shown."""

    inner: OpenRanges
    stream: Stream

    @property
    def ranges(self) -> Sequence[Range]:
        """See `OpenRanges`."""
        return [replace(part, label=f"number {part.place + 1}") for part in self.inner.ranges]

    @property
    def moment(self) -> Mapping[str, Any] | None:
        """See `OpenRanges`."""
        return self.inner.moment

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, int]) -> bool:
        """See `OpenRanges`."""
        return self.inner.resume(moment, loaded)

    def read(self, part: Range) -> Generator[Event | Block]:
        """See `OpenRanges`."""
        return _masked_range(lambda: self.inner.read(part), self.stream)


def _masked_range(read: Callable[[], Iterator[Event | Block]], stream: Stream) -> Generator[Event | Block, None, None]:
    with closing(_told(lambda: iter(read()), stream.schema.names, _names([stream]), _Mask(stream).applied)) as events:
        yield from events


__all__ = ["MaskedSource"]
