"""The block runs of one stream: counters, kept data and status of each block."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import pyarrow as pa

from syncblocks.connectors.stream import RejectedRecord, Warned

from ..flow.naming import naming_steps
from ..flow.spool import Spool, run_prefix
from ..flow.transform import declared_stream

if TYPE_CHECKING:
    from ..flow.transform import Transformer
    from ..plan.plan import PlannedStream
    from .context import StreamContext

SUCCESS, FAILURE, CANCELLED = "success", "failure", "cancelled"


class Stage:
    """Counters of one block for one stream."""

    def __init__(self, block: str, spool: Spool | None) -> None:
        self.block = block
        self.spool = spool
        self.rows = 0
        self.rejected = 0
        self.size_bytes = 0
        #: Records in its file that the destination rejected.
        self.refused: list[RejectedRecord] = []
        #: Whether it has passed on its last batch.
        self.is_complete = False

    def note(self, batch: pa.RecordBatch, *, is_last: bool) -> None:
        self.rows += batch.num_rows
        self.size_bytes += batch.nbytes
        if self.spool is not None:
            self.spool.write(batch)
        self.is_complete |= is_last

    @property
    def data(self) -> str | None:
        """Path or URL of the block's output, kept for callbacks; None: no output."""
        return None if self.spool is None else self.spool.kept


def statuses(stages: Sequence[Stage], stream_status: str, failed_block: str) -> list[str]:
    """Return the status of each block run, in pipeline order. The data decides, not the time.

    In a failed stream, the block whose own code raised is `failure`. An earlier block is `success` only if it has
    passed on its last batch. All others are `cancelled`.
    """
    if stream_status != FAILURE:
        return [stream_status] * len(stages)
    place = [stage.block for stage in stages].index(failed_block)
    before = [SUCCESS if stage.is_complete else CANCELLED for stage in stages[:place]]
    return [*before, FAILURE, *[CANCELLED] * (len(stages) - place - 1)]


class StreamBlocks:
    """The blocks of one stream in its current attempt, and the block that failed."""

    def __init__(self, context: StreamContext, planned: PlannedStream, *, losses: int = 0) -> None:
        self.planned = planned
        #: Part of the files' names in this process: an abandoned process that resumes may still write its own files.
        self._losses = losses
        self._context = context
        pipeline = context.pipeline
        self._names = [pipeline.source.block, *planned.transformers, pipeline.destination.block]
        self.stages: list[Stage] = []
        #: The steps from source to destination: transformers, and the destination's naming.
        self.transformers: list[Transformer] = []
        self._failed: str | None = None
        #: Notes for the user about the stream's columns, as sentences.
        self.notices: list[str] = []
        #: Lines of the source's log while it read the records that are committed, or are about to be.
        self.warned = Warned()
        self.notice(planned.texts.notices)

    def renew(self, *, is_continued: bool) -> None:
        """Begin an attempt. `is_continued`: an earlier attempt committed records, which are not read again."""
        self._failed = None
        if not is_continued:
            self.warned = Warned()
        self._renew_stages(is_continued=is_continued)
        naming = naming_steps(self.planned.policy.naming, self._names[-1])
        self.transformers = [*self._context.transformers(self.planned), *naming]

    def redact(self, text: str) -> str:
        """Mask the pipeline's secrets in a stored text."""
        return self._context.redactor.redact(text)

    @property
    def failed(self) -> str:
        """The block whose own code raised; the destination if no block is known."""
        return self._failed or self._names[-1]

    @failed.setter
    def failed(self, block: str) -> None:
        self._failed = block

    def notice(self, notices: Sequence[str]) -> None:
        """Add messages from the source's read; skip repeated ones. Masks secrets."""
        shown = map(self.redact, notices)
        self.notices += [notice for notice in shown if notice not in self.notices]

    def fail_in_source(self) -> None:
        """Note that the source caused the next error."""
        self._failed = self._names[0]

    @property
    def read_rows(self) -> int:
        """Number of records that were read, if any attempt began."""
        return self.stages[0].rows if self.stages else 0

    def note_read(self, rows: int, size_bytes: int, *, is_whole: bool) -> None:
        """Record how much of a stream's ranges was read, and whether it was all."""
        stage = self.stages[0]
        stage.rows, stage.size_bytes, stage.is_complete = rows, size_bytes, is_whole

    def note_written(self, *, rows: int, size_bytes: int, rejected: int) -> None:
        """Record the destination's commits, even for a stream that never began an attempt."""
        if not self.stages:
            self._renew_stages(is_continued=False)
        last = self.stages[-1]
        last.rows, last.size_bytes, last.rejected = rows, size_bytes, rejected

    def close_spools(self, current: pa.Schema | None) -> None:
        """Close the files kept for callbacks. `current`: the columns that arrive at the destination, if known."""
        schema = self.planned.stream.schema
        for stage in self.stages:
            if stage.spool is not None:
                stage.spool.close(schema if stage is self.stages[0] or current is None else current)

    def keep_spools(self, ended: Sequence[str]) -> None:
        """Keep the file of each block run that ended as success, and remove the other files."""
        stream = self.planned.stream
        for place, (stage, status) in enumerate(zip(self.stages, ended, strict=True)):
            if stage.spool is None:
                continue
            if status == SUCCESS:
                stage.spool.close(declared_stream(stream, self.transformers[:place]).schema)
                stage.spool.leave_out(stage.refused)
                if self._context.pipeline.spool_url is not None:
                    stage.spool.share(self._context.pipeline.spool_url)
            else:
                stage.spool.discard()

    def discard_spools(self) -> None:
        """Remove the files kept for callbacks."""
        for stage in self.stages:
            if stage.spool is not None:
                stage.spool.discard()

    def _renew_stages(self, *, is_continued: bool) -> None:
        self.discard_spools()
        self.stages = [Stage(block, self._spool(block)) for block in self._names]
        for stage in self.stages:
            if is_continued and stage.spool is not None:  # never a partial frame
                stage.spool.give_up("an earlier attempt of this run had committed a part")

    def _spool(self, block: str) -> Spool | None:
        if block not in self.planned.record_checks.data_blocks:
            return None
        run, name = self._context.run, self.planned.name
        digest = blake2b(f"{block}\0{name}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        path = (
            self._context.spool_folder
            / f"{run_prefix(run.key)}{run.attempt}-{digest}{f'-{self._losses}' if self._losses else ''}.arrow"
        )
        return Spool(path, limit_bytes=self._context.pipeline.spool_limit, label=f"{block}:{name}")
