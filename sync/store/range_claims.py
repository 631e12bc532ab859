"""Claims of ranges: one for each range of a stream that a worker loads for the process that has claimed the stream.

The stream's own claim stays with that process, and so do its token, its commit and its close. The claim of a range only
tells who loads it, whether he lives, and when he is to stop: once the claim is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from .owner import Owner
from .runs import lease_end
from .statements import insert
from .table_names import PIPELINE_RUN, RANGE_CLAIM
from .transactions import Transactions

_OFFER = insert(RANGE_CLAIM, "nonce run_id attempt stream range_order")
#: Of a run that is still that of the owner in whose name this store writes.
_OWNED = f"""EXISTS (SELECT 1 FROM {PIPELINE_RUN} r WHERE r.id = {RANGE_CLAIM}.run_id
    AND r.attempt = {RANGE_CLAIM}.attempt AND r.owner = :owner AND r.is_active = TRUE)"""
_TAKE = f"""UPDATE {RANGE_CLAIM} SET worker = :worker, lease_until = :lease_until
    WHERE nonce = :nonce AND run_id = :run_id AND attempt = :number AND worker IS NULL AND {_OWNED}
    RETURNING range_order"""
_RENEW = f"""UPDATE {RANGE_CLAIM} SET lease_until = :lease_until
    WHERE nonce = :nonce AND worker = :worker AND {_OWNED} RETURNING nonce"""
_HOLDS = f"SELECT nonce FROM {RANGE_CLAIM} WHERE nonce = :nonce AND worker = :worker AND {_OWNED}"
_LOOK = f"SELECT worker, lease_until FROM {RANGE_CLAIM} WHERE nonce = :nonce"
_END = f"DELETE FROM {RANGE_CLAIM} WHERE nonce = :nonce"
_FORGET = f"""DELETE FROM {RANGE_CLAIM} WHERE NOT EXISTS
    (SELECT 1 FROM {PIPELINE_RUN} r WHERE r.id = {RANGE_CLAIM}.run_id AND r.is_active = TRUE
    AND r.attempt = {RANGE_CLAIM}.attempt)"""


class RangeState(Struct, frozen=True, kw_only=True):
    """How a claimed range stands."""

    #: Whether a worker has taken it.
    is_taken: bool
    #: Whether its worker lives: its process does, and its lease is not over. True while nobody has taken it.
    is_alive: bool


class RangeClaims:
    """The process that leads a stream's load offers ranges and ends their claims; workers take and renew them."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def offer_range(self, run_id: int, attempt: int, stream: str, nonce: str, order: Mapping[str, Any]) -> None:
        """Offer a range to whoever comes with the nonce; `order` is JSON that says which one."""
        row = {"nonce": nonce, "run_id": run_id, "attempt": attempt, "stream": stream, "range_order": dict(order)}
        with self._transactions.write("offer_range", is_brief=True) as connection:
            connection.run(_OFFER, row)

    def take_range(self, run_id: int, attempt: int, nonce: str, worker: Owner) -> Mapping[str, Any] | None:
        """Take an offered range, and return its order; None: it was taken before, or its claim has ended."""
        with self._transactions.write("take_range", is_brief=True) as connection:
            values = {"nonce": nonce, "run_id": run_id, "number": attempt, "owner": self._transactions.owner}
            taking = {"worker": worker.encode(), "lease_until": lease_end(self._transactions.now(connection))}
            for row in connection.rows(_TAKE, values | taking):
                return dict(row.range_order)
        return None

    def renew_range(self, nonce: str, worker: Owner) -> bool:
        """Extend the lease of a range; False: its claim has ended."""
        with self._transactions.write("renew_range", is_brief=True) as connection:
            lease_until = lease_end(self._transactions.now(connection))
            values = {"nonce": nonce, "worker": worker.encode(), "owner": self._transactions.owner}
            return bool(connection.rows(_RENEW, values | {"lease_until": lease_until}))

    def holds_range(self, nonce: str, worker: Owner) -> bool:
        """Whether a range is still this process's to load."""
        values = {"nonce": nonce, "worker": worker.encode(), "owner": self._transactions.owner}
        with self._transactions.read() as connection:
            return bool(connection.rows(_HOLDS, values))

    def range_state(self, nonce: str) -> RangeState:
        """Return how an offered range stands; one whose claim has ended is not alive."""
        with self._transactions.read() as connection:
            rows = connection.rows(_LOOK, {"nonce": nonce})
            now = self._transactions.now(connection)
        for row in rows:
            is_taken = row.worker is not None
            is_alive = not is_taken or self._transactions.lives(row.worker, row.lease_until, now)
            return RangeState(is_taken=is_taken, is_alive=is_alive)
        return RangeState(is_taken=True, is_alive=False)

    def end_range(self, nonce: str) -> None:
        """End the claim of a range: whoever has taken it stops soon, whoever comes later does nothing."""
        with self._transactions.write("end_range", is_brief=True) as connection:
            connection.run(_END, {"nonce": nonce})

    def forget_ranges(self) -> None:
        """Remove the claims of attempts that are over: their process has died."""
        with self._transactions.write("forget_ranges", is_brief=True) as connection:
            connection.run(_FORGET, {})
