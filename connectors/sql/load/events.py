"""The events of a load, with a look ahead: data up to the next schema, rejected records or checkpoint."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pyarrow as pa

from ...stream import Block, Checkpoint, Event, Rejected, Stream

#: What is no data.
_MARKERS = (Checkpoint, Stream, Rejected)


class LoadEvents:
    """A peekable view of a load's events. An exception of the iterator is kept: drivers hide it behind their own."""

    def __init__(self, events: Iterator[Event | Block]) -> None:
        self._events = iter(events)
        self._next: Event | Block | None = None
        #: Looked at already, and still to come.
        self._ahead: deque[Event | Block] = deque()
        self._is_over = False
        #: What the iterator raised.
        self.error: BaseException | None = None
        #: Records (batches only) and bytes handed out since `reset`.
        self.records = 0
        self.size_bytes = 0

    def reset(self) -> None:
        """Count from zero again: a commit was made."""
        self.records = self.size_bytes = 0

    def peek(self) -> Event | Block | None:
        """Wait for the next event and leave it in place; None at the end."""
        if self._next is None and self._ahead:
            self._next = self._ahead.popleft()
        if self._next is None:
            self._next = self._fetch()
        return self._next

    def _fetch(self) -> Event | Block | None:
        if self._is_over:
            return None
        try:
            event = next(self._events, None)
        except BaseException as error:
            self.error = error
            self._is_over = True
            raise
        self._is_over = event is None
        return event

    def rest(self, most_bytes: int) -> list[Event | Block]:
        """Look ahead: return the data that is left, and the final checkpoint, where that is all and little; else []."""
        found, size_bytes = [], 0
        while size_bytes <= most_bytes and (event := self.peek()) is not None:
            found.append(event)
            self._next = None
            if isinstance(event, _MARKERS):
                break
            size_bytes += event.nbytes if isinstance(event, pa.RecordBatch) else len(event)
        self._ahead.extendleft(reversed(found))
        is_whole = bool(found) and isinstance(found[-1], Checkpoint) and found[-1].is_final
        return found if is_whole and size_bytes <= most_bytes else []

    def restart(self, rest: list[Event | Block]) -> None:
        """Let what `rest` returned come again, from its first."""
        self._next, self.error = None, None
        self._ahead = deque(rest)
        self.reset()

    def marker(self) -> Checkpoint | Stream | Rejected | None:
        """Take the next event, which is not data; None at the end."""
        event = self.peek()
        if event is None:
            return None
        assert isinstance(event, _MARKERS)
        self._next = None
        return event

    def has_data(self) -> bool:
        """Tell whether data comes next; batches without records are skipped."""
        while True:
            event = self.peek()
            if isinstance(event, pa.RecordBatch) and not event.num_rows:
                self._next = None
                continue
            return not (event is None or isinstance(event, _MARKERS))

    def data(self) -> Iterator[pa.RecordBatch | Block]:
        """Yield data up to the next marker, or the end."""
        while self.has_data():
            event, self._next = self._next, None
            assert event is not None
            if isinstance(event, pa.RecordBatch):
                self.records += event.num_rows
                self.size_bytes += event.nbytes
            else:
                assert not isinstance(event, _MARKERS)
                self.size_bytes += len(event)
            yield event
            del event  # not held while the next one is made


__all__ = ["LoadEvents"]
