"""Claims of streams that another process runs: who has taken one, whether it lives, and whether it is to stop.

A claim carries a nonce. A worker takes the claim once, renews its lease, and closes the stream under the nonce. The
run's owner ends a claim by changing the nonce: from then on its worker closes nothing, and its commits are refused by
the token in the destination's ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from .connection import Answer, StoreConnection
from .model import RUNNING, LostRun
from .owner import Owner
from .statements import one_of
from .table_names import BLOCK_RUN, PIPELINE_RUN, STREAM_RUN
from .transactions import LATEST, Transactions, lease_end

_OF_ATTEMPT = "run_id = :run_id AND attempt = :number"
_OPEN = f"{_OF_ATTEMPT} AND status = '{RUNNING}'"
_TAKE = f"""UPDATE {STREAM_RUN} SET worker = :worker, lease_until = :lease_until
    WHERE {_OPEN} AND claim = :nonce AND worker IS NULL AND {{is_one}} RETURNING stream"""
#: Block runs start with the claim, but a stream may wait long for its worker.
_START = f"UPDATE {BLOCK_RUN} SET started_at = :started_at WHERE {_OPEN} AND {{is_one}}"
_RENEW = f"UPDATE {STREAM_RUN} SET lease_until = :lease_until WHERE {_OPEN} AND worker = :worker AND {{is_one}}"
_ASK_TO_STOP = f"UPDATE {STREAM_RUN} SET stop_reason = :reason WHERE {_OPEN} AND stop_reason IS NULL AND {{is_one}}"
_TAKE_BACK = f"""UPDATE {STREAM_RUN} SET claim = :nonce, worker = NULL
    WHERE {_OPEN} AND claim = :former AND {{is_one}} {{is_waiting}} RETURNING stream"""
_LOOK = f"""SELECT s.stream, s.status, s.claim, s.worker, s.lease_until, s.stop_reason, r.owner, r.is_active
    FROM {STREAM_RUN} s JOIN {PIPELINE_RUN} r ON r.id = s.run_id
    WHERE s.run_id = :run_id AND s.attempt = :number AND {{is_one}}"""
_HOLDS = f"""SELECT s.stream FROM {STREAM_RUN} s JOIN {PIPELINE_RUN} r ON r.id = s.run_id AND r.attempt = s.attempt
    WHERE r.id = :run_id AND r.owner = :owner AND r.is_active = TRUE
    AND s.stream = :stream AND s.status = '{RUNNING}' AND s.claim = :nonce"""
_CLAIM = f"SELECT claim FROM {STREAM_RUN} WHERE {LATEST} AND stream = :stream"


class ClaimState(Struct, frozen=True, kw_only=True):
    """How a claimed stream stands."""

    stream: str
    #: Whether it is not closed yet.
    is_open: bool
    nonce: str
    #: Whether a worker has taken it.
    is_taken: bool
    #: Whether its worker lives: its process does, and its lease is not over. True while nobody has taken it.
    is_alive: bool
    #: Why it is to stop; None: it is not.
    stop_reason: str | None
    #: Whether the run still belongs to the owner in whose name this store writes.
    is_mine: bool


class _NotTaken(Exception):
    """Undoes the transaction."""


class Claims:
    """Workers take and renew claims; the run's owner looks after them and takes them back."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def take_claim(self, run_id: int, attempt: int, streams: Collection[str], nonce: str, worker: Owner) -> bool:
        """Take claimed streams for a process; return False, with nothing changed, if not all of them can be taken.

        A claim is taken once: of two workers that an engine gave the same streams, the second gets False.
        """
        try:
            with self._transactions.write("take_claim") as connection:
                now = self._transactions.now(connection)
                taken = ask_take(connection, run_id, attempt, streams, nonce, worker, now)
                if len(taken()) != len(streams):
                    raise _NotTaken
        except _NotTaken:
            return False
        return True

    def renew_claims(self, run_id: int, attempt: int, streams: Collection[str], worker: Owner) -> None:
        """Extend the leases of streams that a process has taken; what was taken from it is passed over."""
        is_one, values = one_of("stream", streams)
        with self._transactions.write("renew_claims", is_brief=True) as connection:
            values |= {"run_id": run_id, "number": attempt, "worker": worker.encode()}
            values["lease_until"] = lease_end(self._transactions.now(connection))
            connection.run(_RENEW.format(is_one=is_one), values)

    def holds_claim(self, run_id: int, stream: str, nonce: str) -> bool:
        """Whether a stream is still this nonce's to run, and its run that of the owner of this store."""
        values = {"run_id": run_id, "owner": self._transactions.owner, "stream": stream, "nonce": nonce}
        with self._transactions.read() as connection:
            return connection.value(_HOLDS, values) is not None

    def ask_to_stop(self, run_id: int, attempt: int, streams: Collection[str], reason: str) -> None:
        """Ask the workers of streams to stop; they see it when they next look."""
        is_one, values = one_of("stream", streams)
        with self._transactions.write("ask_to_stop", is_brief=True) as connection:
            values |= {"run_id": run_id, "number": attempt, "reason": reason}
            connection.run(_ASK_TO_STOP.format(is_one=is_one), values)

    def take_back(
        self, run_id: int, attempt: int, streams: Collection[str], nonce: str, former: str, *, is_waiting: bool = False
    ) -> Sequence[str]:
        """End a claim by giving it another nonce: whoever has the former one can close nothing any more.

        Args:
            run_id: The run.
            attempt: Its attempt.
            streams: Claimed under the former nonce; those that are closed by now stay so.
            nonce: The new one.
            former: The nonce that ends.
            is_waiting: Only if no worker has taken the claim.

        Returns:
            The streams that have the new nonce: those that were open under the former one, and not taken by a worker.

        Raises:
            LostRun: this process does not own the run.
        """
        is_one, values = one_of("stream", streams)
        statement = _TAKE_BACK.format(is_one=is_one, is_waiting="AND worker IS NULL" if is_waiting else "")
        with self._transactions.write("take_back") as connection:
            self._transactions.lock_owned(connection, run_id)  # waits for a close under way
            values |= {"run_id": run_id, "number": attempt, "nonce": nonce, "former": former}
            return [str(name) for name in connection.column(statement, values)]

    def claim_states(self, run_id: int, attempt: int, streams: Collection[str]) -> Mapping[str, ClaimState]:
        """Return how streams stand, all in one statement."""
        is_one, values = one_of("stream", streams)
        with self._transactions.read() as connection:
            rows = connection.rows(_LOOK.format(is_one=is_one), {**values, "run_id": run_id, "number": attempt})
            now = self._transactions.now(connection)
        return {
            row.stream: ClaimState(
                stream=row.stream,
                is_open=row.status == RUNNING,
                nonce=row.claim or "",
                is_taken=row.worker is not None,
                is_alive=row.worker is None or self._transactions.lives(row.worker, row.lease_until, now),
                stop_reason=row.stop_reason,
                is_mine=row.is_active and row.owner == self._transactions.owner,
            )
            for row in rows
        }


def ask_take(
    connection: StoreConnection,
    run_id: int,
    attempt: int,
    streams: Collection[str],
    nonce: str,
    worker: Owner,
    now: datetime,
) -> Answer:
    """Take claimed streams for a process; the answer has a row for each that was there to take."""
    is_one, values = one_of("stream", streams)
    values |= {"run_id": run_id, "number": attempt}
    taking = {"nonce": nonce, "worker": worker.encode(), "lease_until": lease_end(now)}
    taken = connection.ask(_TAKE.format(is_one=is_one), values | taking)
    connection.run(_START.format(is_one=is_one), values | {"started_at": now})
    return taken


def ask_claim(connection: StoreConnection, run_id: int, stream: str) -> Answer:
    """Ask for the nonce of a stream of the latest attempt; `check_claim` reads it."""
    return connection.ask(_CLAIM, {"run_id": run_id, "stream": stream})


def check_claim(answer: Answer, run_id: int, stream: str, nonce: str) -> None:
    """Raise `LostRun` if a stream was taken from the worker that has this nonce."""
    if [row.claim for row in answer()] != [nonce]:
        raise LostRun(f"stream {stream!r} of run {run_id} was taken from this worker")
