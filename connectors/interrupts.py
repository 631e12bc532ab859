"""End calls under way from another thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Interrupted


class Call:
    """One read or load under way."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise `Interrupted` if the call was stopped."""
        if self._stopped.is_set():
            raise Interrupted(f"stream {self._stream!r} was interrupted", stream=self._stream)


class Calls:
    """All calls under way of one connector, by stream."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, list[Call]] = {}

    @contextmanager
    def under_way(self, stream: str) -> Iterator[Call]:
        """Register a call while the context lasts."""
        call = Call(stream)
        with self._lock:
            self._calls.setdefault(stream, []).append(call)
        try:
            yield call
        finally:
            with self._lock:
                self._calls[stream].remove(call)
                if not self._calls[stream]:
                    del self._calls[stream]

    def interrupt(self, stream: str) -> None:
        """Stop the calls of one stream."""
        with self._lock:
            for call in self._calls.get(stream, ()):
                call.stop()
