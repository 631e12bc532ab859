"""What a step of a stream does, and what it may use of the stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from syncblocks.connectors.stream import Commit, Load, Stream

from ...plan.plan import PlannedStream
from ..context import StreamContext
from ..position import Position
from ..stream_blocks import StreamBlocks


class StepHost(Protocol):
    """What a step may use of its stream. `StreamRun` implements it."""

    context: StreamContext
    planned: PlannedStream
    blocks: StreamBlocks
    position: Position
    #: Reason of the cancel. `None` if the stream was not cancelled.
    stop_reason: str | None

    @property
    def rows_written(self) -> int:
        """Number of records committed so far."""
        ...

    def check(self) -> None:
        """Raise `Stopped` if the stream was cancelled."""
        ...

    def load_order(self, stream: Stream) -> Load:
        """Return the destination's order for a stream with these columns, with the token of the attempt."""
        ...

    def note_schema_changes(self, commit: Commit) -> None:
        """Report the schema changes of a commit that is not part of the load."""
        ...


class Step:
    """One step of a stream. An error ends the attempt, and the next attempt calls the same object again.

    A step never sends a final checkpoint, never writes to the run store and never ends the stream.
    """

    def begin(self) -> None:
        """Work after the token is written and before the start is decided. May change both sides."""

    def before_read(self) -> None:
        """Work after the start is decided. May change the target with commits that are not final."""

    def prepare(self, stream: Stream) -> None:
        """Read both sides, after all records of the arrived stream are committed. Changes nothing."""

    def completion(self, stream: Stream) -> Load:
        """Return the order that completes the stream. Only a step whose plan has `completes` returns one.

        Called after `prepare` of all streams that complete together.
        """
        raise NotImplementedError

    def note_completion(self, commit: Commit) -> None:
        """Record the commit of the order of `completion`."""

    def interrupt(self) -> None:
        """Interrupt the step's own connections. Any thread may call this at any time."""

    def counts(self) -> Mapping[str, Any]:
        """Return the counters of the destination's block run, by the names of `BlockOutcome`."""
        return {}


__all__ = ["Step", "StepHost"]
