"""Arriving keys: if they ascend, none comes twice, and the database need not search for repeated ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ...arrow import compute as pc


class KeyOrder:
    """Watches the keys of the batches: keys in ascending order are unique and need no further check."""

    def __init__(self, key: Sequence[str]) -> None:
        self._name = key[0] if len(key) == 1 else ""
        self._last: Any = None
        #: Every key so far is greater than its predecessor.
        self.is_ascending = bool(self._name)

    def note(self, batch: pa.RecordBatch) -> None:
        """Check the next batch, if this still matters."""
        if not self.is_ascending or not batch.num_rows:
            return
        keys = batch.column(self._name)
        if not pa.types.is_integer(keys.type) or keys.null_count:
            self.is_ascending = False
            return
        first, last = keys[0].as_py(), keys[-1].as_py()
        is_higher = self._last is None or first > self._last
        ascends = batch.num_rows == 1 or pc.all(pc.greater(keys.slice(1), keys.slice(0, batch.num_rows - 1))).as_py()
        self.is_ascending, self._last = is_higher and bool(ascends), last


__all__ = ["KeyOrder"]
