"""Takeover of a stream: tokens fence former writers, and the destination's ledger knows the commits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.protocols import Destination
from syncblocks.connectors.stream import Bookmark, Checkpoint, LedgerKey, LedgerRow, ended_token

from ...store.model import PipelineRun
from ..errors import LedgerUnreadable

T = TypeVar("T")

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


def is_of_run(row: LedgerRow, run: PipelineRun, tries: int) -> bool:
    """Return true unless another run, or a command, has written its token into the row.

    Args:
        row: ledger row of a stream.
        run: the run, with the number of its attempt.
        tries: number of attempts at the stream that may have written a token.
    """
    tokens = {stream_token(run, row.key.stream, number) for number in range(1, tries + 1)}
    return not row.token or row.token in tokens or row.token in map(ended_token, tokens)


def fenced_row_of_run(
    destination: Destination, key: LedgerKey, run: PipelineRun, tries: int, *, owner: str
) -> LedgerRow:
    """Read the committed state of a stream, after the run's attempts at it were fenced; see `is_of_run`.

    Raises:
        LedgerUnreadable: the destination cannot be reached.
    """
    token = ended_token(stream_token(run, key.stream, 1))
    return fenced_row(destination, key, owner, token, lambda row: is_of_run(row, run, tries))


def present_row(destination: Destination, key: LedgerKey) -> LedgerRow | None:
    """Read the ledger row and write nothing. Return `None` if the destination does not have it.

    Raises:
        LedgerUnreadable: the destination cannot be reached.
    """
    table = key.destination_table

    def read() -> LedgerRow | None:
        rows = destination.describe([table])[table].ledger if destination.has_ledger else ()
        return next((row for row in rows if row.key == key), None)

    return _answer(read, key)


def fenced_row(
    destination: Destination, key: LedgerKey, owner: str, token: str, is_ours: Callable[[LedgerRow], bool]
) -> LedgerRow:
    """Read the committed state, after every earlier writer of the caller was fenced.

    The token's write waits for a commit in progress, so the row read after it is final. If the row belongs to another
    run, that run's token has already done so. It stays, because a new token would stop the other run.

    Args:
        destination: has the ledger.
        key: key of the row.
        owner: owner of the token.
        token: token to write.
        is_ours: returns true if the row may get the token.

    Raises:
        LedgerUnreadable: the destination cannot be reached.
    """
    row = present_row(destination, key)
    if row is not None and not is_ours(row):
        return row
    return _answer(lambda: destination.take_over(key, token=token, owner=owner), key)


def _answer(ask: Callable[[], T], key: LedgerKey) -> T:
    """Return the destination's answer; ask again if it does not answer."""
    waits: list[float | None] = [*ASK_AGAIN_S, None]
    while True:
        try:
            return ask()
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
