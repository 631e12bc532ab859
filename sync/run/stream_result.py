"""The result of an ended stream, wherever it ran."""

from __future__ import annotations

import time

from syncblocks.connectors.errors import RetriableError

from .executors.protocol import RunningStream
from .results import StreamResult


def stream_result(member: RunningStream) -> StreamResult:
    """Return how one stream run ended."""
    blocks = member.outcome.blocks if member.outcome is not None else ()
    last = blocks[-1] if blocks else None
    return StreamResult(
        stream=member.name,
        destination_table=member.planned.key.destination_table,
        status=member.status if member.has_ended and member.outcome is not None else None,
        records=last.rows if last else None,
        records_rejected=last.rows_rejected if last else None,
        records_deleted=last.rows_deleted if last else None,
        records_replaced=last.rows_replaced if last else None,
        warnings=last.warnings if last else None,
        size_bytes=blocks[0].size_bytes if blocks else None,
        duration_s=(time.monotonic() if member.ended is None else member.ended) - member.started,
        bookmark=last.bookmark_after if last else None,
        error=None if member.error is None else member.shown(member.error),
        is_retriable=isinstance(member.error, RetriableError)
        or any(block.error.type == RetriableError.__name__ for block in blocks if block.error),  # on another machine
    )
