"""What a server does beside its turns, in threads of their own: a URL that does not answer delays no turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

#: A thread that ends has so long, else it is left alone: it is a daemon.
_END_S = 2.0
#: What computes for long is done less often, so that it has at most a tenth of a core.
_PAUSE = 9


class Every:
    """A context manager: does something each so many seconds, or less often, for the first time after them."""

    def __init__(self, seconds: float, work: Callable[[], None], *, name: str, say: Callable[[str, str], None]) -> None:
        self._seconds = seconds
        self._work = work
        self._name = name
        self._say = say
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        pause_s = self._seconds
        while not self._ended.wait(pause_s):
            start = time.thread_time()
            try:
                self._work()
            except Exception as error:  # a fault here must not end what comes after it
                if not self._ended.is_set():
                    self._say(f"{self._name}: {type(error).__name__}: {error}", "warning")
            pause_s = max(self._seconds, _PAUSE * (time.thread_time() - start))
