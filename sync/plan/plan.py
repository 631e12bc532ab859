"""The plan of a run: for each stream its start, columns, write disposition and wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, field

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.log_based import GivenUp, LogLook
from syncblocks.connectors.protocols import Destination, Source
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import LedgerKey, Stream, TableState, Trigger
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec

from ..config.before_statements import BeforeStatement
from .columns import ColumnMapping
from .groups import Placement, RecordChecks, Replacing, SchemaPlan, Texts, Verdict
from .policy import Policy
from .reading import Resumption, StreamReading
from .start import Start
from .steps import PlannedStep, in_order

if TYPE_CHECKING:
    from .planned_repair import Repair

Step = TypeVar("Step", bound=PlannedStep)


class Connectors(Struct, frozen=True, kw_only=True):
    """Source and destination of one opened pipeline."""

    source: Source
    #: Connector and place, as ledger and run store keep it: without secrets.
    source_name: str
    source_can: Capabilities
    destination: Destination
    destination_can: Capabilities
    #: The system that computes checksums of the destination's tables, for `deletes`; empty: none does, and their keys
    #: are read; None: they cannot be read.
    read_back: str | None = ""


class PlannedStream(Struct, frozen=True, kw_only=True):
    """The plan of one stream."""

    #: The stream as it is read: without excluded columns, with keys and bookmark properties as configured.
    stream: Stream
    key: LedgerKey
    table: TableState
    start: Start
    #: How the stream is written in this run. A full refresh replaces, whatever the file says. Columns as they arrive.
    write: WriteSpec
    policy: Policy
    wire: str
    #: Transformer blocks that apply, in order.
    transformers: tuple[str, ...]
    #: The stream as the destination gets it, as far as it is declared. A transformer's function may change its columns.
    arriving: Stream
    is_schema_decided: bool
    reading: StreamReading
    #: `None` if the stream is not INCREMENTAL.
    resumption: Resumption | None
    #: Columns as the destination stores them. The declared columns if a transformer may still change them.
    mapping: ColumnMapping
    schema: SchemaPlan
    verdict: Verdict = Verdict()
    texts: Texts = Texts()
    placement: Placement = Placement()
    record_checks: RecordChecks = RecordChecks()
    replacing: Replacing = Replacing()
    #: A repair reads and merges only its own ranges. `None` for a usual run.
    repair: Repair | None = None
    #: The steps before and after the load.
    steps: tuple[PlannedStep, ...] = ()

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.stream.name

    @property
    def destination_table(self) -> str:
        """The table that it is written to."""
        return self.key.destination_table

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """Triggers of the destination table that fire on these writes."""
        return self.table.triggers.get(self.write.disposition, ())

    @property
    def tries(self) -> int:
        """Most attempts at the stream: one more for ranges that the source refuses, and one for a loss."""
        return self.policy.retries + (3 if self.reading.readers > 1 else 2)

    def step(self, kind: type[Step]) -> Step | None:
        """Return the step of a kind, or `None` if the stream does not have it."""
        return next((step for step in self.steps if isinstance(step, kind)), None)

    def with_step(self, step: PlannedStep) -> PlannedStream:
        """Return the plan with a step in place of the one of its kind."""
        return replace(self, steps=in_order([step, *(each for each in self.steps if each.name != step.name)]))

    @property
    def completing_step(self) -> PlannedStep | None:
        """The step whose transaction after the load completes the stream. `None` if the load completes it."""
        return None if self.repair is not None else next((step for step in self.steps if step.completes), None)

    @property
    def may_remove_records(self) -> bool:
        """True if a step takes records out of the table, which foreign keys may refuse."""
        return self.repair is None and any(step.may_remove_records for step in self.steps)

    @property
    def commits_once(self) -> bool:
        """Whether it commits once, at the end: FULL_TABLE and replace. INCREMENTAL commits at every checkpoint."""
        method = self.stream.read.method
        return method is ReplicationMethod.FULL_TABLE or self.write.disposition is WriteDisposition.REPLACE


#: At most this many streams or tables are named in one warning.
MAX_SAID = 5


class Missing(Struct, frozen=True, kw_only=True):
    """A stream that was synced before and that globs of the pipeline file do not find any more."""

    stream: str
    #: Where its records stand.
    destination_table: str
    why: str

    def __str__(self) -> str:
        """Say it in a sentence, with what ends it."""
        return (
            f"stream {self.stream!r} was synced before and {self.why}: table {self.destination_table!r} stays as it "
            f"is. `optional: true`, or `syncblocks state reset {self.stream}`, says that this is right"
        )


def missing_warnings(missing: Sequence[Missing]) -> list[str]:
    """Return a sentence for each of the first missing streams, and one for all others."""
    first, others = missing[:MAX_SAID], missing[MAX_SAID:]
    texts = [str(each) for each in first]
    if others:
        names = ", ".join(each.stream for each in others[:MAX_SAID]) + (", ..." if len(others) > MAX_SAID else "")
        texts.append(f"{len(others):,} more streams were synced before and are missing now: {names}")
    return texts


class Plan(Struct, frozen=True, kw_only=True):
    """The plan of a run."""

    streams: tuple[PlannedStream, ...]
    #: Names of streams that are claimed together: one read yields them, or `joined` says so.
    groups: tuple[tuple[str, ...], ...]
    #: Run before the first stream.
    before: tuple[BeforeStatement, ...] = ()
    warnings: tuple[str, ...] = ()
    #: Warnings about skipped streams, and of the source's log; a run shows them too.
    skipped: tuple[str, ...] = ()
    #: Streams that their `when` leaves out of this run -> the condition.
    left_out: Mapping[str, str] = field(default_factory=dict)
    #: What was found of the source's log.
    log: LogLook = LogLook()
    #: What the run gives up of that log before its first stream.
    given_up: GivenUp = GivenUp()
    #: Streams that are missing.
    missing: tuple[Missing, ...] = ()
    #: Of tables under globs that may not be read, a sentence for each glob.
    unreadable: tuple[str, ...] = ()
    #: Where other processes run the streams; empty: threads of the run's own process do.
    elsewhere: str = ""
    #: What the destination's settings say about the files of its tables: `partition_by`, `file_records`, `file_bytes`.
    files: Mapping[str, Any] = field(default_factory=dict)
