"""Values that move between a source and a destination; no I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import pyarrow as pa
from msgspec import Struct

from .errors import ConnectorError
from .read_spec import ReadSpec
from .struct_helpers import Guarded, names_of, replace
from .write_spec import WriteDisposition, WriteSpec

_FACTS = {
    "BECOMES_TEXT": "becomes_text",
    "DECIDED": "origin",
    "ENUM_LABELS": "labels",
    "FLATTENED": "path",
    "GUESSED": "origin",
    "INEXACT": "precision",
    "IN_PATH": "in_path",
    "IS_ROW": "is_row",
    "LOOK": "precision",
    "NEEDED": "needed",
    "NOTICE": "notice",
    "OF_FILE": "of_file",
    "RELAXED": "relaxed",
    "SAID": "origin",
    "UNDECIDED": "precision",
    "UNKNOWN_TYPE": "unknown_type",
    "UNSEEN": "unseen",
    "WHOLE": "whole",
    "WIDENS": "precision",
}

#: Name that stood here -> what has taken its place, for connectors of users.
MOVED = {name: f"field_facts.facts_of(field).{fact}, which `with_facts` sets" for name, fact in _FACTS.items()}
MOVED |= {name: f"field_facts.{name}" for name in ("is_unseen", "notices_of", "yields_to_table")}
MOVED |= {
    name: f"read_spec.{name}"
    for name in (
        "ASKING",
        "HASH",
        "KEEP_LAST",
        "MEASURING",
        "ChangedFiles",
        "Condition",
        "MaskRule",
        "Masks",
        "NullBookmarks",
        "ReplicationMethod",
    )
}
MOVED |= {name: f"write_spec.{name}" for name in ("ConflictMethod", "WrittenRange")}

if not TYPE_CHECKING:  # to type checkers such a name is unknown

    def __getattr__(name: str) -> Any:
        if name in MOVED:
            raise AttributeError(f"{__name__}.{name} is gone: use {MOVED[name]}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


#: Bookmark of one stream: JSON values only, so that it survives every store unchanged.
Bookmark = Mapping[str, Any]


#: In the bookmark that `Source.read` gets for a stream that `tracks_files`: the files that the destination knows.
FILES = "_syncblocks_files"

#: Column of the file that a record came from.
FILE = "_file"

#: Column of a record's number in its file, from 1.
FILE_ROW = "_file_row"

#: Column of a file's time, and the bookmark property of a stream that `tracks_files`.
FILE_MODIFIED = "_file_modified"

#: Columns of the first and the last moment of a version, of HISTORY; the last one is NULL for the current version.
VALID_FROM, VALID_TO = "_valid_from", "_valid_to"

#: In `LedgerRow.history`: the newest time that a run used for all its records (ISO, UTC), columns of the table that
#: were added since the stream was last completed, whether versions may have ended of which none is the next, and where
#: their times are from (`run` or `bookmark`).
NEWEST, ADDED, ENDS, TIMES = "newest", "added", "ends", "times"

#: Column of the time at which a record was found missing at its source (`deletes: soft`); NULL: the source has it.
DELETED_AT = "_deleted_at"

#: One block of a wire format other than "arrow".
Block = bytes | bytearray | memoryview

#: From where one and the same place can be reached: all machines, the processes of one machine, or one process only.
Place = Literal["anywhere", "host", "process"]


class FileRead(NamedTuple):
    """One file that was read as a whole; a tuple, since there may be very many."""

    #: Below the source's `path`.
    path: str
    size_bytes: int
    #: ISO text in UTC, with microseconds; empty: the storage does not say.
    modified: str = ""
    #: The storage's hash or version of the content; empty: it has none.
    etag: str = ""
    #: The destination knows an earlier state of the file, which this one takes the place of.
    is_changed: bool = False


class Stream(Guarded, frozen=True, kw_only=True):
    """One named set of records.

    `Source.discover` returns it as the source offers it; a destination gets it as the records arrive, with columns
    renamed, dropped or added. As an event between two batches it says that the schema has changed, or the estimate.
    """

    _hidden = ("query_values",)
    _moved: ClassVar = {
        **{name: f"load.write.{name}" for name in names_of(WriteSpec)},
        "replication_method": "stream.read.method",
        **{name: f"stream.read.{name}" for name in names_of(ReadSpec) if name != "method"},
    }

    #: `schema.table` for databases with schemas, `table` for SQLite and DuckDB's main schema, the stem for files.
    name: str
    #: Columns in order. What else is known of them: `field_facts.facts_of`. Keys are not nullable.
    schema: pa.Schema
    #: Columns that identify a record; empty: no key is known.
    key_properties: tuple[str, ...] = ()
    #: MERGE into a destination that `MergesByUnique`: the columns by which records are merged, in place of the key; no
    #: record has NULL there. Empty: the key.
    unique_properties: tuple[str, ...] = ()
    #: How it is read; of a stream as its source offers it, how it is read where the pipeline file says nothing.
    read: ReadSpec = ReadSpec()
    #: Its records come from files whose names and times the source knows.
    has_files: bool = False
    #: Of so many files columns and types were looked at, and so many there are; None: at all of them.
    sampled_files: tuple[int, int] | None = None
    #: The source keeps its own position (a Singer tap's STATE): INCREMENTAL needs no bookmark_properties.
    keeps_own_bookmark: bool = False
    #: Why its columns could not be read; empty: they could.
    unreadable: str = ""
    #: As much of that as holds no value of a record: masks show that much.
    unreadable_without_values: str = ""
    #: Why there is nothing to read it from (no file matches); empty: there is.
    absent: str = ""
    #: Its files have no columns now: these are those of the table that it was written to before.
    is_emptied: bool = False
    #: Why its source may show only some of its records, with the mend; empty: it shows them all, as far as it says.
    hidden_by: str = ""
    #: Views are selected by exact name only, never by a glob.
    is_view: bool = False
    #: The SELECT that yields its records, without a `;` at its end; empty: a table, a view or files.
    query: str = ""
    #: Parameters of the query (`:name`) and their values: a text, a number, a boolean, None, or an aware moment.
    query_values: Mapping[str, Any] = {}
    #: Its source reads the query as it stands, and cannot put a condition around it.
    is_query_alone: bool = False
    #: `:bookmark` in the query stands for the first bookmark property's value from which a run reads; its source knows.
    is_query_bounded: bool = False
    #: Rough number of records, if the source knows it without counting.
    estimated_records: int | None = None
    #: Where the records are (paths, native names). Only the source reads it.
    locator: Mapping[str, Any] = {}


class Checkpoint(Struct, frozen=True, kw_only=True):
    """A point up to which the records may be committed; it may be delayed, never advanced. Source: Flink."""

    #: Where the next run starts; None: from scratch (FULL_TABLE has no bookmark).
    bookmark: Bookmark | None = None
    #: The last event of a stream: its commit also marks the stream as completed by this run.
    is_final: bool = False
    #: What was read since the last checkpoint of a stream that `names_files`, or that `tracks_files`: then the commit
    #: keeps it (`KeepsFiles`).
    files: tuple[FileRead, ...] = ()


class RejectedRecord(Struct, frozen=True, kw_only=True):
    """A record that does not fit, in the form in which it is kept."""

    #: JSON in ASCII: an object of the record's values, or the text of a line that is no record.
    record: str
    reason: str
    #: As much of the reason as holds no value of a record: masks show that much.
    reason_without_values: str = ""
    #: Where it was read (`people.csv:12`); empty: unknown.
    place: str = ""


class Rejected(Struct, frozen=True, kw_only=True):
    """Rejected records; only of a stream with `max_rejected`."""

    records: tuple[RejectedRecord, ...]


class Warned(Struct, frozen=True, kw_only=True):
    """Numbers of lines in the source's log that may mean missing records; no destination gets it."""

    #: Lines of the level WARN.
    warn: int = 0
    #: Lines of the level ERROR or above.
    error: int = 0

    def __add__(self, other: Warned) -> Warned:
        return Warned(warn=self.warn + other.warn, error=self.error + other.error)

    def __bool__(self) -> bool:
        return bool(self.warn or self.error)


