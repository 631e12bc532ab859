"""Fields of many records of one table, found column by column in a block of messages."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ...arrow.gather import Mask, Places, pieces, values_at
from .messages import Block

_NULL, _TEXT, _UNCHANGED = b"ntu"


class Tuples:
    """One tuple of each of some messages: new ones, or old ones.

    No value is taken before it is known to lie within its message.
    """

    def __init__(self, block: Block, numbers: Places, at: Places, count: int) -> None:
        """Find the fields.

        Args:
            block: the messages.
            numbers: those that have such a tuple, ascending.
            at: where it begins in each.
            count: how many columns the table has.

        Raises:
            FatalConnectorError: a tuple has other columns, or does not keep to its message.
        """
        self._buffer = block.buffer
        ends = block.ends[numbers]
        block.check(at + 2 <= ends, "a record is cut", numbers)
        is_right = values_at(self._buffer, at, ">u2") == count
        block.check(is_right, "a record has not as many columns as its table", numbers)
        at = at + 2
        self._fields: list[tuple[Places, Places, Mask | None, Mask | None]] = []
        for _ in range(count):
            block.check(at < ends, "a record is cut", numbers)
            kinds = self._buffer[at]
            starts, has_text = at + 5, kinds == _TEXT
            lengths = values_at(self._buffer, at + 1, ">u4").astype(np.int64)
            if has_text.all():
                stops = starts + lengths
                block.check(stops <= ends, "a value is longer than its message", numbers)
                self._fields.append((starts, stops, None, None))
                at = stops
                continue
            is_unchanged = kinds == _UNCHANGED
            block.check(has_text | is_unchanged | (kinds == _NULL), "a value is neither text nor NULL", numbers)
            # What is no text has no length: its place is where it stands, so that places ascend.
            starts = np.where(has_text, starts, at + 1)
            stops = np.where(has_text, starts + lengths, at + 1)
            block.check(stops <= ends, "a value is longer than its message", numbers)
            self._fields.append((starts, stops, ~has_text, is_unchanged if is_unchanged.any() else None))
            at = stops
        #: Where each tuple ends.
        self.ends = at

    def texts(self, column: int) -> pa.Array:
        """Return a column's values as the server writes them, as bytes; NULL too where a value is unchanged."""
        starts, stops, nulls, _ = self._fields[column]
        return pieces(self._buffer, starts, stops, nulls)

    def unchanged(self, column: int) -> Mask | None:
        """Return which values the log leaves out because they are stored apart and have not changed; None: none."""
        return self._fields[column][3]


__all__ = ["Tuples"]
