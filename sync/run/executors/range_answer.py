"""How the error of a range travels from its worker: what is to be done about it, and its text without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncblocks.connectors.errors import (
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    RetriableError,
    TableLost,
    TakenOver,
)
from syncblocks.connectors.ranges import RangesRefused, SnapshotLost

from ...errors import SyncError
from ..errors import RangeFailed

#: Most specific first. Another error of a connector is a `FatalConnectorError`, all others a `SyncError`.
_KINDS: tuple[type[ConnectorError], ...] = (
    RangesRefused,
    SnapshotLost,
    TableLost,
    RetriableError,
    TakenOver,
    Interrupted,
    FatalConnectorError,
)


def answer_of(error: BaseException, text: str, *, is_from_source: bool) -> dict[str, Any]:
    """Return what the worker answers; `text`: the error's, without secrets."""
    kind = next((kind for kind in _KINDS if isinstance(error, kind)), None)
    if kind is None and isinstance(error, ConnectorError):
        kind = FatalConnectorError
    name = "" if kind is None else kind.__name__
    about = {"connector": error.connector, "stream": error.stream} if isinstance(error, ConnectorError) else {}
    return {"kind": name, "text": text, "is_from_source": is_from_source, **about}


def error_of(answer: Mapping[str, Any]) -> RangeFailed:
    """Return the error that an answer tells of."""
    kind = next((kind for kind in _KINDS if kind.__name__ == answer.get("kind")), None)
    text = str(answer.get("text"))
    error: Exception = SyncError(text)
    if kind is not None:
        error = kind(text, connector=str(answer.get("connector", "")), stream=str(answer.get("stream", "")))
    return RangeFailed(error, is_from_source=bool(answer.get("is_from_source")))
