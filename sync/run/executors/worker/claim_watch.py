"""The lease of a worker on its running streams, and its checks of their state in the run store."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence

from ....store import Store
from ....store.owner import Owner
from ...lease import HEARTBEAT_S
from ...stream import StreamRun
from ..protocol import Reference

log = logging.getLogger("syncblocks")

#: Seconds between two looks.
POLL_S = 1.0
#: Seconds for a stream that was taken away to stop; then the process ends, since a driver hangs.
HANG_S = 10.0

#: Stop reason of a stream that was taken away.
TAKEN = "the run was taken over by another process, or the stream by the run"


class ClaimWatch:
    """Renews the leases of a group, and stops its streams when the run store demands it; a context manager."""

    def __init__(self, store: Store, reference: Reference, me: Owner) -> None:
        self._store = store
        self._reference = reference
        self._me = me
        self._members: Sequence[StreamRun] = ()
        self._renewed = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="claims", daemon=True)
        #: Time when running streams were first seen as taken away.
        self._lost_at: float | None = None

    def __enter__(self) -> ClaimWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def follow(self, members: Sequence[StreamRun]) -> None:
        """Stop these streams on request."""
        self._members = members

    def _run(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                self.look()
                if time.monotonic() - self._renewed >= HEARTBEAT_S:
                    self.renew()
                    self._renewed = time.monotonic()
            except Exception as error:  # the streams continue until their leases expire
                log.warning("the run store does not answer: %s", type(error).__name__)

    def renew(self) -> None:
        """Renew the leases."""
        ours = self._reference
        self._store.renew_claims(ours.run_id, ours.attempt, ours.streams, self._me)

    def look(self) -> None:
        """Stop the streams with a stop request, and streams taken away."""
        is_lost = self.is_lost()
        self._lost_at = None if not is_lost else self._lost_at or time.monotonic()
        if self._lost_at is not None and time.monotonic() - self._lost_at > HANG_S:
            self.hang()

    def is_lost(self) -> bool:
        """Stop streams as needed; return whether a stream that was taken away still runs."""
        ours = self._reference
        states = self._store.claim_states(ours.run_id, ours.attempt, ours.streams)
        is_lost = False
        for member in self._members:
            state = states.get(member.name)
            if member.has_ended:
                continue
            if state is None or state.nonce != ours.nonce or not state.is_mine:
                is_lost = True
                member.cancel(TAKEN)
            elif state.stop_reason is not None and state.is_open:
                member.cancel(state.stop_reason)
        return is_lost

    def hang(self) -> None:
        """End the process: a stream that was taken away does not stop."""
        log.error("a stream that was taken from this worker does not end: the process exits")
        os._exit(4)
