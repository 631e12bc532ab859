"""Run a hook (a callback without Python) in the child process; the engine has filled in its settings.

`HookFailed` has a text without settings. Of any other error only the class is shown, since its text may contain one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .call_result import Answer
from .errors import HookFailed


def run_hook(hook: Mapping[str, Any]) -> Answer:
    """Run a hook: `kind`, the settings of that kind, and its `place` in the pipeline file. Never raises."""
    try:
        _run(hook)
    except HookFailed as error:
        place = f"{hook['place']}: " if hook.get("place") else ""
        return Answer(kind="raised", error=f"{place}{error}")
    except BaseException as error:  # an error of a hook must not end the process
        return Answer(kind="raised", error=f"{hook['kind']} failed: {type(error).__name__}")
    return Answer(kind="returned")


def _run(hook: Mapping[str, Any]) -> None:
    # Imported when needed: a process serves one kind of hook.
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
        raise HookFailed(f"unknown hook {kind!r}")
