"""The connections of one process to one store: so few that many processes fit below the limit of a server."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from .drivers import Driver

#: Pause before another try where the server has no free connection: with jitter, doubled from the first to the last.
PAUSE_FIRST_S, PAUSE_LAST_S = 0.1, 5.0
#: A start that has had no connection at all gives up after so long. Whoever has had one waits as long as it takes.
START_S = 600.0
#: Seconds between two lines of the log while nothing changes.
SAY_AGAIN_S = 30.0

log = logging.getLogger("syncblocks")


class Pool:
    """Idle connections, and how many there may be. Thread-safe.

    Where the server has no free connection, a thread waits: for another try, or for a connection of its own process.
    So a process that has one connection goes on with it.
    """

    def __init__(self, driver: Driver, shown: str) -> None:
        """Open nothing yet; `shown` is the URL without its password."""
        self.driver = driver
        self._shown = shown
        self._changed = threading.Condition()
        #: Connections, and since when they are idle.
        self._idle: list[tuple[Any, float]] = []
        #: Idle, in use, and about to be opened.
        self._open = 0
        self._is_closed = False
        #: Whether any connection was made.
        self.has_connected = False
        #: Since when the server has refused, and how often; no try before `_again`. Monotonic times.
        self._refused_since: float | None = None
        self._refusals = 0
        self._again = 0.0
        self._said = 0.0

    def take(self) -> tuple[Any, float | None]:
        """Lend a connection; return it and the seconds that it was idle, None for a new one."""
        while True:
            with self._changed:
                while not self._idle:
                    pause_s = self._again - time.monotonic()
                    is_full = self._open >= (self.driver.most_connections or self._open + 1)
                    if not is_full and pause_s <= 0:
                        break
                    self._changed.wait(None if pause_s <= 0 else pause_s)
                else:
                    raw, since = self._idle.pop()
                    return raw, time.monotonic() - since
                self._open += 1
            try:
                raw = self.driver.connect()
            except BaseException as error:
                with self._changed:
                    self._open -= 1
                    self._changed.notify()
                    if not self.driver.is_crowded(error) or not self._waits(error):
                        raise
            else:
                with self._changed:
                    self.has_connected = True
                    self._refused_since, self._refusals = None, 0
                return raw, None

    def give(self, raw: Any) -> None:
        """Take a connection back, for its next user; after the end there is none."""
        with self._changed:
            if not self._is_closed:
                self._idle.append((raw, time.monotonic()))
                self._changed.notify()
                return
        self.drop(raw)

    def drop(self, raw: Any) -> None:
        """Close a connection that is of no use any more."""
        with contextlib.suppress(*self.driver.errors):
            raw.close()
        with self._changed:
            self._open -= 1
            self._changed.notify()

    def close(self) -> None:
        """Close the idle connections now, those in use when they are given back."""
        with self._changed:
            self._is_closed = True
            closed, self._idle = self._idle, []
        for raw, _ in closed:
            self.drop(raw)

    def _waits(self, error: BaseException) -> bool:
        """Note that the server has no free connection; return whether to try again."""
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since, self._said = now, now - SAY_AGAIN_S
        if not self.has_connected and now - self._refused_since > START_S:
            return False
        pause_s = min(PAUSE_LAST_S, PAUSE_FIRST_S * 2.0 ** min(self._refusals, 30)) * random.uniform(0.5, 1.0)
        self._refusals += 1
        self._again = now + pause_s
        if now - self._said >= SAY_AGAIN_S:
            self._said = now
            how = "continues with its one connection" if self._open else "waits for one"
            log.warning("run store %s: no free connection, this process %s: %s", self._shown, how, _last_line(error))
        return True


#: Pools of this process in use, by process and address: with their number of users.
_SHARED: dict[tuple[int, str], tuple[Pool, int]] = {}
_SHARING = threading.Lock()


def share(address: str, make: Callable[[], Pool]) -> Pool:
    """Return this process's pool for an address, made at its first use; `release` ends each use."""
    key = (os.getpid(), address)  # a child must not use what its parent opened
    with _SHARING:
        pool, users = _SHARED.get(key) or (make(), 0)
        _SHARED[key] = (pool, users + 1)
        return pool


def release(pool: Pool) -> None:
    """End a use of a pool; after the last one its connections are closed."""
    with _SHARING:
        for key, (shared, users) in list(_SHARED.items()):
            if shared is pool and users > 1:
                _SHARED[key] = (pool, users - 1)
                return
            if shared is pool:
                del _SHARED[key]
    pool.close()


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
