"""Who has done what with a pipeline, and when: what people and programs have ordered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from .connection import StoreConnection, value_of
from .statements import insert
from .table_names import ACTION
from .transactions import Transactions

_NOTE = insert(ACTION, "pipeline who what run_id stream details created_at")
_OF_PIPELINE = f"SELECT * FROM {ACTION} WHERE pipeline = :pipeline AND id < :before ORDER BY id DESC LIMIT :limit"
_LAST_ID = 2**31 - 1


class Action(Struct, frozen=True, kw_only=True):
    """What somebody has done."""

    id: int
    pipeline: str
    #: `token NAME`, who is signed in, or `USER on HOST` of the command line.
    who: str
    #: run, retry, cancel, deliver, pause, resume or read anew.
    what: str
    run_id: int | None
    stream: str | None
    #: Number of a tick, key of a delivery, end and reason of a pause.
    details: Mapping[str, Any]
    created_at: datetime


class Actions:
    """The actions of a store."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def of_pipeline(self, pipeline: str, *, limit: int = 100, before: int | None = None) -> list[Action]:
        """Return the actions of a pipeline, the latest first; `before`: only those with a lower id."""
        values = {"pipeline": pipeline, "limit": limit, "before": _LAST_ID if before is None else before}
        with self._transactions.read() as connection:
            rows = connection.rows(_OF_PIPELINE, values)
        return [value_of(Action, row, details=row.details or {}) for row in rows]


def note(
    connection: StoreConnection,
    now: datetime,
    pipeline: str,
    *,
    who: str,
    what: str,
    run_id: int | None = None,
    stream: str | None = None,
    **details: Any,
) -> None:
    """Write an action, in the transaction of the thing itself."""
    row = {"pipeline": pipeline, "who": who, "what": what, "run_id": run_id, "stream": stream}
    connection.run(_NOTE, {**row, "details": details or None, "created_at": now})
