"""Streams that another run has taken. If two runs have taken streams from each other, one of them takes its own back.

`Retries` does this once in an attempt of the run.
"""

from __future__ import annotations

from syncblocks.connectors.stream import LedgerKey

from ..session.session import PipelineSession
from ..store import Store
from ..store.model import PipelineRun
from .recovery.fencing import is_of_run, present_row


def takes_streams_back(session: PipelineSession, store: Store, run: PipelineRun) -> bool:
    """Return true if a run still has the first stream of its plan. The other run then does not have it."""
    plan = store.attempt_plan(run.id, run.attempt)
    if plan is None:
        return False
    first = plan.streams[0]
    key = LedgerKey(pipeline=run.pipeline, stream=first.stream, destination_table=first.destination_table)
    row = present_row(session.destination, key)
    return row is not None and is_of_run(row, run, int(first.config["tries"]))


__all__ = ["takes_streams_back"]
