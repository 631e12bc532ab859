"""Ranges of a stream that this process leads, carried to workers one call each, and looked after in the run store.

The stream's claim, token, commit and close stay here. A worker that dies leaves its transaction to the destination,
which rolls it back; the ledger of ranges knows which ranges have arrived, whatever a worker has answered.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from syncblocks.connectors.errors import RetriableError
from syncblocks.connectors.ranges import WorkerLost

from ...errors import ExecutorError, SyncError
from ...store import Store
from ...store.model import PipelineRun
from ..range_order import RangeOrder
from .engine import Engine
from .flight import Answer
from .protocol import Reference
from .range_answer import error_of

log = logging.getLogger("syncblocks")

#: Seconds between two looks at a range that is under way.
POLL_S = 0.5
#: How often a range is sent that no worker has taken.
TRIES = 4


class RangeCalls:
    """Has ranges loaded by workers. Any thread may call it, for several ranges at once."""

    def __init__(self, engine: Engine, store: Store, run: PipelineRun) -> None:
        self._engine = engine
        self._store = store
        self._run = run
        self._has_begun = False

    def load(self, order: RangeOrder, check: Callable[[], None]) -> None:
        """Have a worker load a range; return when it says that it has.

        Args:
            order: names the range.
            check: raises when the load is to stop; then the worker stops soon, too.

        Raises:
            RangeFailed: the worker has raised this.
            WorkerLost: nobody knows what became of the worker.
            RetriableError: its process has died.
            SyncError: no worker can load it.
        """
        if not self._has_begun:  # few runs need it, and those it does no harm twice
            self._has_begun = True
            self._store.forget_ranges()
        for _ in range(TRIES):
            if (answer := self._call(order, check)) is not None:
                break
        else:
            raise SyncError(f"no worker has loaded range {order.part.label}: the engine has lost it again and again")
        if answer.get("refused"):  # an engine sends the calls of a worker that dies to another one
            raise WorkerLost("the engine has lost the worker")
        if "died" in answer:
            raise RetriableError(str(answer["died"]))
        if "failed" in answer:
            raise error_of(answer["failed"])
        if answer.get("problem"):
            raise SyncError(f"no worker has loaded range {order.part.label}: {answer['problem']}")

    def _call(self, order: RangeOrder, check: Callable[[], None]) -> Answer:
        """Send a range once and wait; None: the engine has lost it before a worker took it."""
        run, nonce = self._run, secrets.token_hex(16)
        reference = Reference(
            run_id=run.id, attempt=run.attempt, groups=((order.stream,),), nonce=nonce, place=order.part.place
        )
        self._store.offer_range(run.id, run.attempt, order.stream, nonce, order.encode())
        answers = SimpleQueue[Answer]()
        withdraw: Callable[[], Any] = lambda: None  # noqa: E731 -- until the engine gives another
        try:
            withdraw = self._engine.submit(reference.encode(), answers.put)
            return self._wait(order, nonce, answers, check)
        finally:
            withdraw()
            with suppress(SyncError):  # then its worker goes on: what it loads counts once
                self._store.end_range(nonce)

    def _wait(self, order: RangeOrder, nonce: str, answers: SimpleQueue[Answer], check: Callable[[], None]) -> Answer:
        was_dead = False
        while True:
            with suppress(Empty):
                if (answer := answers.get(timeout=POLL_S)) is None and self._store.range_state(nonce).is_taken:
                    raise WorkerLost("the engine has lost the worker")
                return answer
            check()
            try:
                state = self._store.range_state(nonce)
            except SyncError as error:  # the run's lease in the same store bounds this
                log.warning("a range of %s cannot be looked after: %s", order.stream, type(error).__name__)
                continue
            # Its worker tells of a process that has died, which is known to hold no locks any more.
            if not state.is_alive and was_dead:
                raise WorkerLost("the process of the worker died, or was cut off for too long")
            was_dead = not state.is_alive
            if not state.is_taken and (absent := self._engine.absent):
                raise ExecutorError(f"no worker has loaded range {order.part.label}: {absent}")
