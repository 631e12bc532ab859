"""An outbox in memory, for tests of the dispatcher."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

from syncblocks.callbacks.protocols import Delivery, LeaseResult, NotDue, NothingOpen, Outcome
from syncblocks.callbacks.testing import make_event
from syncblocks.connectors.struct_helpers import replace


class MemoryOutbox:
    """Queues of deliveries; a failed one is due again after backoff_s until its attempts are used up."""

    def __init__(self, *, backoff_s: float = 0.0) -> None:
        self.backoff_s = backoff_s
        self.outcomes: list[tuple[Delivery, Outcome, str]] = []
        self._lock = threading.Lock()
        self._open: dict[str, list[tuple[float, Delivery]]] = {}

    def add(self, *deliveries: Delivery, due_in_s: float = 0.0) -> None:
        with self._lock:
            for delivery in deliveries:
                queue = self._open.setdefault(delivery.callback_block, [])
                queue.append((time.monotonic() + due_in_s, delivery))

    def lease(self, callback_block: str) -> LeaseResult:
        with self._lock:
            queue = self._open.get(callback_block, [])
            now = time.monotonic()
            for place, (due, delivery) in enumerate(queue):
                if due <= now:
                    leased = replace(delivery, attempt=delivery.attempt + 1)
                    del queue[place]
                    return leased
            return NotDue(min(due for due, _ in queue) - now) if queue else NothingOpen()

    def mark(self, delivery: Delivery, outcome: Outcome) -> str:
        verdict = "done" if outcome.ok else "retry" if delivery.attempt < delivery.attempts else "dead"
        with self._lock:
            self.outcomes.append((delivery, outcome, verdict))
            if verdict == "retry":
                queue = self._open.setdefault(delivery.callback_block, [])
                queue.insert(0, (time.monotonic() + self.backoff_s, delivery))
        return verdict

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """(function, kind) of what was marked, in order."""
        return [(delivery.function, outcome.kind) for delivery, outcome, _ in self.outcomes]

    def outcome(self, function: str) -> Outcome:
        """The last outcome of a function."""
        return [outcome for delivery, outcome, _ in self.outcomes if delivery.function == function][-1]


_keys = itertools.count()


def delivery(
    file: Path,
    function: str,
    *,
    block: str = "alerts",
    attempts: int = 1,
    timeout_s: float = 20.0,
    data: Path | None = None,
    status: str = "success",
    **event: Any,
) -> Delivery:
    """One delivery that was never tried."""
    return Delivery(
        key=f"key-{next(_keys)}",
        callback_block=block,
        function=function,
        file=str(file),
        attempt=0,
        attempts=attempts,
        timeout_s=timeout_s,
        kwargs=make_event(status, **event),
        data=None if data is None else str(data),
        label=f"export_memory:{event.get('stream', 'users')}",
    )
