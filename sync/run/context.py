"""State that all streams of one pipeline run share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.protocols import Destination, Source
from syncblocks.connectors.stream import Bookmark

from ..config import Pipeline
from ..flow.feed import Budget
from ..flow.transform import Transformer
from ..plan.plan import PlannedStream
from ..secrets import Redactor
from ..store.model import ErrorInfo, PipelineRun, StreamOutcome
from .progress import Progress


class StreamContext(Struct, frozen=True, kw_only=True):
    """The run, its connectors, and the calls by which a stream reports to the run store."""

    pipeline: Pipeline
    run: PipelineRun
    source: Source
    #: See `Session`.
    source_name: str
    source_can: Capabilities
    destination: Destination
    destination_can: Capabilities
    progress: Progress
    redactor: Redactor
    spool_folder: Path
    #: Memory for the batches that all streams process at the moment.
    budget: Budget
    #: Creates the transformers of a stream, new ones for each attempt.
    transformers: Callable[[PlannedStream], list[Transformer]]
    #: Ends a stream in the run store; called once for each stream.
    close_stream: Callable[[StreamOutcome], None]
    #: Tells callbacks that a stream is retried. Arguments: stream, block, error.
    report_retry: Callable[[str, str, ErrorInfo], None]
    #: Records a schema change before its commit. Arguments: stream, changes, mark of the commit.
    #: Returns False if no callback listens.
    announce_change: Callable[[str, Sequence[Mapping[str, Any]], Mapping[str, Any]], bool]
    #: Tells callbacks of a stream's announced change (True), or discards it (False).
    resolve_change: Callable[[str, bool], None]
    #: Whether this process still owns the run.
    is_owner: Callable[[], bool]
    #: Returns true if no other run has taken over the first stream of the plan. Of two runs that take streams from each
    #: other, only one has it.
    takes_streams_back: Callable[[], bool]
    #: The place at which a read of the log ends; None: where the log ends as the read begins.
    log_until: Bookmark | None = None
