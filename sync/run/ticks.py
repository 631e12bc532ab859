"""The process of a tick: started separately, it claims the tick, and keeps the claim until the run begins."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from syncblocks.connectors.errors import RetriableError

from ..config import Pipeline
from ..detached_process import start_detached
from ..errors import AlreadyRunning, ExecutorError, StoreUnreachable
from ..store import Store
from ..store.ticks import LostTick, Tick
from .lease import HEARTBEAT_S
from .recovery.fencing import ASK_AGAIN_S
from .signals import caught_signals

log = logging.getLogger("syncblocks")

#: Seconds for which a new server leaves a tick to the process that was started for it.
_OFFER_S = 30.0

#: Processes that this one has started and does not wait for.
_begun: list[subprocess.Popen[bytes]] = []


def start_unserved(pipeline: Pipeline, store: Store, tick: Tick) -> bool:
    """Start a separate process for a tick's run: it outlives this one, and waits for a running run of its pipeline.

    Returns:
        False, with nothing started, in three cases: the tick has ended; a running server takes the pipeline and starts
        it; another process has the tick or starts it.
    """
    if tick.state not in ("waiting", "claimed"):
        return False
    assert pipeline.path is not None  # for a file
    if store.is_served(pipeline.pipeline) or not store.offer_tick(tick.id, _OFFER_S):
        return False
    arguments = ["run", str(pipeline.path), "--tick", str(tick.id), "--wait"]
    _begun.append(start_detached(arguments, folder=pipeline.folder, log_file=pipeline.tick_log(tick.id)))
    return True


class TickClaim:
    """A context manager around all work on a tick. If no run has begun by then, the tick waits again or is refused.

    A signal before the run begins ends the process by `SystemExit`.
    """

    def __init__(
        self,
        store: Store,
        number: int,
        redact: Callable[[str], str],
        *,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        """Use a tick of a store; `redact` masks secrets.

        `wait` is called between two renewals with their seconds, and returns whether the claim has ended; for tests.
        """
        self._store = store
        self._number = number
        self._redact = redact
        self._ended = threading.Event()
        self._wait = wait or self._ended.wait
        self._thread = threading.Thread(target=self._renew, name="tick", daemon=True)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(caught_signals(_leave))
        return self

    def take(self) -> Tick | None:
        """Claim the tick, and renew the claim until the run begins; None: see `Ticks.claim`."""
        tick = self._store.claim_tick(self._number)
        if tick is not None:
            self._thread.start()
        return tick

    def end(self, error: BaseException | None) -> None:
        """Give the claim back, or refuse the tick. Idempotent. A tick whose run has begun stays unchanged.

        `error`: reason why no run has begun. `None` if the process was stopped.
        """
        self._ended.set()
        for wait_s in (*ASK_AGAIN_S, None):
            try:
                if not isinstance(error, Exception) or isinstance(error, AlreadyRunning | LostTick):
                    self._store.give_back_tick(self._number)
                else:
                    end = self._store.give_back_tick if _can_pass(error) else self._store.refuse_tick
                    end(self._number, self._redact(str(error) or type(error).__name__))
            except StoreUnreachable as unreachable:
                if wait_s is None:
                    log.warning("tick %s stays claimed until its lease ends: %s", self._number, unreachable)
                    return
                time.sleep(wait_s)
            else:
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stack:
            self.end(error)
            if self._thread.ident is not None:
                self._thread.join()

    def _renew(self) -> None:
        while not self._wait(HEARTBEAT_S):
            try:
                if not self._store.renew_tick(self._number):
                    return
            except Exception as error:  # the claim lasts until its lease expires
                log.warning("tick %s: the run store does not answer: %s", self._number, type(error).__name__)


def _can_pass(error: BaseException) -> bool:
    """Return true if the same start may succeed later, because something did not answer."""
    cause = error.__cause__
    silent = RetriableError | StoreUnreachable | ExecutorError | ConnectionError | TimeoutError
    return isinstance(error, silent) or (cause is not None and _can_pass(cause))


def _leave(number: int) -> None:
    raise SystemExit(128 + number)
