"""What LOG_BASED streams have made at their source: dropped, and forgotten by the ledger."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from ..errors import ConfigError
from ..plan.features.log_based import log_rows
from ..session.inspection import selected_streams
from ..session.session import PipelineSession
from ..store import Store
from .stream_state import refuse_while_running


def drop_log(session: PipelineSession, store: Store | None) -> Sequence[str]:
    """Drop slot and publication of a pipeline, and nothing that it has not made; return what was dropped.

    The tables stay as they are; a later run copies them anew.

    Raises:
        ConfigError: the source has no log that is read.
        ConnectorError: the slot is in use, or source or destination cannot be reached.
        AlreadyRunning: the pipeline is running.
    """
    refuse_while_running(session, store)
    session.use_store(store)
    reads, notes = session.source_can.reads_log, session.destination_can.notes_log
    if reads is None or notes is None:
        raise ConfigError("reads no log: only LOG_BASED streams have one", key="FILE")
    tables = [selected.destination_table for selected in selected_streams(session)]
    rows = log_rows(session.pipeline, session, tables)
    # First, since a slot in use is not dropped: until the ledger forgets it, a run is refused.
    dropped = reads.drop_log(rows)
    for row in rows:
        session.destination.set_bookmark(row.key, None)
        token = secrets.token_hex(16)
        session.destination.take_over(row.key, token=token, owner="log drop")
        notes.note_log(row.key, token, {})
    return dropped


__all__ = ["drop_log"]
