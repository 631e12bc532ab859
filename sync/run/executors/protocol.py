"""The interface between coordinator and executor, and the coordinator's view of running streams."""

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
    """Names groups that were claimed together: contains no data, settings or secrets."""

    run_id: int
    attempt: int
    #: Groups, run one after another; a group is the streams of one read.
    groups: tuple[tuple[str, ...], ...]
    #: Nonce of the claim in the run store: a worker that finds another nonce there does nothing. Empty: the groups stay
    #: in this process.
    nonce: str = ""
    #: Number of workers that died in this attempt while running these streams.
    losses: int = 0

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of all streams."""
        return tuple(name for group in self.groups for name in group)

    def encode(self) -> str:
        """Return the JSON for transport."""
        groups = [list(group) for group in self.groups]
        document = {"run": self.run_id, "attempt": self.attempt, "streams": groups, "nonce": self.nonce}
        document |= {"losses": self.losses} if self.losses else {}
        return json.dumps(document)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Reference:
        """Read the transported JSON."""
        return cls(
            run_id=int(document["run"]),
            attempt=int(document["attempt"]),
            groups=tuple(tuple(map(str, group)) for group in document["streams"]),
            nonce=str(document["nonce"]),
            losses=int(document.get("losses", 0)),
        )


class RunningStream(Protocol):
    """One claimed stream as the coordinator sees it. It ends exactly once in every case."""

    name: str
    planned: PlannedStream
    outcome: StreamOutcome | None
    status: str | None
    error: BaseException | None
    #: Monotonic time of the claim, or of the remote start once it is known.
    started: float
    #: Time when it was closed in the run store.
    ended: float | None

    @property
    def has_started(self) -> bool:
        """Whether it has left the executor's queue: `timeout_s` starts then."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether it has finally ended."""
        ...

    def cancel(self, reason: str) -> None:
        """Stop soon, without another commit. Idempotent."""
        ...

    def abandon(self) -> None:
        """End it without its thread or worker: the ledger decides how, and the token prevents a later commit."""
        ...

    def shown(self, error: BaseException) -> str:
        """Return an error's text for the user, with secrets masked."""
        ...


class Work(Struct, frozen=True):
    """Groups that an executor has accepted; `done` is set when all members have ended."""

    members: Sequence[RunningStream]
    done: Future[None]


class Executor(Protocol):
    """Runs groups of streams somewhere. Engine objects never pass through it."""

    @property
    def slots(self) -> int | None:
        """Number of references that it accepts at once; None: as many streams as the pipeline allows."""
        ...

    def places(self, limit: int) -> int:
        """Return how many references to submit at once, so that it never runs more than `limit`."""
        ...

    def batch_size(self, waiting: int, limit: int) -> int:
        """Return how many groups to name in the next reference.

        Args:
            waiting: number of unclaimed groups.
            limit: references that may run at once.
        """
        ...

    def submit(self, reference: Reference, announce: Callable[[RunningStream], None]) -> Work:
        """Accept groups claimed in the run store; `announce` gets each member before any of them runs."""
        ...

    def spread(self, limit: int) -> None:
        """All groups are claimed: move groups that wait behind another one to idle workers.

        Args:
            limit: references that may run at once.
        """
        ...

    def close(self) -> None:
        """Make every worker close its connections to source and destination. Idempotent."""
        ...


#: Makes the executor of one attempt. Arguments: state that its streams share, the streams by name.
MakeExecutor = Callable[[StreamContext, Mapping[str, PlannedStream]], Executor]
