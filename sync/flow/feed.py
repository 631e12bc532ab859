"""Read-ahead: one thread reads a group of streams into bounded queues, one for each stream's load.

The reader is one batch ahead, so that each batch is marked if it is the last of its stream. If a later block fails,
this mark decides the status of the earlier blocks.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.stream import Bookmark, Ended, Rejected, Stream

from .record_size import refuse_wide

#: Between the reading and the loading thread there are at most two large batches, or small ones with this many bytes
#: in total; the memory budget may allow fewer. While a load processes many of them at once, as for a row group, the
#: reader continues.
QUEUE_BATCHES, QUEUE_ITEMS = 2, 100
QUEUE_BYTES = 32 << 20

#: Maximum memory of Arrow for a column of a batch or a schema, besides its values.
_COLUMN_BYTES = 1_000

#: Memory of a rejected record, besides its texts.
_RECORD_BYTES = 500


class Budget:
    """Memory limit for the batches that all streams of a run process, in bytes.

    A stream without a batch in memory may always add one batch of any size. Otherwise two streams could wait for each
    other, and a batch larger than the budget would never pass.
    """

    def __init__(self, limit_bytes: int, record_bytes: int = sys.maxsize) -> None:
        self.limit_bytes = limit_bytes
        #: Maximum size of one record.
        self.record_bytes = record_bytes
        self.used_bytes = 0
        #: Guards the budget and the queues of all feeds that share it.
        self.lock = threading.Lock()
        #: Notified when memory is freed.
        self.changed = threading.Condition(self.lock)

    def has_room(self, size_bytes: int) -> bool:
        """Whether this many more bytes may be in memory; the caller holds `changed`."""
        return self.used_bytes + size_bytes <= self.limit_bytes


class Item(Struct, frozen=True):
    """One event of a stream; `is_last` is True for its last batch."""

    #: An event, a block of a transfer format, or a subclass's reference to a batch on disk.
    event: Any
    is_last: bool = False


class Feed:
    """Bounded queue of one stream, filled by the group's reader and emptied by the stream's load."""

    def __init__(self, stream: str, budget: Budget | None = None, key: Sequence[str] = ()) -> None:
        """Create an empty feed.

        Args:
            stream: the stream's name.
            budget: shared by all streams of a run.
            key: the key's columns, for error messages.
        """
        self.stream = stream
        self._key = key
        self._items: deque[Item] = deque()
        self._queued_bytes = 0
        self._error: BaseException | None = None
        self._is_ended = False
        self._is_closed = False
        self._budget = budget or Budget(sys.maxsize)
        self._changed = self._budget.changed
        # One condition for each feed: a new batch must not wake the loads of all other streams.
        self._arrived = threading.Condition(self._budget.lock)
        #: Size of the batch that the load is working on.
        self._taken_bytes = 0

    def refuse_too_wide(self, event: Any) -> None:
        """Raise for a record larger than the run's memory limit."""
        if size_of(event) > self._budget.record_bytes:
            refuse_wide(event, self._budget.record_bytes, self._key)

    def put(self, item: Item) -> bool:
        """Add one event, waiting for memory; return False if the load is over."""
        size_bytes = _held_bytes(item.event)
        with self._changed:
            while not (self._is_closed or self._has_room(size_bytes)):
                self._changed.wait()
            if not self._is_closed:
                self._items.append(item)
                self._queued_bytes += size_bytes
                self._budget.used_bytes += size_bytes
                self._arrived.notify_all()
            return not self._is_closed

    def wait(self, event: Any) -> None:
        """Wait until there is memory for this event, which is not added yet, and for another one of its size.

        A source makes several copies of a wide record. It must not begin to read one while the load copies its previous
        one.
        """
        size_bytes = 2 * _held_bytes(event)
        with self._changed:
            while (self._items or self._taken_bytes) and not (self._is_closed or self._budget.has_room(size_bytes)):
                self._changed.wait()

    def end(self, error: BaseException | None = None) -> None:
        """Mark the end of the stream; `error` is raised in the load."""
        with self._changed:
            if not self._is_ended:
                self._is_ended, self._error = True, error
                self._arrived.notify_all()

    def close(self) -> None:
        """Accept no more events: the load is over."""
        with self._changed:
            self._is_closed = True
            self._free_taken()
            self._budget.used_bytes -= self._queued_bytes
            self._items.clear()
            self._queued_bytes = 0
            self._arrived.notify_all()
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether the load is over."""
        return self._is_closed

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._free_taken()
                while not self._items and not self._is_ended and not self._is_closed:
                    self._arrived.wait()
                if self._items:
                    item = self._items.popleft()
                    self._taken_bytes = _held_bytes(item.event)
                    self._queued_bytes -= self._taken_bytes
                    self._changed.notify_all()
                elif self._error is not None:
                    raise self._error
                else:
                    return
            yield item
            del item  # frees a wide record before the next one is read

    def _has_room(self, size_bytes: int) -> bool:
        if not self._items and not self._taken_bytes:
            return True
        most = QUEUE_ITEMS if self._queued_bytes + size_bytes <= QUEUE_BYTES else QUEUE_BATCHES
        return len(self._items) < most and self._budget.has_room(size_bytes)

    def _free_taken(self) -> None:
        """Free the memory of the previous batch: the load has asked for the next one, or has ended."""
        if self._taken_bytes:
            self._budget.used_bytes -= self._taken_bytes
            self._taken_bytes = 0
            self._changed.notify_all()


def size_of(event: Any) -> int:
    """Return the bytes of an event's values."""
    if isinstance(event, pa.RecordBatch):
        return int(event.nbytes)
    return len(event) if isinstance(event, bytes | bytearray | memoryview) else 0


