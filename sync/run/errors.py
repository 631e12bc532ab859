"""Errors that end a run or a stream, and the record of an error that the run store keeps."""

from __future__ import annotations

import traceback

from syncblocks.callbacks.plain_text import plain_text

from ..errors import SyncError
from ..flow.failed_function import FunctionFailed
from ..secrets import Redactor
from ..store.model import ErrorInfo

#: Maximum length of a stored traceback, counted from its end.
TRACEBACK_LIMIT = 16_000


class Stopped(SyncError):
    """The stream was stopped: by a signal, a timeout, `runs cancel`, or another stream's failure."""

    code = "stopped"


class ColumnsRefused(SyncError):
    """New columns that appeared during the read cannot be written as configured; the message has reason and remedy."""

    code = "columns"


class DeletesRefused(SyncError):
    """More of the table's records are missing in the source than `deletes` allows; nothing was deleted."""

    code = "deletes"


class JoinedFailed(SyncError):
    """A stream joined by foreign keys has failed, so nothing was deleted here."""

    code = "joined"


class LedgerUnreadable(SyncError):
    """The destination's ledger cannot be read, so the fate of the last commit is unknown."""

    code = "ledger"


def message_of(error: BaseException) -> str:
    """Return an error's text without terminal codes; its class name if it has no text."""
    return plain_text(str(error)) or type(error).__name__


def error_info(
    error: BaseException, redactor: Redactor, *, stream: str | None = None, block: str | None = None
) -> ErrorInfo:
    """Add stream and block to an error, without secrets. An error before the first stream has no traceback.

    For a transformer's error, only the message of the function: consumers combine type, block and message.
    """
    raised = error.original if isinstance(error, FunctionFailed) else error
    text = plain_text("".join(traceback.format_exception(raised))) if stream else ""
    # `...` tells the redactor that the cut may have split a secret.
    text = text if len(text) <= TRACEBACK_LIMIT else f"...{text[-TRACEBACK_LIMIT:]}"
    return ErrorInfo(
        type=type(raised).__name__,
        message=redactor.redact(message_of(raised)),
        traceback=redactor.redact(text),
        stream=stream,
        block=block,
    )


def process_died(message: str, *, stream: str | None = None, block: str | None = None) -> ErrorInfo:
    """Return the error of a run, or of a stream, whose process died."""
    return ErrorInfo(type="ProcessDied", message=message, traceback="", stream=stream, block=block)
