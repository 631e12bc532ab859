"""The repair of one stream, as part of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from syncblocks.connectors.checksums import KeyRange, Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The ranges of keys that a repair reads again, and the keys that it removes."""

    #: The source's side of the comparison, with the key.
    side: Side
    #: Ranges to read, ascending and disjoint.
    ranges: tuple[KeyRange, ...]
    #: The destination's keys in these ranges, under their arriving names. Keys that do not arrive are removed. None:
    #: nothing is removed.
    removed: pa.Table | None
