"""One event on its way to one function: what is leased, what is made of it, how it ended, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from .child import CallEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event to one function, leased and its attempt counted."""

    #: The idempotency key.
    key: str
    callback_block: str
    function: str
    #: Absolute path; empty for a hook.
    file: str
    #: This one, from 1.
    attempt: int
    #: After so many the delivery is dead.
    attempts: int
    timeout_s: float
    #: In recorded form (plain JSON), complete; runtime variables as references.
    kwargs: Mapping[str, Any]
    #: Path of an Arrow IPC file with the parent's output.
    data: str | None
    #: For logs: `<block>:<stream>`.
    label: str
    #: Whether the outcome tells what the function returned.
    wants_value: bool = False
    #: Of the event.
    status: str = ""
    #: Condition over the event; false: done without a call.
    when: str | None = None
    #: What is called in place of a function: `kind` and settings as recorded, thus with references.
    hook: Mapping[str, Any] | None = None


class LocalCall(Protocol):
    """A call that the engine makes itself, on the thread of the queue."""

    def run(self, timeout_s: float) -> CallEnd:
        """Make it, within timeout_s."""

    def interrupt(self) -> None:
        """End it soon, with kind "interrupted"; from any thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What the engine makes of a delivery just before it is called."""

    #: False: its condition is not met, so that it is done without a call.
    is_wanted: bool = True
    #: Settings with which a child runs the hook (see `hooks.run_hook`); None: there is a function to call.
    hook: Mapping[str, Any] | None = None
    #: Called here instead.
    local: LocalCall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a delivery went."""

    ok: bool
    #: `Type: message` in its first line, the traceback below.
    error: str | None
    #: Tail of stdout and stderr, at most OUTPUT_LIMIT characters.
    output: str
    duration_s: float
    #: "interrupted": cut short by `close`, through no fault of the function. "skipped": its condition is false.
    kind: Literal["returned", "raised", "timeout", "exited", "missing", "load", "interrupted", "skipped"]
    #: `repr` of what the function returned, if the delivery asked for it.
    value: str | None = None


class Outbox(Protocol):
    """Where deliveries come from; thread-safe."""

    def lease(self, callback_block: str) -> Delivery | float | None:
        """Return the next due delivery of a queue, seconds until one may become due, or None if nothing is open."""

    def mark(self, delivery: Delivery, outcome: Outcome) -> str:
        """Record the outcome; return "done", "retry" or "dead"."""


__all__ = ["Delivery", "LocalCall", "Outbox", "Outcome", "Prepared"]
