"""The engine for any `concurrent.futures.Executor`: threads, processes, or a third-party pool."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial

from ...config import Pipeline
from ...errors import ExecutorError
from .bundle import pack
from .engine import CALLS_A_WORKER, sent_with_code
from .flight import Answer
from .worker.children import run_streams

log = logging.getLogger("syncblocks")


class FuturesEngine:
    """Sends references by `Executor.submit`; the first call without the code sends the code too. See `Engine`.

    The caller owns the executor and shuts it down.
    """

    def __init__(self, executor: Executor, pipeline: Pipeline) -> None:
        self._executor = executor
        self._bundle = pack(pipeline)
        workers = vars(executor).get("_max_workers")  # for Python's own executors
        self._most = int(workers) if isinstance(workers, int) and workers > 0 else None
        self._workers = self._most or os.cpu_count() or 1
        #: They may all be on this machine.
        self.workers_on_host = self._workers

    @property
    def slots(self) -> int:
        """See `Engine`."""
        return CALLS_A_WORKER * self._workers

    @property
    def most_at_once(self) -> int | None:
        """See `Engine`."""
        return self._most

    @property
    def absent(self) -> str:
        """See `Engine`: an executor does not report it."""
        return ""

    def submit(self, payload: str, answered: Callable[[Answer], None]) -> Callable[[], None]:
        """See `Engine`."""
        return sent_with_code(partial(self._send, payload), self._bundle.archive, answered)

    def _send(self, payload: str, answered: Callable[[Answer], None], archive: bytes | None) -> Callable[[], None]:
        try:
            future = self._executor.submit(run_streams, self._bundle.name, payload, archive)
        except Exception as error:
            raise ExecutorError(f"the executor takes no work: {type(error).__name__}") from error

        def done(ended: Future[str | None]) -> None:
            answer: Answer = None
            try:
                text = ended.result()
                answer = {} if text is None else json.loads(text)
            except BaseException as error:  # CancelledError is not an Exception
                log.debug("an answer was lost", exc_info=error)
            answered(answer)

        future.add_done_callback(done)

        def withdraw() -> None:
            future.cancel()

        return withdraw

    def release(self) -> None:
        """See `Engine`: workers cannot be reached directly; the children close their connections after the attempt."""

    def close(self) -> None:
        """See `OpenedEngine`."""
