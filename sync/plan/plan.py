"""The plan of a run: for each stream its start, columns, write disposition and wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.log_based import GivenUp, LogLook
from syncblocks.connectors.protocols import Destination, Source
from syncblocks.connectors.read_spec import Condition, ReplicationMethod
from syncblocks.connectors.stream import LedgerKey, Stream, TableState, Trigger
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec

from ..config.before_statements import BeforeStatement
from .columns import ColumnMapping, Rules
from .deletes import PlannedDeletes
from .policy import Policy
from .reading import Resumption, StreamReading
from .schema_snapshots import Change, Shape
from .start import Start

if TYPE_CHECKING:
    from .planned_repair import Repair


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

    #: As it is read: without excluded columns; keys and bookmark properties as configured.
    stream: Stream
    key: LedgerKey
    table: TableState
    start: Start
    #: How it is written in this run: a full refresh replaces, whatever the file says. Columns as they arrive.
    write: WriteSpec
    policy: Policy
    wire: str
    #: Transformer blocks that apply, in order.
    transformers: tuple[str, ...]
    #: The stream as the destination gets it, as far as it is declared: a transformer's function may change its columns.
    arriving: Stream
    is_schema_decided: bool
    reading: StreamReading
    #: None if not INCREMENTAL.
    resumption: Resumption | None
    #: Columns as the destination keeps them; of the declared columns, if a transformer may still change them.
    mapping: ColumnMapping
    rules: Rules
    #: What the run will do to the destination's table, in words.
    changes: tuple[str, ...]
    #: The stream's columns and keys at its source, and their changes since it was last written.
    shape: Shape
    source_changes: tuple[Change, ...]
    #: The keys by which the table was last written, if they have changed.
    former_key: tuple[str, ...] | None
    #: Why the stream will fail before anything is written; empty if it will not.
    refusal: str
    #: Whether the destination is why, and not a change at the source: its block fails.
    is_refused_by_destination: bool
    #: Whether the file must change first: without `allow_blocks_to_fail` nothing is run.
    needs_decision: bool
    #: Conditions that its records must meet as they would be written.
    checks: tuple[Condition, ...] = ()
    #: The same, of records that are written all the same.
    warn_checks: tuple[Condition, ...] = ()
    #: Blocks whose output is kept for callbacks.
    data_blocks: frozenset[str]
    #: Columns that `on_schema_change: ignore` leaves out; None if the setting is another.
    ignored: tuple[str, ...] | None
    #: Streams whose tables its table refers to by foreign keys; they come before it.
    parents: tuple[str, ...] = ()
    #: Streams of one chain, whose tables foreign keys connect, run one after another; empty: there are none.
    chain: str = ""
    #: Whether its deletes wait for the other streams of its group, see `joined`.
    is_joined: bool = False
    #: What a person should know of the columns, in sentences; a run shows them too.
    notices: tuple[str, ...] = ()
    #: Of columns that are not what a person may expect; for `plan` only.
    warnings: tuple[str, ...] = ()
    #: Whether this is a full refresh of a stream that otherwise appends.
    is_appended_anew: bool = False
    #: Whether the history in the table is dropped (`--drop-history`).
    drops_history: bool = False
    #: A repair reads and merges only its own ranges; None: a usual run.
    repair: Repair | None = None
    #: Of records that the source no longer has; None: they stay.
    deletes: PlannedDeletes | None = None
    #: Columns, by the source's names, that records get that are there already, before the load.
    fills: tuple[str, ...] = ()

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
        """Most attempts at the stream; one more for ranges that the source refuses, and for a table that is lost."""
        return self.policy.retries + (3 if self.reading.readers > 1 else 2)

    @property
    def compares_keys(self) -> bool:
        """Whether a transaction after the load deletes what the source no longer has, and completes the stream."""
        return self.deletes is not None and self.deletes.is_due and self.repair is None

    @property
    def deletes_records(self) -> bool:
        """Whether that transaction takes records out of the table, which foreign keys may refuse."""
        return self.compares_keys and self.deletes is not None and not self.deletes.setting.is_soft

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
