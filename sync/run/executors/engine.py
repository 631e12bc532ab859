"""What carries calls to workers: a Dask cluster, or somebody's executor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .flight import Answer

#: Calls for each worker that runs one at a time: one that runs, and one that waits, so that it is never idle.
CALLS_A_WORKER = 2


class Engine(Protocol):
    """Carries calls of `worker.children.run_streams` to workers."""

    @property
    def slots(self) -> int:
        """Calls to have in flight at most."""
        ...

    @property
    def most_at_once(self) -> int | None:
        """How many calls its workers run at once; those that it has already never run on more. None: nobody knows."""
        ...

    def submit(self, payload: str, answered: Callable[[Answer], None]) -> Callable[[], None]:
        """Send a call; `answered` is called once, from any thread. Return what withdraws a call that still waits.

        Raises:
            ExecutorError: it cannot be sent.
        """
        ...

    @property
    def absent(self) -> str:
        """Why nobody can take a call at the moment; empty: there are workers."""
        ...

    def release(self) -> None:
        """Make all workers close their connections; wait for them, but not without end."""
        ...


class OpenedEngine(Engine, Protocol):
    """An engine that a run has opened."""

    #: Most streams that run on one machine at once: they share its memory.
    workers_on_host: int

    def close(self) -> None:
        """Leave it. Idempotent."""
        ...
