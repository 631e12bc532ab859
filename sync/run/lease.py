"""The lease of a run: renewed while its process lives; its thread also notices `runs cancel`."""

from __future__ import annotations

import logging
import threading
import time

from ..store import Store

#: Seconds between two looks for a request to cancel.
POLL_S = 0.5
#: Seconds between two renewals; the lease lasts 30 s by the store's clock.
HEARTBEAT_S = 10.0

log = logging.getLogger("syncblocks")


class Lease:
    """Keeps the ownership of one run; a context manager around all work on the run."""

    def __init__(self, store: Store, run_id: int) -> None:
        self._store = store
        self._run_id = run_id
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken the run over; this process must write nothing more."""
        return self._lost.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked to cancel the run."""
        return self._cancelled.is_set()

    def lose(self) -> None:
        """Note that the store refused a write of this process."""
        self._lost.set()

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(POLL_S):
            try:
                if self._store.cancel_requested(self._run_id):
                    self._cancelled.set()
                if time.monotonic() - renewed >= HEARTBEAT_S:
                    renewed = time.monotonic()
                    if not self._store.renew(self._run_id).is_mine:
                        self._lost.set()
                        return
            except Exception as error:  # the run goes on until the lease expires
                log.warning("run %s: the run store does not answer: %s", self._run_id, type(error).__name__)
