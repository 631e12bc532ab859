"""Prefetch: the transaction that makes a delivery due also leases it to the queue that waits for it.

The callback is then called right after that commit, without another transaction in between. Its attempt is counted in
the store before the call, as always. Order and gates stay those of the queue: the same statement leases.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from syncblocks.callbacks.protocols import Delivery

from .connection import StoreConnection


class PrefetchSlot:
    """The prefetched delivery of one queue. A thread that leases for the queue holds `lock` until the commit."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: Whether the queue's thread looks now or will look again, so a prefetched delivery will be taken.
        self.is_waiting = False
        #: A leased delivery that the queue has not taken yet.
        self.delivery: Delivery | None = None
        #: Key of the delivery that was taken last.
        self.called: str | None = None

    def take(self) -> Delivery | None:
        """Take the prefetched delivery; it then counts as called. None: from now on one may be prefetched."""
        taken, self.delivery = self.delivery, None
        self.is_waiting = taken is None
        if taken is not None:
            self.called = taken.key
        return taken


class Prefetch:
    """The slots of an outbox, and the transactions that fill them."""

    def __init__(self, lease: Callable[[StoreConnection, str], Delivery | None]) -> None:
        """`lease` leases the next due delivery of a queue, if there is one and the queue has no lease."""
        self._lease = lease
        self._slots: dict[str, PrefetchSlot] = {}

    def slot(self, callback_block: str) -> PrefetchSlot:
        """Return the slot of a queue."""
        return self._slots.setdefault(callback_block, PrefetchSlot())

    def slots(self) -> list[tuple[str, PrefetchSlot]]:
        """Return all slots, by queue."""
        return sorted(self._slots.items())

    @contextmanager
    def around(self) -> Iterator[Callable[[StoreConnection], None]]:
        """Enclose a transaction; yield the function that leases, to be called as its last statement."""
        locked: list[PrefetchSlot] = []

        def lease(connection: StoreConnection) -> None:
            for block, slot in self.slots():
                # A queue that is leasing for itself may wait for this very transaction.
                if not slot.is_waiting or not slot.lock.acquire(blocking=False):
                    continue
                locked.append(slot)
                # A callback must not prevent the close of a stream. The queue will meet the same error itself.
                slot.delivery = connection.tried(partial(self._lease, connection, block))

        try:
            yield lease
        except BaseException:
            # The transaction was rolled back, or its end is unknown: the queue then voids this lease of its own outbox.
            for slot in locked:
                slot.delivery = None
            raise
        finally:
            for slot in locked:
                slot.is_waiting = slot.delivery is None
                slot.lock.release()
