"""Read-ahead: one thread reads a group of streams, bounded queues carry them to their loads.

The source is read one batch ahead, so that each batch knows whether it is the last of its stream: by that, and not by
the clock, the status of a block is decided when a later block fails.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from syncblocks.connectors.stream import Bookmark, Stream

from .record_size import refuse_wide

#: Batches between the reading and the loading thread, if the budget has room for them.
QUEUE_BATCHES = 2


class Budget:
    """What all streams of a run may hold in flight together, in bytes.

    A stream that has nothing in flight may always put one batch there, however large: otherwise two streams could wait
    for each other, and a record larger than the budget would never pass.
    """

    def __init__(self, limit_bytes: int, record_bytes: int = sys.maxsize) -> None:
        self.limit_bytes = limit_bytes
        #: What one record may have.
        self.record_bytes = record_bytes
        self.used_bytes = 0
        #: Guards the budget and the queues of all feeds that share it.
        self.lock = threading.Lock()
        #: There may be room again.
        self.changed = threading.Condition(self.lock)

    def has_room(self, size_bytes: int) -> bool:
        """Whether so much more may be in flight; with `changed` held."""
        return self.used_bytes + size_bytes <= self.limit_bytes


@dataclass(frozen=True, slots=True)
class Item:
    """One event of a stream; `is_last` is True for its last batch."""

    #: An event, a block of a wire format, or what a feed keeps in its place.
    event: Any
    is_last: bool = False


class Feed:
    """Bounded queue of one stream, between the group's reader and the stream's load."""

    def __init__(self, stream: str, budget: Budget | None = None, key: Sequence[str] = ()) -> None:
        """Make an empty one.

        Args:
            stream: its name.
            budget: shared by all streams of a run.
            key: columns by which a person finds a record.
        """
        self.stream = stream
        self._key = key
        self._items: deque[Item] = deque()
        self._error: BaseException | None = None
        self._is_ended = False
        self._is_closed = False
        self._budget = budget or Budget(sys.maxsize)
        self._changed = self._budget.changed
        # Told apart: many small streams at once would else wake each other with everything that arrives.
        self._arrived = threading.Condition(self._budget.lock)
        #: Of the batch that the load works on.
        self._taken_bytes = 0

    def demand_room(self, event: Any) -> None:
        """Raise for a record that is larger than all of the memory that the run may have."""
        if size_of(event) > self._budget.record_bytes:
            refuse_wide(event, self._budget.record_bytes, self._key)

    def put(self, item: Item) -> bool:
        """Hand over one event, waiting for room; False: nobody wants it any more."""
        size_bytes = size_of(item.event)
        with self._changed:
            while not (self._is_closed or self._has_room(size_bytes)):
                self._changed.wait()
            if not self._is_closed:
                self._items.append(item)
                self._budget.used_bytes += size_bytes
                self._arrived.notify_all()
            return not self._is_closed

    def wait(self, event: Any) -> None:
        """Wait until there is room for this event, which is not put yet, and another one like it.

        A source makes several copies of a wide record: it must not begin with one while the load makes its own.
        """
        size_bytes = 2 * size_of(event)
        with self._changed:
            while (self._items or self._taken_bytes) and not (self._is_closed or self._budget.has_room(size_bytes)):
                self._changed.wait()

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes, and why."""
        with self._changed:
            if not self._is_ended:
                self._is_ended, self._error = True, error
                self._arrived.notify_all()

    def close(self) -> None:
        """Stop taking events: the load is over."""
        with self._changed:
            self._is_closed = True
            self._give_back()
            self._budget.used_bytes -= sum(size_of(item.event) for item in self._items)
            self._items.clear()
            self._arrived.notify_all()
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether the load is over."""
        return self._is_closed

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._give_back()
                while not self._items and not self._is_ended and not self._is_closed:
                    self._arrived.wait()
                if self._items:
                    item = self._items.popleft()
                    self._taken_bytes = size_of(item.event)
                    self._changed.notify_all()
                elif self._error is not None:
                    raise self._error
                else:
                    return
            yield item
            del item  # a wide record would else stay while the next one is read

    def _has_room(self, size_bytes: int) -> bool:
        if not self._items and not self._taken_bytes:
            return True
        return len(self._items) < QUEUE_BATCHES and self._budget.has_room(size_bytes)

    def _give_back(self) -> None:
        """The load has asked for the next batch, or ended: it is done with the one before."""
        if self._taken_bytes:
            self._budget.used_bytes -= self._taken_bytes
            self._taken_bytes = 0
            self._changed.notify_all()


def size_of(event: Any) -> int:
    """Return the bytes that an event holds; one that lies on disk holds none."""
    if isinstance(event, pa.RecordBatch):
        return int(event.nbytes)
    return len(event) if isinstance(event, bytes | bytearray | memoryview) else 0


class Readable(Protocol):
    """The one method of a source that is needed here."""

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
    """Start the reader thread of a group; one feed a stream."""
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
    held: dict[str, list[Any]] = {name: [] for name in feeds}
    error: BaseException | None = None
    try:
        events = source.read(group, bookmarks, wire)
        try:
            for name, event in events:
                feeds[name].demand_room(event)
                if is_batch(event):
                    _flush(feeds[name], held[name], is_last=False)
                held[name].append(event)
                feeds[name].wait(event)
                if all(feed.is_closed for feed in feeds.values()):
                    return
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()
        for name, feed in feeds.items():
            _flush(feed, held[name], is_last=True)
    except BaseException as caught:  # handed to the load, which raises it in its own thread
        error = caught
        for name, feed in feeds.items():
            _flush(feed, held[name], is_last=False)
    finally:
        for feed in feeds.values():
            feed.end(error)


def is_batch(event: Any) -> bool:
    """Tell whether an event is data: a batch, or a block of a wire format."""
    return isinstance(event, pa.RecordBatch | bytes | bytearray | memoryview)


def _flush(feed: Feed, held: list[Any], *, is_last: bool) -> None:
    for event in held:
        feed.put(Item(event, is_last=is_last and is_batch(event)))
    held.clear()
