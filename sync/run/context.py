"""What the stream runs of one pipeline run share, and what each of them tells before it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncblocks.connectors.abilities import Abilities
from syncblocks.connectors.protocols import Destination, Source
from syncblocks.connectors.stream import Checkpoint, LedgerRow

from ..config import Pipeline
from ..config.secrets import Redactor
from ..flow.feed import Budget
from ..flow.transform import Transformer
from ..plan.plan import PlannedStream
from ..store.model import ErrorInfo, PipelineRun, StreamOutcome
from .progress import Progress
from .takeover import commit_mark, run_reference, was_made


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamContext:
    """What all stream runs of one pipeline run share."""

    pipeline: Pipeline
    run: PipelineRun
    source: Source
    #: See `Session`.
    source_name: str
    source_can: Abilities
    destination: Destination
    destination_can: Abilities
    progress: Progress
    redactor: Redactor
    spool_folder: Path
    #: What the batches in flight of all streams may hold together.
    budget: Budget
    #: Makes the transformers that apply to a stream, fresh for each try.
    transformers: Callable[[PlannedStream], list[Transformer]]
    #: Ends a stream in the run store; called once a stream.
    close: Callable[[StreamOutcome], None]
    #: Tells callbacks that a stream is tried again: stream, block, error.
    tell_retry: Callable[[str, str, ErrorInfo], None]
    #: Holds what callbacks are told of a schema change until its commit is made: stream, changes, mark of the commit.
    #: False: nobody wants to hear of it.
    hold: Callable[[str, Sequence[Mapping[str, Any]], Mapping[str, Any]], bool]
    #: Tells what is held of a stream (True), or forgets it.
    let_out: Callable[[str, bool], None]
    #: Whether this process still owns the run.
    is_owner: Callable[[], bool]

    @property
    def run_reference(self) -> str:
        """What the ledger's `completed_by` says of this attempt."""
        return run_reference(self.run)


class SchemaNews:
    """Schema changes of one stream: held before the commit that makes them, told of after it."""

    def __init__(self, context: StreamContext, stream: str) -> None:
        self._context = context
        self._stream = stream
        self._held: tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]] | None = None
        #: All that commits have made.
        self.made: list[Mapping[str, Any]] = []

    def announce(self, checkpoint: Checkpoint | None, changes: Sequence[Mapping[str, Any]]) -> None:
        """See `Load.announce`."""
        mark = commit_mark(checkpoint)
        if self._context.hold(self._stream, changes, mark):
            self._held = (mark, changes)

    def committed(self, checkpoint: Checkpoint, changes: Sequence[Mapping[str, Any]]) -> None:
        """Tell of what a commit has made, also if it was not announced."""
        if not changes:
            return
        self.made += changes
        if self._held is None:
            self.announce(checkpoint, changes)
        if self._held is not None:
            self._context.let_out(self._stream, True)
            self._held = None

    @property
    def is_open(self) -> bool:
        """Whether a change is held of which nobody knows yet whether it was made."""
        return self._held is not None

    def is_true(self, row: LedgerRow) -> bool:
        """Whether what is held was made, by the fenced ledger row."""
        return self._held is not None and was_made(*self._held, row, self._context.run, self._context.destination)

    def settle(self, row: LedgerRow) -> None:
        """Tell of what is held or forget it, before a further try."""
        if self._held is not None:
            self._context.let_out(self._stream, self.is_true(row))
            self._held = None
