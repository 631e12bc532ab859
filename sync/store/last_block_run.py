"""Counters that decide index and is_last_block_run: used under the lock on the run's row, never counted from rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from .connection import StoreConnection, value_of
from .statements import update
from .table_names import BLOCK_RUN, TYPE_COUNTER
from .transactions import LATEST, LockedRun

#: Block and stream: names a block run within an attempt.
BlockRunName = tuple[str, str]

_COUNTERS = f"SELECT * FROM {TYPE_COUNTER} WHERE {LATEST}"
_SAVE_COUNTER = update(
    TYPE_COUNTER,
    "open ended unclaimed undecided_block undecided_stream",
    "run_id = :run_id AND attempt = :number AND block_type = :block_type",
)
_DECIDE = update(BLOCK_RUN, "is_last", "run_id = :run_id AND attempt = :number AND block = :block AND stream = :stream")


class TypeCounter(Struct):
    """The block runs of one block type in one attempt. Pure."""

    open: int = 0
    ended: int = 0
    unclaimed: int = 0
    #: The block run that ended last, as long as a later one may come.
    undecided: BlockRunName | None = None

    def claim(self, block_runs: int) -> BlockRunName | None:
        """Open block runs; return the block run that is now known not to be the last."""
        self.unclaimed -= block_runs
        self.open += block_runs
        return self._decide()

    def end(self, name: BlockRunName) -> tuple[int, bool | None]:
        """End a block run; return its index and its flag. The flag is None as long as a later block run may come."""
        index = self.ended
        self.ended += 1
        self.open -= 1
        if self.open:
            return index, False
        if not self.unclaimed:
            return index, True
        self.undecided = name
        return index, None

    def stop(self) -> BlockRunName | None:
        """Forbid further claims; return the block run that is now known to be the last."""
        self.unclaimed = 0
        return None if self.open else self._decide()

    def _decide(self) -> BlockRunName | None:
        name, self.undecided = self.undecided, None
        return name


def ask_counters(connection: StoreConnection, run_id: int) -> Callable[[], dict[str, TypeCounter]]:
    """Request the counters of every block type of the latest attempt; return a function that reads them."""
    answer = connection.ask(_COUNTERS, {"run_id": run_id})
    return lambda: {
        row.block_type: value_of(
            TypeCounter,
            row,
            undecided=None if row.undecided_block is None else (row.undecided_block, row.undecided_stream),
        )
        for row in answer()
    }


def save_counters(connection: StoreConnection, run: LockedRun, counters: Mapping[str, TypeCounter]) -> None:
    """Write the counters of every block type of the attempt."""
    rows = [
        {
            "run_id": run.id,
            "number": run.attempt,
            "block_type": block_type,
            "open": counter.open,
            "ended": counter.ended,
            "unclaimed": counter.unclaimed,
            "undecided_block": counter.undecided and counter.undecided[0],
            "undecided_stream": counter.undecided and counter.undecided[1],
        }
        for block_type, counter in counters.items()
    ]
    connection.run_many(_SAVE_COUNTER, rows)


def decide(connection: StoreConnection, run: LockedRun, names: Iterable[BlockRunName], *, is_last: bool) -> None:
    """Write is_last_block_run of block runs that ended before it was known."""
    rows = [
        {"run_id": run.id, "number": run.attempt, "block": block, "stream": stream, "is_last": is_last}
        for block, stream in names
    ]
    connection.run_many(_DECIDE, rows)


def stop_claims(connection: StoreConnection, run: LockedRun, counters: Mapping[str, TypeCounter], status: str) -> None:
    """Forbid further claims: a type with nothing open has its last block run. Idempotent; the caller saves both."""
    if run.stop_status is None:
        run.stop_status = status
    decide(connection, run, [name for counter in counters.values() if (name := counter.stop())], is_last=True)