class Ended(Struct, frozen=True, kw_only=True):
    """The last event of one stream of a group, where the others go on; no destination gets it.

    A stream that does not end so ends with the read.
    """

    #: Why the stream has failed; None: it is complete.
    error: ConnectorError | None = None


#: What a source yields and a destination takes, in memory: batches of about 4 MB or 64k records.
Event = pa.RecordBatch | Checkpoint | Stream | Rejected | Warned | Ended


class LedgerKey(Struct, frozen=True, kw_only=True):
    """Key of a row of a destination's ledger: pipeline, stream and destination table."""

    pipeline: str
    stream: str
    #: May carry a schema (`analytics.dim_users`).
    destination_table: str


def ended_token(token: str) -> str:
    """Return the token that fences a load after its end. Nothing is committed under it.

    The run of the load recognizes it, so a retry does not take it for the token of another run.
    """
    return blake2b(token.encode(), digest_size=16).hexdigest()


class LedgerRow(Struct, frozen=True, kw_only=True):
    """Position of one stream, kept in the destination and written in the transaction of the data."""

    key: LedgerKey
    #: Connector and place of the source, without credentials.
    source: str
    #: The run that wrote it last may commit; a commit with another token changes 0 rows and is rolled back.
    token: str
    bookmark: Bookmark | None = None
    #: `<run key>:<attempt>` that last completed the stream; None: never completed.
    completed_by: str | None = None
    #: Owner of the token, for messages: "taken over by run 12 on host-3".
    owner: str = ""
    #: Records written by the run that last completed the stream; None: there was none, or `state reset` came since.
    rows: int | None = None
    #: Last commit of data; None: there was none.
    committed_at: datetime | None = None
    #: Column of the stream -> column of the table, where the table's name is not the usual one: two columns had the
    #: same name for the system, or the table spells the name in another way.
    columns: Mapping[str, str] = {}
    #: What HISTORY keeps, see `HistoryLoad`; empty: the table was not written so.
    history: Mapping[str, Any] = {}
    #: When the table's keys were last compared with those of the source (`deletes`); None: never.
    compared_at: datetime | None = None
    #: Columns of the stream whose values older records are given; until that is done, a run begins with it.
    filling: tuple[str, ...] = ()
    #: Columns of the table that were created as texts because no value had arrived.
    untyped: tuple[str, ...] = ()
    #: Of LOG_BASED, what the source has to know again (`ReadsLog`): names, numbers, the source's identity (JSON).
    log: Mapping[str, Any] = {}


