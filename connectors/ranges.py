"""Ranges: one large stream, read by several readers and loaded by several loaders at once.

A source that can do it splits a stream into ranges that do not overlap and together are the stream **at one moment**.
A destination that can do it loads them over several connections and commits the stream once, at its end. Either side
may lack it: then ranges go through one queue into one loader, or the stream is read as a whole.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .errors import ConnectorError, RetriableError
from .stream import Block, Checkpoint, Event

#: Ranges a reader: the smaller they are, the less is repeated after a failure, and the sooner all readers end.
RANGES_PER_READER = 4

#: Least size of a range: below it, a connection more costs more than it brings.
RANGE_BYTES = 16 << 20


class RangesRefused(ConnectorError):
    """It turned out on the way that this stream cannot be read by ranges; read it as a whole, nothing is amiss."""


class SnapshotLost(RetriableError):
    """The snapshot that the ranges share is gone: no range can be read again, only the whole stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A part of a stream that is read on its own."""

    #: From 0, in the order in which they are handed out.
    place: int
    #: As people see it: `pages 0 to 2047`.
    label: str
    #: What the source needs to find it. Only the source reads it.
    locator: Mapping[str, Any] = field(default_factory=dict)


class OpenRanges(Protocol):
    """The ranges of one stream, all of one snapshot, as long as `open_ranges` is not left."""

    @property
    def ranges(self) -> Sequence[Range]:
        """All of them; one or none means that splitting is not worth it: then nothing was opened."""
        ...

    @property
    def moment(self) -> Mapping[str, Any] | None:
        """What these are the ranges of, as JSON, by which a later process can resume; None: it cannot."""
        ...

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, int]) -> bool:
        """Become the ranges of an earlier moment, if those of it that were loaded would be the same if read now.

        Args:
            moment: as `moment` was then, of the same source.
            loaded: place of a range -> its records.
        """
        ...

    def read(self, part: Range) -> Generator[Event | Block, None, None]:
        """Yield one range as `Source.read` yields a stream; from any thread, several ranges at once.

        May be called again for a range that failed: it yields the same records, or raises.
        """
        ...


class RangeReads(Protocol):
    """The engine's side of a load by ranges. Called from several threads."""

    @property
    def ranges(self) -> Sequence[Range]:
        """All ranges of the stream."""
        ...

    @property
    def moment(self) -> Mapping[str, Any] | None:
        """What an interrupted load is resumed by, as of `OpenRanges`; None: none is."""
        ...

    @property
    def shape(self) -> str:
        """Tell how records come: what was loaded in another shape cannot be resumed."""
        ...

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, tuple[int, int]]) -> bool:
        """Go on with an earlier load's ranges, if those that were loaded (place -> records, bytes) hold still."""
        ...

    def is_kept(self, error: BaseException) -> bool:
        """Decide whether what was loaded before an error is kept for a later try, or run."""
        ...

    def read(self, part: Range) -> Generator[Event | Block, None, None]:
        """Yield one range's data, no checkpoints; an exception passes through unchanged. Whoever calls it closes it."""
        ...

    def may_repeat(self, part: Range, error: ConnectorError) -> bool:
        """Decide whether a range that failed is loaded again (then the pause is over), or fails the stream."""
        ...

    def give_up(self) -> None:
        """End the reads under way: a range has failed for good."""
        ...

    def final(self) -> Checkpoint:
        """Say that every range has arrived; what it returns is committed."""
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
