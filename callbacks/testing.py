"""Try callbacks offline: events made by hand, functions called in this process.

from callbacks.testing import call, make_event

def test_the_alert_names_the_stream(capsys):
    call("callbacks/alerts.py", "failure", make_event("failure", stream="orders"))
    assert "orders" in capsys.readouterr().out
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .invoke import append_folder
from .invoke import call as call_function
from .kwargs import RESERVED, STATUSES, build_kwargs, hydrate
from .loader import load_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """One function that was called."""

    function: str
    #: What it returned; a run ignores it.
    value: Any


def make_event(
    status: str = "success", stream: str = "users", *, parent: str = "export_memory", **overrides: Any
) -> dict[str, Any]:
    """Make the recorded keyword arguments of one event.

    Args:
        status: How the parent ended; "failure" comes with an `__error`.
        stream: The stream; also the destination table, unless overridden.
        parent: The parent block's uuid; "pipeline" makes the event at the end of a run.
        overrides: Values in recorded form (plain JSON). A name that is no keyword argument of ours is a runtime
            variable.
    """
    variables = {name: value for name, value in overrides.items() if name not in RESERVED}
    date = overrides.get("execution_date") or "2023-04-26T20:28:17.335254+00:00"
    block_run: dict[str, Any] = {
        "uuid": f"{parent}:{stream}",
        "block": parent,
        "stream": stream,
        "status": status,
        "rows": 3 if status == "success" else None,
        "bytes": 120 if status == "success" else None,
        "started_at": date,
        "ended_at": date,
        "bookmark_before": None,
        "bookmark_after": None,
        "schema_changes": [],
    }
    error = {
        "type": "ValueError",
        "message": "made by callbacks.testing",
        "traceback": "",
        "stream": stream,
        "block": parent,
    }
    recorded = build_kwargs(
        {
            "block_uuid": "callback_under_test",
            "parent_block_uuid": parent,
            "execution_date": date,
            "pipeline_uuid": "pipeline_under_test",
            "pipeline_run": {"id": 1, "status": status, "attempt": 1, "started_at": date},
            "variables": variables,
            "stream": stream,
            "destination_table": stream,
            "index": 0,
            "is_last_block_run": True,
            "block_run": block_run,
            "block_runs": [block_run],
            "never_started": [],
            "error": error if status == "failure" else None,
            "attempts": 1,
            "idempotency_key": "0" * 32,
        }
    )
    return recorded | overrides


def call(
    file: Path | str,
    function: str,
    event: Mapping[str, Any],
    data: Any = None,
    *,
    parents: Collection[str] | None = None,
) -> list[Called]:
    """Call functions of a callback file with an event, in this process; what they raise is raised.

    Args:
        function: A status: all functions that serve it, in order. Else the name of one function.
        event: Made by `make_event`, or recorded.
        data: The parent's output, a DataFrame; handed over as status, signature and mark say.

    Raises:
        CallbackLoadError: the file does not load.
        LookupError: nothing in the file serves the status or has the name.
    """
    append_folder(str(file))
    loaded = load_file(Path(file), variables=frozenset(event) - RESERVED, parents=parents, expects="callback")
    found = [
        item
        for item in loaded.functions
        if (function in item.statuses if function in STATUSES else function == item.name)
    ]
    if not found:
        there = ", ".join(f"{item.name} ({', '.join(sorted(item.statuses))})" for item in loaded.functions)
        raise LookupError(f"{file} has nothing for {function!r}; it has: {there}")
    status = function if function in STATUSES else (event.get("block_run") or {}).get("status", "success")
    called = []
    for item in found:
        has_data = item.needs_data(status, event["parent_block_uuid"])
        args, kwargs = item.binding.arguments(hydrate(event), data if has_data else None)
        called.append(Called(function=item.name, value=call_function(item.function, args, kwargs)))
    return called
