"""Answers of the API: JSON documents, and refusals with their status."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.responses import Response

from ...secrets import Redactor

#: Most places of a traceback in the log.
_DEEPEST = 20


class Refused(Exception):
    """A request is answered with an error."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def answer(
    document: Mapping[str, Any], redactor: Redactor, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a document as an answer, with secrets masked."""
    text = json.dumps(redactor.redact_value(document), default=_plain)
    return Response(f"{text}\n", status, headers=dict(headers or {}), media_type="application/json")


def traceback_of(error: BaseException, redactor: Redactor) -> str:
    """Return where a fault of ours came from, for the log, with secrets masked. Callers may make a stack deep."""
    return redactor.redact("".join(traceback.format_exception(error, limit=-_DEEPEST)))


def _plain(value: Any) -> Any:
    """Return a value that JSON cannot represent as text."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
