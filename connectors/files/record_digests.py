"""Digests of records, to tell whether two of them have the same values without holding either.

128 bits a record: its bytes weighted by random numbers of this process, which nobody can aim at. A digest is compared
within one commit and never kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.merge import comparable_bytes

#: Records that are weighted at once, and the longest ones that are: each byte becomes 16 meanwhile.
_RECORDS, _LONGEST = 4096, 1 << 16


class Digests:
    """Makes digests that can be compared with each other."""

    def __init__(self) -> None:
        self._weights = np.random.default_rng().integers(0, 1 << 64, (2, _LONGEST), np.uint64)

    def of(self, batch: pa.RecordBatch, names: Sequence[str]) -> Any:
        """Return a digest of some columns for each record: two numbers.

        Equal values of one type have equal digests; NULL is a value of its own.
        """
        if not names:
            return np.zeros((batch.num_rows, 2), np.uint64)
        parts = [self._of(batch.slice(at, _RECORDS), names) for at in range(0, batch.num_rows, _RECORDS)]
        return np.concatenate(parts) if parts else np.zeros((0, 2), np.uint64)

    def _of(self, batch: pa.RecordBatch, names: Sequence[str]) -> Any:
        pieces: list[pa.Array] = []
        for name in names:
            column = batch.column(name)
            if pa.types.is_floating(column.type) and column.type.bit_width > 16:
                column = pc.add(column, pa.scalar(0, column.type))  # -0.0 is 0.0
            value = comparable_bytes(column, name)
            length = pc.binary_length(value).cast(pa.string()).cast(pa.binary())
            pieces += [length, pa.scalar(b":", pa.binary()), value]
        joined = pc.binary_join_element_wise(
            *pieces, pa.scalar(b"", pa.binary()), null_handling="replace", null_replacement="-"
        )
        offsets = np.frombuffer(joined.buffers()[1], np.int32)[joined.offset : joined.offset + len(joined) + 1]
        begins, sizes = offsets[:-1], np.diff(offsets)
        found, short = np.empty((len(joined), 2), np.uint64), sizes <= _LONGEST
        for place in np.flatnonzero(~short):
            digest = blake2b(joined[int(place)].as_buffer(), digest_size=16).digest()
            found[place] = np.frombuffer(digest, np.uint64)
            sizes[place] = 1
        data = np.frombuffer(joined.buffers()[2], np.uint8)
        ends = np.cumsum(sizes)
        places = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)
        content = data[np.repeat(begins, sizes) + places].astype(np.uint64)
        for number, weights in enumerate(self._weights):
            found[short, number] = np.add.reduceat(content * weights[places], ends - sizes)[short]
        return found


__all__ = ["Digests"]
