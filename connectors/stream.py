"""What moves between a source and a destination: values only, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa

#: Bookmark of one stream: JSON values only, so that it survives every store unchanged.
Bookmark = Mapping[str, Any]


#: In the metadata of a field of texts: nobody has seen a value of it, so that nothing is known of its type.
UNSEEN = b"unseen"


def is_unseen(field: pa.Field) -> bool:
    """Tell whether a column's type is a guess without a value: a table that is there keeps its own."""
    return bool(pa.types.is_null(field.type)) or UNSEEN in (field.metadata or {})


#: One block of a wire format other than "arrow".
Block = bytes | bytearray | memoryview


class ReplicationMethod(StrEnum):
    """How a stream is read. Source: Singer."""

    FULL_TABLE = "FULL_TABLE"
    INCREMENTAL = "INCREMENTAL"
    LOG_BASED = "LOG_BASED"


class WriteDisposition(StrEnum):
    """How a stream is written. Source: dlt."""

    APPEND = "append"
    REPLACE = "replace"
    MERGE = "merge"


class ConflictMethod(StrEnum):
    """What a merge does with a record whose key is already there. Source: Mage."""

    UPDATE = "UPDATE"
    IGNORE = "IGNORE"


class NullBookmarks(StrEnum):
    """What becomes of records whose bookmark is NULL (or NaN) in an INCREMENTAL read. Source: dlt's
    on_cursor_value_missing."""

    #: They are an error.
    FAIL = "fail"
    #: They are read when the stream is read from scratch, and never again.
    ONCE = "once"
    #: They are read in every run.
    ALWAYS = "always"
    #: They are left out.
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One named set of records.

    Out of `Source.discover` it is what the source offers; on its way to a destination it is what arrives there
    (columns renamed, dropped or added on the way). Sent between two batches, it says that the schema changed.
    """

    #: `schema.table` for databases with schemas, `table` for SQLite and DuckDB's main schema, the stem for files.
    name: str
    #: Columns in order. Field metadata `b"native_type"` keeps the system's own type name; keys are not nullable.
    schema: pa.Schema
    #: Columns that identify a record; empty where none is known.
    key_properties: tuple[str, ...] = ()
    replication_method: ReplicationMethod = ReplicationMethod.FULL_TABLE
    #: Columns whose highest value seen is kept, most significant first.
    bookmark_properties: tuple[str, ...] = ()
    null_bookmarks: NullBookmarks = NullBookmarks.FAIL
    #: INCREMENTAL reads from so much below the bookmark: seconds of times and dates, else a number; None: from it.
    lookback: float | None = None
    #: Records may come again, because they are merged by their keys.
    may_repeat: bool = False
    #: Rejected records are set aside, up to so many, and not raised (see `connectors/rejected`); None: they are raised.
    max_rejected: int | None = None
    #: The source finds its own place again (a Singer tap's STATE): INCREMENTAL needs no bookmark_properties.
    keeps_own_bookmark: bool = False
    #: Views are selected by exact name only, never by a glob.
    is_view: bool = False
    #: Rough number of records where the source knows it without counting.
    estimated_records: int | None = None
    #: What the source needs to find the records again (paths, native names). Only the source reads it.
    locator: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A point in the data up to which it may be committed; it may be delayed, never advanced. Source: Flink."""

    #: Where the next run goes on; None: from scratch (FULL_TABLE has no bookmark).
    bookmark: Bookmark | None = None
    #: True only for the last event of a stream: its commit also marks the stream as completed by this run.
    is_final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRecord:
    """A record that does not fit, as it is kept beside the others."""

    #: JSON: an object of its values, or the text of what is no record; ASCII.
    record: str
    reason: str
    #: Where it was found (`people.csv:12`); empty: nowhere to point at.
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Records that were set aside; only of a stream with `max_rejected`."""

    records: tuple[RejectedRecord, ...]


#: What a source yields and a destination takes, in memory: batches of about 4 MB or 64k records.
Event = pa.RecordBatch | Checkpoint | Stream | Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerKey:
    """Which row of a destination's ledger: one a pipeline, stream and destination table."""

    pipeline: str
    stream: str
    #: May carry a schema (`analytics.dim_users`).
    destination_table: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """The truth about one stream, kept in the destination and written in the data's own transaction."""

    key: LedgerKey
    #: Connector and place of the source, without credentials.
    source: str
    #: Whoever wrote it last may commit; every other writer's commit changes 0 rows and is rolled back.
    token: str
    bookmark: Bookmark | None = None
    #: `<run key>:<attempt>` that last completed the stream; None: never completed.
    completed_by: str | None = None
    #: Human-readable owner of the token, for "taken over by run 12 on host-3".
    owner: str = ""
    #: Records written by the run that last completed the stream.
    rows: int | None = None
    #: Last commit of data; None: a token was written, but never any data.
    committed_at: datetime | None = None
    #: Column of the stream -> column of the table, where it has another name there than it would have alone: of two
    #: that a system takes for one name, of a name that the table spells in another way. Of columns that came once.
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A trigger of a destination's table."""

    name: str
    #: before, after, or another word of the system's.
    timing: str
    #: Of insert, update, delete.
    events: tuple[str, ...]
    #: What it calls, where that has a name of its own.
    function: str = ""

    def __str__(self) -> str:
        return f"{self.name!r} ({self.timing} {', '.join(self.events)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableState:
    """What a destination holds for one table before a run; reading it changes and creates nothing."""

    #: None: no such table.
    schema: pa.Schema | None = None
    #: All ledger rows of this table, of any pipeline and stream.
    ledger: tuple[LedgerRow, ...] = ()
    #: False: a view or something else that cannot be written.
    is_table: bool = True
    #: Write dispositions that cannot write it as it stands -> why, behind its name.
    refuses: Mapping[WriteDisposition, str] = field(default_factory=dict)
    #: Triggers that fire when records are written so; none where the system does not tell.
    triggers: Mapping[WriteDisposition, tuple[Trigger, ...]] = field(default_factory=dict)
    #: False: the destination cannot say what it holds (a Singer target); `schema` is None then.
    is_described: bool = True
    #: The table as a source of the same place would name its stream (`public.users`, `users`).
    stream_name: str = ""
    #: What the stream that is planned for it calls its columns, see `LedgerRow.columns`; `describe` leaves it empty.
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One stream's order to a destination; constant for one call of `Destination.load`."""

    key: LedgerKey
    #: The stream as it arrives: schema and keys after renames and transformers.
    stream: Stream
    write_disposition: WriteDisposition
    conflict_method: ConflictMethod = ConflictMethod.UPDATE
    #: Written into the ledger row by `take_over`; each commit demands to find it there.
    token: str
    #: `<run key>:<attempt>`; written as `completed_by` by the final commit.
    run: str
    #: MERGE into a destination that `removes`: keys (the key's columns of `stream`, as the destination reads them
    #: back) whose records are removed unless they arrive, in the final commit's transaction; None: nothing is.
    removed: pa.Table | None = field(default=None, compare=False, repr=False)
    #: Keys that the stream had when the table was last written, if they were others: a REPLACE of a table that cannot
    #: be made anew changes its key as well; None: they were the same, or nobody knows.
    former_key: tuple[str, ...] | None = None
    #: What the ledger row says of the columns' names, as `take_over` returned it.
    columns: Mapping[str, str] = field(default_factory=dict)
    #: Called before a commit that adds or changes columns, so that they are not forgotten should the process die in it:
    #: with the commit's checkpoint, or None where they change before it and without it, and what `Commit` will say.
    announce: Callable[[Checkpoint | None, Sequence[Mapping[str, Any]]], None] = field(
        default=lambda _checkpoint, _changes: None, compare=False, repr=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What one commit of a destination made durable."""

    checkpoint: Checkpoint
    #: Records and bytes since the previous commit of the same load.
    records: int
    size_bytes: int
    #: False: the records are there, but nothing says up to where (a Singer target that did not echo the state): the
    #: checkpoint does not count.
    is_confirmed: bool = True
    #: Columns added or changed by this commit: one dict each, `{"column", "change", "before", "after"}`.
    schema_changes: tuple[Mapping[str, Any], ...] = ()
    #: Records that were set aside, since the previous commit.
    rejected: int = 0