class Trigger(Struct, frozen=True, kw_only=True):
    """A trigger of a destination's table."""

    name: str
    #: `before`, `after`, or another word of the system.
    timing: str
    #: Some of insert, update, delete.
    events: tuple[str, ...]
    #: The function it calls, if that has a name of its own.
    function: str = ""
    #: Tables that its body names as those that it writes, where the system shows the body.
    writes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name!r} ({self.timing} {', '.join(self.events)})"


class TableState(Struct, frozen=True, kw_only=True):
    """State of one destination table before a run."""

    #: None: no such table.
    schema: pa.Schema | None = None
    #: All ledger rows of this table, of any pipeline and stream.
    ledger: tuple[LedgerRow, ...] = ()
    #: False: a view or something else that cannot be written.
    is_table: bool = True
    #: A replace empties and refills the table itself, since something depends on it: its columns are altered, as by
    #: the other write dispositions.
    stays: bool = False
    #: Write disposition that cannot write the table as it is -> why; follows the table's name in a message.
    refuses: Mapping[WriteDisposition, str] = {}
    #: Whether `state adopt` can take over the table of another program.
    is_adoptable: bool = True
    #: Write disposition -> the triggers that it fires; empty where the system does not tell.
    triggers: Mapping[WriteDisposition, tuple[Trigger, ...]] = {}
    #: False: the destination cannot describe its tables (a Singer target); `schema` is None then.
    is_described: bool = True
    #: Whether it is known to have no record; looked up only where the ledger has no row of the table, or a bookmark.
    is_empty: bool = False
    #: Schema (or database) that the first load creates, in words; empty: none.
    new_schema: str = ""
    #: What `NamesTables.one_name` says of the other tables that its foreign keys refer to.
    refers_to: frozenset[str] = frozenset()
    #: Name of the stream that a source of the same place offers for the table (`public.users`, `users`).
    stream_name: str = ""
    #: Differs for another table that is made under the same name; empty where the system does not tell.
    identity: str = ""
    #: Keys of the ledger rows that are newer than the table, because somebody has restored an older version of it.
    rolled_back: frozenset[LedgerKey] = frozenset()
    #: `LedgerRow.columns` of the stream that is planned for the table; `describe` leaves it empty.
    columns: Mapping[str, str] = {}


