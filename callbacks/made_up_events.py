"""Made-up events in recorded form, to try callbacks before a run."""

from __future__ import annotations

from typing import Any

from .errors import choice
from .kwargs import RESERVED, STATUSES, STATUSES_WITH_ERROR, build_kwargs

#: Word of `on` -> the block of its made-up events.
PARENT_BLOCKS = {
    "source": "load_memory",
    "transformers": "transform",
    "destination": "export_memory",
    "stream": "export_memory",
}

#: Statuses of events during a block run; these events are numbered, without index and flag.
_NUMBERED = frozenset({"retry", "schema_changed"})
_MOMENT = "2023-04-26T20:28:17.335254+00:00"


def make_event(
    status: str = "success", stream: str = "users", *, parent: str = "export_memory", **overrides: Any
) -> dict[str, Any]:
    """Return the recorded keyword arguments of one made-up event.

    Args:
        status: status of the event; "failure", "retry" and "crashed" have an `__error`.
        stream: the stream; also the destination table, unless overridden.
        parent: the parent's block_uuid, or a word of `on`; "pipeline" makes the event at the end of a run.
        overrides: values in recorded form (plain JSON). Any other name is a runtime variable.

    Raises:
        ValueError: there is no such status.
    """
    if status not in STATUSES:
        raise ValueError(f"unknown status {status!r}{choice(status, STATUSES)}")
    block = PARENT_BLOCKS.get(parent, parent)
    variables = {name: value for name, value in overrides.items() if name not in RESERVED}
    date = overrides.get("execution_date") or _MOMENT
    table = overrides.get("destination_table") or stream
    ended = _ended(status)
    error = {
        "type": "ValueError",
        "message": "made by syncblocks.callbacks.testing",
        "traceback": "",
        "stream": stream,
        "block": "export_memory" if block == "pipeline" else block,
    }
    block_run = _block_run(error["block"], stream, status, date)
    is_numbered = status in _NUMBERED
    recorded = build_kwargs(
        {
            "block_uuid": "callback_under_test",
            "parent_block_uuid": block,
            "execution_date": date,
            "pipeline_uuid": "pipeline_under_test",
            "pipeline_run": {"id": 1, "status": "running" if is_numbered else ended, "attempt": 1, "started_at": date},
            "variables": variables,
            "stream": stream,
            "destination_table": table,
            "index": None if is_numbered else 0,
            "is_last_block_run": not is_numbered,
            "block_run": block_run,
            "block_runs": [block_run],
            "never_started": [],
            "missing_streams": [],
            "totals": _totals(ended, block_run),
            "failed_streams": [_failed(error)] if ended == "failure" else [],
            "error": error if status in STATUSES_WITH_ERROR else None,
            "attempts": 1,
            "idempotency_key": "0" * 32,
        }
    )
    return recorded | overrides


def _ended(status: str) -> str:
    """Return the status of the block run for an event of this status."""
    return {"recovered": "success", "crashed": "failure"}.get(status, status)


def _block_run(block: str, stream: str, status: str, date: str) -> dict[str, Any]:
    ended = _ended(status)
    changes = [{"column": "email", "change": "added", "before": None, "after": "VARCHAR"}]
    return {
        "uuid": f"{block}:{stream}",
        "block": block,
        "stream": stream,
        "status": "running" if status in _NUMBERED else ended,
        "rows": 3 if ended == "success" else None,
        "rows_rejected": 0 if ended == "success" else None,
        "rows_deleted": None,
        "rows_replaced": None,
        "warnings": None,
        "bytes": 120 if ended == "success" else None,
        "started_at": date,
        "ended_at": None if status in _NUMBERED else date,
        "bookmark_before": None,
        "bookmark_after": None,
        "schema_changes": changes if status == "schema_changed" else [],
    }


def _totals(status: str, block_run: dict[str, Any]) -> dict[str, int]:
    by_status = {name: int(status == name) for name in ("success", "failure", "cancelled")}
    return {"streams": 1, **by_status, "rows": block_run["rows"] or 0, "bytes": block_run["bytes"] or 0}


def _failed(error: dict[str, Any]) -> dict[str, Any]:
    return {name: error[name] for name in ("stream", "block", "type", "message")}
