"""Signals of a server: it is asked to stop, or a process that it has started has ended."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: A server that is asked to stop while its run store does not answer ends after so many seconds.
END_S = 5.0


class Signals:
    """A context manager, for the main thread, that counts requests to stop; a signal ends `wait` at once.

    The main thread may be in a call of a driver, and runs no handler then: so a thread of its own reads the signals
    from the wakeup pipe, which the interpreter fills at once.
    """

    def __init__(self, end: Callable[[], None], end_s: float = END_S) -> None:
        """`end` is called if the main thread does not call `heard` within `end_s` after the first request to stop."""
        #: Requests to stop.
        self.stops = 0
        self._end = end
        self._end_s = end_s
        self._woken = threading.Event()
        self._heard = threading.Event()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._read, name="signals", daemon=True)

    def __enter__(self) -> Self:
        self._former = {number: signal.getsignal(number) for number in (*_STOPPING, signal.SIGCHLD)}
        if self._former[signal.SIGHUP] is signal.SIG_IGN:  # of `nohup`
            del self._former[signal.SIGHUP]
        self._former_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._former:
            signal.signal(number, _wake)
        self._thread.start()
        return self

    def wait(self, seconds: float) -> None:
        """Wait for a signal, but no longer than so many seconds."""
        self._woken.wait(seconds)
        self._woken.clear()

    def heard(self) -> None:
        """Note that the main thread has heard of the request to stop, and ends by itself."""
        self._heard.set()

    def __exit__(self, *error: object) -> None:
        for number, before in self._former.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(self._former_writer)
        self._heard.set()
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def _read(self) -> None:
        while numbers := os.read(self._reader, 4096):
            asked = sum(number in self._former and number in _STOPPING for number in numbers)
            if asked and not self.stops:
                threading.Thread(target=self._watch, name="stop", daemon=True).start()
            self.stops += asked
            self._woken.set()

    def _watch(self) -> None:
        if not self._heard.wait(self._end_s):
            self._end()


def _wake(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the wakeup pipe has the number."""
