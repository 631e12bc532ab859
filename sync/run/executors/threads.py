"""The executor in this process: each group runs in a separate thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

from ...plan.plan import PlannedStream
from ..context import StreamContext
from ..group import run_group
from ..stream import StreamRun
from .protocol import Reference, RunningStream, Work

T = TypeVar("T")


class Threads:
    """Runs groups in threads of this process, with its connections."""

    #: As many as the pipeline allows.
    slots = None

    def __init__(self, context: StreamContext, planned: Mapping[str, PlannedStream]) -> None:
        self._context = context
        self._planned = planned

    def places(self, limit: int) -> int:
        """See `Executor`: no reference waits here."""
        return limit

    def batch_size(self, waiting: int, limit: int) -> int:
        """See `Executor`: a free thread gets its next group in the transaction that closes the previous one."""
        return 1

    def submit(self, reference: Reference, announce: Callable[[RunningStream], None]) -> Work:
        """See `Executor`."""
        group = [StreamRun(self._context, self._planned[name]) for name in reference.streams]
        for member in group:
            announce(member)
        return Work(group, in_thread(lambda: _work(group), f"stream-{group[0].name}"))

    def spread(self, limit: int) -> None:
        """See `Executor`: no group waits here."""

    def close(self) -> None:
        """See `Executor`; the session's owner closes its connections."""


def _work(group: Sequence[StreamRun]) -> None:
    if not group[0].planned.placement.is_joined:
        run_group(group)
        return
    from ..completing_groups import run_joined  # few runs need it

    run_joined(group)


def in_thread(work: Callable[[], T], name: str) -> Future[T]:
    """Work in a daemon thread: a thread that hangs in a driver must not keep the process alive."""
    future: Future[T] = Future()

    def body() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # the code that waits for the future raises it
            future.set_exception(error)

    threading.Thread(target=body, name=name, daemon=True).start()
    return future
