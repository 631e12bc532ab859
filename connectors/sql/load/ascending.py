"""Keys that arrive in ascending order are unique: that is seen on the way, and spares a look at all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ...arrow import compute as pc


class Ascent:
    """Watches the key of the batches of one replacement."""

    def __init__(self, key: Sequence[str]) -> None:
        self._name = key[0] if len(key) == 1 else ""
        self._last: Any = None
        #: Every key so far is greater than the one before it.
        self.is_strict = bool(self._name)

    def note(self, batch: pa.RecordBatch) -> None:
        """Look at the next batch, if it still matters."""
        if not self.is_strict or not batch.num_rows:
            return
        keys = batch.column(self._name)
        if not pa.types.is_integer(keys.type) or keys.null_count:
            self.is_strict = False
            return
        first, last = keys[0].as_py(), keys[-1].as_py()
        is_higher = self._last is None or first > self._last
        ascends = batch.num_rows == 1 or pc.all(pc.greater(keys.slice(1), keys.slice(0, batch.num_rows - 1))).as_py()
        self.is_strict, self._last = is_higher and bool(ascends), last


__all__ = ["Ascent"]
