"""The clock, passed to all code that needs the time or a pause; tests pass their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Wall time, monotonic time and sleep of this machine."""

    def now(self) -> datetime:
        """Return the wall time, aware and in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since a fixed moment; never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Pause the calling thread."""
        time.sleep(seconds)
