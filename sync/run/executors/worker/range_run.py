"""One range of a stream on a worker: read from the snapshot and loaded beside the others that other workers load."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from syncblocks.connectors.protocols import SharesRanges
from syncblocks.connectors.ranges import Range
from syncblocks.connectors.stream import Block, Event, Stream

from ...range_order import RangeOrder
from ...ranges import RangeReads
from ...stream import StreamRun
from ..range_answer import answer_of
from .claim_watch import TAKEN, ClaimWatch

log = logging.getLogger("syncblocks")


class SharedRange(Struct, frozen=True):
    """One range of a snapshot that another process holds; see `OpenRanges`."""

    source: SharesRanges
    stream: Stream
    snapshot: str
    wire: str
    ranges: Sequence[Range]
    moment: Mapping[str, Any] | None = None

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, int]) -> bool:
        """See `OpenRanges`: the process that holds the snapshot resumes."""
        return False

    def read(self, part: Range) -> Generator[Event | Block, None, None]:
        """See `OpenRanges`."""
        return self.source.read_shared(self.stream, part, self.snapshot, self.wire)


class RangeWatch(ClaimWatch):
    """Renews the lease of a range, and stops its load once the claim has ended."""

    def is_lost(self) -> bool:
        """See `ClaimWatch`."""
        is_lost = not self._store.holds_range(self._reference.nonce, self._me)
        for member in self._members if is_lost else ():
            member.cancel(TAKEN)
        return is_lost

    def renew(self) -> None:
        """See `ClaimWatch`."""
        self._store.renew_range(self._reference.nonce, self._me)


def load_range(run: StreamRun, order: RangeOrder, text_length: int) -> dict[str, Any]:
    """Load a range; return the answer.

    Args:
        run: the stream; its `cancel` stops the load.
        order: names the range.
        text_length: most characters of an error's text.
    """
    context, planned = run.context, run.planned
    source, destination = context.source_can.shares_ranges, context.destination_can.loads_shared_ranges
    assert source is not None, "the plan looked"
    assert destination is not None, "the plan looked"
    run.join(order.number)
    opened = SharedRange(source, planned.selected.stream, order.snapshot, planned.wire, [order.part])
    reads = RangeReads(run, opened)
    try:
        destination.load_shared_range(run.load_order(planned.arriving), reads, order.part, planned.wire)
    except Exception as error:
        log.debug("%s: range %s failed", run.name, order.part.label, exc_info=True)
        text = run.shown(error)[:text_length]
        return {"failed": answer_of(error, text, is_from_source=reads.is_from_source(error))}
    return {}
