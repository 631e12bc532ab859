"""Runs that go on although their `run_timeout_s` is over: a run cancels itself, unless its process hangs."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable

from ..clock import Clock
from ..store.owner import Owner
from ..store.servers import LateRun

#: A run has so long to cancel itself, and again so long after SIGTERM.
PATIENCE_S = 60.0


class LateRuns:
    """Ends the processes of late runs that are visible from here."""

    def __init__(
        self, send: Callable[[Owner, signal.Signals], bool], clock: Clock, say: Callable[[str, str], None]
    ) -> None:
        """Use what sends a signal to a process, and returns False if the process is not visible."""
        self._send = send
        self._clock = clock
        self._say = say
        #: Run and attempt -> when its process gets SIGKILL, monotonic.
        self._kill_at: dict[tuple[int, int], float] = {}

    def end(self, late: Iterable[LateRun]) -> None:
        """Send SIGTERM to the process of each run that had its time, and SIGKILL to those that outlived it."""
        now = self._clock.monotonic()
        runs = {(run.id, run.attempt): run for run in late if run.late_s >= PATIENCE_S}
        self._kill_at = {key: at for key, at in self._kill_at.items() if key in runs}
        for key, run in runs.items():
            if key not in self._kill_at:
                self._kill_at[key] = now + PATIENCE_S
                self._end(run, signal.SIGTERM)
            elif now >= self._kill_at[key]:
                self._kill_at[key] = math.inf
                self._end(run, signal.SIGKILL)

    def _end(self, run: LateRun, number: signal.Signals) -> None:
        what = f"{run.pipeline}: run {run.id} goes on {run.late_s:.0f} s after its run_timeout_s"
        try:
            if self._send(run.owner, number):
                self._say(f"{what}: {number.name} to {run.owner}", "warning")
        except OSError as error:
            self._say(f"{what}: {run.owner} cannot be stopped: {error.strerror or error}", "warning")
