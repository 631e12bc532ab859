"""Ranges: several readers read one large stream, and several loaders load it.

A source that `ReadsRanges` splits a stream into ranges. They do not overlap, and together are the stream **at one
moment**. A destination that `LoadsRanges` loads them over several connections and commits the stream once. If only
the source can, one loader takes all ranges from a queue; if the source cannot, one reader reads the whole stream.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from .errors import ConnectorError, RetriableError
from .stream import Block, Checkpoint, Event

#: Ranges for each reader: smaller ranges repeat less after a failure and let all readers end at about one time.
RANGES_PER_READER = 4

#: Least size of a range: for less, one more connection costs more than it saves.
RANGE_BYTES = 16 << 20


class RangesRefused(ConnectorError):
    """The stream cannot be read by ranges after all; the engine reads it as a whole."""


class SnapshotLost(RetriableError):
    """The snapshot of all ranges is gone: only the whole stream can be read again."""


class Range(Struct, frozen=True, kw_only=True):
    """A part of a stream that one reader reads."""

    #: From 0, in the order in which readers take them.
    place: int
    #: For messages: `pages 0 to 2047`.
    label: str
    #: Where the range is. Only the source reads it.
    locator: Mapping[str, Any] = {}


class OpenRanges(Protocol):
    """The ranges of one stream, all of one snapshot, while the context of `open_ranges` lasts."""

    @property
    def ranges(self) -> Sequence[Range]:
        """All ranges; one or none: the stream is not worth splitting, and nothing was opened."""
        ...

    @property
    def moment(self) -> Mapping[str, Any] | None:
        """JSON that identifies the snapshot, by which a later process can resume; None: none can."""
        ...

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, int]) -> bool:
        """Return True and take over the ranges of an earlier moment, if the loaded ones would be the same if read now.

        Args:
            moment: `moment` as it was then, of the same source.
            loaded: place of a loaded range -> number of its records.
        """
        ...

    def read(self, part: Range) -> Generator[Event | Block, None, None]:
        """Yield the records of one range. Any thread may call it, for several ranges at once.

        After a failure the engine may call it again: it yields the same records, or raises.
        """
        ...


class RangeReads(Protocol):
    """The engine's side of a load by ranges. Several threads call it."""

    @property
    def ranges(self) -> Sequence[Range]:
        """All ranges of the stream."""
        ...

    @property
    def moment(self) -> Mapping[str, Any] | None:
        """JSON by which an interrupted load is resumed, see `OpenRanges.moment`; None: no load is resumed."""
        ...

    @property
    def shape(self) -> str:
        """Return the form in which records come: ranges loaded in another form cannot be resumed."""
        ...

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, tuple[int, int]]) -> bool:
        """Return True and resume an earlier load, if its loaded ranges (place -> records, bytes) are still right."""
        ...

    def is_kept(self, error: BaseException) -> bool:
        """Tell whether the ranges loaded before an error are kept for a later try or run."""
        ...

    def read(self, part: Range) -> Generator[Event | Block, None, None]:
        """Yield the data of one range, without checkpoints; let exceptions pass. The caller closes the generator."""
        ...

    def may_repeat(self, part: Range, error: ConnectorError) -> bool:
        """Tell whether a range that failed is loaded again, after the pause that is due; else the stream fails."""
        ...

    def give_up(self) -> None:
        """End all reads under way, because a range has failed for good."""
        ...

    def final(self) -> Checkpoint:
        """Note that every range has arrived; return the checkpoint to commit."""
        ...


def how_many(size_bytes: int, readers: int, range_bytes: int) -> int:
    """Return how many ranges a stream of that size is split into; 1: it is read as a whole."""
    if readers < 2 or size_bytes < 2 * range_bytes:
        return 1
    return min(readers * RANGES_PER_READER, size_bytes // range_bytes)


__all__ = [
    "RANGES_PER_READER",
    "RANGE_BYTES",
    "OpenRanges",
    "Range",
    "RangeReads",
    "RangesRefused",
    "SnapshotLost",
    "how_many",
]
