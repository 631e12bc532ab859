"""The block runs of one stream: what each block has done, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from .spool import Spool

SUCCESS, FAILURE, CANCELLED = "success", "failure", "cancelled"


class Stage:
    """What one block has done for one stream."""

    def __init__(self, block: str, spool: Spool | None) -> None:
        self.block = block
        self.spool = spool
        self.rows = 0
        self.rejected = 0
        self.size_bytes = 0
        self.has_handed_over = False

    def note(self, batch: pa.RecordBatch, *, is_last: bool) -> None:
        self.rows += batch.num_rows
        self.size_bytes += batch.nbytes
        if self.spool is not None:
            self.spool.write(batch)
        self.has_handed_over = self.has_handed_over or is_last


def statuses(stages: Sequence[Stage], stream_status: str, failed_block: str) -> list[str]:
    """Return the status of each block run, in pipeline order: by the data, not by the clock.

    Of a failed stream, the block whose own code raised is `failure`; one before it is `success` only if it had handed
    over its last batch; everything else is `cancelled`.
    """
    if stream_status != FAILURE:
        return [stream_status] * len(stages)
    place = [stage.block for stage in stages].index(failed_block)
    before = [SUCCESS if stage.has_handed_over else CANCELLED for stage in stages[:place]]
    return [*before, FAILURE, *[CANCELLED] * (len(stages) - place - 1)]
