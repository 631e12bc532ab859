"""What stands in for a `Dispatcher` where no callback block can have anything to deliver, without the import of one."""

from __future__ import annotations

from collections.abc import Callable


class Idle:
    """A dispatcher of no queues."""

    def notify(self) -> None:
        """Look into no queue."""

    def drain(
        self, timeout_s: float | None, stop: Callable[[], bool] = lambda: False, *, one_try: bool = False
    ) -> bool:
        """Return True: nothing is open."""
        return True

    def close(self, grace_s: float = 0.0) -> None:
        """Stop nothing."""
