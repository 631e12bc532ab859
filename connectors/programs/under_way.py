"""Reads under way, which another thread may interrupt."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator
from typing import Protocol


class Interruptible(Protocol):
    """A process, or what stands for one."""

    def interrupt(self) -> None:
        """End it soon, from any thread."""
        ...


class ReadUnderWay:
    """One call of `read` under way; interrupting all of its streams ends it."""

    def __init__(self, streams: Collection[str]) -> None:
        self._wanted = set(streams)
        self._plugin: Interruptible | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def running(self, plugin: Interruptible) -> Iterator[None]:
        """Note the process that an interrupt ends."""
        with self._lock:
            self._plugin = plugin
            if not self._wanted:
                plugin.interrupt()
        try:
            yield
        finally:
            with self._lock:
                self._plugin = None

    def interrupt(self, stream: str) -> None:
        with self._lock:
            if stream in self._wanted:
                self._wanted.discard(stream)
                if not self._wanted and self._plugin is not None:
                    self._plugin.interrupt()

    def interrupt_all(self) -> None:
        with self._lock:
            self._wanted.clear()
            if self._plugin is not None:
                self._plugin.interrupt()
