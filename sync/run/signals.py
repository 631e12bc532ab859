"""SIGINT, SIGTERM and SIGHUP during a run: stop the run, and end the process even if a driver does not answer."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

#: Seconds after a signal until streams are ended without their threads.
STOP_S = 5.0
#: Seconds after a signal until the process ends, unless it is already delivering callbacks.
END_S = 10.0
#: Seconds after a signal until the process ends in any case.
LAST_S = 20.0
#: Seconds reserved after the callbacks, to stop them and to end the run.
CLOSE_S = 3.0
#: Seconds after a second signal until the process ends in any case.
SECOND_S = 1.0

#: Signals that stop a run. Windows has no SIGHUP, the signal of a closed terminal.
_NUMBERS = (
    (signal.SIGINT, signal.SIGTERM) if sys.platform == "win32" else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
)
_WAKE = b"\0"


class Watch:
    """Ends the process when the main thread cannot: it may be blocked in a driver that waits for the network.

    Python runs a signal handler only in the main thread, between two bytecodes. This thread reads the signal numbers
    from the wakeup pipe, which the interpreter fills at once.
    """

    def __init__(self, say: Callable[[signal.Signals], None]) -> None:
        """Start the thread. `say` is called before the process is ended, for at most one second."""
        self._say = say
        self._lock = threading.Lock()
        self._received: list[signal.Signals] = []
        #: Monotonic time of the first signal.
        self._first = 0.0
        #: Monotonic time at which the process ends; valid after the first signal.
        self._end = 0.0
        self._is_over = False
        self._reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()

    def deliver(self) -> float:
        """Allow the full time from now, and return the seconds for callbacks; a second signal still ends the process.

        There are none if the run needed its time to stop.
        """
        now = time.monotonic()
        with self._lock:
            last = (self._first if self._received else now) + LAST_S
            if len(self._received) < 2:
                self._end = last
        return max(0.0, last - CLOSE_S - now)

    def close(self) -> None:
        """End the watch."""
        with self._lock:
            self._is_over = True
        os.write(self.writer, _WAKE)
        self._thread.join()
        for end in (self._reader, self.writer):
            os.close(end)

    def _watch(self) -> None:
        while True:
            ready, _, _ = select.select([self._reader], [], [], self._rest_s())
            numbers = os.read(self._reader, 64) if ready else b""
            with self._lock:
                if self._is_over:
                    return
                for number in numbers:
                    if number in _NUMBERS:
                        self._take(signal.Signals(number))
                if self._received and time.monotonic() >= self._end:
                    self._leave()

    def _take(self, number: signal.Signals) -> None:
        self._received.append(number)
        now = time.monotonic()
        if len(self._received) == 1:
            self._first, self._end = now, max(self._end, now + END_S)
        else:
            self._end = now + SECOND_S

    def _rest_s(self) -> float | None:
        with self._lock:
            return max(0.0, self._end - time.monotonic()) if self._received else None

    def _leave(self) -> None:
        """End the process as a kill would: the next start recovers the run."""
        number = self._received[0]
        with suppress(RuntimeError):  # no more threads can start
            saying = threading.Thread(target=self._say, args=(number,), daemon=True)
            saying.start()
            saying.join(1.0)
        os._exit(128 + number)


@contextmanager
def caught_signals(
    handler: Callable[[int], None], say: Callable[[signal.Signals], None] = lambda number: None
) -> Iterator[Watch | None]:
    """Handle SIGINT, SIGTERM and SIGHUP during a run; restore the former handlers afterwards.

    An ignored SIGHUP stays ignored: `nohup` starts a run that must survive its terminal.

    Args:
        handler: called in the main thread as soon as it is free.
        say: called before the process is ended, see `Watch`.

    Yields:
        The watch; None outside of the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    former = {number: signal.getsignal(number) for number in _NUMBERS}
    if sys.platform != "win32" and former[signal.SIGHUP] is signal.SIG_IGN:
        del former[signal.SIGHUP]
    watch = Watch(say)
    former_writer = signal.set_wakeup_fd(watch.writer, warn_on_full_buffer=False)
    for number in former:
        signal.signal(number, lambda got, _frame: handler(got))
    try:
        yield watch
    finally:
        for number, before in former.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(former_writer)
        watch.close()
