"""Read-ahead: one thread reads a group of streams, bounded queues carry them to their loads.

The source is read one batch ahead, so that each batch knows whether it is the last of its stream: by that, and not by
the clock, the status of a block is decided when a later block fails.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from connectors.stream import Bookmark, Stream

#: Batches between the reading and the loading thread: memory is bounded by it.
QUEUE_BATCHES = 2


@dataclass(frozen=True, slots=True)
class Item:
    """One event of a stream; `is_last` is True for its last batch."""

    #: An event, a block of a wire format, or what a feed keeps in its place.
    event: Any
    is_last: bool = False


class Feed:
    """Bounded queue of one stream, between the group's reader and the stream's load."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._items: deque[Item] = deque()
        self._error: BaseException | None = None
        self._is_ended = False
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, item: Item) -> bool:
        """Hand over one event, waiting for room; False: nobody wants it any more."""
        with self._changed:
            while len(self._items) >= QUEUE_BATCHES and not self._is_closed:
                self._changed.wait()
            if not self._is_closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._is_closed

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes, and why."""
        with self._changed:
            if not self._is_ended:
                self._is_ended, self._error = True, error
                self._changed.notify_all()

    def close(self) -> None:
        """Stop taking events: the load is over."""
        with self._changed:
            self._is_closed = True
            self._items.clear()
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether the load is over."""
        return self._is_closed

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                while not self._items and not self._is_ended and not self._is_closed:
                    self._changed.wait()
                if self._items:
                    item = self._items.popleft()
                    self._changed.notify_all()
                elif self._error is not None:
                    raise self._error
                else:
                    return
            yield item


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
                if is_batch(event):
                    _flush(feeds[name], held[name], is_last=False)
                held[name].append(event)
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
