"""Callbacks without Python: one request of the engine, with every setting filled in, run in a callback's process.

A hook raises `HookFailed` with a text that shows no setting; whatever else it raises is told by its kind only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .answer import Answer
from .errors import HookFailed


def run_hook(hook: Mapping[str, Any]) -> Answer:
    """Do what a hook says: `kind` and the settings of that kind. Never raises."""
    try:
        _run(hook)
    except HookFailed as error:
        return Answer(kind="raised", error=str(error))
    except BaseException as error:  # as of a function: what it raises must not end the process
        return Answer(kind="raised", error=f"{hook['kind']} failed: {type(error).__name__}")
    return Answer(kind="returned")


def _run(hook: Mapping[str, Any]) -> None:
    # Imported when called: a process serves one kind, and none needs what the others do.
    kind = hook["kind"]
    if kind == "notify":
        from .notify import notify

        notify(hook["urls"], hook["body"], title=hook["title"], status=hook["status"], key=hook["key"])
    elif kind == "webhook":
        from .webhook import post

        post(
            hook["url"],
            hook["event"],
            key=hook["key"],
            secret=hook["secret"],
            headers=hook["headers"],
            timeout_s=hook["timeout_s"],
        )
    elif kind == "shell":
        from .shell import run

        run(hook["command"], hook["event"], folder=hook["folder"], variables=hook["variables"])
    else:
        raise HookFailed(f"there is no hook {kind!r}")


__all__ = ["run_hook"]
