"""Values that the run store takes and returns: frozen, with JSON in their fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

import msgspec

from syncblocks.connectors.struct_helpers import asdict

from ..errors import SyncError
from .owner import Owner

SUCCESS, FAILURE, CANCELLED = "success", "failure", "cancelled"
#: Statuses of events only: beside `success` or `failure`, or while a block run is running.
RECOVERED, CRASHED, RETRY, SCHEMA_CHANGED = "recovered", "crashed", "retry", "schema_changed"
#: Status of a run, stream or block run that has not ended; UNCLAIMED of a stream that has not started.
RUNNING, UNCLAIMED = "running", "unclaimed"
#: Parents of events that are no block.
STREAM, PIPELINE = "stream", "pipeline"
DATA_LOADER = "data_loader"
DATA_EXPORTER = "data_exporter"


class LostRun(SyncError):
    """This process may no longer write: another process took the run over, or the stream is closed."""

    code: ClassVar[str] = "lost_run"


class BlockPlan(msgspec.Struct, frozen=True):
    """A block that a stream passes through."""

    block: str
    #: data_loader, transformer or data_exporter.
    block_type: str


class StreamPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of an attempt."""

    stream: str
    destination_table: str
    #: In pipeline order; without the transformers whose filter leaves this stream out.
    blocks: tuple[BlockPlan, ...]
    #: What recovery needs to find the stream's ledger row again.
    config: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A function to call for one status of one parent."""

    callback_block: str
    function: str
    #: A block_uuid, "stream" or "pipeline".
    parent: str
    status: str
    #: Names, no globs; None: every stream.
    streams: tuple[str, ...] | None = None
    needs_data: bool = False

    def takes(self, stream: str) -> bool:
        """Whether an event of this stream is for this function."""
        return self.streams is None or stream in self.streams


class RecordedCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A callback block in the store. Only the pipeline file says what it calls."""

    block: str
    #: Of the block when the attempt began, to find changes; None: not recorded.
    digest: str | None = None


class AttemptPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an attempt was going to do."""

    streams: tuple[StreamPlan, ...] = ()
    #: In firing order.
    subscriptions: tuple[Subscription, ...] = ()
    callbacks: tuple[RecordedCallback, ...] = ()
    allow_blocks_to_fail: bool = False
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def missing_streams(self) -> tuple[str, ...]:
        """Streams that were synced before and that the source did not offer."""
        return tuple(self.extra.get("missing_streams", ()))


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Why something failed; redacted before the store receives it."""

    type: str
    message: str
    traceback: str = ""
    stream: str | None = None
    block: str | None = None


def encode_error(error: ErrorInfo | None) -> dict[str, Any] | None:
    """Return an error as JSON."""
    return None if error is None else asdict(error)


def decode_error(value: Mapping[str, Any] | None) -> ErrorInfo | None:
    """Read an error's JSON."""
    return None if value is None else ErrorInfo(**value)


class BlockOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one block run ended. Unknown figures are None."""

    block: str
    status: str
    rows: int | None = None
    #: Rejected records.
    rows_rejected: int | None = None
    #: Records deleted or marked, since the source no longer has them; of the data exporter only.
    rows_deleted: int | None = None
    #: Records that another record of the same commit replaced; of the data exporter only.
    rows_replaced: int | None = None
    size_bytes: int | None = None
    bookmark_before: Any = None
    bookmark_after: Any = None
    schema_changes: tuple[Mapping[str, Any], ...] = ()
    error: ErrorInfo | None = None
    #: What a person should know of its columns, in sentences.
    notices: tuple[str, ...] = ()
    #: Numbers of the WARN and ERROR lines in the source's log; `None` if it had none, or if nobody counts them.
    warnings: Mapping[str, int] | None = None
    #: Of a stream that is read out of a log: how far it was behind, as `LogLag` says it.
    lag: Mapping[str, Any] | None = None
    #: Path of the block's spooled output, if a callback asks for it.
    data: str | None = None


class StateCopy(msgspec.Struct, frozen=True, kw_only=True):
    """Copy of one ledger row."""

    stream: str
    destination_table: str
    source: str
    bookmark: Any = None
    rows: int | None = None
    #: Of the stream at its source; None: unchanged.
    shape: Mapping[str, Any] | None = None


class StateVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a stream's state; the highest version is the current one."""

    pipeline: str
    stream: str
    destination_table: str
    version: int
    source: str
    bookmark: Any
    rows: int | None
    run_id: int | None
    saved_at: datetime
    #: The state was reset: a version without a bookmark that says so.
    is_deleted: bool
    #: Of the current version only.
    shape: Mapping[str, Any] | None = None


class StreamOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one stream ended: one outcome for each block run it has."""

    stream: str
    blocks: tuple[BlockOutcome, ...]
    state: StateCopy | None = None
    #: Its process died: there is an event `crashed` beside `failure`.
    is_crash: bool = False
    #: The commit whose schema change is held (see `running_events`) was made, or may have been made.
    is_held_committed: bool = False

    @property
    def status(self) -> str:
        """Failure if any block failed, else cancelled if any was, else success."""
        statuses = {block.status for block in self.blocks}
        return next((status for status in (FAILURE, CANCELLED) if status in statuses), SUCCESS)


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """What a close did to the run."""

    #: True for the run's last close: none open, none can come; its events wait for the gate.
    run_ended: bool
    #: The run's status after it ("running" unless run_ended).
    status: str
    #: True if no further stream can be claimed.
    is_stopping: bool
    #: Whether the streams that were to take its place were claimed.
    has_claimed: bool
    #: Whether the worker has taken its next stream.
    has_taken: bool = False


class RunStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How a run stands for its process."""

    #: Whether this process may still write to it.
    is_mine: bool
    cancel_requested: bool
    #: Whether somebody looks at its figures.
    is_watched: bool


class StreamStatus(NamedTuple):
    """How a stream stands in one attempt: unclaimed, running, or as it has ended."""

    attempt: int
    stream: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRun:
    """A run, with the figures of its latest attempt."""

    id: int
    #: Random hex; unlike the id, unique over all stores (the ledger keeps it).
    key: str
    pipeline: str
    attempt: int
    #: Of the attempt: running, success, failure or cancelled.
    status: str
    #: True: no further stream will be claimed.
    stopping: bool
    #: When the run started; constant over its attempts.
    execution_date: datetime
    trigger: str
    event: Mapping[str, Any]
    #: References in place of values that came from secrets.
    variables: Mapping[str, Any]
    #: Start and end, aware, of what the run is for; None: nothing that has both.
    interval: tuple[datetime, datetime] | None
    owner: Owner
    #: Of the attempt.
    started_at: datetime
    ended_at: datetime | None
    #: True until its callbacks were delivered or given up for now; one active run a pipeline.
    is_active: bool
    error: ErrorInfo | None
    cancel_requested: bool
    #: Until when it is its owner's, unless the owner renews it.
    lease_until: datetime = field(compare=False)
    #: For a mapped run: seconds that it stays open after a task's last sign of life; None: a process owns it.
    hold_s: int | None

    @property
    def holder(self) -> str:
        """Who has it, in words."""
        return holder_text(self.owner, self.hold_s, self.lease_until)

    @property
    def left_by(self) -> str:
        """Of a run that no living process has: who has left it, in words. A process that has left it may live."""
        return str(self.owner) if self.owner.has_departed else f"a dead process ({self.owner})"


def holder_text(owner: Owner, hold_s: int | None, lease_until: datetime) -> str:
    """Return the holder of a run in words: a process, or the tasks of a mapped run and until when it is open."""
    if hold_s is None:
        return str(owner)
    return f"mapped run, open for its tasks until {lease_until:%Y-%m-%d %H:%M:%S} UTC, longer while one of them runs"


class BlockRun(msgspec.Struct, frozen=True, kw_only=True):
    """One block's execution for one stream in one attempt."""

    run_id: int
    attempt: int
    block: str
    block_type: str
    stream: str
    destination_table: str
    #: running, success, failure or cancelled.
    status: str
    index: int | None
    #: None while it runs, and until no later block run can come.
    is_last_block_run: bool | None
    rows: int | None
    size_bytes: int | None
    started_at: datetime
    ended_at: datetime | None
    bookmark_before: Any
    bookmark_after: Any
    schema_changes: tuple[Mapping[str, Any], ...]
    error: ErrorInfo | None
    #: Rejected records; None: not counted.
    rows_rejected: int | None = None
    #: Records deleted or marked, since the source no longer has them; None: nobody has looked.
    rows_deleted: int | None = None
    #: Records that another record of the same commit replaced. `None` if they are not counted.
    rows_replaced: int | None = None
    #: What a person should know of its columns, in sentences.
    notices: tuple[str, ...] = ()
    #: Numbers of the WARN and ERROR lines in the source's log; `None` if it had none, or if nobody counts them.
    warnings: Mapping[str, int] | None = None
    #: Of a stream that is read out of a log: how far it was behind, as `LogLag` says it.
    lag: Mapping[str, Any] | None = None

    @property
    def uuid(self) -> str:
        """Name to show; never parsed."""
        return f"{self.block}:{self.stream}"


class DeliveryTry(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of one lease of a delivery."""

    number: int
    #: The dispatcher's kind (returned, raised, timeout ...), "lost" if its owner died, "replayed" by hand.
    outcome: str
    error: str | None
    output: str
    owner: str
    started_at: datetime
    ended_at: datetime
    duration_s: float | None


class DeliveryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as `callbacks list` shows it."""

    key: str
    pipeline: str
    run_id: int
    attempt: int
    callback_block: str
    function: str
    parent: str
    block: str | None
    stream: str | None
    status: str
    #: ready, leased, done or dead.
    state: str
    attempts: int
    not_before: datetime | None
    data: str | None
    tries: tuple[DeliveryTry, ...]


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a delivery, as `callbacks history` shows it."""

    key: str
    run_id: int
    attempt: int
    callback_block: str
    function: str
    parent: str
    stream: str | None
    status: str
    call: DeliveryTry
