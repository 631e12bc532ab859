"""Transports calls to workers: a Dask cluster, or a given executor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from ...errors import ExecutorError
from .flight import Answer

log = logging.getLogger("syncblocks")

#: Calls for each worker that runs one at a time: one running and one waiting, so that it is never idle.
CALLS_A_WORKER = 2


#: Sends a call, with or without the archive of the pipeline's code; see `Engine.submit`.
Send = Callable[[Callable[[Answer], None], bytes | None], Callable[[], None]]


def sent_with_code(send: Send, archive: bytes, answered: Callable[[Answer], None]) -> Callable[[], None]:
    """Send a call, and again with the archive if its worker lacks it; return the function that withdraws the call.

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
    """Transports calls of `worker.children.run_streams` to workers."""

    @property
    def slots(self) -> int:
        """Maximum of calls in flight."""
        ...

    @property
    def most_at_once(self) -> int | None:
        """Number of calls that its workers run at once; running calls never move to new workers. None: unknown."""
        ...

    def submit(self, payload: str, answered: Callable[[Answer], None]) -> Callable[[], None]:
        """Send a call.

        `answered` is called once, from any thread. Return the function that withdraws a call that still waits.

        Raises:
            ExecutorError: it cannot be sent.
        """
        ...

    @property
    def absent(self) -> str:
        """Reason why no worker can take a call now; empty: there are workers."""
        ...

    def release(self) -> None:
        """Make all workers close their connections; wait for them, with a limit."""
        ...


class OpenedEngine(Engine, Protocol):
    """An engine that a run has opened."""

    #: Maximum of streams on one machine at once: they share its memory.
    workers_on_host: int

    def close(self) -> None:
        """Disconnect. Idempotent."""
        ...
