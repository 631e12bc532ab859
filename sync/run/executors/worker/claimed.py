"""Streams claimed by this process under a nonce: for a worker's call, or a task of a mapped run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ....store.model import LostRun, StreamOutcome
from ....store.owner import current_owner
from ...progress import Progress
from ...store_calls import StoreCalls
from ..protocol import Reference
from .attempt import OpenedAttempt, unplanned_outcome

log = logging.getLogger("syncblocks")


class Claimed:
    """Run store calls under the nonce of a claim, and the ends of its streams."""

    def __init__(
        self,
        attempt: OpenedAttempt,
        reference: Reference,
        progress: Progress,
        *,
        closed: Callable[[], object] = lambda: None,
    ) -> None:
        """Close streams of an attempt; `closed` is called after each close."""
        self._attempt = attempt
        self._reference = reference
        self._closed = closed
        self.me = current_owner()
        #: Streams that belonged to another claim before they could start.
        self.refused: list[str] = []
        #: Whether a running stream was taken away.
        self.is_lost = False
        #: Whether the run starts no more streams.
        self.is_stopping = False
        #: The group that runs, and the one after it.
        self.current: Sequence[str] = reference.groups[0]
        self.following: Sequence[str] = ()
        self._has_taken = False
        calls = StoreCalls(attempt.session, attempt.store, attempt.run)
        self.context = calls.context(progress, attempt.budget, close_stream=self.close, is_owner=self._is_owner)

    def take(self, group: Sequence[str]) -> bool:
        """Take a group, unless the previous close did; return whether it may run."""
        ours, has_taken = self._reference, self._has_taken
        self._has_taken, self.current = False, group
        if not has_taken and not self._attempt.store.take_claim(ours.run_id, ours.attempt, group, ours.nonce, self.me):
            self.refused += group
            return False
        return True

    def close(self, outcome: StreamOutcome) -> None:
        """End a stream in the run store, unless it was taken away."""
        # The streams of larger groups end concurrently, so none of them is known to be the last.
        is_alone = len(self.following) == len(self.current) == 1
        take = self.following[0] if is_alone else ""
        ours = self._reference
        try:
            closed = self._attempt.store.close_stream(ours.run_id, outcome, nonce=ours.nonce, take=take, worker=self.me)
            self._closed()
        except LostRun as error:
            self.is_lost = True
            log.warning("%s: %s", outcome.stream, error)
        else:
            self.is_stopping |= closed.is_stopping and not closed.run_ended
            self._has_taken = closed.has_taken

    def close_unplanned(self, name: str, error: Exception) -> str:
        """Close a stream that cannot be planned again; return its error's text."""
        outcome, info = unplanned_outcome(self._attempt, name, error)
        self.close(outcome)
        return info.message

    def _is_owner(self) -> bool:
        ours = self._reference
        return any(self._attempt.store.holds_claim(ours.run_id, name, ours.nonce) for name in self.current)
