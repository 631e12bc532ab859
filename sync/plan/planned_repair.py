"""The repair of one stream, as part of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from msgspec import Struct

if TYPE_CHECKING:
    from syncblocks.connectors.checksums import KeyRange, Side


class Repair(Struct, frozen=True, kw_only=True):
    """The ranges of keys that a repair reads again, and the keys that it removes."""

    #: The source's side of the comparison, with the key.
    side: Side
    #: Ranges to read, ascending and disjoint.
    ranges: tuple[KeyRange, ...]
    #: The destination's keys in these ranges, under their arriving names. Keys that do not arrive are removed. None:
    #: nothing is removed.
    removed: pa.Table | None
