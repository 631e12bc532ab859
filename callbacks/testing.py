"""Test callbacks with made-up events. `call` calls in this process; `try_file` calls in a child, as a run does.

from syncblocks.callbacks.testing import call, make_event

def test_the_alert_names_the_stream(capsys):
    call("callbacks/alerts.py", "failure", make_event("failure", stream="orders"))
    assert "orders" in capsys.readouterr().out
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from .invoke import append_folder
from .invoke import call as call_function
from .kwargs import RESERVED, STATUSES, hydrate
from .loader import load_file
from .made_up_events import make_event
from .trial import Trial, try_file
from .unknown_names import UnknownName


class Called(Struct, frozen=True, kw_only=True):
    """One call of a function."""

    function: str
    #: Result of the function; a run ignores it.
    value: Any


def call(
    file: Path | str,
    function: str,
    event: Mapping[str, Any],
    data: Any = None,
    *,
    parents: Collection[str] | None = None,
) -> list[Called]:
    """Call functions of a callback file with an event, in this process; their errors are raised.

    Args:
        function: a status, for all functions that serve it in order; or the name of one function.
        event: from `make_event`, or recorded.
        data: the parent's output, a DataFrame; passed if status, signature and decorator ask for it.

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


__all__ = ["Called", "Trial", "UnknownName", "call", "make_event", "try_file"]
