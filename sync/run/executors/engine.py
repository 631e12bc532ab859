"""What carries calls to workers: a Dask cluster, or somebody's executor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from ...errors import ExecutorError
from .flight import Answer

log = logging.getLogger("syncblocks")

#: Calls for each worker that runs one at a time: one that runs, and one that waits, so that it is never idle.
CALLS_A_WORKER = 2


#: Sends a call, with the archive of the pipeline's code or without; see `Engine.submit`.
Send = Callable[[Callable[[Answer], None], bytes | None], Callable[[], None]]


def sent_with_code(send: Send, archive: bytes, answered: Callable[[Answer], None]) -> Callable[[], None]:
    """Send a call, and once more with the archive where its worker lacks it; return what withdraws the call.

    Raises:
        ExecutorError: it cannot be sent.
    """

    def first(answer: Answer) -> None:
        if answer is not None and "missing" in answer:
            try:
                withdrawals.append(send(answered, archive))
                return
            except ExecutorError as error:
                log.debug("not sent again", exc_info=error)
        answered(answer)

    withdrawals: list[Callable[[], None]] = []
    withdrawals.append(send(first, None))

    def withdraw() -> None:
        for each in withdrawals:
            each()

    return withdraw


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
