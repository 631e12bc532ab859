"""Decides whether a stream gets another attempt, and what the attempt costs."""

from __future__ import annotations

import logging
import threading

from syncblocks.connectors.errors import TableLost, TakenOver
from syncblocks.connectors.ranges import RangesRefused

from ..plan.plan import PlannedStream
from .context import StreamContext

log = logging.getLogger("syncblocks")


class Retries:
    """The retries of one stream in one attempt of the run. The caller asks only while the stream is not cancelled."""

    def __init__(self, context: StreamContext, planned: PlannedStream, losses: int) -> None:
        """Count from the start of the run's attempt.

        Args:
            context: context of the run.
            planned: plan of the stream.
            losses: number of processes that died with the stream in this attempt of the run. Each costs a retry.
        """
        self._context = context
        self._planned = planned
        self._losses = losses
        self._lock = threading.Lock()
        #: Number of retries that ranges have used.
        self._of_ranges = 0
        #: The first loss of the table, or of the stream to another run. The next attempt costs no retry.
        self._loss: TableLost | TakenOver | None = None
        #: True if the next attempt takes the stream back from another run.
        self._takes_back = False
        #: True if the next attempt reads by ranges.
        self.reads_ranges = planned.reading.readers > 1 and planned.repair is None

    def number(self, attempt: int) -> int:
        """Return the number of an attempt among all attempts of the run's attempt.

        A process that is only frozen may still write under the tokens of its own attempts.
        """
        return self._losses * self._planned.tries + attempt

    def take_back(self) -> bool:
        """Return true once if the attempt takes the stream back from another run."""
        takes_back, self._takes_back = self._takes_back, False
        return takes_back

    def is_free(self, error: BaseException) -> bool:
        """Return true if the next attempt costs no retry, because ranges were refused, or something was lost once.

        A run can lose its table, or a stream to another run that started at the same time. If each of the two runs
        has taken streams from the other one, both would fail. See `taken_streams.py`.
        """
        name = self._planned.name
        if isinstance(error, TableLost) and self._loss is None:
            log.warning("%s: begun anew: %s", name, error)
            self._loss = error
        if isinstance(error, TakenOver) and self._loss is None and self._takes_streams_back():
            log.warning("%s: begun again: %s", name, error)
            self._loss, self._takes_back = error, True
        if isinstance(error, RangesRefused) and self.reads_ranges:
            log.warning("%s: read as a whole, not by ranges: %s", name, error)
            self.reads_ranges = False
        return isinstance(error, RangesRefused) or error is self._loss

    def _takes_streams_back(self) -> bool:
        return self._context.is_owner() and self._context.takes_streams_back()

    def is_left(self, attempt: int) -> bool:
        """Return true if another retry is left after an attempt."""
        was_refused = self._planned.reading.readers > 1 and not self.reads_ranges
        free = was_refused + (self._loss is not None)
        return attempt + self._of_ranges + self._losses <= self._planned.policy.retries + free

    def take_for_range(self, attempt: int) -> bool:
        """Use one of the stream's retries for a range. Return false if none is left."""
        with self._lock:
            if not self.is_left(attempt):
                return False
            self._of_ranges += 1
            return True


__all__ = ["Retries"]
