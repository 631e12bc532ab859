"""One event on its way to one function: what is leased, what is made of it, how it ended, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from .child import CallEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event to one function, leased and its attempt counted.

    A run store gives the event and the names of block and function; `file`, `attempts`, `timeout_s`, `when` and `hook`
    come from the pipeline file as it is now (see `Callbacks`), never from the store.
    """

    #: The idempotency key.
    key: str
    callback_block: str
    function: str
    #: Absolute path; empty for a hook.
    file: str = ""
    #: This one, from 1.
    attempt: int
    #: After so many the delivery is dead.
    attempts: int = 1
    timeout_s: float = 60.0
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
    #: Of the event: a block_uuid, "stream" or "pipeline".
    parent: str = ""
    #: Condition over the event; false: done without a call.
    when: str | None = None
    #: What is called in place of a function: `kind` and settings as the pipeline file says them, templates unfilled.
    hook: Mapping[str, Any] | None = field(default=None, repr=False)
    #: Why there is nothing to call: then it is dead.
    missing: str | None = None


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


class Callbacks(Protocol):
    """What may be called: the callback blocks of a pipeline file as it is now."""

    def complete(self, delivery: Delivery, digest: str | None) -> Delivery:
        """Return a delivery with what is called for it; `missing`, if the file does not say that it is.

        Args:
            delivery: What the store knows: the event, names of block and function, a path of data.
            digest: Of the block when the event was recorded; None: not known.
        """


@dataclass(frozen=True, slots=True)
class NotDue:
    """A queue has open deliveries, and none is due."""

    #: Seconds until one may become due.
    wait_s: float


@dataclass(frozen=True, slots=True)
class NothingOpen:
    """A queue has no open delivery."""


#: What `Outbox.lease` returns: the leased delivery, or why there is none.
LeaseResult = Delivery | NotDue | NothingOpen


class Outbox(Protocol):
    """Where deliveries come from; thread-safe."""

    def lease(self, callback_block: str) -> LeaseResult:
        """Lease the next due delivery of a queue, if there is one."""

    def mark(self, delivery: Delivery, outcome: Outcome) -> str:
        """Record the outcome; return "done", "retry" or "dead"."""


__all__ = [
    "Callbacks",
    "Delivery",
    "LeaseResult",
    "LocalCall",
    "NotDue",
    "NothingOpen",
    "Outbox",
    "Outcome",
    "Prepared",
]
