"""Takeover of a stream: tokens fence former writers, and the destination's ledger knows the commits."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.protocols import Destination
from syncblocks.connectors.stream import Bookmark, Checkpoint, LedgerKey, LedgerRow

from ...store.model import PipelineRun
from ..errors import LedgerUnreadable

#: Seconds between the attempts to reach a destination that does not answer.
ASK_AGAIN_S = (0.2, 0.8, 2.0)


def run_reference(run: PipelineRun) -> str:
    """Return `<run key>:<attempt>`, unique across all run stores."""
    return f"{run.key}:{run.attempt}"


def stream_token(run: PipelineRun, stream: str, number: int) -> str:
    """Return the token of one attempt at a stream.

    It is derived from the run's random key, so it cannot be guessed. A recovery that knows the key computes the tokens,
    and finds a dead process's staging tables by them.
    """
    parts = f"{run.key}\0{run.attempt}\0{stream}\0{number}".encode("utf-8", "surrogatepass")
    return blake2b(parts, digest_size=16).hexdigest()


def owner_text(run: PipelineRun) -> str:
    """Return the ledger's `owner` text for a run."""
    return f"run {run.id} on {run.owner.host}"


def fenced_row(destination: Destination, key: LedgerKey, owner: str) -> LedgerRow:
    """Read the committed state, after fencing every earlier writer.

    Writes a new token first. That write waits for a commit in progress, so the row read after it is final.

    Raises:
        LedgerUnreadable: the destination cannot be reached.
    """
    waits: list[float | None] = [*ASK_AGAIN_S, None]
    while True:
        try:
            return destination.take_over(key, token=secrets.token_hex(16), owner=owner)
        except ConnectorError as error:
            wait_s = waits.pop(0)
            if wait_s is None:
                raise LedgerUnreadable(f"stream {key.stream!r}: the ledger cannot be read: {error}") from error
            time.sleep(wait_s)


def is_completed(row: LedgerRow, run: PipelineRun) -> bool:
    """Whether this attempt completed the stream, by its ledger row."""
    return row.completed_by == run_reference(run)


def commit_mark(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Return a mark by which `was_made` recognises a commit. Without a checkpoint the table changes at once."""
    if checkpoint is None:
        return {"is_at_once": True}
    return {"is_at_once": False, "is_final": checkpoint.is_final, "bookmark": _digest(checkpoint.bookmark)}


def was_made(
    mark: Mapping[str, Any],
    changes: Sequence[Mapping[str, Any]],
    row: LedgerRow,
    run: PipelineRun,
    destination: Destination,
) -> bool:
    """Whether an announced table change was made; true if unknown.

    Args:
        mark: from `commit_mark`.
        changes: the announced changes, as in `Commit.schema_changes`.
        row: from `fenced_row`.
        run: the run that announced them.
        destination: the connector of the table.

    Raises:
        LedgerUnreadable: the destination cannot be reached.
    """
    if not destination.has_ledger:
        return True
    if not mark["is_at_once"]:
        return is_completed(row, run) if mark["is_final"] else _digest(row.bookmark) == mark["bookmark"]
    table = row.key.destination_table
    try:
        schema = destination.describe([table])[table].schema
    except ConnectorError as error:
        raise LedgerUnreadable(f"stream {row.key.stream!r}: the destination cannot be read: {error}") from error
    added = [change["column"] for change in changes if change["change"] == "added"]
    return schema is not None and (not added or any(name in schema.names for name in added))


def _digest(bookmark: Bookmark | None) -> str:
    """Return a hash that distinguishes bookmarks."""
    text = json.dumps(None if bookmark is None else dict(bookmark), sort_keys=True)
    return blake2b(text.encode("ascii"), digest_size=16).hexdigest()
