"""Null dispatcher for pipelines without callbacks; avoids importing the real one."""

from __future__ import annotations

from collections.abc import Callable


class NullDispatcher:
    """Has the methods of `Dispatcher`, and never has anything to deliver."""

    def notify(self) -> None:
        """Do nothing."""

    def drain(
        self, timeout_s: float | None, stop: Callable[[], bool] = lambda: False, *, one_try: bool = False
    ) -> bool:
        """Return True: no delivery is open."""
        return True

    def close(self, grace_s: float = 0.0) -> None:
        """Do nothing."""