class TableRecords(Struct, frozen=True, kw_only=True):
    """What the records of a table say about its key and its bookmark."""

    #: Values of the bookmark's columns in the newest record, in order; None: no record has them all.
    newest: tuple[Any, ...] | None
    #: Whether a unique index covers exactly the key.
    has_index: bool
    #: One key that several records have, or that holds NULL; None: there is none.
    ambiguous: tuple[Any, ...] | None
    #: Statement that makes the unique index.
    statement: str
    #: False: the system knows no indexes, and a merge finds records without one.
    needs_index: bool = True
    #: Columns of each unique index, as the table calls them.
    unique: tuple[tuple[str, ...], ...] = ()


class HistoryLoad(Struct, frozen=True, kw_only=True):
    """What a load of HISTORY has to know beside its stream.

    The stream has `VALID_FROM`, which is the last of its key properties, and `VALID_TO`, which arrives as NULL.
    """

    #: Each version of a record arrives, with a time of its own; False: all have the run's time, and of a key the last
    #: record counts.
    has_versions: bool
    #: Column from which each version takes its time, where each has its own.
    time: str = ""
    #: Columns of the stream in which a difference makes no new version.
    in_place: frozenset[str] = frozenset()
    #: The whole source arrives: two records of one key that differ contradict each other.
    is_whole: bool = False
    #: The history that is there is dropped with the first commit.
    starts_over: bool = False
    #: What the ledger is to keep (`LedgerRow.history`); `ADDED` are of runs that did not complete the stream.
    known: Mapping[str, Any] = {}


def _announce_nothing(_checkpoint: Checkpoint | None, _changes: Sequence[Mapping[str, Any]]) -> None:
    """Stand for nobody who has to know."""


class Load(Guarded, frozen=True, kw_only=True):
    """What `Destination.load` is to do with one stream; constant during the call."""

    _hidden = ("removed", "marked", "announce")
    _moved: ClassVar = {
        "write_disposition": "load.write.disposition",
        **{name: f"load.write.{name}" for name in names_of(WriteSpec)},
    }

    key: LedgerKey
    #: The stream as it arrives: after renames and transformers.
    stream: Stream
    #: How it is written.
    write: WriteSpec
    #: `take_over` wrote it into the ledger row; each commit checks that it is still there.
    token: str
    #: `<run key>:<attempt>`; written as `completed_by` by the final commit.
    run: str
    #: MERGE into a destination that `RemovesRecords`: keys (columns of `stream`'s key, as the destination reads them
    #: back). The final commit removes their records, except those that arrived; None: none.
    removed: pa.Table | None = None
    #: MERGE into a destination that `MarksRecords`: such keys with a column `DELETED_AT`, which `stream` has too. The
    #: final commit writes its values into the records of these keys, and changes nothing else of them; None: no keys.
    #: HISTORY with `ENDS`: keys without `VALID_FROM`, which stands beside `VALID_TO`. A current version ends at
    #: `VALID_TO`, or as it begins, if that is later. NULL there says that the key is back: if no version is current,
    #: the last one is so again from its end on, or from `VALID_FROM`, if that is later.
    marked: pa.Table | None = None
    #: The stream's key when the table was last written, if it was another: a REPLACE that cannot make a new table
    #: changes the table's key; None: the key was the same, or is unknown.
    former_key: tuple[str, ...] | None = None
    #: `LedgerRow.columns`, as `take_over` returned it.
    columns: Mapping[str, str] = {}
    #: `LedgerRow.compared_at` as each commit writes it.
    compared_at: datetime | None = None
    #: `LedgerRow.filling` as each commit writes it.
    filling: tuple[str, ...] = ()
    #: `LedgerRow.untyped` as each commit writes it, without the columns that the load gives a type.
    untyped: tuple[str, ...] = ()
    #: `LedgerRow.log` as each commit writes it.
    log: Mapping[str, Any] = {}
    #: MERGE into a destination that `FillsColumns`: `stream` has the key and some columns, which are written into the
    #: records that are there. No record is added, no other column changes, and `Commit.records` is 0.
    fills: bool = False
    #: Records that other loads of the same token have committed before; they count in `LedgerRow.rows`.
    records_before: int = 0
    #: `TableState.identity` of the table that holds what came before the bookmark; None: the load starts from scratch.
    #: If the table is missing or is another one, the load raises `TableLost`; it guards its own commits likewise.
    begun_in: str | None = None
    #: Of HISTORY; None: another write disposition.
    history: HistoryLoad | None = None
    #: Of a stream that `tracks_files`: it is read from scratch, so the first commit forgets what was read before.
    forgets_files: bool = False
    #: Called before a commit that adds or changes columns, so that a crash in the commit does not lose that news.
    #: Arguments: the commit's checkpoint, or None for a change before the commit; the `Commit.schema_changes`.
    announce: Callable[[Checkpoint | None, Sequence[Mapping[str, Any]]], None] = _announce_nothing


