"""Signals of a server: it is asked to stop, or a process that it has started has ended."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType
from typing import Self

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """A context manager, for the main thread, that counts requests to stop; a signal ends `wait` at once."""

    def __init__(self) -> None:
        #: Requests to stop.
        self.stops = 0
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)

    def __enter__(self) -> Self:
        self._former = {number: signal.getsignal(number) for number in (*_STOPPING, signal.SIGCHLD)}
        if self._former[signal.SIGHUP] is signal.SIG_IGN:  # of `nohup`
            del self._former[signal.SIGHUP]
        self._former_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._former:
            signal.signal(number, self._take)
        return self

    def wait(self, seconds: float) -> None:
        """Wait for a signal, but no longer than so many seconds."""
        if select.select([self._reader], [], [], seconds)[0]:
            os.read(self._reader, 4096)

    def __exit__(self, *error: object) -> None:
        for number, before in self._former.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(self._former_writer)
        for end in (self._reader, self._writer):
            os.close(end)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.stops += number != signal.SIGCHLD
