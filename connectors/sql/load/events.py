"""The events of a load, with a look ahead: data up to the next schema, rejected records or checkpoint."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pyarrow as pa

from ...stream import Block, Checkpoint, Event, Rejected, Stream

#: Events other than data.
_MARKERS = (Checkpoint, Stream, Rejected)


class LoadEvents:
    """Iterates over a load's events.

    Keeps the exception of the iterator: drivers raise errors of their own instead of it.
    """

    def __init__(self, events: Iterator[Event | Block]) -> None:
        self._events = iter(events)
        #: Taken out of the iterator, not yet returned.
        self._ahead: deque[Event | Block] = deque()
        self._is_over = False
        #: Exception of the iterator.
        self.error: BaseException | None = None
        #: Records (batches only) and bytes returned since `reset`.
        self.records = 0
        self.size_bytes = 0

    def reset(self) -> None:
        """Count from zero again: a transaction begins."""
        self.records = self.size_bytes = 0

    def peek(self) -> Event | Block | None:
        """Wait for the next event and leave it in place; None at the end."""
        if not self._ahead and not self._is_over:
            try:
                event = next(self._events, None)
            except BaseException as error:
                self.error = error
                self._is_over = True
                raise
            if event is None:
                self._is_over = True
            else:
                self._ahead.append(event)
        return self._ahead[0] if self._ahead else None

    def rest(self, most_bytes: int) -> list[Event | Block]:
        """Look ahead: return the remaining data and the final checkpoint if the data is at most this much; else []."""
        found, size_bytes = [], 0
        while size_bytes <= most_bytes and (event := self.peek()) is not None:
            found.append(self._ahead.popleft())
            if isinstance(event, _MARKERS):
                break
            size_bytes += event.nbytes if isinstance(event, pa.RecordBatch) else len(event)
        self._ahead.extendleft(reversed(found))
        is_whole = bool(found) and isinstance(found[-1], Checkpoint) and found[-1].is_final
        return found if is_whole and size_bytes <= most_bytes else []

    def restart(self, rest: list[Event | Block]) -> None:
        """Go back to the first event that `rest` returned."""
        self.error = None
        self._ahead = deque(rest)
        self.reset()

    def marker(self) -> Checkpoint | Stream | Rejected | None:
        """Take the next event, which is not data; None at the end."""
        event = self.peek()
        if event is None:
            return None
        assert isinstance(event, _MARKERS)
        self._ahead.popleft()
        return event

    def has_data(self) -> bool:
        """Tell whether data comes next; batches without records are skipped."""
        while isinstance(event := self.peek(), pa.RecordBatch) and not event.num_rows:
            self._ahead.popleft()
        return not (event is None or isinstance(event, _MARKERS))

    def data(self) -> Iterator[pa.RecordBatch | Block]:
        """Yield data up to the next marker, or the end."""
        while self.has_data():
            event = self._ahead.popleft()
            if isinstance(event, pa.RecordBatch):
                self.records += event.num_rows
                self.size_bytes += event.nbytes
            else:
                assert not isinstance(event, _MARKERS)
                self.size_bytes += len(event)
            yield event
            del event  # free its memory before the next one arrives


__all__ = ["LoadEvents"]
