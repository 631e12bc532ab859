"""The leases of runs: renewed while their process lives; the same thread also detects `runs cancel`.

One thread serves all runs of the process in one store: it needs as many statements for a hundred runs as for one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from ..store import Store
from ..store.owner import Owner

#: Seconds between two checks for cancel requests.
POLL_S = 2.0
#: The same while a run is watched, and between two writes of its figures.
WATCHED_S = 1.0
#: Seconds between two renewals; a lease lasts 30 s by the store's clock.
HEARTBEAT_S = 10.0

log = logging.getLogger("syncblocks")


class RunLease:
    """Keeps the ownership of one run; a context manager around all work on the run."""

    def __init__(
        self,
        store: Store,
        run_id: int,
        limit_s: float | None = None,
        figures: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.store = store
        self.run_id = run_id
        #: Returns the news for watchers, as JSON.
        self.figures = figures
        self.is_watched = False
        #: The last news written for them.
        self.told: dict[str, Any] | None = None
        #: Time when the attempt is cancelled (`run_timeout_s`); None: never.
        self._end = None if limit_s is None else time.monotonic() + limit_s
        self._lost = threading.Event()
        self._cancelled = threading.Event()

    def __enter__(self) -> RunLease:
        self._beat = _BEATS.setdefault((os.getpid(), self.store.url, self.store.owner), Beat())
        self._beat.add(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._beat.remove(self)

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken the run over; this process must not write any more."""
        return self._lost.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether a user asked to cancel the run, or its time is over."""
        return self._cancelled.is_set() or self.is_late

    @property
    def is_late(self) -> bool:
        """Whether the attempt has used up its time."""
        return self._end is not None and time.monotonic() >= self._end

    def lose(self) -> None:
        """Note that the store refuses writes of this process."""
        self._lost.set()

    def cancel(self) -> None:
        """Note that a user asked to cancel the run."""
        self._cancelled.set()


class Beat:
    """The lease thread of one owner in one store; it ends with its last lease."""

    def __init__(self) -> None:
        self._leases: dict[int, RunLease] = {}
        #: Locked while the thread uses a store: a removed lease no longer lends its store.
        self._busy = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._renewed = 0.0
        #: Leases that this renewal has not reached yet.
        self._left: set[int] = set()

    def add(self, lease: RunLease) -> None:
        """Serve a lease of a run that was just begun or taken over."""
        with self._busy:
            self._leases[lease.run_id] = lease
            if self._thread is None:
                self._renewed, self._ended = time.monotonic(), threading.Event()
                self._thread = threading.Thread(target=self._run, args=(self._ended,), name="lease", daemon=True)
                self._thread.start()

    def remove(self, lease: RunLease) -> None:
        """Stop serving a lease."""
        with self._busy:
            self._leases.pop(lease.run_id, None)
            if self._leases or self._thread is None:
                return
            self._ended.set()
            ending, self._thread = self._thread, None
        ending.join()

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(WATCHED_S if self._are_watched else POLL_S):
            with self._busy:
                if ended.is_set():
                    return
                store = next(iter(self._leases.values())).store
                try:
                    self._look(store)
                    self._renew(store)
                    self._tell(store)
                except Exception as error:  # the runs continue until their leases expire
                    log.warning("%s: the run store does not answer: %s", self, type(error).__name__)

    def _look(self, store: Store) -> None:
        for run_id, standing in store.standings(self._leases).items():
            if standing.cancel_requested:
                self._leases[run_id].cancel()
            if not standing.is_mine:
                self._leases[run_id].lose()
            self._leases[run_id].is_watched = standing.is_watched

    @property
    def _are_watched(self) -> bool:
        return any(lease.is_watched for lease in list(self._leases.values()))

    def _tell(self, store: Store) -> None:
        """Write changed figures of the runs that users watch."""
        leases = [lease for lease in self._leases.values() if lease.is_watched and lease.figures is not None]
        figures = {lease.run_id: lease.figures() for lease in leases if lease.figures is not None}
        changed = {run_id: each for run_id, each in figures.items() if each != self._leases[run_id].told}
        if changed:
            store.write_progress(changed)
        for run_id, each in changed.items():
            self._leases[run_id].told = each

    def _renew(self, store: Store) -> None:
        if time.monotonic() - self._renewed >= HEARTBEAT_S:
            self._renewed = time.monotonic()
            self._left = set(self._leases)
        # A row that is locked now is tried again at the next look.
        self._left = {run_id for run_id in self._left if run_id in self._leases and not self._leases[run_id].is_lost}
        if self._left:
            self._left -= store.renew(self._left)

    def __str__(self) -> str:
        runs = sorted(self._leases)
        return f"run{'s' if len(runs) > 1 else ''} {', '.join(map(str, runs))}"


#: By process, store and owner.
_BEATS: dict[tuple[int, str, Owner], Beat] = {}