def committed_row(
    former: LedgerRow | None,
    load: Load,
    checkpoint: Checkpoint,
    *,
    written: int,
    history: Mapping[str, Any],
    columns: Mapping[str, str] | None = None,
    typed: Collection[str] = (),
) -> LedgerRow:
    """Return the ledger row of a stream after a commit.

    Args:
        former: the row with the token of the load. `None` if the ledger updates the row without reading it.
        load: the order.
        checkpoint: the checkpoint of the commit. The bookmark is copied as JSON.
        written: number of records that the load has written, with this commit.
        history: state of a history, see `HistoryLoad`. Empty for other dispositions.
        columns: names of columns in the table, see `LedgerRow.columns`. `None` leaves them unchanged.
        typed: columns of `Load.untyped` that the load gave a type.
    """
    former = LedgerRow(key=load.key, source="", token=load.token) if former is None else former
    bookmark = None if checkpoint.bookmark is None else json.loads(json.dumps(checkpoint.bookmark, allow_nan=False))
    is_final = checkpoint.is_final
    return replace(
        former,
        bookmark=bookmark,
        committed_at=datetime.now(UTC),
        columns=former.columns if columns is None else columns,
        history=history,
        compared_at=load.compared_at,
        filling=load.filling,
        untyped=tuple(name for name in load.untyped if name not in typed),
        log=load.log,
        completed_by=load.run if is_final else former.completed_by,
        rows=load.records_before + written if is_final else former.rows,
    )


class Commit(Struct, frozen=True, kw_only=True):
    """Result of one commit of a destination."""

    checkpoint: Checkpoint
    #: Records and bytes since the previous commit of the same load.
    records: int
    size_bytes: int
    #: False: the destination did not confirm up to where the records are there (a Singer target that echoed no
    #: state), and the checkpoint does not count.
    is_confirmed: bool = True
    #: One dict for each column that this commit added or changed: `{"column", "change", "before", "after"}`.
    schema_changes: tuple[Mapping[str, Any], ...] = ()
    #: Rejected records since the previous commit.
    rejected: int = 0
    #: Records since the previous commit that arrived in batches and that the destination rejected itself, in the
    #: columns of `Load.stream`; also those that an earlier load has kept.
    refused: tuple[RejectedRecord, ...] = ()
    #: Records of `Load.removed` and `Load.marked` that this commit has deleted, or newly marked as deleted.
    removed: int = 0
    #: For MERGE: records since the previous commit that another of these records replaced, because both have the same
    #: key. IGNORE replaces none, and a change of LOG_BASED is not counted. `None` if the destination does not count.
    replaced: int | None = None
