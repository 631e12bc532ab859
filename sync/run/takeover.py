"""Who may write, and what was written: tokens, and the question to the destination's ledger after a doubt."""

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

from ..store.model import PipelineRun
from .errors import LedgerUnreadable

#: A destination that does not answer is asked again after so many seconds, before the question stays open.
ASK_AGAIN_S = (0.2, 0.8, 2.0)


def run_reference(run: PipelineRun) -> str:
    """Return `<run key>:<attempt>`, unique over all run stores."""
    return f"{run.key}:{run.attempt}"


def stream_token(run: PipelineRun, stream: str, number: int) -> str:
    """Return the token of one try of a stream.

    As unpredictable as the run's random key that it comes from; and a recovery, which knows that key, knows the tokens
    too, by which it finds the staging that a dead process has left.
    """
    parts = f"{run.key}\0{run.attempt}\0{stream}\0{number}".encode("utf-8", "surrogatepass")
    return blake2b(parts, digest_size=16).hexdigest()


def owner_text(run: PipelineRun) -> str:
    """Return the run as the ledger's `owner` shows it."""
    return f"run {run.id} on {run.owner.host}"


def fenced_row(destination: Destination, key: LedgerKey, owner: str) -> LedgerRow:
    """Ask the destination what was committed, and fence every writer before.

    Writes a token of its own first, which waits for a commit under way: what it reads then is final.

    Raises:
        LedgerUnreadable: it cannot be asked.
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
    """Return by what `was_made` knows a commit again; None: its change of the table does not wait for it."""
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
    """Whether a commit that was about to change the table was made; where nobody can say, it was.

    Args:
        mark: What `commit_mark` returned.
        changes: What it was to change, as in `Commit.schema_changes`.
        row: What `fenced_row` returned.
        run: Whose commit.
        destination: Where.

    Raises:
        LedgerUnreadable: the destination cannot be asked.
    """
    if not destination.has_ledger:
        return True
    if not mark["is_at_once"]:
        return is_completed(row, run) if mark["is_final"] else _digest(row.bookmark) == mark["bookmark"]
    table = row.key.destination_table
    try:
        schema = destination.describe([table])[table].schema
    except ConnectorError as error:
        raise LedgerUnreadable(f"stream {row.key.stream!r}: the destination cannot be asked: {error}") from error
    added = [change["column"] for change in changes if change["change"] == "added"]
    return schema is not None and (not added or any(name in schema.names for name in added))


def _digest(bookmark: Bookmark | None) -> str:
    """Tell bookmarks apart; what is in them need not be kept twice."""
    text = json.dumps(None if bookmark is None else dict(bookmark), sort_keys=True)
    return blake2b(text.encode("ascii"), digest_size=16).hexdigest()
