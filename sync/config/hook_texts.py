"""Texts of hooks: the default message, the environment of a command, and a short description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import CallbackBlock
from .event_templates import duration_text
from .templates import has_template

#: Environment variable of a `shell` command -> path of its value in the event.
ENVIRONMENT = {
    "SYNCBLOCKS_STATUS": ("status",),
    "SYNCBLOCKS_PIPELINE": ("pipeline_uuid",),
    "SYNCBLOCKS_RUN_ID": ("pipeline_run", "id"),
    "SYNCBLOCKS_RUN_STATUS": ("pipeline_run", "status"),
    "SYNCBLOCKS_ATTEMPT": ("pipeline_run", "attempt"),
    "SYNCBLOCKS_EXECUTION_DATE": ("execution_date",),
    "SYNCBLOCKS_BLOCK": ("block_uuid",),
    "SYNCBLOCKS_PARENT": ("parent_block_uuid",),
    "SYNCBLOCKS_STREAM": ("stream",),
    "SYNCBLOCKS_DESTINATION_TABLE": ("destination_table",),
    "SYNCBLOCKS_INDEX": ("index",),
    "SYNCBLOCKS_IS_LAST_BLOCK_RUN": ("is_last_block_run",),
    "SYNCBLOCKS_ROWS": ("block_run", "rows"),
    "SYNCBLOCKS_IDEMPOTENCY_KEY": ("idempotency_key",),
}
#: Most characters of an error, and most names in a list.
_ERROR_LIMIT, _NAMES_LIMIT = 500, 10


def default_message(values: Mapping[str, Any]) -> str:
    """Return one line: pipeline, stream, status, rows, duration, error."""
    is_pipeline = values["parent_block_uuid"] == "pipeline"
    text = f"{values['pipeline_uuid']}: {'pipeline' if is_pipeline else values['stream']} {values['status']}"
    if is_pipeline:
        text += _sums(values)
    elif values["block_run"].rows is not None:
        text += f", {values['block_run'].rows:,} rows"
    if values["duration_s"] is not None:
        text += f" in {duration_text(values['duration_s'])}"
    error = values["error"]
    if error:
        where = f" in {error.block}" if error.block else ""
        said = " ".join(str(error.message).split())
        more = "..." if len(said) > _ERROR_LIMIT else ""
        text += f"; {error.type}{where}: {said[:_ERROR_LIMIT]}{more}"
    return text


def _sums(values: Mapping[str, Any]) -> str:
    totals = values["totals"] or {}
    text = f", {totals.get('streams', 0):,} streams, {totals.get('rows', 0):,} rows"
    for words, names in (
        ("failed", [item["stream"] for item in values["failed_streams"] or ()]),
        ("never started", values["never_started"] or ()),
        ("missing", values["missing_streams"] or ()),
    ):
        if names:
            more = ", ..." if len(names) > _NAMES_LIMIT else ""
            text += f", {len(names):,} {words} ({', '.join(names[:_NAMES_LIMIT])}{more})"
    return text


def environment_of(event: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables of a command, for the values that the event has."""
    found: dict[str, str] = {}
    for name, path in ENVIRONMENT.items():
        value: Any = event
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def describe_hook(block: CallbackBlock, raw: Any) -> str:
    """Describe what a block calls, in a few words and without possible secrets.

    Args:
        block: the callback block.
        raw: its hook as the file says it, templates unfilled.
    """
    if block.file is not None:
        return block.file
    if block.notify is not None:
        urls = raw if isinstance(raw, list) else [raw]
        return "notify " + ", ".join(_shown_url(url) for url in urls)
    if block.webhook is not None:
        return f"webhook {_shown_url(raw['url'] if isinstance(raw, dict) else str(raw))}"
    if block.sql is not None:
        text = raw if isinstance(raw, str) else raw["statement"]
    else:
        command = raw["command"] if isinstance(raw, dict) else raw
        text = command if isinstance(command, str) else " ".join(map(str, command))
    line = " ".join(text.split())
    return f"{block.kind} {line if len(line) <= 60 else line[:57] + '...'}"


def _shown_url(url: Any) -> str:
    text = str(url)
    return text if has_template(text) else f"{text.partition('://')[0]}://..."
