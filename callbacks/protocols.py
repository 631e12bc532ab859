"""Values and protocols for delivering one event to one function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from .child_process import CallEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one function; it is leased, and its attempt is counted.

    The run store gives the event and the names of block and function. `file`, `attempts`, `timeout_s`, `when`, `hook`
    come from the current pipeline file (see `Callbacks`), never from the store.
    """

    #: The idempotency key.
    key: str
    callback_block: str
    function: str
    #: Absolute path; empty for a hook.
    file: str = ""
    #: Number of this attempt, from 1.
    attempt: int
    #: After this many attempts the delivery is dead.
    attempts: int = 1
    timeout_s: float = 60.0
    #: All keyword arguments in recorded form (plain JSON), runtime variables as references.
    kwargs: Mapping[str, Any] = field(repr=False)
    #: Path of an Arrow IPC file with the parent's output.
    data: str | None
    #: Name in logs: `<block>:<stream>`.
    label: str
    #: Whether the outcome includes the function's result.
    wants_value: bool = False
    #: Status of the event.
    status: str = ""
    #: Parent of the event: a block_uuid, "stream" or "pipeline".
    parent: str = ""
    #: Condition over the event; if false, the delivery is done without a call.
    when: str | None = None
    #: The hook in place of a function: `kind` and its settings, templates unfilled.
    hook: Mapping[str, Any] | None = field(default=None, repr=False)
    #: Why nothing can be called; the delivery is then dead.
    missing: str | None = None


class LocalCall(Protocol):
    """A call that the engine makes itself, on the queue's thread."""

    def run(self, timeout_s: float) -> CallEnd:
        """Make the call, within `timeout_s`."""

    def interrupt(self) -> None:
        """End the call soon, with kind "interrupted"; safe from any thread."""


class Prepared(Struct, frozen=True, kw_only=True):
    """A delivery prepared for its call."""

    #: False: its condition is false, so the delivery is done without a call.
    is_wanted: bool = True
    #: The hook with its settings filled in (see `hooks.run_hook`); None: a function is called.
    hook: Mapping[str, Any] | None = None
    #: A call that the engine makes itself.
    local: LocalCall | None = None


class Outcome(Struct, frozen=True, kw_only=True):
    """Outcome of a delivery."""

    ok: bool
    #: `Type: message, at FILE:LINE` in the first line, then the traceback.
    error: str | None
    #: End of stdout and stderr, at most OUTPUT_LIMIT characters.
    output: str
    duration_s: float
    #: "interrupted": ended by `close`, not counted as a failure. "skipped": its condition is false.
    kind: Literal["returned", "raised", "timeout", "exited", "missing", "load", "interrupted", "skipped"]
    #: `repr` of the function's result, if the delivery asked for it.
    value: str | None = None


class Callbacks(Protocol):
    """The callback blocks of the current pipeline file."""

    def complete(self, delivery: Delivery, digest: str | None) -> Delivery:
        """Complete a delivery from the file; set `missing` if the file does not call it.

        Args:
            delivery: the store's part: the event, names of block and function, path of the data.
            digest: digest of the block when the event was recorded; None if unknown.
        """


class NotDue(Struct, frozen=True):
    """A queue has open deliveries, and none is due."""

    #: Seconds until one may become due.
    wait_s: float


class NothingOpen(Struct, frozen=True):
    """A queue has no open delivery."""


#: Result of `Outbox.lease`: the leased delivery, or why there is none.
LeaseResult = Delivery | NotDue | NothingOpen


class Outbox(Protocol):
    """Source of deliveries; thread-safe."""

    def lease(self, callback_block: str) -> LeaseResult:
        """Lease the next due delivery of a queue, if there is one."""

    def mark(self, delivery: Delivery, outcome: Outcome) -> str:
        """Record the outcome; return "done", "retry" or "dead"."""
