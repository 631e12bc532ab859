"""What a repair of one stream does, as a plan says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from syncblocks.connectors.checksums import KeyRange, Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What a repair of one stream does."""

    #: The source's, with the key.
    side: Side
    #: Ascending and disjoint; of these all records are read.
    ranges: tuple[KeyRange, ...]
    #: Keys of these ranges in the destination, named as they arrive: what does not arrive is removed; None: nothing is.
    removed: pa.Table | None


__all__ = ["Repair"]
