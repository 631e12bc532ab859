"""Streams that other processes run, and their calls, as the coordinator sees them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from ...plan.plan import PlannedStream
from ...store.model import ErrorInfo, StreamOutcome
from ..context import StreamContext
from ..errors import message_of
from .protocol import Reference, Work

#: Seconds to wait for a worker's answer after its stream was closed.
ANSWER_S = 1.0
#: Seconds that a stream may take before later streams of its call move to idle workers.
SPREAD_S = 1.0

#: Notified when a stream must stop, or has ended. One for all streams: few wait at once, and a run may have thousands.
_CHANGED = threading.Condition()

#: Answer of the worker's function; None: the engine has lost the call.
Answer = Mapping[str, Any] | None


class DueEnd(Struct, frozen=True):
    """How a stream ends without its worker."""

    #: Its error; None: it was cancelled.
    error: ErrorInfo | None
    #: Whether a worker may have written data.
    was_taken: bool


class RemoteStream:
    """One stream that another process runs; see `RunningStream`."""

    def __init__(self, planned: PlannedStream, context: StreamContext, wake: Callable[[], None]) -> None:
        self.planned = planned
        self.name = planned.name
        self.outcome: StreamOutcome | None = None
        self.status: str | None = None
        self.error: BaseException | None = None
        self.started = time.monotonic()
        self.ended: float | None = None
        #: Reason of the cancel; None: not cancelled.
        self.stop_reason: str | None = None
        self.has_started = False
        #: Whether a worker had it at the last look.
        self.is_taken = False
        #: State of its claim at the last look.
        self.nonce = ""
        #: How many workers have died with it.
        self.losses = 0
        #: How it must end without its worker; kept until it has ended: the run store may not answer at once.
        self.due_end: DueEnd | None = None
        #: Whether it must end without its worker.
        self.is_abandoned = False
        #: Whether a thread is taking it over.
        self.is_being_taken = False
        self._is_left = False
        self._context = context
        self._wake = wake

    @property
    def has_ended(self) -> bool:
        """See `RunningStream`."""
        return self.ended is not None

    def cancel(self, reason: str) -> None:
        """See `RunningStream`: the run store tells its worker."""
        if self.stop_reason is None and self.ended is None:
            self.stop_reason = reason
            _tell_waiting()
            self._wake()

    def wait_for_retry(self, delay_s: float) -> None:
        """Sleep, unless cancelled."""
        with _CHANGED:
            _CHANGED.wait_for(lambda: self.stop_reason is not None or self.is_abandoned, delay_s)

    def abandon(self) -> None:
        """See `RunningStream`."""
        self.is_abandoned = True
        _tell_waiting()
        self._wake()
        with _CHANGED:
            _CHANGED.wait_for(lambda: self.has_ended or self._is_left)

    def shown(self, error: BaseException) -> str:
        """See `RunningStream`."""
        return self._context.redactor.redact(message_of(error))

    def leave(self) -> None:
        """Release the thread that waits for the end: no thread handles the call any more."""
        self._is_left = True
        _tell_waiting()

    def note_start(self) -> None:
        """Note that a worker has taken it."""
        if not self.has_started:
            self.has_started, self.started = True, time.monotonic()

    def end(self, outcome: StreamOutcome | None, status: str, error: BaseException | None) -> None:
        """Note how it ended; without an outcome it stays open, and the next start recovers it."""
        self.outcome, self.status, self.error = outcome, status, error
        self.ended = time.monotonic()
        _tell_waiting()
        last = outcome.blocks[-1] if outcome is not None else None
        shown = None if error is None else self.shown(error)
        self._context.progress.stream_ended(self.name, status, records=last.rows if last else None, error=shown)


@dataclass(slots=True, eq=False)
class Flight:
    """Groups in one call. After the launch, only the watch thread changes it."""

    reference: Reference
    groups: list[Sequence[RemoteStream]]
    #: The coordinator waits for it: everything submitted at once, in any number of calls.
    work: Work
    tries: int = 0
    withdraw: Callable[[], None] = lambda: None
    #: Result of the last attempt.
    answer: Answer = None
    has_answered: bool = False
    #: Whether a worker has started one of its streams.
    has_run: bool = False
    was_stopped: bool = False
    #: Time when its stream was first seen as closed.
    closed_at: float | None = None

    @property
    def members(self) -> list[RemoteStream]:
        """The streams of the call."""
        return [member for group in self.groups for member in group]

    @property
    def is_slow(self) -> bool:
        """Whether a stream of the call has been running for long."""
        limit = time.monotonic() - SPREAD_S
        return any(each.is_taken and not each.has_ended and each.started < limit for each in self.members)

    @property
    def waiting(self) -> list[Sequence[RemoteStream]]:
        """The groups that no worker had at the last look, and that are not being ended."""
        return [group for group in self.groups if not any(map(_is_busy, group))]

    @property
    def is_told(self) -> bool:
        """Whether the answer arrived, or is late: the run store knows how streams ended; the answer has messages."""
        self.closed_at = self.closed_at or time.monotonic()
        return self.has_answered or time.monotonic() - self.closed_at > ANSWER_S


def _tell_waiting() -> None:
    with _CHANGED:
        _CHANGED.notify_all()


def _is_busy(member: RemoteStream) -> bool:
    is_ending = member.due_end is not None or member.is_abandoned or member.stop_reason is not None
    return member.is_taken or member.has_ended or is_ending


def reference_of(former: Reference, groups: Sequence[Sequence[RemoteStream]], nonce: str) -> Reference:
    """Return a reference for groups of a call that are sent in a new call."""
    return Reference(
        run_id=former.run_id,
        attempt=former.attempt,
        groups=tuple(tuple(member.name for member in group) for group in groups),
        nonce=nonce,
        losses=max(member.losses for group in groups for member in group),
    )
