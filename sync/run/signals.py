"""SIGINT and SIGTERM while a run is under way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def caught_signals(handler: Callable[[int], None]) -> Iterator[None]:
    """Take SIGINT and SIGTERM while a run is under way (only the main thread can); restore what was there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in former:
        signal.signal(number, lambda got, _frame: handler(got))
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)
