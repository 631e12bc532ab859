"""index and is_last_block_run by counting, not by looking: pure, called under the run row's lock."""

from __future__ import annotations

from dataclasses import dataclass

#: Block and stream: names a block run within an attempt.
BlockRunName = tuple[str, str]


@dataclass(slots=True)
class TypeCounter:
    """The block runs of one block type in one attempt."""

    open: int = 0
    ended: int = 0
    unclaimed: int = 0
    #: The block run that ended last, while it is not yet certain whether it stays the last.
    undecided: BlockRunName | None = None

    def claim(self, block_runs: int) -> BlockRunName | None:
        """Open block runs; return the one that is thereby known not to be the last."""
        self.unclaimed -= block_runs
        self.open += block_runs
        return self._decide()

    def end(self, name: BlockRunName) -> tuple[int, bool | None]:
        """End a block run; return its index, and its flag: None if it is not yet certain."""
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
        """Nothing will be claimed any more; return the block run that is thereby known to be the last."""
        self.unclaimed = 0
        return None if self.open else self._decide()

    def _decide(self) -> BlockRunName | None:
        name, self.undecided = self.undecided, None
        return name
