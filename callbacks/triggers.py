"""`trigger_pipeline`: a callback starts another pipeline. Its name, place and signature are Mage's.

The function asks the engine, which records the start before it happens, so a redelivery starts nothing twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

#: Most seconds between two looks. Mage's 60 would be as long as a callback's default timeout.
_LOOK_S = 2.0

#: A question as JSON -> its answer as JSON.
Ask = Callable[[str], str]

_ask: list[Ask] = []


class TriggerError(Exception):
    """The pipeline was not started, or its run failed; the message says which, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggeredRun:
    """A start of another pipeline, and the status of its run."""

    #: Number of the tick, in the run store of that pipeline.
    id: int
    pipeline_uuid: str
    #: initial (not begun), running, success, failure or cancelled.
    status: str


def trigger_pipeline(
    pipeline_uuid: str,
    variables: Mapping[str, Any] | None = None,
    check_status: bool = False,
    error_on_failure: bool = False,
    poll_interval: float = 60,
    poll_timeout: float | None = None,
    verbose: bool = True,
    schedule_name: str | None = None,
    event: Mapping[str, Any] | None = None,
) -> TriggeredRun:
    """Start another pipeline; call it from a callback function only.

    Args:
        pipeline_uuid: name of the pipeline; its file is in the folder of the calling pipeline's file.
        variables: JSON values, its runtime variables.
        check_status: wait until its run has ended, within the callback's own `timeout_s`.
        error_on_failure: with `check_status`, raise if it did not succeed.
        poll_interval: seconds between two looks, at most 2.
        poll_timeout: seconds after which waiting is an error; None: no limit.
        verbose: print the status at each change.
        schedule_name: its trigger, first half of `execution_partition`; default "callback".
        event: JSON values, the keyword argument `event` of its callbacks.

    Returns:
        The start; without `check_status` as it was ordered.

    Raises:
        TriggerError: no such pipeline, or one whose callbacks have led to this call; with `error_on_failure`: its run
            failed; it did not end within `poll_timeout`.
    """
    order = {"variables": dict(variables or {}), "event": dict(event or {}), "trigger": schedule_name or "callback"}
    found = _answer({"order": pipeline_uuid, **order})
    began = time.monotonic()
    number, now, told = found["id"], found, ""
    while check_status and (status := now["status"]) in ("initial", "running"):
        why = f"; it waits: {now['why']}" if now["why"] else ""
        if poll_timeout is not None and time.monotonic() - began > poll_timeout:
            text = f"pipeline {pipeline_uuid!r} is still {status} after {poll_timeout:g} s (poll_timeout){why}"
            raise TriggerError(text)
        if verbose and status + why != told:
            told = status + why
            print(f"pipeline {pipeline_uuid} is {told}")  # noqa: T201 - to the call's output
        time.sleep(min(poll_interval, _LOOK_S))
        now = _answer({"tick": number, "pipeline": pipeline_uuid})
    if check_status and error_on_failure and (status := now["status"]) != "success":
        raise TriggerError(f"the run of pipeline {pipeline_uuid!r} ended as {status}")
    return TriggeredRun(id=number, pipeline_uuid=pipeline_uuid, status=now["status"])


def connect(ask: Ask) -> None:
    """Send the questions of this process to an engine from now on; for a child, which serves one engine."""
    _ask.append(ask)


@contextmanager
def asking(ask: Ask) -> Iterator[None]:
    """Send questions to an engine during a function's call."""
    _ask.append(ask)
    try:
        yield
    finally:
        _ask.pop()


def refuse(_question: str) -> str:
    """Answer for calls without an engine."""
    return json.dumps({"error": "trigger_pipeline starts nothing outside of a run"})


def _answer(question: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(question, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TriggerError(f"variables and event must be JSON values: {error}") from error
    answer: dict[str, Any] = json.loads((_ask[-1] if _ask else refuse)(text))
    if "error" in answer:
        raise TriggerError(answer["error"])
    return answer