def _held_bytes(event: Any) -> int:
    """Return the bytes that an event uses in memory."""
    if isinstance(event, pa.RecordBatch):
        return int(event.nbytes + event.num_columns * _COLUMN_BYTES)
    if isinstance(event, Stream):
        return len(event.schema) * _COLUMN_BYTES
    if isinstance(event, Rejected):
        return sum(len(one.record) + len(one.reason) + _RECORD_BYTES for one in event.records)
    return size_of(event)


class Readable(Protocol):
    """The part of a source that the feed needs."""

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow", /
    ) -> Iterator[tuple[str, Any]]:
        """Yield `(stream name, event)`."""
        ...


def start_reading(
    source: Readable,
    group: Sequence[Stream],
    bookmarks: Mapping[str, Bookmark | None],
    wire: str,
    make_feed: Callable[[str], Feed] | None = None,
) -> dict[str, Feed]:
    """Start the reader thread of a group; return one feed for each stream."""
    feeds = {stream.name: (make_feed or Feed)(stream.name) for stream in group}
    name = f"read-{group[0].name}"
    threading.Thread(target=_read, args=(source, group, bookmarks, wire, feeds), name=name, daemon=True).start()
    return feeds


def _read(
    source: Readable,
    group: Sequence[Stream],
    bookmarks: Mapping[str, Bookmark | None],
    wire: str,
    feeds: Mapping[str, Feed],
) -> None:
    pending: dict[str, list[Any]] = {name: [] for name in feeds}
    error: BaseException | None = None
    try:
        events = source.read(group, bookmarks, wire)
        try:
            for name, event in events:
                if isinstance(event, Ended):
                    _flush(feeds[name], pending[name], is_last=event.error is None)
                    feeds[name].end(event.error)
                    continue
                feeds[name].refuse_too_wide(event)
                if is_batch(event):
                    _flush(feeds[name], pending[name], is_last=False)
                elif isinstance(event, Stream) and pending[name] and isinstance(pending[name][-1], Stream):
                    pending[name].pop()  # no record has these columns
                pending[name].append(event)
                feeds[name].wait(event)
                if all(feed.is_closed for feed in feeds.values()):
                    return
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()
        for name, feed in feeds.items():
            _flush(feed, pending[name], is_last=True)
    except BaseException as caught:  # the load raises it in its own thread
        error = caught
        for name, feed in feeds.items():
            _flush(feed, pending[name], is_last=False)
    finally:
        for feed in feeds.values():
            feed.end(error)


def is_batch(event: Any) -> bool:
    """Return whether an event has records: a batch, or a block of a transfer format."""
    return isinstance(event, pa.RecordBatch | bytes | bytearray | memoryview)


def _flush(feed: Feed, pending: list[Any], *, is_last: bool) -> None:
    for event in pending:
        feed.put(Item(event, is_last=is_last and is_batch(event)))
    pending.clear()
