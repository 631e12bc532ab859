"""How a pipeline run ended, for the command line and the Python API."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import PipelineFailed

if TYPE_CHECKING:
    from .stream import StreamRun


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResult:
    """How one stream ended."""

    stream: str
    destination_table: str
    #: success, failure, cancelled; None: never started, or still open because ledger or run store was unreachable.
    status: str | None
    records: int | None = None
    #: Records that could not be stored and are kept beside (`on_rejected: keep`).
    records_rejected: int | None = None
    size_bytes: int | None = None
    duration_s: float | None = None
    bookmark: Mapping[str, Any] | None = None
    error: str | None = None
    #: With `verify: true`: the verdict of the comparison after the run, see `verification`; None: not compared.
    verdict: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a pipeline run ended."""

    run_id: int | None
    pipeline: str
    status: str
    streams: tuple[StreamResult, ...] = ()
    #: Streams that the run was stopped before.
    never_started: tuple[str, ...] = ()
    #: Deliveries of callbacks by state, of this run and of the run that it recovered.
    callbacks: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    #: Number of the signal that stopped the run.
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """Exit code: 0 done, 1 a stream did not succeed or differs, 3 a callback is due or dead, 128 + signal."""
        if self.signal is not None:
            return 128 + self.signal
        if self.status != "success" or any(stream.verdict in ("differs", "failed") for stream in self.streams):
            return 1
        return 3 if self.callbacks.get("dead") or self.callbacks.get("due") else 0

    def raise_for_status(self) -> RunResult:
        """Return itself if the run ended as success.

        Raises:
            PipelineFailed: the run did not succeed; the message names the streams and their errors.
        """
        if self.status == "success":
            return self
        reasons = [f"{stream.stream}: {stream.error or stream.status}" for stream in self.streams if stream.error]
        shown = "; ".join(reasons) or self.error or "no stream was started"
        raise PipelineFailed(f"pipeline {self.pipeline!r} ended as {self.status}: {shown}")


def stream_result(member: StreamRun) -> StreamResult:
    """Return how one stream run ended."""
    blocks = member.outcome.blocks if member.outcome is not None else ()
    last = blocks[-1] if blocks else None
    return StreamResult(
        stream=member.name,
        destination_table=member.planned.key.destination_table,
        status=member.status if member.has_ended and member.outcome is not None else None,
        records=last.rows if last else None,
        records_rejected=last.rows_rejected if last else None,
        size_bytes=blocks[0].size_bytes if blocks else None,
        duration_s=(time.monotonic() if member.ended is None else member.ended) - member.started,
        bookmark=last.bookmark_after if last else None,
        error=None if member.error is None else member.shown(member.error),
    )
