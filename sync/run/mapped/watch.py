"""A task's lease on its stream and on the run, and its checks of their states."""

from __future__ import annotations

import logging

from ...store import Store
from ...store.owner import Owner
from ..executors.protocol import Reference
from ..executors.worker.claim_watch import ClaimWatch
from ..stream import StreamRun

log = logging.getLogger("syncblocks")


class TaskWatch(ClaimWatch):
    """Renews both leases, and cancels the stream when the run is cancelled, or stopped by another stream."""

    def __init__(self, store: Store, reference: Reference, me: Owner, member: StreamRun) -> None:
        super().__init__(store, reference, me)
        self._of_run = store
        self._run_id = reference.run_id
        self._attempt = reference.attempt
        self._member = member
        self.follow([member])

    def renew(self) -> None:
        """See `ClaimWatch`."""
        super().renew()
        self._of_run.renew_hold(self._run_id)

    def look(self) -> None:
        """See `ClaimWatch`."""
        super().look()
        run = self._of_run.run(self._run_id)
        if self._member.has_ended or run.attempt != self._attempt:
            return
        if run.cancel_requested:
            self._member.cancel("the run was cancelled")
        elif run.stopping:
            self._member.cancel("another stream failed, or the run was ended")

    def hang(self) -> None:
        """Abandon the stream's thread: the token prevents its commits, and the process may have other tasks."""
        self._member.abandon()
