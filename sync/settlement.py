"""Who may write, and what was written: tokens, and the question to the destination's ledger after a doubt."""

from __future__ import annotations

import secrets
import time
from hashlib import blake2b

from connectors.errors import ConnectorError
from connectors.protocols import Destination
from connectors.stream import LedgerKey

from .errors import SyncError
from .store.model import PipelineRun

#: A destination that does not answer is asked again after so many seconds, before the question stays open.
ASK_AGAIN_S = (0.2, 0.8, 2.0)


class LedgerUnreadable(SyncError):
    """The destination's ledger cannot be read, so nobody can say whether the last commit was kept."""

    code = "ledger"


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


def is_completed(destination: Destination, key: LedgerKey, run: PipelineRun, owner: str) -> bool:
    """Ask the destination whether this attempt completed the stream, and fence every writer before.

    Writes a token of its own first, which waits for a commit under way: what it reads then is final.

    Raises:
        LedgerUnreadable: it cannot be asked.
    """
    for wait_s in (*ASK_AGAIN_S, None):
        try:
            row = destination.take_over(key, token=secrets.token_hex(16), owner=owner)
        except ConnectorError as error:
            if wait_s is None:
                raise LedgerUnreadable(f"stream {key.stream!r}: the ledger cannot be read: {error}") from error
            time.sleep(wait_s)
        else:
            return row.completed_by == run_reference(run)
    return False
