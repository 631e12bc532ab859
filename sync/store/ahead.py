"""Leases ahead: the transaction that makes a delivery due leases it too, to the queue of this process that waits.

So the call follows its commit at once, without a transaction of its own in between; its attempt is counted as ever
before the call, in the store. Order and gates are those of the queue: it is leased by the same statement.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from syncblocks.callbacks.delivery import Delivery

from .connection import Connection
from .database import Database

log = logging.getLogger("syncblocks.callbacks")


class Hand:
    """What one queue of an outbox has in hand. Its lock is held by who leases for it, until the lease is committed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: Whether its thread is looking, or will look again: what is leased ahead is asked for.
        self.is_waiting = False
        #: Leased ahead, and not yet asked for.
        self.ahead: Delivery | None = None
        #: Key of what was called last.
        self.called: str | None = None

    def take(self) -> Delivery | None:
        """Return what was leased ahead, which thereby counts as called; None: it may be, from now on."""
        taken, self.ahead = self.ahead, None
        self.is_waiting = taken is None
        if taken is not None:
            self.called = taken.key
        return taken


class Ahead:
    """The hands of an outbox, and the transactions that fill them."""

    def __init__(self, lease: Callable[[Connection, str], Delivery | None]) -> None:
        """`lease` leases the next due delivery of a queue, if there is one and none is leased."""
        self._lease = lease
        self._hands: dict[str, Hand] = {}

    def hand(self, callback_block: str) -> Hand:
        """Return the hand of a queue."""
        return self._hands.setdefault(callback_block, Hand())

    def hands(self) -> list[tuple[str, Hand]]:
        """Return all hands."""
        return sorted(self._hands.items())

    @contextmanager
    def around(self) -> Iterator[Callable[[Connection], None]]:
        """Enclose a transaction; yields what leases in it, to be called as its last."""
        held: list[Hand] = []

        def lease(connection: Connection) -> None:
            for block, hand in self.hands():
                # A queue that leases for itself just now waits for this very transaction, perhaps.
                if not hand.is_waiting or not hand.lock.acquire(blocking=False):
                    continue
                held.append(hand)
                hand.ahead = self._lease_or_not(connection, block)

        try:
            yield lease
        except BaseException:
            # Rolled back, or nobody knows: then the lease is found to be this outbox's own, and never called.
            for hand in held:
                hand.ahead = None
            raise
        finally:
            for hand in held:
                hand.is_waiting = hand.ahead is None
                hand.lock.release()

    def _lease_or_not(self, connection: Connection, block: str) -> Delivery | None:
        """Lease, but let no callback keep a stream from being closed: its queue looks again and says what is wrong."""
        try:
            with connection.savepoint():
                return self._lease(connection, block)
        except Exception:
            log.debug("callback block %s: not leased ahead", block, exc_info=True)
            return None


@contextmanager
def write_and_lease(database: Database, name: str, aheads: list[Ahead]) -> Iterator[Connection]:
    """Open a transaction that may make deliveries due."""
    with ExitStack() as stack:
        leases = [stack.enter_context(ahead.around()) for ahead in aheads]
        connection = stack.enter_context(database.write(name))
        yield connection
        for lease in leases:
            lease(connection)
