"""The one clock: whoever needs the time or a pause is given one of these, so that tests can pass their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Wall time, monotonic time and sleep of this machine."""

    def now(self) -> datetime:
        """Return the wall time: aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never jumps."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Pause the calling thread."""
        time.sleep(seconds)
