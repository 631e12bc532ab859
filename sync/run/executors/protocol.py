"""What the coordinator asks of an executor, and what it sees of the streams that run there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from msgspec import Struct

from ...plan.plan import PlannedStream
from ...store.model import StreamOutcome
from ..context import StreamContext


class Reference(Struct, frozen=True, kw_only=True):
    """Names groups that were claimed together: no data, no settings and no secrets."""

    run_id: int
    attempt: int
    #: Groups, to be run one after another; the streams of a group are those that one read yields together.
    groups: tuple[tuple[str, ...], ...]
    #: Nonce of the claim in the run store: a worker that finds another one there does nothing. Empty: the groups stay
    #: in this process.
    nonce: str = ""
    #: How many workers have died in this attempt while they ran these streams.
    losses: int = 0

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of all streams."""
        return tuple(name for group in self.groups for name in group)

    def encode(self) -> str:
        """Return the JSON that travels."""
        groups = [list(group) for group in self.groups]
        document = {"run": self.run_id, "attempt": self.attempt, "streams": groups, "nonce": self.nonce}
        document |= {"losses": self.losses} if self.losses else {}
        return json.dumps(document)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Reference:
        """Read what has travelled."""
        return cls(
            run_id=int(document["run"]),
            attempt=int(document["attempt"]),
            groups=tuple(tuple(map(str, group)) for group in document["streams"]),
            nonce=str(document["nonce"]),
            losses=int(document.get("losses", 0)),
        )


class Member(Protocol):
    """One claimed stream as the coordinator sees it. It ends exactly once, whatever happens."""

    name: str
    planned: PlannedStream
    outcome: StreamOutcome | None
    status: str | None
    error: BaseException | None
    #: Monotonic time of the claim, or of the start elsewhere once it is known.
    started: float
    #: When it was closed in the run store.
    ended: float | None

    @property
    def has_started(self) -> bool:
        """Whether it has left the queue of the executor: `timeout_s` counts from there."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether it has ended for good."""
        ...

    def cancel(self, reason: str) -> None:
        """Stop soon, and commit nothing more. Idempotent."""
        ...

    def abandon(self) -> None:
        """End it without whoever runs it: the ledger decides how, and its token keeps them from another commit."""
        ...

    def shown(self, error: BaseException) -> str:
        """Return an error's text for a person, with secrets masked."""
        ...


class Work(Struct, frozen=True):
    """Groups that an executor has taken; `done` is set when all of their members have ended."""

    members: Sequence[Member]
    done: Future[None]


class Executor(Protocol):
    """Runs groups of streams somewhere. Nothing of an engine passes through it."""

    @property
    def slots(self) -> int | None:
        """How many references it takes at once; None: as many streams as the pipeline allows."""
        ...

    def places(self, limit: int) -> int:
        """Return how many references to have with it at once, so that it never runs more than `limit` of them."""
        ...

    def batch_size(self, waiting: int, limit: int) -> int:
        """Return how many groups to name in the next reference.

        Args:
            waiting: groups that are not claimed yet.
            limit: references that may run at once.
        """
        ...

    def submit(self, reference: Reference, announce: Callable[[Member], None]) -> Work:
        """Take what was claimed in the run store; `announce` gets each member before any of them runs."""
        ...

    def spread(self, limit: int) -> None:
        """Nothing is left to claim: give groups that wait behind another one to idle workers.

        Args:
            limit: references that may be at work at once.
        """
        ...

    def close(self) -> None:
        """Make every worker close its connections to source and destination. Idempotent."""
        ...


#: Makes the executor of one attempt. Arguments: what its streams share, the streams by name.
MakeExecutor = Callable[[StreamContext, Mapping[str, PlannedStream]], Executor]
